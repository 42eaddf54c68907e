//! `cargo xtask test`: the one test command. Cheap checks first; the test runner's own lines last.

use std::ffi::OsString;
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use crate::prerequisites::search_path_with;
use crate::{Result, deny, prerequisites, process, space, tidy, workspace};

/// Installs what is needed, then checks and tests everything.
pub(crate) fn run() -> Result<()> {
    stage("space", || space::check(&space::TESTS))?;
    let tools = stage("prerequisites", prerequisites::install)?;
    let path = search_path_with(&tools)?;
    stage("rustfmt", || {
        process::run(workspace::cargo().args(["fmt", "--all", "--check"]))
    })?;
    stage("tidy", tidy::run)?;
    stage("cargo-deny", || deny::run(&tools))?;
    stage("clippy", || process::run(&mut clippy()))?;
    stage("build", || process::run(&mut build()))?;
    stage("tests", || tests(&path))
}

/// Runs a stage under a headline, and says how long it took.
fn stage<T>(name: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    println!("== {name}");
    let started = Instant::now();
    let result = work().map_err(|reason| format!("{name}: {reason}"));
    if name != "tests" {
        println!("== {name} took {:.1} s", started.elapsed().as_secs_f64());
    }
    result
}

fn clippy() -> Command {
    let mut command = workspace::cargo();
    command.args([
        "clippy",
        "--workspace",
        "--all-targets",
        "--locked",
        "--quiet",
        "--",
        "-D",
        "warnings",
    ]);
    command
}

fn build() -> Command {
    let mut command = workspace::cargo();
    command.args([
        "test",
        "--workspace",
        "--locked",
        "--quiet",
        "--lib",
        "--bins",
        "--tests",
        "--no-run",
    ]);
    command
}

/// End-to-end modules that run one after the other, in a process of their own.
struct Lane {
    /// What its lines begin with, and how `crates/cli/tests/e2e/lane.rs` calls it.
    name: &'static str,
    modules: &'static [&'static str],
}

/// What looks at loop devices that it made, acts as other users or wants a port of its own is here.
///
/// `KILN_KILLS=50 cargo xtask e2e kill::` kills more often than the ten times of every day; `KILN_EDITS=50 cargo xtask e2e edits::`
/// makes all fifty edits that a release has to survive.
const BUILDS: Lane = Lane {
    name: "builds",
    modules: &[
        "bad_input::",
        "beside::",
        "damage::",
        "edits::",
        "faults::",
        "judges::",
        "kill::",
        "offline_tools::",
        "releases::",
        "rootless::",
        "rpm_faults::",
        "security::",
        "shared::",
        "warm::",
    ],
};

/// What boots virtual machines. Without KVM a machine occupies one processor for minutes, so that these are beside all others.
const MACHINES: Lane = Lane {
    name: "machines",
    modules: &[
        "boots::",
        "commands::",
        "desktop::",
        "project::",
        "rpm::",
        "stick::",
    ],
};

/// `cargo xtask e2e [FILTER…]`: end-to-end tests alone; all of them in their lanes, or what the filters select one after the other.
pub(crate) fn end_to_end(filters: &[&str]) -> Result<()> {
    stage("space", || space::check(&space::end_to_end(filters)))?;
    let tools = stage("prerequisites", prerequisites::install)?;
    let path = search_path_with(&tools)?;
    if filters.is_empty() {
        let mut tally = Tally::default();
        let result = lanes(&path, &mut tally);
        println!("total: {} passed, {} failed", tally.passed, tally.failed);
        return result;
    }
    process::run(end_to_end_command(filters).env("PATH", path))
}

/// `cargo xtask docs`: the test that compares the generated parts of `docs/` writes them instead.
pub(crate) fn write_documents() -> Result<()> {
    let mut command = workspace::cargo();
    let test = ["test", "--locked", "--workspace", "--test", "documents"];
    process::run(command.args(test).env("KILN_WRITE_DOCS", "1"))
}

/// `cargo xtask record-gcloud`: the tests that run the real command line write down its requests.
pub(crate) fn record_gcloud() -> Result<()> {
    let mut command = workspace::cargo();
    let test = [
        "test",
        "--locked",
        "--workspace",
        "--test",
        "objects",
        "--test",
        "server",
        "gcloud::",
    ];
    let variables = [("KILN_RECORD_GCLOUD", "1"), ("KILN_REQUIRE_GCLOUD", "1")];
    process::run(command.args(test).envs(variables))
}

/// `cargo xtask fuzz-server [--seconds N] [--seed S]`: the tests of every day for longer, with another seed each time.
pub(crate) fn fuzz_server(arguments: &[&str]) -> Result<()> {
    let since = std::time::UNIX_EPOCH.elapsed();
    let mut seed = since.map_or(1, |since| since.as_secs());
    let mut seconds = 60;
    let mut rest = arguments;
    while let [name, value, others @ ..] = rest {
        let number = value
            .parse()
            .map_err(|_| format!("{name} takes a number, not {value}"))?;
        match *name {
            "--seconds" => seconds = number,
            "--seed" => seed = number,
            _ => return Err(format!("fuzz-server has no option {name}")),
        }
        rest = others;
    }
    if let [left] = rest {
        return Err(format!(
            "fuzz-server takes --seconds N and --seed S, not {left} alone"
        ));
    }
    let mut command = workspace::cargo();
    // One after the other: each has the whole time.
    let test = ["test", "--locked", "--workspace", "--test", "server", "--"];
    command.args(test).args([
        "hostile::any_request",
        "build_files::any_build_file",
        "--nocapture",
        "--test-threads",
        "1",
    ]);
    command.env("KILN_FUZZ_SECONDS", seconds.to_string());
    process::run(command.env("KILN_FUZZ_SEED", seed.to_string()))
}

