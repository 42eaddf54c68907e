//! Definitions as users write them: the examples' plans, and what is said about mistakes.

#[path = "lowering/files.rs"]
mod files;
#[path = "lowering/live.rs"]
mod live;
#[path = "lowering/repositories.rs"]
mod repositories;
#[path = "lowering/ubuntu.rs"]
mod ubuntu;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use kiln_kickstart::Severity;
use kiln_plan::{
    Added, Conventions, Definition, Distribution, Files, Input, Lowered, Plan, Role, lower,
    lower_text,
};

/// Files in memory.
struct Memory(BTreeMap<&'static str, &'static str>);

impl Files for Memory {
    fn read(&self, path: &str, _from: &str) -> Result<(String, Vec<u8>), String> {
        let text = self
            .0
            .get(path)
            .ok_or_else(|| format!("{path}: no such file"))?;
        Ok((path.to_owned(), text.as_bytes().to_vec()))
    }
}

/// The repository's examples.
struct Examples;

impl Files for Examples {
    fn read(&self, path: &str, from: &str) -> Result<(String, Vec<u8>), String> {
        let dir = Path::new(from).parent().unwrap_or(Path::new(""));
        let name = dir.join(path).display().to_string();
        let bytes = fs::read(root().join(&name)).map_err(|e| format!("{name}: {e}"))?;
        Ok((name, bytes))
    }
}

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

fn of(files: &[(&'static str, &'static str)], input: &Input) -> Lowered {
    let memory = Memory(files.iter().copied().collect());
    let text = memory
        .0
        .get("kiln.toml")
        .copied()
        .unwrap_or("layers = [\"a.ks\"]");
    lower_text("kiln.toml", text, input, &memory)
}

fn bookworm() -> Input {
    Input {
        distribution: Some("debian:bookworm".to_owned()),
        ..Input::default()
    }
}

/// `origin: message` of every error.
fn errors(lowered: &Lowered) -> Vec<String> {
    let errors = lowered
        .problems
        .iter()
        .filter(|p| p.severity == Severity::Error);
    errors
        .map(|p| format!("{}: {}", p.origin.as_deref().unwrap_or("-"), p.message))
        .collect()
}

/// A plan in a page: enough to see in a review what a change of an example or of a default does.
fn summary(plan: &Plan) -> String {
    let mut out = format!("{} {:?}\n", plan.name, plan.target);
    for added in &plan.system.packages {
        out += &format!("+ {}\n", added.package);
    }
    for layer in &plan.layers {
        let asked = layer.packages.iter().filter(|r| !r.exclude).count();
        let out_of = layer.packages.len() - asked;
        out += &format!(
            "layer {}: {asked} requests, {out_of} exclusions, {:?}\n",
            layer.name, layer.package_options
        );
        let commands: Vec<&str> = layer
            .commands
            .iter()
            .map(|c| c.item.name.as_str())
            .collect();
        out += &format!(
            "  {}; {} scripts\n",
            commands.join(" "),
            layer.scripts.len()
        );
    }
    out + &format!(
        "{:?}\n{:?}\n{:?}\n{:?}\n",
        plan.boot, plan.disk, plan.compression, plan.formats
    )
}

#[test]
fn the_lab_has_three_layers_and_a_home() {
    let text = fs::read_to_string(root().join("examples/lab/kiln.toml")).unwrap();
    let lowered = lower_text(
        "examples/lab/kiln.toml",
        &text,
        &Input::default(),
        &Examples,
    );
    assert_eq!(errors(&lowered), Vec::<String>::new());
    insta::assert_snapshot!("lab", summary(&lowered.plan.unwrap()));
}

#[test]
fn the_minimal_example_is_one_layer() {
    let definition = Definition {
        layers: vec!["minimal.ks".to_owned()],
        ..Definition::default()
    };
    let lowered = lower("examples/minimal.ks", &definition, &bookworm(), &Examples);
    assert_eq!(errors(&lowered), Vec::<String>::new());
    insta::assert_snapshot!("minimal", summary(&lowered.plan.unwrap()));
}

