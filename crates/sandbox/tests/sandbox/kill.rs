//! SIGKILL of the caller at random moments.
//!
//! The killer is a process of its own that adopts orphans (`PR_SET_CHILD_SUBREAPER`), so that anything a killed
//! caller leaves behind, under whatever name, becomes its child and is counted.

use std::fs;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use kiln_sandbox::{Body, Limits};
use libtest_mimic::Failed;
use rustix::process::{Signal, WaitOptions};

use crate::fixture::{self, Fixture, check};

const ROUNDS: u64 = 30;

/// Runs sandboxes until it is killed.
pub(crate) fn victim(_: &str) -> ExitCode {
    let Ok(fixture) = Fixture::new() else {
        return ExitCode::FAILURE;
    };
    loop {
        let script = "(setsid sleep 1000 &) ; i=0; while [ $i -lt 20 ]; do echo $i > /root/$i; i=$((i+1)); done";
        let mut request = fixture.script(script);
        request.limits = Limits::default();
        if fixture.run(&request).is_err() {
            return ExitCode::FAILURE;
        }
        let request = fixture.request(Body::Call {
            function: "wait".into(),
            payload: serde_json::json!(5),
            descriptors: Vec::new(),
        });
        if fixture.run(&request).is_err() {
            return ExitCode::FAILURE;
        }
    }
}

/// Kills victims and looks for what they leave.
pub(crate) fn killer(dir: &str) -> ExitCode {
    match kill_all_rounds(dir) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failed) => {
            eprintln!("{}", failed.message().unwrap_or("failed"));
            ExitCode::FAILURE
        }
    }
}

fn kill_all_rounds(dir: &str) -> Result<(), Failed> {
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    let mounts = fixture::mounts()?;
    let program = std::env::current_exe()?;
    // A fixed sequence of moments, from before the first namespace to well into a later run, on slow machines too.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for round in 0..ROUNDS {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let longest = if round % 2 == 0 { 60_000 } else { 300_000 };
        let moment = Duration::from_micros((state >> 33) % longest);
        // Fixtures leave their directory when they are killed; it goes with the case's own.
        let mut child = Command::new(&program)
            .args(["--victim", dir])
            .env("TMPDIR", dir)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        std::thread::sleep(moment);
        child.kill()?;
        child.wait()?;
        nothing_left().map_err(|left| format!("round {round}, killed after {moment:?}: {left}"))?;
    }
    fixture::no_new_mounts(&mounts)
}

/// Waits until no orphan is left, for a while.
fn nothing_left() -> Result<(), String> {
    let start = Instant::now();
    loop {
        match rustix::process::wait(WaitOptions::NOHANG) {
            Err(rustix::io::Errno::CHILD) => return Ok(()),
            Err(error) => return Err(error.to_string()),
            Ok(Some(_)) => {}
            Ok(None) if start.elapsed() > Duration::from_secs(5) => {
                return Err(format!("left: {}", children()));
            }
            Ok(None) => std::thread::sleep(Duration::from_millis(1)),
        }
    }
}

/// What is left, for the message; and ends it.
fn children() -> String {
    let pid = std::process::id();
    let pids = fs::read_to_string(format!("/proc/self/task/{pid}/children")).unwrap_or_default();
    let describe = |pid: &str| {
        let command = fs::read_to_string(format!("/proc/{pid}/cmdline"))
            .unwrap_or_default()
            .replace('\0', " ");
        if let Some(pid) = pid.parse().ok().and_then(rustix::process::Pid::from_raw) {
            let _ = rustix::process::kill_process(pid, Signal::KILL);
        }
        format!("{pid} ({command})")
    };
    pids.split_ascii_whitespace()
        .map(describe)
        .collect::<Vec<_>>()
        .join(", ")
}

/// The case.
pub(crate) fn leaves_nothing(fixture: &Fixture) -> Result<(), Failed> {
    let dir = fixture.path("victims");
    fs::create_dir(&dir)?;
    let output = Command::new(std::env::current_exe()?)
        .arg("--killer")
        .arg(&dir)
        .output()?;
    fixture.sandbox.remove_trees(&[dir])?;
    check(output.status.success(), || {
        String::from_utf8_lossy(&output.stderr).into_owned()
    })
}
