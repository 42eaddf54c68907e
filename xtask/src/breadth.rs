//! `cargo xtask breadth [RELEASE[/SET]…]`: every release that Kiln supports with kinds of systems that its examples do not
//! touch: locked, built, booted, and judged from inside by dpkg and systemd. The outcome is a row of `docs/supported.md`.

mod table;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use serde_json::Value;

use crate::peer::{afresh, trouble};
use crate::{Result, prerequisites, process, workspace};
use table::{Row, Table};

/// Oldest last: what most people want is tried first.
pub(crate) const RELEASES: &[&str] = &["trixie", "bookworm", "bullseye"];

/// A kind of system: a file of `xtask/sets/breadth`.
struct Set {
    name: &'static str,
    /// Memory of the machine that boots it, in MiB.
    memory: u32,
    /// What must be reached, in `kiln test`'s words.
    expect: &'static str,
}

const fn set(name: &'static str, memory: u32, expect: &'static str) -> Set {
    Set {
        name,
        memory,
        expect,
    }
}

const SETS: &[Set] = &[
    set("minimal", 2048, "login"),
    set("xfce", 2048, "desktop"),
    set("gnome", 4096, "desktop"),
    set("kde", 4096, "desktop"),
    set("mate", 2048, "desktop"),
    set("servers", 2048, "login"),
    set("developer", 2048, "login"),
    set("awkward", 2048, "login"),
];

/// Under emulation, on a busy machine, for a desktop that draws everything by itself.
const BOOT_SECONDS: &str = "2400";

/// What the command line says.
struct Options {
    /// `RELEASE`, `RELEASE/SET` or `/SET`; all if there is none.
    filters: Vec<String>,
    kiln: Option<PathBuf>,
    firmware: String,
    /// Images stay.
    keep: bool,
}

/// Runs what the filters choose, all if there are none, and writes the table after each.
pub(crate) fn run(words: &[&str]) -> Result<()> {
    let options = parse(words)?;
    prerequisites::install()?;
    let kiln = match &options.kiln {
        Some(given) => given.clone(),
        None => release_binary()?,
    };
    let work = workspace::target_directory()?.join("breadth");
    let document = workspace::root().join("docs/supported.md");
    let mut failures = Vec::new();
    for release in RELEASES {
        for set in SETS.iter().filter(|set| options.wants(release, set.name)) {
            println!("== {release}/{}", set.name);
            let row = attempt(&kiln, &work, release, set, &options);
            println!("== {}", row.outcome);
            if !row.passed {
                failures.push(format!("{release}/{}", set.name));
            }
            let mut table = Table::read(&document)?;
            table.put(row);
            table.write(&document)?;
        }
    }
    if failures.is_empty() {
        return Ok(());
    }
    Err(format!("failed: {}", failures.join(", ")))
}

fn parse(words: &[&str]) -> Result<Options> {
    let mut options = Options {
        filters: Vec::new(),
        kiln: None,
        firmware: "bios".to_owned(),
        keep: false,
    };
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| format!("{word} needs a value"));
        match *word {
            "--kiln" => options.kiln = Some(value()?.into()),
            "--firmware" => options.firmware = (*value()?).to_owned(),
            "--keep" => options.keep = true,
            other if other.starts_with('-') => return Err(format!("unknown option {other}")),
            filter => options.filters.push(filter.to_owned()),
        }
    }
    let known = |filter: &&String| {
        RELEASES
            .iter()
            .any(|release| SETS.iter().any(|set| chooses(filter, release, set.name)))
    };
    if let Some(filter) = options.filters.iter().find(|filter| !known(filter)) {
        let sets: Vec<&str> = SETS.iter().map(|set| set.name).collect();
        return Err(format!(
            "{filter} chooses nothing; releases are {}, sets are {}",
            RELEASES.join(", "),
            sets.join(", ")
        ));
    }
    Ok(options)
}

impl Options {
    fn wants(&self, release: &str, set: &str) -> bool {
        let chosen = |filter: &String| chooses(filter, release, set);
        self.filters.is_empty() || self.filters.iter().any(chosen)
    }
}

fn chooses(filter: &str, release: &str, set: &str) -> bool {
    match filter.split_once('/') {
        None => filter == release,
        Some((wanted, name)) => name == set && (wanted.is_empty() || wanted == release),
    }
}

/// Kiln as users have it.
pub(crate) fn release_binary() -> Result<PathBuf> {
    let build = ["build", "--release", "--locked", "--package", "kiln-cli"];
    process::run(workspace::cargo().args(build))?;
    Ok(workspace::target_directory()?.join("release/kiln"))
}

/// One release and set, from the definition to the verdict.
fn attempt(kiln: &Path, work: &Path, release: &str, set: &Set, options: &Options) -> Row {
    let mut row = Row {
        release: release.to_owned(),
        set: set.name.to_owned(),
        date: today(),
        ..Row::default()
    };
    let outcome = build(kiln, work, set, &mut row)
        .and_then(|image| boot(kiln, work, &image, set, options, &mut row));
    (row.passed, row.outcome) = match outcome {
        Ok(reached) => (true, reached),
        Err(reason) => {
            println!("{reason}");
            (false, format!("fails: {}", in_short(&reason)))
        }
    };
    if !options.keep {
        let _ = fs::remove_dir_all(directory(work, &row).join("output"));
    }
    row
}