/// What a plan says, it says again when it was read back; secrets were never in it.
#[test]
fn a_plan_can_be_read_back() {
    let texts = [(
        "a.ks",
        "lang C.UTF-8\nrootpw --plaintext geheim\nuser --name=u --uid=7\nfirewall --enabled --port=1:tcp\n\
             %packages --inst-langs=de\nnano\n-vim\n%end\n\
             %certificate --filename=ca.pem --dir=/etc/ssl\nPEM\n%end\n%post --erroronfail\ntrue\n%end\n",
    )];
    let lowered = of(&texts, &bookworm());
    assert_eq!(errors(&lowered), Vec::<String>::new());
    let mut plans = vec![lowered.plan.unwrap()];
    let lab = fs::read_to_string(root().join("examples/lab/kiln.toml")).unwrap();
    let lab = lower_text("examples/lab/kiln.toml", &lab, &Input::default(), &Examples);
    plans.extend(lab.plan);
    assert_eq!(plans.len(), 2);
    let mut secrets = Vec::new();
    for plan in plans {
        let text = serde_json::to_string(&plan).unwrap();
        assert!(!text.contains("geheim"));
        let read: Plan = serde_json::from_str(&text).unwrap();
        assert_eq!(serde_json::to_string(&read).unwrap(), text);
        let secret = text.contains(kiln_plan::HIDDEN);
        assert_eq!(
            read.id() == plan.id(),
            !secret,
            "without secrets it is the same plan"
        );
        secrets.push(secret);
    }
    assert_eq!(secrets, [true, false]);
}

#[test]
fn ids_do_not_depend_on_places() {
    let a = of(
        &[("a.ks", "lang C.UTF-8\n%packages\nnano\n%end\n")],
        &bookworm(),
    )
    .plan
    .unwrap();
    let b = of(
        &[("a.ks", "\n# moved\nlang C.UTF-8\n%packages\nnano\n%end\n")],
        &bookworm(),
    )
    .plan
    .unwrap();
    let c = of(
        &[("a.ks", "lang C.UTF-8\n%packages\nvim\n%end\n")],
        &bookworm(),
    )
    .plan
    .unwrap();
    assert_eq!(a.id(), b.id());
    assert_eq!(a.request_id(), b.request_id());
    assert_ne!(a.request_id(), c.request_id());
}

#[test]
fn a_script_changes_the_plan_but_not_what_is_asked_of_the_repositories() {
    let a = of(
        &[("a.ks", "%packages\nnano\n%end\n%post\ntrue\n%end\n")],
        &bookworm(),
    )
    .plan
    .unwrap();
    let b = of(
        &[("a.ks", "%packages\nnano\n%end\n%post\nfalse\n%end\n")],
        &bookworm(),
    )
    .plan
    .unwrap();
    assert_ne!(a.id(), b.id());
    assert_eq!(a.request_id(), b.request_id());
}

#[test]
fn a_url_names_the_distribution() {
    let text = "url --url=http://mirror.example/debian/dists/trixie\n%packages\n%end\n";
    let plan = of(&[("a.ks", text)], &Input::default()).plan.unwrap();
    assert_eq!(plan.target.release, "trixie");
    assert_eq!(plan.repositories[0].url, "http://mirror.example/debian");
    assert_eq!(plan.repositories[0].origin, "a.ks:1");
}

/// Every Debian suite but the newest ones, and every third-party one, was refused for a component that it does not have.
#[test]
fn components_of_a_url_are_those_of_its_suite() {
    let components = |suite: &str| {
        let text = format!(
            "url --url=http://mirror.example/debian/dists/trixie\nrepo --name=more --baseurl=http://mirror.example/more/dists/{suite}\n%packages\n%end\n"
        )
        .leak();
        let lowered = of(&[("a.ks", text)], &Input::default());
        let plan = lowered.plan.expect("a plan");
        plan.repositories[1].components.join(" ")
    };
    assert_eq!(
        components("bookworm-updates"),
        "main contrib non-free-firmware"
    );
    assert_eq!(components("bullseye-security"), "main contrib non-free");
    assert_eq!(components("oldoldstable"), "main contrib non-free");
    assert_eq!(components("nightly"), "main");
}

