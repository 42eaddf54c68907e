//! What takes the distribution's own dnf: packages that do not fit together, and builds. And what further mirrors mend.

use std::fs;
use std::time::Duration;

use kiln_testkit::distribution::Distribution;
use kiln_testkit::rpm::{Gpg, Rpm, build, createrepo};
use kiln_testkit::{Fault, Mirror, Rule};

use super::metalink;
use super::world::{
    ALONE, DIRECTORY, REPOMD, assert_nothing_left, lock, lock_with, packages_in, rewrite,
};
use crate::faults::assert_genuine;
use crate::harness::{LONGEST, Ran, Turn, digest, run, text, tool};
use crate::rpm::distribution;

const COMPS: &str = r#"<?xml version="1.0"?><comps>
<group><id>broken</id><name>Broken</name><packagelist><packagereq type="mandatory">orphan</packagereq></packagelist></group>
<environment><id>broken-environment</id><name>Broken</name><grouplist><groupid>broken</groupid></grouplist></environment>
</comps>"#;

/// A distribution on a mirror, and a repository of the user's own beside it.
struct Setting {
    turn: Turn,
    made: Distribution,
    mirror: Mirror,
    extra: Mirror,
}

/// The user's own packages; those of which the names say so get a fault before they are described.
fn packages() -> Vec<Rpm> {
    let data = |name: &str| {
        let path = format!("{DIRECTORY}data");
        Rpm::new(name, "1").payload("w.ufdio").file("", &path, name)
    };
    vec![
        Rpm::new("app", "1").tag("Requires: lib"),
        Rpm::new("lib", "1"),
        Rpm::new("enemy", "1").tag("Conflicts: app"),
        Rpm::new("orphan", "1").tag("Requires: never >= 2"),
        data("unsigned"),
        data("foreign"),
        data("changed"),
        data("crooked"),
        data("leading-out"),
    ]
}

impl Setting {
    fn new() -> Self {
        let turn = Turn::cold();
        let made = distribution();
        let mirror = Mirror::of(&made.directory);
        fs::copy(&made.key, turn.path("key.asc")).expect("the key");
        let extra = Mirror::of(turn.path("extra"));
        let setting = Setting {
            turn,
            made,
            mirror,
            extra,
        };
        setting.own_repository();
        setting.define(&format!("{ALONE}add = [\"bash\"]\n"));
        setting
    }

    fn own_repository(&self) {
        let directory = self.turn.path("extra");
        build(&packages(), &directory);
        let file = |name: &str| directory.join(format!("Packages/{name}-1-1.noarch.rpm"));
        let (key, other) = (self.gpg("gpg"), self.gpg("other"));
        rewrite(
            &file("crooked"),
            &format!(".{DIRECTORY}data"),
            &format!(".{DIRECTORY}date"),
        );
        rewrite(&file("leading-out"), DIRECTORY, "/../../../../tmp1/");
        let others = [file("unsigned"), file("foreign")];
        let signed = packages_in(&directory)
            .into_iter()
            .filter(|path| !others.contains(path));
        key.sign_packages(&signed.collect::<Vec<_>>());
        other.sign_packages(&[file("foreign")]);
        let mut bytes = fs::read(file("changed")).expect("a package");
        let last = bytes.len() - 200;
        bytes[last] ^= 1;
        fs::write(file("changed"), bytes).expect("a package");
        self.turn.write("comps.xml", COMPS);
        createrepo(
            &directory,
            &["--groupfile", &text(&self.turn.path("comps.xml"))],
        );
        self.turn
            .write("extra.asc", &String::from_utf8_lossy(&key.public()));
        key.rest();
        other.rest();
    }

    fn gpg(&self, name: &str) -> Gpg {
        Gpg::generate(&self.turn.path(name), &format!("{name}@example.org"))
    }

    fn define(&self, system: &str) {
        let repository =
            |name: &str, key: &str| format!("[[repository]]\nname = \"{name}\"\nkey = \"{key}\"\n");
        let repositories = [
            repository("url", "key.asc"),
            repository("extra", "extra.asc"),
        ]
        .concat();
        let text = format!(
            "name = \"lab\"\ndistribution = \"centos:9\"\nlayers = [\"lab.ks\"]\n{system}{repositories}"
        );
        self.turn.write("kiln.toml", &text);
    }

