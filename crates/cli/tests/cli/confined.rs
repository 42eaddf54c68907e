//! A definition reads the files of its own directory and no others of the machine that builds, whatever it is called
//! by and however it names them.

use std::fs;
use std::os::unix::fs::symlink;

use crate::harness::{Ran, Sandbox};

/// What no run may show. It is a kickstart command, too, so that nothing but the confinement keeps it out.
const CANARY: &str = "timezone Etc/GMT+7";

/// `project/` is the definition's directory; beside it lies a file that is none of its business.
fn site() -> Sandbox {
    let sandbox = Sandbox::new();
    for directory in ["project/deep", "project/.ssh", "elsewhere"] {
        fs::create_dir_all(sandbox.path().join(directory)).expect("a directory");
    }
    for name in ["elsewhere/secret", "project/.ssh/secret"] {
        sandbox.write(name, &format!("{CANARY}\n"));
    }
    let link = |to: &str, name: &str| {
        symlink(to, sandbox.path().join("project").join(name)).expect("a link");
    };
    link("../elsewhere/secret", "link.ks");
    link("/proc/self/cwd/elsewhere/secret", "magic.ks");
    link("../elsewhere", "outer");
    link("../../project/outer/secret", "deep/chain.ks");
    sandbox
}

/// Every way to name the file.
fn names(sandbox: &Sandbox) -> Vec<String> {
    let absolute = sandbox.path().join("elsewhere/secret");
    let mut names: Vec<String> = [
        "../elsewhere/secret",
        "deep/../../elsewhere/secret",
        "elsewhere/secret",
        "link.ks",
        "magic.ks",
        "outer/secret",
        "deep/chain.ks",
        ".ssh/secret",
        "/proc/self/cwd/elsewhere/secret",
    ]
    .map(str::to_owned)
    .to_vec();
    names.push(absolute.display().to_string());
    names
}

/// Every place where a name can stand.
fn kickstarts(name: &str) -> [String; 5] {
    [
        format!("%include {name}\n"),
        format!("%post\ncat <<EOF\n%include {name}\nEOF\n%end\n"),
        format!("%packages\n%include {name}\n%end\n"),
        format!("%ksappend {name}\n"),
        format!("%pre\ntrue\n%end\n%post --nochroot\n%ksappend {name}\n%end\n"),
    ]
}

fn refused(ran: &Ran, of: &str) {
    assert_eq!(ran.code, 1, "{of}\n{}", ran.whole());
    assert!(!ran.whole().contains(CANARY), "{of}\n{}", ran.whole());
    let says = ["not among the files", "--include-path DIR"];
    let said = says.iter().all(|words| ran.whole().contains(words));
    assert!(said, "{of}\n{}", ran.whole());
}

const TARGET: [&str; 2] = ["--distribution", "debian:bookworm"];

#[test]
fn no_include_reaches_a_file_outside() {
    let sandbox = site();
    for name in names(&sandbox) {
        for text in kickstarts(&name) {
            sandbox.write("project/main.ks", &text);
            let flat = sandbox.kiln(&["flatten", "project/main.ks"]);
            refused(&flat, &text);
        }
        let text = format!("%post\n%include {name}\n%end\n");
        sandbox.write("project/main.ks", &text);
        refused(&sandbox.kiln(&["check", "-i", "project/main.ks"]), &text);
        for command in [
            &["plan"][..],
            &["build", "--offline"],
            &["lock", "--offline"],
        ] {
            let arguments = [command, &["project/main.ks"], &TARGET].concat();
            refused(&sandbox.kiln(&arguments), &text);
        }
    }
}

/// A `%pre` makes what an include finds below `/tmp`, which is never the `/tmp` of the machine that builds.
#[test]
fn what_pre_makes_is_not_looked_for_on_this_machine() {
    let sandbox = site();
    let secret = sandbox.path().join("elsewhere/secret");
    assert!(secret.starts_with("/tmp"), "these tests work below /tmp");
    let include = format!("%include {}\n", secret.display());
    sandbox.write("project/main.ks", &format!("{include}%pre\ntrue\n%end\n"));
    let checked = sandbox.kiln(&["check", "-i", "project/main.ks"]);
    assert_eq!(checked.code, 0, "{}", checked.whole());
    let plan = sandbox.kiln(&[&["plan", "project/main.ks"], &TARGET[..]].concat());
    assert_eq!(plan.code, 0, "{}", plan.whole());
    assert!(!plan.whole().contains("GMT+7"), "{}", plan.whole());
    // Without a %pre nobody makes it, and elsewhere it does not make anything.
    sandbox.write("project/main.ks", &include);
    refused(&sandbox.kiln(&["check", "-i", "project/main.ks"]), &include);
    sandbox.write(
        "project/main.ks",
        "%include /etc/hostname\n%pre\ntrue\n%end\n",
    );
    refused(&sandbox.kiln(&["check", "-i", "project/main.ks"]), "%pre");
}

#[test]
fn layers_and_keys_lie_in_the_directory_too() {
    let sandbox = site();
    sandbox.write("project/main.ks", "lang C\n");
    for name in names(&sandbox) {
        // What a definition names lies beside it, wherever it is called from.
        if name == "elsewhere/secret" {
            continue;
        }
        let layer =
            format!("distribution = \"debian:bookworm\"\nlayers = [\"main.ks\", {name:?}]\n");
        let key = format!(
            "distribution = \"debian:bookworm\"\nlayers = [\"main.ks\"]\n[[repository]]\n\
             url = \"http://deb.debian.org/debian\"\nsuite = \"x\"\ncomponents = [\"main\"]\nsigned-by = {name:?}\n"
        );
        for text in [layer, key] {
            sandbox.write("project/kiln.toml", &text);
            refused(&sandbox.kiln(&["plan", "project"]), &text);
        }
    }
}

