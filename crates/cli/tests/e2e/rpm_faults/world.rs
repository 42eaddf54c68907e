//! Small signed repositories, each with its own fault, and what `kiln lock` makes of them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use kiln_testkit::rpm::{Gpg, Rpm, build, createrepo};
use kiln_testkit::{Mirror, Rule};

use crate::faults::assert_genuine;
use crate::harness::{LONGEST, Ran, Turn, run, text, tool};
use crate::residue::names;

/// Where the kickstart names its repository.
pub(super) const REPOSITORY: &str = "lab.ks:2";
pub(super) const REPOMD: &str = "repodata/repomd.xml";
/// The package that has the faults.
pub(super) const VICTIM: &str = "victim-1.0-1.noarch.rpm";
/// A file of it, and its directory.
pub(super) const DIRECTORY: &str = "/usr/share/victim/";

const COMPS: &str = r#"<?xml version="1.0"?><comps>
<group><id>editors</id><name>Editors</name><packagelist><packagereq type="mandatory">thonny</packagereq></packagelist></group>
<environment><id>lab-environment</id><name>Lab</name><grouplist><groupid>editors</groupid></grouplist></environment>
<environment><id>broken-environment</id><name>Broken</name><grouplist><groupid>editors</groupid><groupid>lost</groupid></grouplist></environment>
</comps>"#;

/// Nothing is added to what the kickstart asks for.
pub(super) const ALONE: &str = "[system]\nwithout = [\"kernel\", \"systemd\", \"systemd-udev\", \"dracut\", \"dracut-live\"]\n";

/// A kickstart of one repository, and a mirror that serves what is in `mirror`.
pub(super) struct World {
    pub(super) turn: Turn,
    pub(super) mirror: Mirror,
    pub(super) key: Gpg,
}

/// What stands in for the build tools, which nothing here gets to run but for their `ldconfig`; and a package that they need.
fn packages() -> Vec<Rpm> {
    let busybox = fs::read("/bin/busybox")
        .expect("this test needs /bin/busybox (Debian package busybox-static)");
    let tools = Rpm::new("filesystem", "9")
        .tag("Requires: victim /usr/share/thonny/words\nProvides: bash coreutils rpm python3-dnf")
        .file("%attr(0755,root,root)", "/usr/bin/busybox", busybox)
        .file(
            "%attr(0755,root,root)",
            "/sbin/ldconfig",
            "#!/usr/bin/busybox sh\nexit 0\n",
        );
    let victim = Rpm::new("victim", "1.0").payload("w.ufdio").file(
        "",
        &format!("{DIRECTORY}data"),
        "what it brings\n",
    );
    // Only the list of all files has its path, which the build tools need.
    let thonny = Rpm::new("thonny", "4.1").file("", "/usr/share/thonny/words", "words\n");
    vec![tools, victim, thonny]
}

impl World {
    pub(super) fn new() -> Self {
        let turn = Turn::cold();
        let key = Gpg::generate(&turn.path("gpg"), "lab@example.org");
        let plain = turn.path("plain");
        build(&packages(), &plain);
        turn.write("comps.xml", COMPS);
        turn.write("key.asc", &String::from_utf8_lossy(&key.public()));
        let mirror = Mirror::of(turn.path("mirror"));
        let world = World { turn, mirror, key };
        world.afresh();
        world
    }

    /// A good repository again.
    pub(super) fn afresh(&self) {
        self.mirror.heal();
        let mirror = self.turn.path("mirror");
        let _ = fs::remove_dir_all(&mirror);
        tool(
            "cp",
            &["-a", &text(&self.turn.path("plain")), &text(&mirror)],
        )
        .assert(0);
        self.key.sign_packages(&packages_in(&mirror));
        self.describe();
        self.kickstart("--url=URL", "thonny");
        self.define("");
    }

    /// Writes signed metadata of the packages as they are.
    pub(super) fn describe(&self) {
        let groups = text(&self.turn.path("comps.xml"));
        createrepo(&self.turn.path("mirror"), &["--groupfile", &groups]);
        self.sign();
    }

    pub(super) fn sign(&self) {
        self.key.sign_file(&self.path(REPOMD));
        self.key.rest();
    }

