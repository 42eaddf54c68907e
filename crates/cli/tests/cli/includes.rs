//! `%include http://…`, against a server on the loopback interface.

use std::fs;
use std::time::Duration;

use kiln_testkit::{Fault, Mirror, Rule};

use crate::harness::{Ran, Sandbox};

/// A server with these files, and a place to run `kiln`.
fn site(files: &[(&str, &str)]) -> (Sandbox, Mirror) {
    let sandbox = Sandbox::new();
    let site = sandbox.path().join("site");
    fs::create_dir_all(site.join("deep")).expect("a directory");
    for (name, text) in files {
        fs::write(site.join(name), text).expect("a file");
    }
    let mirror = Mirror::of(site);
    (sandbox, mirror)
}

fn assert_says(ran: &Ran, words: &[&str]) {
    let whole = ran.whole();
    for word in words {
        assert!(whole.contains(word), "{word:?} is not said\n{whole}");
    }
}

fn always(pattern: &str, fault: Fault) -> Rule {
    Rule {
        pattern: pattern.to_owned(),
        fault,
        times: None,
    }
}

#[test]
fn commands_and_sections_come_from_the_network() {
    let (sandbox, mirror) = site(&[
        ("deep/a.ks", "lang de_DE.UTF-8\n%include b.ks\n"),
        ("deep/b.ks", "timezone Europe/Berlin --utc\n"),
        ("packages.inc", "vim\nnano\n"),
        ("script.inc", "echo from afar\n"),
    ]);
    let url = mirror.url();
    sandbox.write(
        "main.ks",
        &format!("%include {url}/deep/a.ks\n%packages\n%include {url}/packages.inc\n%end\n%post\n%include {url}/script.inc\n%end\n"),
    );
    let checked = sandbox.kiln(&["check", "-i", "main.ks"]);
    assert_eq!(checked.code, 0, "{}", checked.whole());
    let flat = sandbox.kiln(&["flatten", "main.ks"]);
    assert_eq!(flat.code, 0, "{}", flat.whole());
    for line in [
        "lang de_DE.UTF-8",
        "Europe/Berlin",
        "nano",
        "vim",
        "echo from afar",
    ] {
        assert!(flat.stdout.contains(line), "{line}\n{}", flat.whole());
    }
    // Each text is asked for once in a run.
    let asked = mirror.take_requests();
    assert_eq!(asked.len(), 8, "{asked:?}");
}

#[test]
fn mistakes_are_shown_with_their_line_at_the_address() {
    let (sandbox, mirror) = site(&[("a.ks", "lang C\npart / --siez=1\n")]);
    let url = mirror.url();
    sandbox.write("main.ks", &format!("%include {url}/a.ks\n"));
    let ran = sandbox.kiln(&["check", "-i", "main.ks"]);
    assert_eq!(ran.code, 1);
    assert_says(&ran, &["--siez", &format!("{url}/a.ks:2:8")]);
}

#[test]
fn failures_name_line_address_and_status() {
    let (sandbox, mirror) = site(&[("a.ks", "lang C\n")]);
    let url = mirror.url();
    sandbox.write("main.ks", &format!("lang C\n%include {url}/nowhere.ks\n"));
    let ran = sandbox.kiln(&["check", "-i", "main.ks"]);
    assert_eq!(ran.code, 1);
    assert_says(&ran, &["main.ks:2:10", "/nowhere.ks", "404"]);
    mirror.inject(always("*", Fault::Status(403)));
    sandbox.write("main.ks", &format!("%include {url}/a.ks\n"));
    assert_says(
        &sandbox.kiln(&["flatten", "main.ks"]),
        &["main.ks:1:10", "/a.ks", "403"],
    );
}

#[test]
fn redirects_end_loops_end_and_endless_files_end() {
    let (sandbox, mirror) = site(&[
        ("moved.ks", ""),
        ("self.ks", "%include self.ks\n"),
        ("good.ks", "lang C\n"),
        ("huge.ks", ""),
    ]);
    let url = mirror.url();
    let include = |path: &str| {
        sandbox.write("main.ks", &format!("%include {url}/{path}\n"));
        sandbox.kiln(&["check", "-i", "main.ks"])
    };
    assert_says(&include("self.ks"), &["include loop", "self.ks"]);
    mirror.inject(always(
        "/moved.ks",
        Fault::Redirect(format!("{url}/good.ks")),
    ));
    assert_eq!(include("moved.ks").code, 0);
    mirror.heal();
    mirror.inject(always(
        "/moved.ks",
        Fault::Redirect(format!("{url}/moved.ks")),
    ));
    assert_says(&include("moved.ks"), &["more than 8 redirects", "moved.ks"]);
    mirror.inject(always(
        "/huge.ks",
        Fault::Replace(vec![b'#'; (16 << 20) + 1]),
    ));
    let ran = include("huge.ks");
    assert_eq!(ran.code, 1);
    assert_says(&ran, &["huge.ks"]);
}

#[test]
fn a_transfer_that_breaks_off_is_an_error() {
    let (sandbox, mirror) = site(&[("a.ks", "lang C\n# more\n")]);
    mirror.inject(always("/a.ks", Fault::Truncate { after: 7 }));
    let started = std::time::Instant::now();
    sandbox.write("main.ks", &format!("%include {}/a.ks\n", mirror.url()));
    let ran = sandbox.kiln(&["check", "-i", "main.ks"]);
    assert_eq!(ran.code, 1, "{}", ran.whole());
    assert!(started.elapsed() < Duration::from_secs(60));
}

#[test]
fn offline_refuses_with_a_hint() {
    let (sandbox, mirror) = site(&[("a.ks", "lang C\n")]);
    sandbox.write("main.ks", &format!("%include {}/a.ks\n", mirror.url()));
    for arguments in [
        &["check", "-i", "--offline", "main.ks"][..],
        &["flatten", "--offline", "main.ks"],
    ] {
        let ran = sandbox.kiln(arguments);
        assert_eq!(ran.code, 1);
        assert_says(&ran, &["main.ks:1:10", "offline", "leave --offline out"]);
    }
    let target = ["--distribution", "debian:bookworm"];
    let build = sandbox.kiln(&[&["build", "--offline", "main.ks"], &target[..]].concat());
    assert_eq!(build.code, 1, "{}", build.whole());
    assert_says(&build, &["main.ks:1", "offline", "leave --offline out"]);
    // A plan never touches the network; what `flatten` prints can be planned.
    let plan = sandbox.kiln(&[&["plan", "main.ks"], &target[..]].concat());
    assert_eq!(plan.code, 1);
    assert_says(&plan, &["main.ks:1", "kiln flatten"]);
    assert!(mirror.take_requests().is_empty());
}

#[test]
fn a_text_from_the_network_cannot_have_local_files() {
    let (sandbox, mirror) = site(&[
        ("a.ks", "%post\n%include /etc/hostname\n%end\n"),
        ("b.ks", "%include main.ks\n"),
    ]);
    for name in ["a.ks", "b.ks"] {
        sandbox.write("main.ks", &format!("%include {}/{name}\n", mirror.url()));
        let ran = sandbox.kiln(&["check", "-i", "main.ks"]);
        assert_eq!(ran.code, 1, "{}", ran.whole());
    }
    assert_says(
        &sandbox.kiln(&["check", "-i", "main.ks"]),
        &["main.ks", "404"],
    );
}
