//! What programs print: it is kept, also of builds that fail, and it cannot harm who reads it.

use std::fs;
use std::io::{self, BufRead, BufReader};
use std::path::PathBuf;
use std::process::Stdio;

use serde_json::Value;

use crate::harness::{Turn, digest, image, tool};
use crate::residue::names;

/// Prints what terminals obey, floods the system's log, and fails.
const FAILING: &str = "%post --erroronfail\nprintf '\\033]0;owned\\007\\033[2Jred \\033[31malert\\n'\n\
    printf 'c1 \\302\\2332J\\n'\necho the cause >&2\n\
    i=0; while [ $i -lt 60 ]; do logger \"line $i of the flood\"; i=$((i+1)); done\nexit 7\n%end\n";

/// The only record of a failed build.
fn record(turn: &Turn) -> PathBuf {
    let failed = turn.path("home/.local/state/kiln/failed");
    let records = names(&failed);
    assert_eq!(records.len(), 1, "{records:?}");
    failed.join(&records[0])
}

fn is_harmless(text: &str) -> bool {
    text.chars()
        .all(|c| !c.is_control() || matches!(c, '\n' | '\t'))
}

#[test]
fn a_failed_build_leaves_its_log_and_the_last_image_as_it_is() {
    let turn = Turn::warm();
    tool(
        "cp",
        &[
            "-a",
            &crate::harness::text(&image()),
            &crate::harness::text(&turn.path("output")),
        ],
    )
    .assert(0);
    let before: Vec<(String, String)> = names(&turn.path("output"))
        .into_iter()
        .map(|name| (digest(&turn.path("output").join(&name)), name))
        .collect();
    turn.minimal_with(FAILING);
    let ran = turn.kiln(&["build", "minimal.ks"]);
    ran.assert(4)
        .says(&["the cause", "whole log:", "failure.json"]);
    let after: Vec<(String, String)> = names(&turn.path("output"))
        .into_iter()
        .map(|name| (digest(&turn.path("output").join(&name)), name))
        .collect();
    assert_eq!(before, after, "the last success is untouched");
    let log = record(&turn).join("build.log");
    ran.says(&[log.to_str().expect("UTF-8")]);
    let text = fs::read_to_string(&log).expect("a log");
    assert!(text.contains("line 59 of the flood"), "{text}");
    assert!(text.contains("red alert") && text.contains("c1 "), "{text}");
    assert!(is_harmless(&text), "{text:?}");
    assert!(is_harmless(&ran.stderr), "{}", ran.whole());
    let note = fs::read_to_string(record(&turn).join("failure.json")).expect("a note");
    assert!(is_harmless(&note), "{note:?}");
    let note: Value = serde_json::from_str(&note).expect("JSON");
    let tail = note["failure"]["tail"].as_array().expect("a tail");
    assert!(tail.iter().any(|line| line == "the cause"), "{tail:?}");
    assert_eq!(note["failure"]["status"], "exit status 7");
    // A success keeps no record, and its log is beside what it made.
    fs::remove_dir_all(turn.path("home/.local/state/kiln/failed")).expect("the record");
    turn.minimal_with("%post\nprintf 'fine \\033[31mtoo\\n'\n%end\n");
    let ran = turn.kiln(&[
        "build",
        "minimal.ks",
        "--format",
        "raw",
        "--log-format",
        "json",
    ]);
    ran.assert(0);
    assert!(names(&turn.path("home/.local/state/kiln/failed")).is_empty());
    let log = fs::read_to_string(turn.path("output/build.log")).expect("a log");
    assert!(log.contains("fine too"), "{log}");
    assert!(is_harmless(&log), "{log:?}");
    for line in ran.stdout.lines() {
        let event: Value = serde_json::from_str(line).expect("an event");
        if let Some(line) = event["line"].as_str() {
            assert!(is_harmless(line), "{line:?}");
        }
    }
    assert!(ran.stdout.contains("fine too"), "{}", ran.whole());
}

#[test]
fn a_build_that_is_killed_leaves_its_log() {
    let turn = Turn::warm();
    turn.minimal_with("%post\necho a word before the end\nsleep 1000\n%end\n");
    let mut command = turn.command(&["build", "-v", "minimal.ks"]);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let mut child = command.spawn().expect("kiln starts");
    let mut said = BufReader::new(child.stderr.take().expect("a pipe")).lines();
    let until =
        |line: &io::Result<String>| line.as_ref().is_ok_and(|l| l.contains("a word before"));
    assert!(said.any(|line| until(&line)), "the script never ran");
    child.kill().expect("a child");
    child.wait().expect("a killed child");
    let log = fs::read_to_string(record(&turn).join("build.log")).expect("a log");
    assert!(log.ends_with("a word before the end\n"), "{log}");
    let left = turn.before.of_the_machine();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn an_account_without_a_home_has_its_failures_in_the_cache() {
    let turn = Turn::warm();
    turn.minimal_with("%packages\nno-such-package-at-all\n%end\n");
    let mut command = turn.command(&["build", "minimal.ks"]);
    command.env("HOME", "/proc/none");
    let ran = crate::harness::run(&mut command, crate::harness::LONGEST);
    ran.assert(1).says(&["whole log:", "failed-builds"]);
    let records = crate::harness::cache().join("failed-builds");
    assert!(!names(&records).is_empty());
    fs::remove_dir_all(records).expect("the records");
}