/// An image of bullseye failed by default, since Kiln added a package that bullseye does not have.
#[test]
fn what_kiln_adds_is_in_the_release() {
    let plan = |distribution: &str| {
        let input = Input {
            distribution: Some(distribution.to_owned()),
            ..Input::default()
        };
        of(&[("a.ks", "%packages\n%end\n")], &input).plan.unwrap()
    };
    let names =
        |added: &[Added]| -> Vec<String> { added.iter().map(|a| a.package.clone()).collect() };
    let merged = "usr-is-merged".to_owned();
    for release in ["debian:bookworm", "debian:trixie", "debian:sid"] {
        let system = plan(release).system;
        assert!(names(&system.packages).contains(&merged), "{release}");
        assert_eq!(system.absent, []);
    }
    let system = plan("debian:bullseye").system;
    assert!(!names(&system.packages).contains(&merged));
    assert_eq!(names(&system.absent), [merged]);
}

/// These were read in the language of the newest Fedora, or drowned in what followed from it.
#[test]
fn an_unknown_name_is_said_first_and_alone() {
    let said = |distribution: &str| {
        let input = Input {
            distribution: Some(distribution.to_owned()),
            ..Input::default()
        };
        // `install` is no command of Fedora's language, and the layer after it is not there.
        let toml = "layers = [\"a.ks\", \"gone.ks\"]";
        let lowered = of(
            &[("a.ks", "install\nnosuch\n"), ("kiln.toml", toml)],
            &input,
        );
        let all = lowered.problems.iter();
        let all = all.map(|p| format!("{:?} {} [{}]", p.severity, p.message, p.hints.join("; ")));
        all.collect::<Vec<_>>()
    };
    let unknown =
        |what: &str, near: &str| vec![format!("Error no {what} [the nearest known is {near}]")];
    for (name, expected) in [
        ("Fedora:43", unknown("distribution is known as `Fedora`", "fedora:43")),
        ("nobara:43", unknown("distribution is known as `nobara`", "fedora:43")),
        ("rockylinux:9.4", unknown("distribution is known as `rockylinux`", "rocky:9.4")),
        ("debain:trixie", unknown("distribution is known as `debain`", "debian:trixie")),
        (
            "fedora:99",
            unknown("release of fedora is known as `99`", "fedora:45; known are 42, 43, 44, 45"),
        ),
        (
            "centos:stream9",
            unknown("release of centos is known as `stream9`", "centos:9; known are 8, 9, 10"),
        ),
        (
            "almalinux:10-kitten",
            unknown("release of almalinux is known as `10-kitten`", "almalinux:10; known are 8, 9, 10"),
        ),
        (
            "centos:6",
            unknown("release of centos is known as `6`", "centos:8; known are 8, 9, 10"),
        ),
        (
            "slackware:noble",
            vec!["Error no distribution is known as `slackware` [known are for example debian:bookworm, ubuntu:noble, fedora:45, almalinux:10, rocky:10, centos:10, rhel:10]".to_owned()],
        ),
        (
            "debian:book worm",
            vec!["Error no release of debian is known as `book worm` [say for example debian:bookworm]".to_owned()],
        ),
        (
            "fedora",
            vec!["Error `fedora` names no release [say for example fedora:45]".to_owned()],
        ),
    ] {
        assert_eq!(said(name), expected, "{name}");
    }
    let debian = said("debian:buster");
    assert_eq!(debian.len(), 1, "{debian:?}");
}

/// The installers of older releases read a language that is not known; the nearest is better than the newest.
#[test]
fn an_older_release_has_the_nearest_language_and_a_note() {
    let problems = |distribution: &str, text: &'static str| {
        let input = Input {
            distribution: Some(distribution.to_owned()),
            ..Input::default()
        };
        let toml = "layers = [\"a.ks\"]";
        let lowered = of(&[("a.ks", text), ("kiln.toml", toml)], &input);
        let all = lowered.problems.into_iter();
        all.map(|p| (p.severity, p.message)).collect::<Vec<_>>()
    };
    let note = |said: &str, language: &str| {
        let message = format!(
            "the kickstart language of {said} is not known; its files are read as those of {language}, the nearest"
        );
        (Severity::Warning, message)
    };
    let empty = "%packages\n%end\n";
    assert_eq!(problems("fedora:41", empty)[0], note("fedora:41", "F42"));
    // Enterprise Linux 8 still warns of `install`, which Fedora's language has removed.
    let old = problems("centos:7", "install\n%packages\n%end\n");
    assert_eq!(old[0], note("centos:7", "RHEL8"));
    assert!(
        old.iter()
            .all(|(severity, _)| *severity == Severity::Warning),
        "{old:?}"
    );
    for known in [
        "fedora:43",
        "fedora:45",
        "fedora:rawhide",
        "rocky:9.4",
        "almalinux:10",
    ] {
        assert_eq!(problems(known, empty), [], "{known}");
    }
}