/// All end-to-end tests, the lanes at the same time, each to its end whatever becomes of the other.
fn lanes(path: &OsString, tally: &mut Tally) -> Result<()> {
    let ended = thread::scope(|scope| {
        let machines = scope.spawn(|| run_lane(&MACHINES, path));
        let builds = run_lane(&BUILDS, path);
        let panicked = |_| {
            (
                Err("a lane's watcher panicked".to_owned()),
                Tally::default(),
            )
        };
        let machines = machines.join().unwrap_or_else(panicked);
        [builds, machines]
    });
    let mut failures = Vec::new();
    for (result, counted) in ended {
        tally.passed += counted.passed;
        tally.failed += counted.failed;
        failures.extend(result.err());
    }
    match failures.is_empty() {
        true => Ok(()),
        false => Err(failures.join("\n")),
    }
}

fn run_lane(lane: &Lane, path: &OsString) -> (Result<()>, Tally) {
    let started = Instant::now();
    let tally = Mutex::new(Tally::default());
    // What is mounted for one lane's tests is no concern of the other's, which look for mounts that were left.
    let mut command = Command::new("unshare");
    let test = end_to_end_command(lane.modules);
    command.arg("--mount").arg(test.get_program());
    command.args(test.get_args());
    command.env("PATH", path).env("KILN_E2E_LANE", lane.name);
    let result = process::watch_named(lane.name, &mut command, |line| {
        let mut tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
        tally.read(line);
    });
    let seconds = started.elapsed().as_secs_f64();
    println!("{}: == took {seconds:.1} s", lane.name);
    let tally = tally.into_inner().unwrap_or_else(PoisonError::into_inner);
    let result = match (result, tally.passed) {
        (Ok(()), 0) => Err("no test ran".to_owned()),
        (result, _) => result,
    };
    let named = result.map_err(|reason| format!("lane {}: {reason}", lane.name));
    (named, tally)
}

fn end_to_end_command(filters: &[&str]) -> Command {
    let mut command = workspace::cargo();
    // The whole workspace, here and elsewhere, so that dependencies have the features that they were built with before.
    let target = ["test", "--locked", "--workspace", "--test", "e2e"];
    // The tests take turns anyway; so their lines come in order.
    command
        .args(target)
        .args(["--", "--test-threads", "1"])
        .args(filters);
    command
}

/// Documentation tests, then unit and integration tests, then the end-to-end tests, of which a lane is beside all of them; every failure
/// is seen, not only the first binary's.
fn tests(path: &OsString) -> Result<()> {
    let mut tally = Tally::default();
    if !prerequisites::is_there("gcloud") {
        println!(
            "the real gcloud is not on this machine: its recorded requests are replayed instead"
        );
    }
    let documentation = [
        "test",
        "--workspace",
        "--locked",
        "--no-fail-fast",
        "--quiet",
        "--doc",
    ];
    let code = [
        "test",
        "--workspace",
        "--locked",
        "--no-fail-fast",
        "--lib",
        "--bins",
        "--tests",
    ];
    // Alone: some of them wait for each other in real time, which emulated machines beside them would stretch.
    let before = [&documentation[..], &code[..]].map(|arguments| {
        let mut command = workspace::cargo();
        command.args(arguments).env("PATH", path);
        process::watch(&mut command, |line| tally.read(line))
    });
    let after = lanes(path, &mut tally);
    let result = before.into_iter().chain([after]).collect();
    // Plain closing line over all test binaries; each has printed its own before.
    println!("total: {} passed, {} failed", tally.passed, tally.failed);
    result
}

/// Sums over the closing lines of all test binaries.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tally {
    passed: u64,
    failed: u64,
}

impl Tally {
    /// `test result: ok. 3 passed; 0 failed; …`
    fn read(&mut self, line: &str) {
        let Some(counts) = line.trim_start().strip_prefix("test result: ") else {
            return;
        };
        for part in counts.split([';', '.']) {
            match part.trim().split_once(' ') {
                Some((number, "passed")) => self.passed += number.parse().unwrap_or(0),
                Some((number, "failed")) => self.failed += number.parse().unwrap_or(0),
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_end_to_end_module_is_forgotten() {
        let tests = workspace::root().join("crates/cli/tests/e2e");
        let main = std::fs::read_to_string(tests.join("main.rs")).unwrap();
        let modules = main
            .lines()
            .filter_map(|line| line.strip_prefix("mod ")?.strip_suffix(';'));
        let text = |name: &str| {
            let places = [format!("{name}.rs"), format!("{name}/mod.rs")];
            let mut found = places
                .iter()
                .map(|place| std::fs::read_to_string(tests.join(place)));
            found.find_map(std::result::Result::ok).unwrap()
        };
        let tested: Vec<&str> = modules
            .filter(|name| text(name).contains("#[test]"))
            .collect();
        assert!(tested.len() > 10, "{tested:?}");
        for name in tested {
            let filter = format!("{name}::");
            let lanes = [BUILDS, MACHINES]
                .into_iter()
                .filter(|lane| lane.modules.contains(&filter.as_str()));
            assert_eq!(lanes.count(), 1, "lanes that run {name}");
        }
    }

    #[test]
    fn closing_lines_are_summed() {
        let mut tally = Tally::default();
        tally.read("running 3 tests");
        tally.read("test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 2 filtered out; finished in 0.16s");
        tally.read(
            "test result: FAILED. 28 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out",
        );
        assert_eq!(
            tally,
            Tally {
                passed: 31,
                failed: 1
            }
        );
    }
}