    /// A file of the repository.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.turn.path("mirror").join(name)
    }

    pub(super) fn victim(&self) -> PathBuf {
        self.path("Packages").join(VICTIM)
    }

    /// Has the metadata, which is not signed then, call the file of one package by the name and version of the one that has the faults.
    pub(super) fn relabel(&self, name: &str, version: &str) {
        let repodata = self.path("repodata");
        let packed = names(&repodata)
            .into_iter()
            .find(|name| name.ends_with("-primary.xml.gz"));
        let packed = text(&repodata.join(packed.expect("primary")));
        let plain = tool("gzip", &["-dc", &packed]).assert(0).stdout.clone();
        let entries = plain
            .split("<package ")
            .map(|entry| match entry.contains(VICTIM) {
                true => entry
                    .replace(&format!("<name>{name}<"), "<name>victim<")
                    .replace(&format!("name=\"{name}\""), "name=\"victim\"")
                    .replace(&format!("ver=\"{version}\""), "ver=\"1.0\""),
                false => entry.to_owned(),
            });
        let primary = repodata.join("primary.xml");
        fs::write(&primary, entries.collect::<Vec<_>>().join("<package ")).expect("primary");
        let (digest, size) = (
            crate::harness::digest(&primary),
            primary.metadata().expect("it").len(),
        );
        let repomd = fs::read_to_string(self.path(REPOMD)).expect("repomd.xml");
        let (before, rest) = repomd
            .split_once("<data type=\"primary\">")
            .expect("primary");
        let (_, after) = rest.split_once("</data>").expect("its end");
        let repomd = format!(
            "{before}<data type='primary'><checksum type='sha256'>{digest}</checksum><location href='repodata/primary.xml'/>\
             <timestamp>9</timestamp><size>{size}</size></data>{after}"
        );
        fs::write(self.path(REPOMD), repomd).expect("repomd.xml");
    }

    /// Where the repository is, and what is asked for.
    pub(super) fn kickstart(&self, url: &str, lines: &str) {
        let url = url.replace("URL", &self.mirror.url());
        let text =
            format!("lang C.UTF-8\nurl {url}\nrootpw --lock\n%packages --nocore\n{lines}\n%end\n");
        self.turn.write("lab.ks", &text);
    }

    /// `kiln.toml`, with further lines about the repository.
    pub(super) fn define(&self, more: &str) {
        let text = format!(
            "name = \"lab\"\ndistribution = \"centos:9\"\nlayers = [\"lab.ks\"]\n{ALONE}[[repository]]\nname = \"url\"\nkey = \"key.asc\"\n{more}\n"
        );
        self.turn.write("kiln.toml", &text);
    }

    /// Resolves with a cache that has nothing.
    pub(super) fn lock(&self) -> Ran {
        lock(&self.turn)
    }

    /// The failure that a fault leads to: exit code, words, and nothing left of it.
    pub(super) fn fails(&self, what: &str, code: i32, words: &[&str]) {
        let ran = self.lock();
        println!("{what}: {}", ran.stderr.trim_end());
        assert_eq!(ran.code, Some(code), "{what}\n{}", ran.whole());
        ran.says(words);
        assert_nothing_left(&self.turn, what, &ran);
    }

    /// The same of a fault in what the mirror sends; it is healed afterwards.
    pub(super) fn fails_with(&self, rule: Rule, code: i32, words: &[&str]) {
        let what = format!("{rule:?}");
        self.mirror.inject(rule);
        self.fails(&what, code, words);
        self.mirror.heal();
    }
}

/// Resolves with a cache that knows nothing of repositories and packages.
pub(super) fn lock(turn: &Turn) -> Ran {
    lock_with(turn, &[])
}

/// The same with further options.
pub(super) fn lock_with(turn: &Turn, more: &[&str]) -> Ran {
    for part in ["metadata", "downloads", "signed", "answers"] {
        let _ = fs::remove_dir_all(turn.path("cache").join(part));
    }
    let cache = text(&turn.path("cache"));
    let arguments = [
        "lock",
        "kiln.toml",
        "--cache-dir",
        &cache,
        "--distribution",
        "centos:9",
    ];
    let mut kiln = turn.command(&[&arguments, more].concat());
    // Neither rpm nor dnf of this machine, nor anything else of it.
    run(kiln.env("PATH", "/nonexistent"), LONGEST)
}

/// No lock, no file in the places of verified ones that is not what its name says, no process, no mount, nothing staged.
pub(super) fn assert_nothing_left(turn: &Turn, what: &str, ran: &Ran) {
    assert!(!turn.path("kiln.lock").exists(), "{what}: a lock is there");
    assert_genuine(&turn.path("cache/downloads/sha256"));
    let metadata = turn.path("cache/metadata");
    for repository in names(&metadata) {
        let files = metadata.join(repository).join("files");
        for name in names(&files).iter().filter(|name| !name.ends_with(".part")) {
            let digest = crate::harness::digest(&files.join(name));
            assert_eq!(&digest, name, "{what}");
        }
    }
    let left = turn.before.since(&turn.path("output"), &turn.path("cache"));
    assert!(
        left.is_empty(),
        "{what}: left behind: {left:#?}\n{}",
        ran.whole()
    );
}

