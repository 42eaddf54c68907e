//! A mirror that misbehaves: the right recovery or the right error, and never an image made of wrong bytes.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use kiln_testkit::{Fault, Key, Mirror, Package, Repository, Rule, Source};

use crate::harness::{LONGEST, Ran, Turn, base, run, text, tool};
use crate::residue::names;

const IN_RELEASE: &str = "*/InRelease";
const PACKAGES: &str = "*/binary-amd64/*";
/// A package of the tools root, fetched early.
const PACKAGE: &str = "*/apt_*.deb";

/// A loopback mirror of the distribution, and a definition that knows no other.
struct Setting {
    turn: Turn,
    mirror: Mirror,
}

impl Setting {
    fn new() -> Self {
        let turn = Turn::cold();
        let cache = base().join("mirror");
        let mirror = Mirror::start(Source::Forward {
            upstream: "http://deb.debian.org".to_owned(),
            cache,
        });
        define(&turn, &format!("{}/debian", mirror.url()), None);
        Setting { turn, mirror }
    }

    /// Resolves with a cache that has nothing.
    fn lock(&self) -> Ran {
        lock(&self.turn, "022")
    }

    /// The failure that faults lead to: exit code, words, no lock and nothing left behind.
    fn fails(&self, rules: &[Rule], code: i32, words: &[&str]) {
        for rule in rules {
            self.mirror.inject(rule.clone());
        }
        let ran = self.lock();
        ran.assert(code).says(words);
        assert!(
            !self.turn.path("kiln.lock").exists(),
            "a lock in spite of {rules:?}"
        );
        assert_genuine(&self.turn.path("cache/downloads/sha256"));
        let left = self
            .turn
            .before
            .since(&self.turn.path("output"), &self.turn.path("cache"));
        assert!(left.is_empty(), "left behind: {left:#?}\n{}", ran.whole());
        self.mirror.heal();
    }
}

fn define(turn: &Turn, url: &str, key: Option<&str>) {
    let signed_by = key
        .map(|file| format!("signed-by = {file:?}\n"))
        .unwrap_or_default();
    let text = format!(
        "name = \"faults\"\nlayers = [\"minimal.ks\"]\n[system]\nno-default-repositories = true\n\
         [[repository]]\nurl = {url:?}\nsuite = \"bookworm\"\ncomponents = [\"main\"]\n{signed_by}"
    );
    turn.write("kiln.toml", &text);
}

/// Resolves with this mask for new files.
fn lock(turn: &Turn, mask: &str) -> Ran {
    let _ = fs::remove_dir_all(turn.path("cache/metadata"));
    let _ = fs::remove_dir_all(turn.path("cache/downloads"));
    let cache = text(&turn.path("cache"));
    let kiln = turn.command(&["lock", "kiln.toml", "--cache-dir", &cache]);
    let mut masked = Command::new("/bin/sh");
    masked.args(["-c", "umask \"$0\"; exec \"$@\"", mask]);
    masked.arg(kiln.get_program()).args(kiln.get_args());
    masked.env_clear().current_dir(turn.path("."));
    masked.envs(
        kiln.get_envs()
            .filter_map(|(name, value)| Some((name, value?))),
    );
    run(&mut masked, LONGEST)
}

/// Every file in a download store is what its name says.
pub(crate) fn assert_genuine(store: &Path) {
    for directory in names(store) {
        for name in names(&store.join(&directory)) {
            let file = store.join(&directory).join(&name);
            let digest = tool("sha256sum", &[&text(&file)]);
            assert!(
                digest.stdout.starts_with(&name),
                "{} is {}",
                file.display(),
                digest.stdout
            );
        }
    }
}

