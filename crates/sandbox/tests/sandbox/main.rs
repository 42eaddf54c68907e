//! Runs in real sandboxes, as root and as an ordinary user.
//!
//! Needs: a static busybox (Debian: busybox-static), newuidmap and newgidmap (Debian: uidmap). Started by root, the
//! cases for an ordinary user run as the first user that has ranges in `/etc/subuid` and `/etc/subgid`
//! (`cargo xtask prerequisites` makes one). Started by an ordinary user, the cases for root fail, and say so.
#![allow(
    clippy::print_stderr,
    reason = "a case that runs in a process of its own reports there"
)]

mod cases;
mod fixture;
mod kill;

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use libtest_mimic::{Arguments, Failed, Trial};

use fixture::Fixture;

type Case = fn(&Fixture) -> Result<(), Failed>;

fn main() -> ExitCode {
    kiln_sandbox::entry(cases::FUNCTIONS);
    let args: Vec<String> = std::env::args().collect();
    match args
        .iter()
        .map(String::as_str)
        .collect::<Vec<_>>()
        .as_slice()
    {
        [_, "--case", name] => run_case(name),
        [_, "--victim", dir] => kill::victim(dir),
        [_, "--killer", dir] => kill::killer(dir),
        _ => libtest_mimic::run(&Arguments::from_args(), trials()).exit_code(),
    }
}

fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for (name, case) in cases::BOTH {
        trials.push(Trial::test(format!("needs_root::{name}"), || {
            as_root(*case)
        }));
        trials.push(Trial::test(format!("ordinary_user::{name}"), || {
            as_ordinary_user(name)
        }));
    }
    for (name, case) in cases::ROOT_ONLY {
        trials.push(Trial::test(format!("needs_root::{name}"), || {
            as_root(*case)
        }));
    }
    trials
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn as_root(case: Case) -> Result<(), Failed> {
    if !is_root() {
        return Err("this test needs root".into());
    }
    case(&Fixture::new()?)
}

fn as_ordinary_user(name: &str) -> Result<(), Failed> {
    if !is_root() {
        let case = cases::BOTH
            .iter()
            .find(|(known, _)| *known == name)
            .ok_or("unknown case")?
            .1;
        return case(&Fixture::new()?);
    }
    let (user, uid, gid) = fixture::ordinary_user()?;
    // The build directory may be closed to that user.
    let dir = tempfile::tempdir()?;
    std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755))?;
    let program = dir.path().join("sandbox-test");
    fixture::copy(&std::env::current_exe()?, &program)?;
    let output = Command::new(&program)
        .args(["--case", name])
        .env_clear()
        .env("PATH", "/usr/bin:/bin:/usr/sbin:/sbin")
        .current_dir("/")
        .uid(uid)
        .gid(gid)
        .output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!(
        "as {user}: {}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    )
    .into())
}

fn run_case(name: &str) -> ExitCode {
    let Some((_, case)) = cases::BOTH.iter().find(|(known, _)| *known == name) else {
        eprintln!("no case {name}");
        return ExitCode::from(2);
    };
    match Fixture::new().and_then(|fixture| case(&fixture)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failed) => {
            eprintln!("{}", failed.message().unwrap_or("failed"));
            ExitCode::FAILURE
        }
    }
}