    /// What is asked for stands in line 6 and those after it.
    fn kickstart(&self, url: &str, lines: &str) {
        let (url, extra) = (url.replace("URL", &self.mirror.url()), self.extra.url());
        let text = format!(
            "lang C.UTF-8\nurl {url}\nrepo --name=extra --baseurl={extra}\nrootpw --lock\n%packages --nocore\n{lines}\n%end\n"
        );
        self.turn.write("lab.ks", &text);
    }

    fn build(&self, more: &[&str]) -> Ran {
        let cache = text(&self.turn.path("cache"));
        let arguments = [
            "build",
            "kiln.toml",
            "-o",
            "output",
            "--format",
            "raw",
            "--cache-dir",
            &cache,
            "--distribution",
            "centos:9",
        ];
        let mut kiln = self.turn.command(&[&arguments, more].concat());
        run(kiln.env("PATH", "/nonexistent"), LONGEST)
    }

    /// Removes the lock that there has to be.
    fn locks(&self, what: &str) -> Ran {
        let ran = lock(&self.turn);
        assert_eq!(ran.code, Some(0), "{what}\n{}", ran.whole());
        assert_genuine(&self.turn.path("cache/downloads/sha256"));
        fs::remove_file(self.turn.path("kiln.lock")).expect("the lock");
        ran
    }

    /// Another mirror of the distribution, which has its own metadata.
    fn copy(&self, name: &str) -> Mirror {
        let copy = self.turn.path(name);
        fs::create_dir(&copy).expect("a directory");
        let repodata = text(&self.made.directory.join("repodata"));
        tool("cp", &["-a", &repodata, &text(&copy)]).assert(0);
        let packages = self.made.directory.join("Packages");
        std::os::unix::fs::symlink(packages, copy.join("Packages")).expect("a link");
        Mirror::of(copy)
    }

    /// Writes a list of mirrors, or a metalink.
    fn list(&self, text: &str) -> Mirror {
        let directory = self.turn.path("lists");
        fs::create_dir_all(&directory).expect("a directory");
        fs::write(directory.join("list"), text).expect("a list");
        Mirror::of(directory)
    }
}

#[test]
fn packages_that_cannot_be_installed() {
    let setting = Setting::new();
    let asked: &[(&str, &[&str])] = &[
        (
            "orphan",
            &[
                "lab.ks:6",
                "nothing provides never >= 2 needed by orphan-1-1.noarch",
            ],
        ),
        (
            "bash\n@broken",
            &[
                "lab.ks:7",
                "nothing provides never >= 2 needed by orphan-1-1.noarch",
            ],
        ),
        (
            "@^broken-environment",
            &[
                "lab.ks:6",
                "nothing provides never >= 2 needed by orphan-1-1.noarch",
            ],
        ),
        (
            "app\n-lib",
            &[
                "lab.ks:6",
                "`lib` is excluded at lab.ks:7",
                "exclude filtering",
            ],
        ),
        (
            "app\nenemy",
            &[
                "lab.ks:6",
                "conflicts with app",
                "`enemy` is asked for by layer lab at lab.ks:7",
            ],
        ),
        (
            "bash\nbasch",
            &[
                "lab.ks:7",
                "package `basch` does not exist",
                "did you mean bash",
            ],
        ),
    ];
    for (lines, words) in asked {
        setting.kickstart("--url=URL", lines);
        let ran = lock(&setting.turn);
        println!("{lines:?}: {}", ran.stderr.trim_end());
        ran.assert(1).says(words);
        assert_nothing_left(&setting.turn, lines, &ran);
    }
}

