//! A distribution of RPM packages, from a kickstart to a login: its own dnf chooses, its own rpm installs, dracut's live root boots.
//!
//! No mirror of a real one is asked: the distribution is made of Debian's packages, which the cache below the target directory keeps.

use std::fs;
use std::path::Path;

use kiln_testkit::Mirror;
use kiln_testkit::distribution::{self, Distribution, Set};
use kiln_testkit::rpm::{Gpg, Rpm};

use crate::harness::{LONGEST, Turn, base, cache, run, text};
use crate::lane;

/// Under software emulation, on a machine that does other things too.
const PATIENCE: &str = "900";
const DEFINITION: &str = "name = \"rpm\"\ndistribution = \"centos:9\"\nlayers = [\"console.ks\"]\n\
    [[repository]]\nname = \"url\"\nkey = \"key.asc\"\n";

pub(crate) fn distribution() -> Distribution {
    // Its packages are built once for both lanes.
    let _alone = lane::alone();
    let out = base().join("kindling");
    distribution::make(
        Set::Base,
        &out,
        &lane::common().join("rpm-distribution"),
        &[cache().join("downloads")],
    )
}

/// The files that `cargo xtask rpm` uses, too.
fn set(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../xtask/sets/rpm-boot");
    fs::read_to_string(path.join(name)).expect("a file of the set")
}

#[test]
fn a_distribution_of_rpm_packages_is_built_and_boots() {
    let turn = Turn::cold();
    let made = distribution();
    let mirror = Mirror::of(&made.directory);
    let definition = turn.path("definition");
    fs::create_dir(&definition).expect("a directory");
    fs::write(definition.join("kiln.toml"), DEFINITION).expect("a definition");
    let kickstart = set("console.ks").replace("--url=URL", &format!("--url={}", mirror.url()));
    fs::write(definition.join("console.ks"), kickstart).expect("a kickstart");
    fs::copy(&made.key, definition.join("key.asc")).expect("the key");
    fs::write(turn.path("judge.sh"), set("judge.sh")).expect("a script");
    // Neither rpm nor dnf of this machine, nor anything else of it.
    let kiln = |arguments: &[&str]| {
        let mut command = turn.command(&[arguments, &["--distribution", "centos:9"]].concat());
        run(command.env("PATH", "/nonexistent"), LONGEST).assert(0);
    };
    kiln(&["lock", "definition"]);
    let build = ["build", "--locked", "definition", "-o", "output"];
    kiln(&[&build[..], &["--format", "raw"]].concat());
    let listed = fs::read_to_string(turn.path("output/packages.txt")).expect("the list");
    let has = |name: &str| {
        listed
            .lines()
            .any(|line| line.starts_with(&format!("{name}\t")))
    };
    assert!(
        has("greeter") && has("file") && has("network-manager"),
        "{listed}"
    );
    assert!(!has("sudo"), "it is excluded: {listed}");
    let lock = fs::read_to_string(definition.join("kiln.lock")).expect("the lock");
    assert!(
        lock.contains("python3-dnf"),
        "the tools are the target's own: {lock}"
    );
    turn.kiln(&[
        "test",
        &text(&turn.path("output/disk.raw")),
        "--expect",
        "login",
        "--timeout",
        PATIENCE,
        "--script",
        "judge.sh",
        "-o",
        "boot",
    ])
    .assert(0);
    let report = fs::read_to_string(turn.path("boot/boot.json")).expect("a report");
    assert!(report.contains("judged: "), "{report}");
    let left = turn.before.of_the_machine();
    assert!(left.is_empty(), "{left:?}");
}

/// Options of `%packages` show in the root: rpm and the files say it.
#[test]
fn options_of_packages_decide_what_is_unpacked() {
    let turn = Turn::cold();
    let made = distribution();
    let extra = turn.path("extra");
    let tongue = Rpm::new("tongue", "1")
        .file("", "/usr/share/tongue/words", "words")
        .file("%doc", "/usr/share/doc/tongue/README", "read me")
        .file(
            "%lang(de)",
            "/usr/share/locale/de/LC_MESSAGES/tongue.mo",
            "de",
        )
        .file(
            "%lang(fr)",
            "/usr/share/locale/fr/LC_MESSAGES/tongue.mo",
            "fr",
        );
    let both = |arch: &'static str| {
        let path = format!("/usr/lib/both/{arch}");
        Rpm::new("both", "1").arch(arch).file("", &path, arch)
    };
    let files = kiln_testkit::rpm::build(&[tongue, both("i686"), both("x86_64")], &extra);
    let key = Gpg::generate(&turn.path("gpg"), "extra@example.org");
    key.sign_packages(&files);
    kiln_testkit::rpm::createrepo(&extra, &[]);
    turn.write("extra.asc", &String::from_utf8_lossy(&key.public()));
    key.rest();
    fs::copy(&made.key, turn.path("key.asc")).expect("the key");
    let second = "[[repository]]\nname = \"extra\"\nkey = \"extra.asc\"\n";
    turn.write("kiln.toml", &format!("{DEFINITION}{second}"));
    let (mirror, own) = (Mirror::of(&made.directory), Mirror::of(&extra));
    let kickstart = format!(
        "url --url={}\nrepo --name=extra --baseurl={}\nrootpw --lock\n\
         %packages --excludedocs --inst-langs=de --multilib\n@core\nrpm\ntongue\nboth\n%end\n\
         %post --erroronfail\nset -ex\ntest -e /usr/share/tongue/words\ntest ! -e /usr/share/doc/tongue/README\n\
         test -e /usr/share/locale/de/LC_MESSAGES/tongue.mo\ntest ! -e /usr/share/locale/fr/LC_MESSAGES/tongue.mo\n\
         test \"$(rpm -q --qf '%{{ARCH}}\\n' both | sort | tr '\\n' ' ')\" = 'i686 x86_64 '\n\
         cat /usr/lib/both/i686 /usr/lib/both/x86_64\n%end\n",
        mirror.url(),
        own.url()
    );
    turn.write("console.ks", &kickstart);
    let build = [
        "build",
        "kiln.toml",
        "-o",
        "output",
        "--format",
        "raw",
        "--distribution",
        "centos:9",
    ];
    let ran = run(turn.command(&build).env("PATH", "/nonexistent"), LONGEST);
    ran.assert(0);
    let listed = fs::read_to_string(turn.path("output/packages.txt")).expect("the list");
    let both = listed.lines().filter(|line| line.starts_with("both\t"));
    assert_eq!(both.count(), 2, "{listed}");
    let left = turn.before.of_the_machine();
    assert!(left.is_empty(), "{left:?}");
}