#[test]
fn what_the_user_allows_is_read() {
    let sandbox = site();
    let include = "%include ../elsewhere/secret\n%include link.ks\n";
    sandbox.write("project/main.ks", include);
    let allow = ["--include-path", "elsewhere"];
    for arguments in [
        &["flatten", "project/main.ks"][..],
        &["check", "-i", "project/main.ks"],
        &[
            "plan",
            "project/main.ks",
            "--distribution",
            "debian:bookworm",
        ],
    ] {
        let ran = sandbox.kiln(&[arguments, &allow].concat());
        assert_eq!(ran.code, 0, "{}", ran.whole());
    }
    sandbox.write(
        "project/kiln.toml",
        "distribution = \"debian:bookworm\"\nlayers = [\"main.ks\"]\ninclude-path = [\"../elsewhere\"]\n",
    );
    let plan = sandbox.kiln(&["plan", "project"]);
    assert_eq!(plan.code, 0, "{}", plan.whole());
    let says = ["GMT+7", "may also read files in project/../elsewhere"];
    assert!(
        says.iter().all(|s| plan.stdout.contains(s)),
        "{}",
        plan.whole()
    );
    // A hidden directory is allowed by its name only.
    sandbox.write("project/main.ks", "%include .ssh/secret\n");
    let ran = sandbox.kiln(&["flatten", "project/main.ks", "--include-path", "project"]);
    refused(&ran, "hidden");
    let ran = sandbox.kiln(&[
        "flatten",
        "project/main.ks",
        "--include-path",
        "project/.ssh",
    ]);
    assert_eq!(ran.code, 0, "{}", ran.whole());
    let ran = sandbox.kiln(&["flatten", "project/main.ks", "--include-path", "nowhere"]);
    assert_eq!(ran.code, 1);
    assert!(
        ran.stderr.contains("nowhere cannot be included from"),
        "{}",
        ran.whole()
    );
}

#[test]
fn what_lies_in_the_directory_is_read() {
    let sandbox = site();
    let project = sandbox.path().join("project");
    sandbox.write("project/deep/part.ks", &format!("{CANARY}\n"));
    symlink("deep/part.ks", project.join("inner.ks")).expect("a link");
    symlink("project", sandbox.path().join("alias")).expect("a link");
    let absolute = project.join("deep/part.ks").display().to_string();
    for name in [
        "deep/part.ks",
        "deep/../deep/part.ks",
        "inner.ks",
        "../project/inner.ks",
        &absolute,
    ] {
        sandbox.write("project/main.ks", &format!("%include {name}\n"));
        for main in [
            "project/main.ks",
            "alias/main.ks",
            "./project/../alias/main.ks",
        ] {
            let ran = sandbox.kiln(&["flatten", main]);
            assert!(
                ran.stdout.contains(CANARY),
                "{name} of {main}\n{}",
                ran.whole()
            );
        }
        let mut inside = sandbox.command(&["flatten", "main.ks"]);
        let ran = sandbox.run(inside.current_dir(&project));
        assert!(ran.stdout.contains(CANARY), "{name}\n{}", ran.whole());
    }
    // The file that the user names may be a link to anywhere.
    symlink(
        "../project/main.ks",
        sandbox.path().join("elsewhere/named.ks"),
    )
    .expect("a link");
    sandbox.write("project/main.ks", "lang C\n");
    let ran = sandbox.kiln(&[&["plan", "elsewhere/named.ks"], &TARGET[..]].concat());
    assert_eq!(ran.code, 0, "{}", ran.whole());
}

/// `[[files]]` and `files/LAYER/` copy what is in the project, and nothing that a link leads to.
#[test]
fn no_file_of_a_project_is_one_of_the_machine() {
    let sandbox = site();
    sandbox.write("project/a.ks", "rootpw --lock\n");
    for name in names(&sandbox) {
        if ["link.ks", "magic.ks", "deep/chain.ks"].contains(&name.as_str()) {
            // Links themselves are copied as what they are.
            continue;
        }
        let text = format!("layers = [\"a.ks\"]\n[[files]]\nfrom = {name:?}\nto = \"/srv/x\"\n");
        sandbox.write("project/kiln.toml", &text);
        let ran = sandbox.kiln(&["plan", "project", TARGET[0], TARGET[1]]);
        assert_eq!(ran.code, 1, "{name}\n{}", ran.whole());
        assert!(!ran.whole().contains(CANARY), "{name}\n{}", ran.whole());
        assert!(
            ran.whole().contains("[[files]] from ="),
            "{name}\n{}",
            ran.whole()
        );
    }
    fs::create_dir_all(sandbox.path().join("project/files")).expect("a directory");
    symlink("../../elsewhere", sandbox.path().join("project/files/a")).expect("a link");
    sandbox.write("project/kiln.toml", "layers = [\"a.ks\"]\n");
    let ran = sandbox.kiln(&["plan", "project", TARGET[0], TARGET[1]]);
    assert_eq!(ran.code, 0, "{}", ran.whole());
    assert!(!ran.whole().contains("secret"), "{}", ran.whole());
    let warned = ran.stderr.contains("files/a is no directory");
    assert!(warned, "{}", ran.whole());
}
