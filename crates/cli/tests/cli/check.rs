//! `kiln check` and `kiln flatten`.

use insta::assert_snapshot;

use crate::harness::Sandbox;

const GOOD: &str = "lang en_US.UTF-8\nkeyboard us\n%packages\nvim\n%end\n";
const BAD: &str = "lang en_US.UTF-8\npart / --siez=100\n";

#[test]
fn a_good_file_is_ok() {
    let sandbox = Sandbox::new();
    sandbox.write("good.ks", GOOD);
    assert_snapshot!(sandbox.kiln(&["check", "good.ks"]).whole(), @"
    exit 0
    --- stdout
    --- stderr
    good.ks: ok
    ");
}

#[test]
fn a_wrong_line_is_shown() {
    let sandbox = Sandbox::new();
    sandbox.write("bad.ks", BAD);
    assert_snapshot!(sandbox.kiln(&["check", "bad.ks"]).whole(), @"
    exit 1
    --- stdout
    error[unknown-option]: `part` has no option `--siez`
     --> bad.ks:2:8
      |
    2 | part / --siez=100
      |        ^^^^^^^^^^
      = help: did you mean `--size`?

    --- stderr
    bad.ks: not ok (1 error, 0 warnings)
    ");
}

#[test]
fn a_missing_file_does_not_hide_the_others() {
    let sandbox = Sandbox::new();
    sandbox.write("good.ks", GOOD);
    assert_snapshot!(sandbox.kiln(&["check", "nowhere.ks", "good.ks"]).whole(), @"
    exit 1
    --- stdout
    error[unreadable]: nowhere.ks cannot be read: No such file or directory
    --- stderr
    nowhere.ks: not ok (1 error, 0 warnings)
    good.ks: ok
    ");
}

#[test]
fn json() {
    let sandbox = Sandbox::new();
    sandbox.write("bad.ks", BAD);
    sandbox.write("good.ks", GOOD);
    assert_snapshot!(sandbox.kiln(&["check", "--json", "bad.ks", "good.ks", "nowhere.ks"]).whole(), @r#"
    exit 1
    --- stdout
    [
      {
        "file": "bad.ks",
        "ok": false,
        "findings": [
          {
            "severity": "error",
            "code": "unknown-option",
            "message": "`part` has no option `--siez`",
            "place": {
              "file": "bad.ks",
              "line": 2,
              "start": 7,
              "end": 17
            },
            "help": [
              "did you mean `--size`?"
            ]
          }
        ]
      },
      {
        "file": "good.ks",
        "ok": true,
        "findings": []
      },
      {
        "file": "nowhere.ks",
        "ok": false,
        "findings": [
          {
            "severity": "error",
            "code": "unreadable",
            "message": "nowhere.ks cannot be read: No such file or directory",
            "help": []
          }
        ]
      }
    ]
    --- stderr
    "#);
}

#[test]
fn standard_input() {
    let ran = Sandbox::new().kiln_with_input(&["check", "-"], BAD);
    assert_eq!(ran.code, 1);
    assert!(ran.stdout.contains("<stdin>:2"), "{}", ran.stdout);
}

#[test]
fn includes_are_followed_on_request() {
    let sandbox = Sandbox::new();
    sandbox.write("main.ks", "%include part.ks\n");
    sandbox.write("part.ks", BAD);
    assert_eq!(sandbox.kiln(&["check", "main.ks"]).code, 0);
    let ran = sandbox.kiln(&["check", "-i", "main.ks"]);
    assert_eq!(ran.code, 1);
    assert!(ran.stdout.contains("part.ks:2"), "{}", ran.stdout);
}

#[test]
fn a_missing_include_names_the_places() {
    let sandbox = Sandbox::new();
    std::fs::create_dir(sandbox.path().join("d")).expect("a directory");
    sandbox.write("d/main.ks", "%include part.ks\n");
    let ran = sandbox.kiln(&["check", "-i", "d/main.ks"]);
    assert_eq!(ran.code, 1);
    assert!(
        ran.stdout.contains("part.ks: No such file") && ran.stdout.contains("d/part.ks: No such"),
        "{}",
        ran.stdout
    );
}

#[test]
fn an_include_loop_ends() {
    let sandbox = Sandbox::new();
    sandbox.write("a.ks", "%include b.ks\n");
    sandbox.write("b.ks", "%include a.ks\n");
    let ran = sandbox.kiln(&["check", "-i", "a.ks"]);
    assert_eq!(ran.code, 1);
    assert!(ran.stdout.contains("b.ks:1"), "{}", ran.stdout);
}

#[test]
fn an_endless_file_ends() {
    let ran = Sandbox::new().kiln(&["check", "/dev/zero"]);
    assert_eq!(ran.code, 1);
}

#[test]
fn a_directory_is_no_kickstart() {
    let ran = Sandbox::new().kiln(&["check", "home"]);
    assert_eq!(ran.code, 1);
    assert!(
        ran.stdout
            .contains("home cannot be checked: it has neither a kiln.toml nor a file called *.ks"),
        "{}",
        ran.stdout
    );
}

#[test]
fn an_unknown_version_is_a_usage_error() {
    let sandbox = Sandbox::new();
    sandbox.write("good.ks", GOOD);
    assert_snapshot!(sandbox.kiln(&["check", "--version", "F7000", "good.ks"]).whole(), @"
    exit 2
    --- stdout
    --- stderr
    error[usage]: no version of the kickstart language is named `F7000`
      hint: versions are RHEL8, RHEL9, RHEL10, F42, F43, F44, F45 and DEVEL, the newest; F7 to F41 and RHEL7 are read as the nearest of them
    ");
}

#[test]
fn an_older_version_is_read_as_the_nearest_with_a_note() {
    let sandbox = Sandbox::new();
    sandbox.write("good.ks", GOOD);
    for (older, nearest) in [("F40", "F42"), ("rhel7", "RHEL8")] {
        let ran = sandbox.kiln(&["check", "--version", older, "good.ks"]);
        assert_eq!(ran.code, 0, "{}", ran.stdout);
        let note =
            format!("note: the language of {older} is not known; reading {nearest}, the nearest\n");
        assert!(ran.stderr.starts_with(&note), "{}", ran.stderr);
    }
}

/// The reference's validator refuses it.
#[test]
fn an_empty_file_is_not_fit() {
    let sandbox = Sandbox::new();
    sandbox.write("empty.ks", "\n");
    let ran = sandbox.kiln(&["check", "empty.ks"]);
    assert_eq!(ran.code, 1);
    assert!(ran.stdout.contains("the file is empty"), "{}", ran.stdout);
}

/// What `%ksappend` names is a part of the file, whether or not includes are followed.
#[test]
fn a_missing_ksappend_is_an_error_without_i() {
    let sandbox = Sandbox::new();
    sandbox.write("a.ks", "%ksappend gone.ks\nlang en_US.UTF-8\n");
    let ran = sandbox.kiln(&["check", "a.ks"]);
    assert_eq!(ran.code, 1);
    assert!(ran.stdout.contains("gone.ks"), "{}", ran.stdout);
}

#[test]
fn flatten_expands_includes() {
    let sandbox = Sandbox::new();
    sandbox.write("main.ks", "%include part.ks\n%packages\nvim\n%end\n");
    sandbox.write("part.ks", "lang de_DE.UTF-8\n");
    let ran = sandbox.kiln(&["flatten", "main.ks"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(
        ran.stdout.contains("lang de_DE.UTF-8") && !ran.stdout.contains("%include"),
        "{}",
        ran.stdout
    );
}

#[test]
fn a_wrong_file_is_not_flattened() {
    let sandbox = Sandbox::new();
    sandbox.write("bad.ks", BAD);
    let ran = sandbox.kiln(&["flatten", "bad.ks"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (1, ""));
    assert!(
        ran.stderr
            .contains("error[definition]: bad.ks cannot be flattened: it has 1 error"),
        "{}",
        ran.stderr
    );
}

#[test]
fn a_flat_file_stays_as_it_is() {
    let sandbox = Sandbox::new();
    sandbox.write("good.ks", GOOD);
    let once = sandbox.kiln(&["flatten", "good.ks"]).stdout;
    sandbox.write("flat.ks", &once);
    assert_eq!(sandbox.kiln(&["flatten", "flat.ks"]).stdout, once);
}