#[test]
fn packages_that_prove_to_be_wrong_when_they_are_there() {
    let setting = Setting::new();
    let built: &[(&str, i32, &str)] = &[
        ("unsigned", 1, "is not signed"),
        ("foreign", 1, "not among the accepted ones"),
        ("changed", 4, "is not what its signed header says"),
        ("leading-out", 4, "/../../../../tmp1/data"),
        ("crooked", 4, "unpacking of archive failed"),
    ];
    for (name, code, why) in built {
        setting.kickstart("--url=URL", &format!("bash\n{name}"));
        let ran = setting.build(&[]);
        println!("{name}: {}", ran.stderr.trim_end());
        ran.assert(*code).says(&["lab.ks:7", name, why]);
        assert_nothing_left(&setting.turn, name, &ran);
    }
}

/// Longer than Kiln waits.
const STALL: Duration = Duration::from_secs(3_600);

fn stall(pattern: &str) -> Rule {
    Rule::always(
        pattern,
        Fault::Stall {
            after: 20,
            time: STALL,
        },
    )
}

#[test]
fn a_second_mirror_that_is_good_is_enough() {
    let setting = Setting::new();
    let (first, second) = (setting.copy("first"), &setting.mirror);
    let passed = "a mirror of url was passed over";
    let servers = setting.list(&format!("{}\n{}\n", first.url(), second.url()));
    let list = format!("{}/list", servers.url());
    setting.kickstart(&format!("--mirrorlist={list}"), "bash");
    first.inject(stall("*/repomd.xml"));
    setting
        .locks("a mirror that stalls")
        .says(&[passed, &first.url(), "repomd.xml"]);
    for rule in [
        Rule::always("*/repomd.xml", Fault::NotFound),
        Rule::always(
            "*/repomd.xml",
            Fault::Replace(b"<html>Please log in</html>".to_vec()),
        ),
        Rule::always("*-primary.xml.gz", Fault::NotFound),
        Rule::always("*-primary.xml.gz", Fault::Flip { offset: 40 }),
    ] {
        first.heal();
        let what = format!("{rule:?}");
        first.inject(rule);
        setting.locks(&what).says(&[passed, &first.url()]);
    }
    first.heal();
    // The first one has what was there before.
    let current = digest(&setting.made.directory.join(REPOMD));
    let stale = setting.turn.path("first").join(REPOMD);
    let before = fs::read_to_string(&stale)
        .expect("repomd.xml")
        .replace("<revision>", "<revision>1");
    fs::write(&stale, before).expect("repomd.xml");
    let former = digest(&stale);
    let servers = setting.list(&metalink(&current, None, &[&first, second]));
    setting.kickstart(&format!("--metalink={}/list", servers.url()), "bash");
    setting.locks("a stale mirror").says(&[
        passed,
        &first.url(),
        "is not what the metalink promises",
    ]);
    let servers = setting.list(&metalink(&current, Some(&former), &[&first, second]));
    setting.kickstart(&format!("--metalink={}/list", servers.url()), "bash");
    setting
        .locks("a mirror that is behind")
        .says(&[passed, &first.url(), "is behind"]);
    // Better than nothing, and said.
    let servers = setting.list(&metalink(&current, Some(&former), &[&first]));
    setting.kickstart(&format!("--metalink={}/list", servers.url()), "bash");
    setting
        .locks("no other mirror")
        .says(&["all mirrors of url", "are behind what its metalink says"]);
}

