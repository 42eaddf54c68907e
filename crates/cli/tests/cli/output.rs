//! Where text goes, in which colours, and what happens when nobody takes it.

use std::fs::OpenOptions;
use std::io::Read;
use std::process::Stdio;

use crate::harness::Sandbox;

const BAD: &str = "part / --siez=100\n";
const ESCAPE: char = '\u{1b}';

#[test]
fn colours_follow_flag_and_variables() {
    let sandbox = Sandbox::new();
    sandbox.write("bad.ks", BAD);
    let colored = |arguments: &[&str], variables: &[(&str, &str)]| {
        let ran = sandbox.run(sandbox.command(arguments).envs(variables.iter().copied()));
        ran.stdout.contains(ESCAPE)
    };
    assert!(!colored(&["check", "bad.ks"], &[]), "no terminal");
    assert!(colored(&["check", "bad.ks"], &[("CLICOLOR_FORCE", "1")]));
    assert!(!colored(
        &["check", "bad.ks"],
        &[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")]
    ));
    assert!(colored(
        &["check", "bad.ks", "--color", "always"],
        &[("NO_COLOR", "1")]
    ));
    assert!(!colored(
        &["check", "bad.ks", "--color", "never"],
        &[("CLICOLOR_FORCE", "1")]
    ));
}

#[test]
fn usage_errors_have_the_same_colours() {
    let sandbox = Sandbox::new();
    let colored = |arguments: &[&str], variables: &[(&str, &str)]| {
        sandbox
            .run(sandbox.command(arguments).envs(variables.iter().copied()))
            .stderr
            .contains(ESCAPE)
    };
    assert!(!colored(&["nothing"], &[]));
    assert!(colored(&["nothing"], &[("CLICOLOR_FORCE", "1")]));
    assert!(!colored(
        &["nothing"],
        &[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")]
    ));
    assert!(colored(
        &["nothing", "--color=always"],
        &[("NO_COLOR", "1")]
    ));
    assert!(!colored(
        &["nothing", "--color", "never"],
        &[("CLICOLOR_FORCE", "1")]
    ));
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let sandbox = Sandbox::new();
    for arguments in [
        &["man"][..],
        &["completions", "zsh"],
        &["--help"],
        &["doctor", "--json"],
    ] {
        let mut command = sandbox.command(arguments);
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("kiln starts");
        drop(child.stdout.take());
        let mut said = String::new();
        child
            .stderr
            .take()
            .expect("a pipe")
            .read_to_string(&mut said)
            .expect("UTF-8");
        let status = child.wait().expect("kiln ends");
        assert!(!said.contains("panicked"), "{arguments:?}: {said}");
        // The doctor's code says what it found.
        assert!(
            matches!(status.code(), Some(0 | 3)),
            "{arguments:?}: {status}, {said}"
        );
    }
}

#[test]
fn a_full_disk_is_an_error() {
    let sandbox = Sandbox::new();
    let full = OpenOptions::new()
        .write(true)
        .open("/dev/full")
        .expect("/dev/full");
    let ran = sandbox.run(sandbox.command(&["man"]).stdout(full));
    assert_eq!(ran.code, 3);
    assert!(
        ran.stderr
            .contains("the result could not be written to standard output"),
        "{}",
        ran.stderr
    );
}

#[test]
fn a_closed_standard_error_is_no_trouble() {
    let sandbox = Sandbox::new();
    sandbox.write("bad.ks", BAD);
    let mut shell = std::process::Command::new("sh");
    let kiln = env!("CARGO_BIN_EXE_kiln");
    let status = shell
        .args(["-c", "exec \"$0\" check bad.ks >&- 2>&-", kiln])
        .current_dir(sandbox.path())
        .status();
    assert!(matches!(status.expect("sh").code(), Some(1 | 3)));
}

#[test]
fn escape_sequences_of_a_kickstart_do_not_reach_the_terminal() {
    let sandbox = Sandbox::new();
    sandbox.write("evil.ks", "part \u{1b}]0;owned\u{7} --siez=\u{1b}[2J\n");
    for arguments in [["check", "evil.ks"], ["flatten", "evil.ks"]] {
        let ran = sandbox.kiln(&arguments);
        assert_eq!(ran.code, 1);
        let text = ran.stdout + &ran.stderr;
        assert!(
            !text.contains(ESCAPE) && !text.contains('\u{7}'),
            "{text:?}"
        );
    }
}