pub(super) fn packages_in(directory: &Path) -> Vec<PathBuf> {
    let directory = directory.join("Packages");
    names(&directory)
        .iter()
        .map(|name| directory.join(name))
        .collect()
}

/// Puts the signatures of one package file before the header and the payload of another.
pub(super) fn lend_signature(from: &Path, to: &Path) {
    let read = |path: &Path| fs::read(path).expect("a package");
    let (from, into) = (read(from), read(to));
    let signatures = &from[..offsets(&from).0];
    let rest = &into[offsets(&into).0..];
    fs::write(to, [signatures, rest].concat()).expect("a package");
}

/// What the real rpm says of a package's signatures to who knows one key.
pub(super) fn rpmkeys(turn: &Turn, key: &Path, package: &Path) -> Ran {
    let database = text(&turn.path("rpmkeys"));
    let _ = fs::remove_dir_all(&database);
    tool("rpmkeys", &["--dbpath", &database, "--import", &text(key)]).assert(0);
    tool("rpmkeys", &["--dbpath", &database, "-Kv", &text(package)])
}

/// Takes away the payload of a package file.
pub(super) fn cut_payload(package: &Path) {
    let bytes = fs::read(package).expect("a package");
    let (_, payload) = offsets(&bytes);
    fs::write(package, &bytes[..payload]).expect("a package");
}

/// Replaces a text of the same length wherever it stands in a package file, and has each digest that the file has of itself say so.
pub(super) fn rewrite(package: &Path, from: &str, to: &str) {
    assert_eq!(from.len(), to.len());
    let mut bytes = fs::read(package).expect("a package");
    let (header, payload) = offsets(&bytes);
    let places = found(&bytes, from.as_bytes());
    assert!(!places.is_empty(), "{from} is not there");
    // The header has the payload's digest, the signatures have the header's and those of both.
    let digests = |bytes: &[u8]| {
        let (of_header, of_both) = (&bytes[header..payload], &bytes[header..]);
        [
            sum("sha256sum", of_header).into_bytes(),
            sum("sha1sum", of_header).into_bytes(),
            unhex(&sum("md5sum", of_both)),
        ]
    };
    let (of_payload, others) = (sum("sha256sum", &bytes[payload..]), digests(&bytes));
    for at in places {
        bytes[at..at + from.len()].copy_from_slice(to.as_bytes());
    }
    let now = sum("sha256sum", &bytes[payload..]);
    exchange(&mut bytes, of_payload.as_bytes(), now.as_bytes());
    let now = digests(&bytes);
    for (before, now) in others.iter().zip(&now) {
        exchange(&mut bytes, before, now);
    }
    fs::write(package, bytes).expect("a package");
}

fn exchange(bytes: &mut [u8], before: &[u8], now: &[u8]) {
    for at in found(bytes, before) {
        bytes[at..at + now.len()].copy_from_slice(now);
    }
}

fn unhex(text: &str) -> Vec<u8> {
    let digits = |at| u8::from_str_radix(&text[at..at + 2], 16).expect("two digits");
    (0..text.len()).step_by(2).map(digits).collect()
}

fn found(bytes: &[u8], wanted: &[u8]) -> Vec<usize> {
    let windows = bytes.windows(wanted.len()).enumerate();
    windows
        .filter(|(_, window)| *window == wanted)
        .map(|(at, _)| at)
        .collect()
}

/// Where the header begins, behind the lead and the signatures, and where the payload does.
fn offsets(bytes: &[u8]) -> (usize, usize) {
    let word =
        |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().expect("four bytes")) as usize;
    let length = |at: usize| 16 + word(at + 8) * 16 + word(at + 12);
    let header = (96 + length(96)).next_multiple_of(8);
    (header, header + length(header))
}

/// What a program of coreutils' says of the bytes.
fn sum(program: &str, bytes: &[u8]) -> String {
    use std::io::Write;
    let mut child = Command::new(program)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    let mut input = child.stdin.take().expect("a pipe");
    input.write_all(bytes).expect("a pipe");
    drop(input);
    let output = child.wait_with_output().expect("its output");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.split_whitespace().next().expect("a sum").to_owned()
}