/// Kiln's own sentence in what it printed, or else the first line.
fn in_short(reason: &str) -> &str {
    let lines = || reason.lines().map(str::trim);
    lines()
        .find(|line| line.starts_with("error["))
        .or_else(|| lines().find(|line| !line.is_empty()))
        .unwrap_or("without a word")
}

fn directory(work: &Path, row: &Row) -> PathBuf {
    work.join(format!("{}-{}", row.release, row.set))
}

/// Writes the definition and builds it, resolved anew; returns the image.
fn build(kiln: &Path, work: &Path, set: &Set, row: &mut Row) -> Result<PathBuf> {
    let place = directory(work, row);
    let (definition, output) = (place.join("definition"), place.join("output"));
    afresh(&definition)?;
    afresh(&output)?;
    let sets = workspace::root().join("xtask/sets/breadth");
    let mut layers = vec!["base.ks".to_owned(), format!("{}.ks", set.name)];
    // What a release has of its own.
    let own = format!("{}-{}.ks", set.name, row.release);
    layers.extend(sets.join(&own).is_file().then_some(own));
    for name in &layers {
        let (from, to) = (sets.join(name), definition.join(name));
        fs::copy(&from, &to).map_err(trouble("copying", &from))?;
    }
    let mut project = format!(
        "name = \"{}\"\ndistribution = \"debian:{}\"\nlayers = {layers:?}\n",
        set.name, row.release
    );
    // A set that names its repositories means these alone.
    let named = |name: &String| {
        fs::read_to_string(sets.join(name))
            .is_ok_and(|text| text.lines().any(|l| l.starts_with("url ")))
    };
    if layers.iter().any(named) {
        project.push_str("[system]\nno-default-repositories = true\n");
    }
    let file = definition.join("kiln.toml");
    fs::write(&file, project).map_err(trouble("writing", &file))?;
    let began = Instant::now();
    let mut command = Command::new(kiln);
    command.arg("--cache-dir").arg(work.join("cache"));
    command.arg("--state-dir").arg(work.join("state"));
    command.args(["build", "-o"]).arg(&output).arg(&definition);
    process::output(&mut command)?;
    row.built = format!("{:.0} s", began.elapsed().as_secs_f64());
    let packages = output.join("packages.txt");
    let list = fs::read_to_string(&packages).map_err(trouble("reading", &packages))?;
    row.packages = list.lines().count().to_string();
    Ok(output.join("disk.raw"))
}

/// Boots the image and has it judged from inside; returns what was reached.
fn boot(
    kiln: &Path,
    work: &Path,
    image: &Path,
    set: &Set,
    options: &Options,
    row: &mut Row,
) -> Result<String> {
    let verdict = directory(work, row).join("boot");
    afresh(&verdict)?;
    let judge = workspace::root().join("xtask/sets/breadth/judge.sh");
    let mut command = Command::new(kiln);
    command.arg("--cache-dir").arg(work.join("cache"));
    command.args(["test", "--timeout", BOOT_SECONDS, "--expect", set.expect]);
    command.args(["--memory", &set.memory.to_string()]);
    command.args(["--firmware", &options.firmware]);
    command.arg("--script").arg(judge);
    command.arg("-o").arg(&verdict).arg(image);
    let ended = process::output(&mut command);
    let report = verdict.join("boot.json");
    let report: Value = fs::read_to_string(&report)
        .ok()
        .and_then(|text| serde_json::from_str(&text).ok())
        .unwrap_or_default();
    row.judged = judged(&report);
    ended?;
    let seconds = report["seconds"].as_f64().unwrap_or_default();
    Ok(format!(
        "{} after {seconds:.0} s ({})",
        set.expect, options.firmware
    ))
}

/// What dpkg and systemd said, in a cell.
fn judged(report: &Value) -> String {
    let said = report["script"]["output"].as_str().unwrap_or_default();
    let units = said
        .lines()
        .find_map(|line| line.strip_prefix("verified: "));
    match (report["script"]["exit_code"].as_i64(), units) {
        (Some(0), Some(units)) => format!("sound, {units}"),
        (Some(_), _) => {
            let complaint = said.lines().find(|line| !line.trim().is_empty());
            format!("complain: {}", complaint.unwrap_or_default())
        }
        (None, _) => "not asked".to_owned(),
    }
}

fn today() -> String {
    process::output(Command::new("date").arg("+%Y-%m-%d"))
        .map(|date| date.trim().to_owned())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_choose_releases_sets_or_both() {
        assert!(chooses("trixie", "trixie", "kde"));
        assert!(chooses("trixie/kde", "trixie", "kde") && !chooses("trixie/kde", "trixie", "xfce"));
        assert!(chooses("/kde", "bullseye", "kde") && !chooses("kde", "bullseye", "kde"));
        assert!(parse(&["sarge"]).is_err() && parse(&["trixie/twm"]).is_err());
        assert!(parse(&["trixie", "/kde", "--keep"]).unwrap().keep);
    }

    #[test]
    fn a_failure_is_told_in_its_own_words() {
        let printed = "`kiln test disk.raw` failed: exit status: 4\n warning slow\nerror[step]: no desktop\n  hint: look\n";
        assert_eq!(in_short(printed), "error[step]: no desktop");
        assert_eq!(in_short("\n `kiln` is not there\n"), "`kiln` is not there");
    }

    #[test]
    fn every_set_has_its_file() {
        let sets = workspace::root().join("xtask/sets/breadth");
        for set in SETS {
            assert!(
                sets.join(format!("{}.ks", set.name)).is_file(),
                "{}",
                set.name
            );
        }
    }
}
