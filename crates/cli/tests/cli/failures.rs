//! What goes wrong, how it is said, and the exit code.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::{Duration, Instant};

use insta::assert_snapshot;

use crate::harness::Sandbox;

#[test]
fn a_missing_definition() {
    assert_snapshot!(Sandbox::new().kiln(&["build", "nowhere.ks"]).whole(), @"
    exit 1
    --- stdout
    --- stderr
    error[definition]: the definition nowhere.ks cannot be read
      because: No such file or directory
      hint: name a kickstart file, a kiln.toml, or a directory with a kiln.toml
    ");
}

#[test]
fn a_missing_definition_for_machines() {
    let sandbox = Sandbox::new();
    let ran = sandbox.kiln(&["--log-format", "json", "build", "nowhere.ks"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (1, ""));
    let lines: Vec<serde_json::Value> = ran
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert_eq!(lines.len(), 1, "{}", ran.stdout);
    assert_eq!(lines[0]["event"], "build-failed");
    assert_eq!(lines[0]["failure"]["kind"], "definition");
    assert!(lines[0]["elapsed"].is_number());
}

#[test]
fn a_wrong_definition_shows_the_line() {
    let sandbox = Sandbox::new();
    sandbox.write("bad.ks", "lang en_US.UTF-8\npart / --siez=100\n");
    assert_snapshot!(sandbox.kiln(&["plan", "bad.ks", "--distribution", "debian:bookworm"]).whole(), @"
    exit 1
    --- stdout
    --- stderr
    error[definition]: `part` has no option `--siez`
       --> bad.ks:2:8
        |
      2 | part / --siez=100
        |        ^^^^^^^^^^
      at       bad.ks:2
      hint: did you mean `--size`?
    ");
}

#[test]
fn no_home() {
    let sandbox = Sandbox::new();
    sandbox.write("a.ks", "lang en_US.UTF-8\n");
    let mut command = sandbox.command(&["build", "a.ks"]);
    assert_snapshot!(sandbox.run(command.env_remove("HOME")).whole(), @"
    exit 3
    --- stdout
    --- stderr
    error[environment]: no directory for caches: neither XDG_CACHE_HOME nor HOME is set
      hint: name one with --cache-dir
    ");
}

#[test]
fn a_wrong_clock() {
    let sandbox = Sandbox::new();
    sandbox.write("a.ks", "lang en_US.UTF-8\n");
    let mut command = sandbox.command(&["build", "a.ks"]);
    assert_snapshot!(sandbox.run(command.env("SOURCE_DATE_EPOCH", "now")).whole(), @r#"
    exit 2
    --- stdout
    --- stderr
    error[usage]: SOURCE_DATE_EPOCH is "now", not a count of seconds since 1970
      hint: unset it, or set it to the output of `date +%s`
    "#);
}

#[test]
fn no_image_to_boot() {
    let sandbox = Sandbox::new();
    assert_snapshot!(sandbox.kiln(&["test", "home"]).whole(), @"
    exit 1
    --- stdout
    --- stderr
    error[definition]: the directory home has no image
      hint: looked for disk.raw, disk.qcow2, disk.tar.gz; name the image itself, or build one with `kiln build`
    ");
}

#[test]
fn no_qemu() {
    let sandbox = Sandbox::new();
    sandbox.write("disk.raw", "");
    let mut command = sandbox.command(&["test", "disk.raw"]);
    let ran = sandbox.run(command.env("PATH", sandbox.path()));
    // Some systems keep QEMU outside of every PATH; then the empty image is the next thing that is wrong.
    assert!(matches!(ran.code, 1 | 3), "{}", ran.whole());
    assert!(ran.stderr.contains("hint:"), "{}", ran.whole());
}

#[test]
fn nothing_failed_so_there_is_nothing_to_enter() {
    let ran = Sandbox::new().kiln(&["shell", "--last"]);
    assert_eq!(ran.code, 1, "{}", ran.whole());
    assert!(
        ran.stderr.contains("there is no failed root to enter"),
        "{}",
        ran.stderr
    );
}

#[test]
fn doctor_for_machines() {
    let ran = Sandbox::new().kiln(&["doctor", "--json"]);
    let report: serde_json::Value = serde_json::from_str(&ran.stdout).expect("JSON");
    let checks = report["checks"].as_array().expect("checks");
    let names: Vec<&str> = checks
        .iter()
        .filter_map(|check| check["name"].as_str())
        .collect();
    for name in ["kernel", "user-namespaces", "overlay", "kvm", "memory"] {
        assert!(names.contains(&name), "{name} is not among {names:?}");
    }
    let failed = checks.iter().any(|check| check["verdict"] == "fail");
    assert_eq!(
        (report["ok"] == true, ran.code),
        (!failed, if failed { 3 } else { 0 })
    );
    assert_eq!(report["directories"]["cache"], "$DIR/home/.cache/kiln");
}

#[test]
fn an_empty_cache_is_no_error() {
    let sandbox = Sandbox::new();
    assert_eq!(sandbox.kiln(&["cache", "du", "--json"]).stdout, "[]\n");
    assert_eq!(sandbox.kiln(&["cache", "ls", "--json"]).stdout, "[]\n");
    assert_eq!(
        sandbox.kiln(&["cache", "gc", "--keep-days", "0"]).stdout,
        "freed 0 B\n"
    );
}

/// A boot sector that loops forever: `jmp $`, and the signature that makes a BIOS start it (at byte 510).
fn endless_image(sandbox: &Sandbox) {
    let mut image = vec![0; 1 << 20];
    image[..2].copy_from_slice(&[0xeb, 0xfe]);
    image[510..512].copy_from_slice(&[0x55, 0xaa]);
    fs::write(sandbox.path().join("disk.raw"), image).expect("an image");
}

/// `kiln test` of a machine that never gets anywhere, stopped by a signal once it is on. Needs QEMU.
fn stopped_by(signal: rustix::process::Signal) -> i32 {
    let sandbox = Sandbox::new();
    endless_image(&sandbox);
    let mut command = sandbox.command(&["test", "disk.raw", "--accel", "tcg", "--memory", "256"]);
    let mut child = command
        .stderr(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("kiln starts");
    let mut said = BufReader::new(child.stderr.take().expect("a pipe")).lines();
    let on = said
        .by_ref()
        .map(|line| line.expect("UTF-8"))
        .find(|line| line.contains("machine on:"));
    assert!(
        on.is_some(),
        "the machine did not start; it needs the Debian package qemu-system-x86"
    );
    let id = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(id, signal).expect("a signal");
    let sent = Instant::now();
    let rest: Vec<String> = said.map(|line| line.expect("UTF-8")).collect();
    let status = child.wait().expect("kiln ends");
    assert!(
        sent.elapsed() < Duration::from_secs(20),
        "it took too long to stop"
    );
    assert!(
        rest.iter().any(|line| line.starts_with("cancelled:")),
        "{rest:?}"
    );
    status.code().unwrap_or(-1)
}

#[test]
fn sigint_stops_cleanly_with_130() {
    assert_eq!(stopped_by(rustix::process::Signal::INT), 130);
}

#[test]
fn sigterm_stops_cleanly_with_143() {
    assert_eq!(stopped_by(rustix::process::Signal::TERM), 143);
}