/// These were found out when the repositories were asked, or not even then.
#[test]
fn a_release_that_cannot_be_had_is_said_when_it_is_planned() {
    let said = |distribution: &str, toml: &'static str| {
        let input = Input {
            distribution: Some(distribution.to_owned()),
            ..Input::default()
        };
        let lowered = of(
            &[("a.ks", "%packages\n%end\n"), ("kiln.toml", toml)],
            &input,
        );
        let all = lowered.problems.iter();
        let all = all.map(|p| format!("{} [{}]", p.message, p.hints.join("; ")));
        all.collect::<Vec<_>>().join("\n")
    };
    let plain = "layers = [\"a.ks\"]";
    for (name, expected) in [
        (
            "debian:12",
            "debian:12 is debian:bookworm [say debian:bookworm]",
        ),
        ("debian:12.5", "debian:12.5 is debian:bookworm [say"),
        ("debian:Trixie", "[say debian:trixie]"),
        (
            "debian:stable",
            "another image [name the release: debian:trixie]",
        ),
        (
            "debian:buster",
            "debian:buster: it has left the mirrors [known are bullseye, bookworm,",
        ),
        ("debian:10", "debian:10: it has left the mirrors [known are"),
        (
            "debian:testing",
            "debian:testing: it is not released [known are",
        ),
        ("debian:hamm", "of debian:hamm [known are"),
    ] {
        let text = said(name, plain);
        assert!(text.contains(expected), "{name}: {text}");
    }
    for name in ["bullseye", "bookworm", "trixie", "sid", "unstable"] {
        assert_eq!(said(&format!("debian:{name}"), plain), "");
    }
    let own = "layers = [\"a.ks\"]\n[system]\nno-default-repositories = true\n[[repository]]\nurl = \"http://x.example\"\nsuite = \"buster\"\ncomponents = [\"main\"]\n";
    assert_eq!(said("debian:buster", own), "");
    let arm = "layers = [\"a.ks\"]\narchitecture = \"arm64\"";
    assert!(
        said("debian:trixie", arm).starts_with("Debian images are made for amd64, not for arm64")
    );
}

#[test]
fn mistakes_have_places() {
    let wrong = |text: &'static str| errors(&of(&[("a.ks", text)], &bookworm()));
    assert_eq!(
        wrong("part /home\n%packages\n%end\n"),
        ["a.ks:1: `part /home` without a size"]
    );
    let srv = wrong("part /srv --size=10\n%packages\n%end\n");
    assert_eq!(
        srv,
        ["a.ks:1: `part /srv`: a live image has a root and, if asked for, a /home partition"]
    );
    let repo = wrong("repo --name=x --baseurl=http://x.example/rpm\n%packages\n%end\n");
    assert_eq!(
        repo,
        ["a.ks:1: `http://x.example/rpm` is not the address of a Debian suite"]
    );
}

#[test]
fn toml_mistakes_name_the_line() {
    let lowered = of(&[("kiln.toml", "name = \"x\"\nlayerz = []\n")], &bookworm());
    assert!(
        errors(&lowered)[0].starts_with("kiln.toml:2: unknown field `layerz`"),
        "{:?}",
        errors(&lowered)
    );
}

