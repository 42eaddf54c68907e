//! Messages that say what is wrong, and nothing else.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;
use std::time::{Duration, Instant};

use kiln_testkit::{Fault, Mirror, Rule};

use crate::harness::{Ran, Sandbox};

const TARGET: [&str; 2] = ["--distribution", "debian:bookworm"];

#[track_caller]
fn says(ran: &Ran, code: i32, words: &[&str]) {
    assert_eq!(ran.code, code, "{}", ran.whole());
    let whole = ran.whole();
    let missing: Vec<_> = words.iter().filter(|w| !whole.contains(**w)).collect();
    assert!(missing.is_empty(), "{missing:?} is not said\n{whole}");
}

#[track_caller]
fn does_not_say(ran: &Ran, words: &[&str]) {
    let said: Vec<_> = words.iter().filter(|w| ran.whole().contains(**w)).collect();
    assert!(said.is_empty(), "{said:?} is said\n{}", ran.whole());
}

/// What two thirds of the published live kickstarts write, and what `kiln flatten` writes itself.
#[test]
fn usual_lines_of_live_kickstarts_are_no_warnings() {
    let sandbox = Sandbox::new();
    sandbox.write(
        "main.ks",
        "lang en_US.UTF-8\nkeyboard us\ntimezone US/Eastern\nrootpw --lock --iscrypted locked\n\
         bootloader --location=none\npart / --size=8192\n%packages\nvim\n%end\n",
    );
    let checked = sandbox.kiln(&["check", "main.ks"]);
    says(&checked, 0, &["main.ks: ok\n"]);
    assert_eq!(checked.stdout, "");
    let plan = sandbox.kiln(&[&["plan", "main.ks"], &TARGET[..]].concat());
    says(&plan, 0, &["part        planned", "note: part is the root"]);
    does_not_say(&plan, &["warning"]);
    // It has a new size above what it includes.
    sandbox.write(
        "spin.ks",
        "%include main.ks\npart / --size=9216\nlang de_DE.UTF-8\n",
    );
    let plan = sandbox.kiln(&[&["plan", "spin.ks"], &TARGET[..]].concat());
    does_not_say(&plan, &["warning"]);
    let flat = sandbox.kiln(&["flatten", "main.ks"]).stdout;
    sandbox.write("flat.ks", &flat);
    let plan = sandbox.kiln(&[&["plan", "flat.ks"], &TARGET[..]].concat());
    does_not_say(&plan, &["warning"]);
}

#[test]
fn one_mistake_is_not_the_reason_of_another() {
    let sandbox = Sandbox::new();
    sandbox.write("main.ks", "lnag C\npart / --siez=1\n");
    let plan = sandbox.kiln(&[&["plan", "main.ks"], &TARGET[..]].concat());
    says(
        &plan,
        1,
        &[
            "unknown command `lnag`",
            "also wrong: main.ks:2: `part` has no option",
        ],
    );
    does_not_say(&plan, &["because"]);
    // Commands that no image can have.
    sandbox.write("main.ks", "volgroup vg pv.1\nliveimg --url=http://x/y\n");
    let plan = sandbox.kiln(&[&["plan", "main.ks"], &TARGET[..]].concat());
    says(&plan, 1, &["also wrong: main.ks:2"]);
    does_not_say(&plan, &["because"]);
}

#[test]
fn a_definition_is_checked_with_all_that_is_in_it() {
    let sandbox = Sandbox::new();
    fs::create_dir(sandbox.path().join("lab")).expect("a directory");
    sandbox.write(
        "lab/base.ks",
        "lang C\nlang de_DE.UTF-8\n%include more.ks\n%packages\n%end\n",
    );
    sandbox.write(
        "lab/more.ks",
        "timezone Europe/Pargue\nliveimg --url=http://x/y\n",
    );
    let define = |text: &str| sandbox.write("lab/kiln.toml", text);
    define("distribution = \"debian:bookworm\"\nlayers = [\"base.ks\"]\n");
    for name in ["lab", "lab/kiln.toml"] {
        let ran = sandbox.kiln(&["check", name]);
        let said = [
            "`lang` was given at lab/base.ks:1 already",
            "lab/more.ks:1",
            "did you mean `Europe/Prague`?",
            "error: liveimg is not supported",
            " --> lab/more.ks:2",
            ": not ok (1 error, ",
        ];
        says(&ran, 1, &said);
    }
    sandbox.write("lab/more.ks", "timezone Europe/Prague\n");
    says(
        &sandbox.kiln(&["check", "lab"]),
        0,
        &["lab: ok (0 errors, 1 warning)"],
    );
    let json = sandbox.kiln(&["check", "--json", "lab"]);
    says(
        &json,
        0,
        &[
            "\"code\": \"definition\"",
            "\"file\": \"lab/base.ks\"",
            "\"line\": 2",
        ],
    );
    define("distribution = \"debian:bookworm\"\nlayers = [\"base.ks\", \"nowhere.ks\"]\n");
    says(
        &sandbox.kiln(&["check", "lab"]),
        1,
        &["layer `nowhere.ks` cannot be read"],
    );
    define("layer = []\n");
    says(
        &sandbox.kiln(&["check", "lab"]),
        1,
        &["unknown field `layer`", "lab/kiln.toml:1"],
    );
    // Without a kiln.toml, all kickstart files are meant.
    fs::remove_file(sandbox.path().join("lab/kiln.toml")).expect("it was there");
    says(
        &sandbox.kiln(&["check", "lab"]),
        0,
        &["lab/base.ks: ok", "lab/more.ks: ok"],
    );
}