/// A mirror that has the metadata right, and no package.
#[test]
fn packages_come_from_a_mirror_that_has_them() {
    let setting = Setting::new();
    let (first, second) = (setting.copy("first"), &setting.mirror);
    let servers = setting.list(&format!("{}\n{}\n", first.url(), second.url()));
    setting.kickstart(&format!("--mirrorlist={}/list", servers.url()), "bash");
    let faults = [
        Rule::always("/Packages/*", Fault::Flip { offset: 3_000 }),
        Rule::always("/Packages/*", Fault::Truncate { after: 1_000 }),
        stall("/Packages/*"),
        Rule::always("/Packages/*", Fault::NotFound),
    ];
    let asked = |mirror: &Mirror| {
        let requests = mirror.take_requests().into_iter();
        requests
            .filter(|request| request.target.contains("/Packages/"))
            .count()
    };
    for rule in &faults {
        // What the tools are unpacked from has to come again.
        let _ = fs::remove_dir_all(setting.turn.path("cache/layers"));
        first.heal();
        first.inject(rule.clone());
        setting.locks(&format!("{rule:?}"));
        assert!(asked(&first) > 0 && asked(second) > 10, "{rule:?}");
    }
    // A lock names one mirror of each package: a build from it knows the others all the same, and needs no metadata for that.
    setting.kickstart(&format!("--mirrorlist={}/list", servers.url()), "@core");
    setting.define("");
    assert_eq!(lock(&setting.turn).code, Some(0));
    let locked = fs::read_to_string(setting.turn.path("kiln.lock")).expect("the lock");
    assert!(
        locked.contains(&first.url()) && !locked.contains(&second.url()),
        "{locked}"
    );
    asked(&first);
    asked(second);
    servers.inject(Rule::always("*", Fault::NotFound));
    for mirror in [&first, second] {
        mirror.inject(Rule::always("*/repodata/*", Fault::NotFound));
    }
    let ran = setting.build(&["--locked"]);
    ran.assert(0);
    assert!(
        setting.turn.path("output/disk.raw").exists(),
        "{}",
        ran.whole()
    );
    assert!(asked(&first) > 0 && asked(second) > 10);
    assert_genuine(&setting.turn.path("cache/downloads/sha256"));
    // Where no mirror has a package, each is named, and the repository's line.
    let _ = fs::remove_dir_all(setting.turn.path("cache"));
    for mirror in [&first, second] {
        mirror.heal();
        mirror.inject(Rule::always("/Packages/*", Fault::NotFound));
    }
    servers.heal();
    fs::remove_file(setting.turn.path("kiln.lock")).expect("the lock");
    let ran = lock(&setting.turn);
    ran.assert(4).says(&[
        "lab.ks:2",
        "no mirror has a good file of",
        &first.url(),
        &second.url(),
    ]);
    let _ = fs::remove_dir_all(setting.turn.path("output"));
    assert_nothing_left(&setting.turn, "no mirror", &ran);
}

/// dnf's own manifest says the same as the lock, and gives the same lock; what it says of a package's content is never believed.
#[test]
fn a_manifest_of_dnfs_is_written_and_taken() {
    let setting = Setting::new();
    setting.kickstart("--url=URL", "bash\napp");
    let manifest = setting.turn.path("packages.manifest.yaml");
    let written = lock_with(&setting.turn, &["--manifest", &text(&manifest)]);
    written.assert(0);
    let lock_file = setting.turn.path("kiln.lock");
    let packages = |path: &std::path::Path| {
        let lock = fs::read_to_string(path).expect("the lock");
        let lines = lock.lines().filter(|line| line.starts_with("package "));
        // What is pinned is asked for.
        let same = lines.map(|line| line.replace("reason=auto", "reason=asked"));
        same.collect::<Vec<_>>().join("\n")
    };
    let before = packages(&lock_file);
    let pinned = fs::read_to_string(&manifest).expect("a manifest");
    let image = before
        .lines()
        .filter(|line| line.contains("repository=extra"));
    assert_eq!(image.count(), 2, "{before}");
    for line in [
        "- name: app",
        "- name: lib",
        "- name: bash",
        "repo_id: extra",
    ] {
        assert!(pinned.contains(line), "{pinned}");
    }
    assert!(
        !pinned.contains("python3-dnf"),
        "the tools are none of it: {pinned}"
    );
    fs::remove_file(&lock_file).expect("the lock");
    let taken = lock_with(&setting.turn, &["--from-manifest", &text(&manifest)]);
    taken.assert(0);
    assert_eq!(packages(&lock_file), before);
    fs::remove_file(&lock_file).expect("the lock");
    let (head, sum) = pinned.split_once("sha256:").expect("a sum");
    let other = if sum.starts_with('0') { "1" } else { "0" };
    fs::write(&manifest, format!("{head}sha256:{other}{}", &sum[1..])).expect("a manifest");
    let refused = lock_with(&setting.turn, &["--from-manifest", &text(&manifest)]);
    refused
        .assert(1)
        .says(&["packages.manifest.yaml cannot be used", "SHA-256", "hint:"]);
    assert_nothing_left(&setting.turn, "another sum", &refused);
}