#[test]
fn what_is_not_there_is_named() {
    let none = errors(&of(&[("a.ks", "%packages\n%end\n")], &Input::default()));
    assert_eq!(none, ["kiln.toml: no distribution is named"]);
    let profile = Input {
        profile: Some("nightly".to_owned()),
        ..bookworm()
    };
    assert_eq!(
        errors(&of(&[("a.ks", "%packages\n%end\n")], &profile)),
        ["kiln.toml: there is no profile `nightly`"]
    );
    let format = Input {
        formats: Some(vec!["iso".to_owned()]),
        ..bookworm()
    };
    assert_eq!(
        errors(&of(&[("a.ks", "%packages\n%end\n")], &format)),
        ["kiln.toml: format `iso` is not one that Kiln writes"]
    );
    let layout = Input {
        layout: Some("apm".to_owned()),
        ..bookworm()
    };
    let lowered = of(&[("a.ks", "%packages\n%end\n")], &layout);
    assert_eq!(
        errors(&lowered),
        ["kiln.toml: disk layout `apm` is not one that Kiln writes"]
    );
    assert_eq!(lowered.problems[0].hints, ["layouts: gpt, mbr"]);
    let missing = errors(&of(&[], &bookworm()));
    assert_eq!(
        missing,
        ["kiln.toml: layer `a.ks` cannot be read: a.ks: no such file"]
    );
}

#[test]
fn a_layout_is_a_table_and_its_partitions() {
    let home = "part /home --size=64 --grow\n%packages\n%end\n";
    let toml = "layers = [\"a.ks\"]\n[disk]\nlayout = \"mbr\"\n";
    let plan = of(&[("kiln.toml", toml), ("a.ks", home)], &bookworm()).plan;
    let mbr = plan.unwrap();
    let said = Input {
        layout: Some("gpt".to_owned()),
        ..bookworm()
    };
    let plan = of(&[("kiln.toml", toml), ("a.ks", home)], &said).plan;
    let gpt = plan.unwrap();
    let roles =
        |plan: &Plan| -> Vec<Role> { plan.disk.partitions.iter().map(|p| p.role).collect() };
    assert_eq!(roles(&mbr), [Role::Boot, Role::Home]);
    assert!(mbr.disk.has_root_file() && !gpt.disk.has_root_file());
    assert_eq!(
        roles(&gpt),
        [Role::BiosBoot, Role::Boot, Role::Root, Role::Home]
    );
    let adds = |plan: &Plan, name: &str| plan.system.packages.iter().any(|p| p.package == name);
    assert!(adds(&mbr, "fdisk") && !adds(&gpt, "fdisk"));
    assert!(mbr.id() != gpt.id());
}

#[test]
fn a_home_that_the_disk_cannot_hold_is_refused() {
    for (size, layout, said) in [
        (
            "-5",
            "gpt",
            "`part /home --size=-5`: /home has 16 to 8388608 MiB",
        ),
        ("15", "gpt", "`part /home --size=15`: /home has 16 to"),
        ("99999999999999", "gpt", "/home has 16 to 8388608 MiB"),
        (
            "2097152",
            "mbr",
            "/home has 16 to 2088960 MiB in the disk layout `mbr`",
        ),
    ] {
        let text = format!("part /home --size={size}\n%packages\n%end\n").leak();
        let input = Input {
            layout: Some(layout.to_owned()),
            ..bookworm()
        };
        let found = errors(&of(&[("a.ks", text)], &input));
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains(said), "{found:?}");
    }
}

/// On trixie and bullseye /home never grew: the program that the unit runs was in no package of the image.
#[test]
fn what_lets_home_grow_is_in_the_image() {
    let home = "part /home --size=64 --grow\n%packages\n%end\n";
    let adds = |distribution: &str, layout: &str, name: &str| {
        let input = Input {
            distribution: Some(distribution.to_owned()),
            layout: Some(layout.to_owned()),
            ..Input::default()
        };
        let plan = of(&[("a.ks", home)], &input).plan.expect("a plan");
        plan.system.packages.iter().any(|p| p.package == name)
    };
    for (distribution, layout, name, expected) in [
        ("debian:trixie", "gpt", "systemd-repart", true),
        ("debian:trixie", "mbr", "systemd-repart", false),
        ("debian:trixie", "mbr", "fdisk", true),
        ("debian:bookworm", "gpt", "systemd-repart", false),
        ("debian:bullseye", "gpt", "fdisk", true),
        ("debian:bullseye", "gpt", "systemd-repart", false),
    ] {
        assert_eq!(
            adds(distribution, layout, name),
            expected,
            "{distribution} {layout} {name}"
        );
    }
}