#[test]
fn a_warning_that_counts_is_said_to_count() {
    let sandbox = Sandbox::new();
    sandbox.write("main.ks", "lang C\n%traceback\ntrue\n%end\n");
    let ran = sandbox.kiln(&["check", "main.ks"]);
    says(
        &ran,
        1,
        &["not ok (1 warning: the installer's own validator refuses a file for it)"],
    );
}

#[test]
fn several_packages_on_a_line_are_seen_before_a_build() {
    let sandbox = Sandbox::new();
    sandbox.write("main.ks", "%packages\nvim nano\nfoo,\n%end\n");
    let words = ["main.ks:2", "main.ks:3", "one name a line"];
    says(&sandbox.kiln(&["check", "main.ks"]), 0, &words);
    says(
        &sandbox.kiln(&[&["plan", "main.ks"], &TARGET[..]].concat()),
        0,
        &words,
    );
}

/// A build that is refused makes no directory; one that fails takes it back.
#[test]
fn no_empty_output_directory_is_left() {
    let sandbox = Sandbox::new();
    // Nothing can be resolved without a network.
    sandbox.write("main.ks", "lang C\n%packages --nocore\n%end\n");
    for output in ["output", "deep/er/output"] {
        let build = ["build", "main.ks", "--offline", "-o", output];
        let ran = sandbox.kiln(&[&build, &TARGET[..]].concat());
        assert_ne!(ran.code, 0, "{}", ran.whole());
        let first = output.split('/').next().expect("a name");
        assert!(!sandbox.path().join(first).exists(), "{}", ran.whole());
    }
    fs::create_dir(sandbox.path().join("output")).expect("a directory");
    let ran = sandbox.kiln(&[&["build", "main.ks", "--offline"], &TARGET[..]].concat());
    assert_ne!(ran.code, 0, "{}", ran.whole());
    assert!(
        sandbox.path().join("output").is_dir(),
        "it was there before"
    );
}

#[test]
fn a_stopped_command_says_what_was_stopped() {
    let sandbox = Sandbox::new();
    let site = sandbox.path().join("site");
    fs::create_dir(&site).expect("a directory");
    fs::write(site.join("a.ks"), "lang C\n").expect("a file");
    let mirror = Mirror::of(site);
    mirror.inject(Rule {
        pattern: "*".to_owned(),
        fault: Fault::Stall {
            after: 3,
            time: Duration::from_secs(60),
        },
        times: None,
    });
    sandbox.write("main.ks", &format!("%include {}/a.ks\n", mirror.url()));
    let mut command = sandbox.command(&[&["build", "main.ks"], &TARGET[..]].concat());
    let started = Instant::now();
    let mut child = command.stderr(Stdio::piped()).spawn().expect("kiln starts");
    while mirror.take_requests().is_empty() && started.elapsed() < Duration::from_secs(30) {
        std::thread::sleep(Duration::from_millis(20));
    }
    let id = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(id, rustix::process::Signal::INT).expect("a signal");
    let mut said = String::new();
    let mut errors = BufReader::new(child.stderr.take().expect("a pipe"));
    errors.read_line(&mut said).expect("UTF-8");
    errors.read_to_string(&mut said).expect("UTF-8");
    assert_eq!(child.wait().expect("kiln ends").code(), Some(130), "{said}");
    assert_eq!(said, "cancelled: the build was stopped\n");
}

/// The names of releases were judged when the repositories were asked: by `lock` and `build`, not by what looks first.
#[test]
fn check_and_plan_know_the_releases() {
    let sandbox = Sandbox::new();
    fs::create_dir(sandbox.path().join("lab")).expect("a directory");
    sandbox.write("lab/base.ks", "lang C.UTF-8\n%packages\n%end\n");
    for (release, said) in [
        ("12", "debian:12 is debian:bookworm"),
        ("stable", "name the release: debian:trixie"),
        ("buster", "debian:buster: it has left the mirrors"),
    ] {
        let text = format!("distribution = \"debian:{release}\"\nlayers = [\"base.ks\"]\n");
        sandbox.write("lab/kiln.toml", &text);
        for command in ["check", "plan"] {
            says(
                &sandbox.kiln(&[command, "lab"]),
                1,
                &[said, "lab/kiln.toml"],
            );
        }
    }
    let text = "distribution = \"debian:bullseye\"\nlayers = [\"base.ks\"]\n";
    sandbox.write("lab/kiln.toml", text);
    says(&sandbox.kiln(&["check", "lab"]), 0, &["lab: ok"]);
    let lacking = "not usr-is-merged: bullseye has no such package";
    says(&sandbox.kiln(&["plan", "lab"]), 0, &[lacking]);
}