#[test]
fn passing_faults_are_recovered_from() {
    let setting = Setting::new();
    for rule in [
        Rule::times(2, IN_RELEASE, Fault::Status(500)),
        Rule::times(1, PACKAGES, Fault::Truncate { after: 100_000 }),
        Rule::times(2, PACKAGE, Fault::Status(500)),
        Rule::times(1, "*/dpkg_*.deb", Fault::Truncate { after: 5_000 }),
        Rule::times(1, "*/bash_*.deb", Fault::Close),
        // Longer than Kiln waits for a transfer that brings nothing.
        Rule::times(
            1,
            "*/libc6_*.deb",
            Fault::Stall {
                after: 5_000,
                time: Duration::from_secs(3_600),
            },
        ),
    ] {
        setting.mirror.inject(rule);
    }
    // Root's mask may be strict: the sandbox, which runs under other ids, reads the packages all the same.
    let ran = lock(&setting.turn, "077");
    ran.assert(0);
    assert!(ran.time < Duration::from_secs(1_200), "{}", ran.whole());
    assert_genuine(&setting.turn.path("cache/downloads/sha256"));
    let left = setting
        .turn
        .before
        .since(&setting.turn.path("output"), &setting.turn.path("cache"));
    assert!(left.is_empty(), "left behind: {left:#?}\n{}", ran.whole());
}

#[test]
fn metadata_that_cannot_be_had() {
    let setting = Setting::new();
    let nowhere = ["*/InRelease", "*/Release*"].map(|file| Rule::always(file, Fault::NotFound));
    setting.fails(&nowhere, 1, &["is not a repository", "404", "hint:"]);
    setting.fails(
        &[Rule::always(IN_RELEASE, Fault::Status(500))],
        3,
        &["500", "InRelease"],
    );
    setting.fails(
        &[Rule::always(PACKAGES, Fault::NotFound)],
        4,
        &["404", "binary-amd64"],
    );
    let cut = Fault::Truncate { after: 1_000 };
    setting.fails(&[Rule::always(PACKAGES, cut)], 3, &["binary-amd64"]);
}

#[test]
fn metadata_that_is_not_genuine() {
    let setting = Setting::new();
    setting.fails(
        &[Rule::always(IN_RELEASE, Fault::Flip { offset: 400 })],
        1,
        &["InRelease", "no good signature", "the file was changed"],
    );
    setting.fails(
        &[Rule::always(PACKAGES, Fault::Flip { offset: 5_000 })],
        4,
        &["binary-amd64", "SHA-256"],
    );
    let portal = Fault::Replace(b"<html>Please log in</html>".to_vec());
    setting.fails(&[Rule::always(IN_RELEASE, portal)], 1, &["InRelease"]);
}

#[test]
fn packages_that_cannot_be_had_or_are_not_genuine() {
    let setting = Setting::new();
    setting.fails(
        &[Rule::always(PACKAGE, Fault::NotFound)],
        4,
        &["404", "apt_"],
    );
    setting.fails(
        &[Rule::always(PACKAGE, Fault::Flip { offset: 20_000 })],
        4,
        &["apt_", "SHA-256"],
    );
    setting.fails(
        &[Rule::always(PACKAGE, Fault::Short { length: 20_000 })],
        4,
        &["apt_"],
    );
}

#[test]
fn an_expired_release_and_a_wrong_key() {
    let turn = Turn::cold();
    let (key, other) = (Key::generate("right"), Key::generate("wrong"));
    fs::write(turn.path("right.asc"), key.public_armored()).expect("a key");
    fs::write(turn.path("wrong.asc"), other.public_armored()).expect("a key");
    let week = Duration::from_secs(7 * 86_400);
    let mut repository = Repository::new("bookworm", [Package::new("hello", "1")]);
    repository.date = SystemTime::now() - 3 * week;
    repository.valid = Some(week);
    repository.write(&turn.path("expired"), &key);
    let mirror = Mirror::of(turn.path("expired"));
    define(&turn, &mirror.url(), Some("right.asc"));
    lock(&turn, "022")
        .assert(3)
        .says(&["has expired", "Valid-Until", "hint:"]);
    define(&turn, &mirror.url(), Some("wrong.asc"));
    lock(&turn, "022").assert(1).says(&["InRelease", "hint:"]);
    assert!(!turn.path("kiln.lock").exists());
}