#[test]
fn an_include_loop_ends() {
    let found = errors(&of(
        &[("a.ks", "%include b.ks\n"), ("b.ks", "%include a.ks\n")],
        &bookworm(),
    ));
    assert!(!found.is_empty(), "a loop is an error");
}

#[test]
fn what_pre_will_make_is_not_missed_before_it_has_run() {
    let text =
        "%pre\necho lang C.UTF-8 > /tmp/made.ks\n%end\n%include /tmp/made.ks\n%packages\n%end\n";
    let before = Input {
        before_pre: true,
        ..bookworm()
    };
    let first = of(&[("a.ks", text)], &before);
    assert_eq!(errors(&first), Vec::<String>::new());
    assert_eq!(first.pre_scripts.len(), 1);
    let second = of(&[("a.ks", text)], &bookworm());
    assert_eq!(errors(&second).len(), 1, "{:?}", errors(&second));
    // Without a %pre nothing can make it any more.
    let never = of(&[("a.ks", "%include /tmp/made.ks\n")], &before);
    assert_eq!(errors(&never).len(), 1, "{:?}", errors(&never));
    let third = of(
        &[("a.ks", text), ("/tmp/made.ks", "lang C.UTF-8\n")],
        &bookworm(),
    );
    assert_eq!(third.plan.unwrap().layers[0].commands[0].item.name, "lang");
}

/// What is included is part of the definition: a text that changes where it lies changes the steps it is in, and no other.
#[test]
fn included_texts_are_part_of_the_steps() {
    let plan = |script: &'static str, command: &'static str| {
        let files = [
            (
                "a.ks",
                "%include http://site.example/c.ks\n%post\n%include http://site.example/s.inc\n%end\n%certificate --filename=a.pem --type=anchor\nx\n%end\n",
            ),
            ("http://site.example/c.ks", command),
            ("http://site.example/s.inc", script),
        ];
        let lowered = of(&files, &bookworm());
        assert_eq!(errors(&lowered), Vec::<String>::new());
        lowered.plan.unwrap()
    };
    let before = plan("echo one\n", "timezone UTC\n");
    let script = plan("echo two\n", "timezone UTC\n");
    let command = plan("echo one\n", "timezone Europe/Prague\n");
    assert_ne!(before.id(), script.id());
    assert_ne!(before.id(), command.id());
    let commands = |plan: &Plan| plan.layers[0].command_id();
    assert_eq!(commands(&before), commands(&script));
    assert_ne!(commands(&before), commands(&command));
    // Scripts bring no packages, commands and certificates may.
    assert_eq!(before.request_id(), script.request_id());
    assert_ne!(before.request_id(), command.request_id());
}

/// No option is dropped silently.
#[test]
fn options_of_packages_without_effect_are_said() {
    let text =
        "%packages --multilib --timeout=30 --retries=5 --ignorebroken --ignoremissing\nvim\n%end\n";
    let lowered = of(&[("a.ks", text)], &bookworm());
    let said: Vec<&str> = lowered
        .problems
        .iter()
        .map(|p| p.message.as_str())
        .collect();
    assert_eq!(said.len(), 4, "{said:?}");
    for option in ["--multilib", "--timeout", "--retries", "--ignorebroken"] {
        assert!(
            said.iter().any(|s| s.contains(option)),
            "{option}: {said:?}"
        );
    }
}

/// Each distribution's files are read in the language of its own installer.
#[test]
fn the_language_is_that_of_the_distributions_installer() {
    let module = "module --name=nodejs --stream=18\n%packages --excludeWeakdeps\nvim\n%end\n";
    let of_distribution = |name: &str| {
        let input = Input {
            distribution: Some(name.to_owned()),
            ..Input::default()
        };
        errors(&of(&[("a.ks", module)], &input))
    };
    assert_eq!(of_distribution("almalinux:8"), Vec::<String>::new());
    assert!(!of_distribution("almalinux:10").is_empty());
    assert!(!of_distribution("debian:bookworm").is_empty());
    let unknown = of_distribution("slackware:15");
    assert!(
        unknown.iter().any(|e| e.contains("slackware")),
        "{unknown:?}"
    );
}

