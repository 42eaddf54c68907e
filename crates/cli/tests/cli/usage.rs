//! Help, unknown words, completions and the manual page.

use insta::assert_snapshot;

use crate::harness::Sandbox;

const COMMANDS: &[&[&str]] = &[
    &[],
    &["build"],
    &["plan"],
    &["lock"],
    &["check"],
    &["flatten"],
    &["boot"],
    &["test"],
    &["shell"],
    &["submit"],
    &["builds"],
    &["logs"],
    &["cancel"],
    &["retry"],
    &["artifacts"],
    &["login"],
    &["serve"],
    &["token"],
    &["token", "create"],
    &["token", "list"],
    &["token", "revoke"],
    &["secret"],
    &["secret", "create"],
    &["secret", "add"],
    &["secret", "list"],
    &["secret", "delete"],
    &["audit"],
    &["load-image"],
    &["gcloud-env"],
    &["doctor"],
    &["cache"],
    &["cache", "ls"],
    &["cache", "gc"],
    &["cache", "verify"],
    &["cache", "du"],
    &["completions"],
    &["man"],
];

#[test]
fn help_fits_80_columns() {
    let sandbox = Sandbox::new();
    for command in COMMANDS {
        for flag in ["-h", "--help"] {
            let ran = sandbox.kiln(&[*command, &[flag]].concat());
            assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{command:?}");
            for line in ran.stdout.lines() {
                assert!(line.chars().count() <= 80, "{command:?} {flag}: {line}");
            }
        }
    }
}

#[test]
fn help_does_not_follow_a_wide_terminal() {
    let sandbox = Sandbox::new();
    let ran = sandbox.run(sandbox.command(&["build", "--help"]).env("COLUMNS", "400"));
    assert!(
        ran.stdout.lines().all(|line| line.chars().count() <= 80),
        "{}",
        ran.stdout
    );
}

#[test]
fn every_command_is_in_the_list() {
    let help = Sandbox::new().kiln(&["--help"]).stdout;
    let (_, list) = help.split_once("Commands:\n").expect("a list of commands");
    let (list, _) = list.split_once("\n\n").expect("an end of the list");
    let names: Vec<&str> = list
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    let known: Vec<&str> = COMMANDS
        .iter()
        .filter(|words| words.len() == 1)
        .map(|words| words[0])
        .collect();
    assert_eq!(names, known);
}

#[test]
fn no_argument_shows_the_help_and_is_a_usage_error() {
    let ran = Sandbox::new().kiln(&[]);
    assert_eq!((ran.code, ran.stdout.as_str()), (2, ""));
    assert!(ran.stderr.contains("Commands:"), "{}", ran.stderr);
}

#[test]
fn unknown_command() {
    assert_snapshot!(Sandbox::new().kiln(&["biuld", "lab.ks"]).whole(), @"
    exit 2
    --- stdout
    --- stderr
    error: unrecognized subcommand 'biuld'

      tip: some similar subcommands exist: 'builds', 'build'

    Usage: kiln [OPTIONS] <COMMAND>

    For more information, try '--help'.
    ");
}

#[test]
fn misspelt_option() {
    assert_snapshot!(Sandbox::new().kiln(&["build", "lab.ks", "--ofline"]).whole(), @"
    exit 2
    --- stdout
    --- stderr
    error: unexpected argument '--ofline' found

      tip: a similar argument exists: '--offline'

    Usage: kiln build --offline <DEF>

    For more information, try '--help'.
    ");
}

#[test]
fn misspelt_value() {
    assert_snapshot!(Sandbox::new().kiln(&["test", "disk.raw", "--firmware", "eufi"]).whole(), @"
    exit 2
    --- stdout
    --- stderr
    error: invalid value 'eufi' for '--firmware <KIND>'
      [possible values: bios, uefi, secure]

      tip: a similar value exists: 'uefi'

    For more information, try '--help'.
    ");
}

#[test]
fn a_number_out_of_range() {
    let ran = Sandbox::new().kiln(&["build", "lab.ks", "--jobs", "0"]);
    assert_eq!(ran.code, 2);
    assert!(
        ran.stderr.contains("0 is not in 1..=1024"),
        "{}",
        ran.stderr
    );
}

#[test]
fn version() {
    assert_snapshot!(Sandbox::new().kiln(&["--version"]).whole(), @"
    exit 0
    --- stdout
    kiln $VERSION
    --- stderr
    ");
}

#[test]
fn global_options_may_stand_anywhere() {
    let sandbox = Sandbox::new();
    sandbox.write("a.ks", "lang en_US.UTF-8\n");
    for arguments in [
        ["-q", "check", "a.ks"],
        ["check", "-q", "a.ks"],
        ["check", "a.ks", "-q"],
    ] {
        let ran = sandbox.kiln(&arguments);
        assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{arguments:?}");
    }
}

#[test]
fn completions_know_the_commands() {
    let sandbox = Sandbox::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let ran = sandbox.kiln(&["completions", shell]);
        assert_eq!(ran.code, 0);
        assert!(
            ran.stdout.contains("doctor") && ran.stdout.contains("locked"),
            "{shell}"
        );
    }
}

#[test]
fn bash_takes_its_completions() {
    let sandbox = Sandbox::new();
    let script = sandbox.write("kiln.bash", &sandbox.kiln(&["completions", "bash"]).stdout);
    let ask = "source \"$1\"; COMP_WORDS=(kiln doc); COMP_CWORD=1; _kiln kiln doc kiln; echo \"${COMPREPLY[@]}\"";
    let bash = std::process::Command::new("bash")
        .args(["-c", ask, "bash"])
        .arg(script)
        .output()
        .expect("bash");
    assert_eq!(String::from_utf8_lossy(&bash.stdout), "doctor\n");
}

#[test]
fn man_formats_the_manual_page_without_complaint() {
    let sandbox = Sandbox::new();
    let page = sandbox.write("kiln.1", &sandbox.kiln(&["man"]).stdout);
    let mut man = std::process::Command::new("man");
    let output = man
        .args(["--warnings", "-l"])
        .arg(page)
        .env("MANWIDTH", "80")
        .env("LC_ALL", "C.UTF-8")
        .output();
    let output = output.expect("man, from the Debian package man-db");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    // Lines are filled with blanks to the right margin.
    let text = String::from_utf8_lossy(&output.stdout);
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    for section in ["SYNOPSIS", "KILN BUILD", "KILN CACHE GC", "Exit codes"] {
        assert!(text.contains(section), "{section} in {text}");
    }
}