#[test]
fn a_layer_that_is_called_like_one_of_kilns_own_does_not_get_its_packages() {
    for name in ["system.ks", "tools.ks"] {
        let text: &'static str = match name {
            "system.ks" => "layers = [\"system.ks\"]\n",
            _ => "layers = [\"tools.ks\"]\n",
        };
        let lowered = of(
            &[("kiln.toml", text), (name, "part / --size=1024\n")],
            &bookworm(),
        );
        let errors = errors(&lowered);
        let wanted = format!("a layer cannot be called `{}`", &name[..name.len() - 3]);
        assert!(errors.iter().any(|e| e.contains(&wanted)), "{errors:?}");
    }
}

#[test]
fn limits_of_a_step() {
    let lowered = |limits: &'static str| {
        let kickstart = "part / --size=1024\n%packages\nbash\n%end\n";
        of(&[("kiln.toml", limits), ("a.ks", kickstart)], &bookworm())
    };
    let plan = lowered("layers = [\"a.ks\"]\n").plan.expect("a plan");
    assert_eq!((plan.limits.step_minutes, plan.limits.memory), (120, None));
    let said = lowered(
        "layers = [\"a.ks\"]\n[limits]\nstep-minutes = 5\nprocesses = 500\nmemory-mib = 2048\ntmp-mib = 512\n",
    );
    let limited = said.plan.expect("a plan");
    assert_eq!(
        (limited.limits.step_minutes, limited.limits.processes),
        (5, Some(500))
    );
    assert_eq!(
        (limited.limits.memory, limited.limits.tmp),
        (Some(2 << 30), Some(512 << 20))
    );
    // They change no result.
    assert_eq!(limited.id(), plan.id());
    for (wrong, key) in [
        (
            "layers = [\"a.ks\"]\n[limits]\nstep-minutes = 0\n",
            "step-minutes = 0",
        ),
        (
            "layers = [\"a.ks\"]\n[limits]\nmemory-mib = 1\n",
            "memory-mib = 1",
        ),
        ("layers = [\"a.ks\"]\n[limits]\nminutes = 1\n", "minutes"),
    ] {
        let errors = errors(&lowered(wrong));
        assert!(errors.iter().any(|e| e.contains(key)), "{errors:?}");
    }
}

#[test]
fn changes_hold_secrets_and_are_shown_nowhere() {
    let plan = of(
        &[(
            "a.ks",
            "rootpw --plaintext hunter2\n%certificate --filename=lab.pem --dir=/etc/ssl\nPEM\n%end\n",
        )],
        &bookworm(),
    )
    .plan
    .expect("a plan");
    let layer = &plan.layers[0];
    let commands: Vec<&str> = layer.changes.iter().map(|c| c.command.as_str()).collect();
    assert_eq!(commands, ["rootpw", "%certificate"]);
    let held = serde_json::to_string(&layer.changes).expect("JSON");
    assert!(held.contains("$6$"), "{held}");
    let shown = serde_json::to_string(&plan).expect("JSON");
    assert!(
        !shown.contains("$6$") && !shown.contains("changes"),
        "{shown}"
    );
}

/// A distribution that only the caller knows was taken for one that is made as Debian is.
#[test]
fn a_further_distribution_has_the_conventions_that_its_caller_says() {
    for (conventions, locale) in [
        (Conventions::Debian, "/etc/default/locale"),
        (Conventions::Rpm, "/etc/locale.conf"),
    ] {
        let toy = Distribution {
            name: "toy".to_owned(),
            conventions,
            architecture: "any".to_owned(),
            packages: Vec::new(),
        };
        let input = Input {
            distribution: Some("toy:1".to_owned()),
            further: vec![toy],
            ..Input::default()
        };
        let plan = of(&[("a.ks", "lang de_DE.UTF-8\n")], &input).plan;
        let plan = plan.expect("a plan");
        let changes = format!("{:?}", plan.layers[0].changes);
        assert!(changes.contains(locale), "{changes}");
        assert_eq!(plan.target.conventions(), None);
    }
}
