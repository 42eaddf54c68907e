//! gpg, dpkg and apt judge signatures, the order of versions and the names of list files.

use std::cmp::Ordering;
use std::path::{Path, PathBuf};

use kiln_packages::ErrorKind;
use kiln_packages::debian::Keys;
use kiln_packages::debian::version::compare;
use kiln_testkit::{Repository, Signing};

use crate::support::{SUITE, World, big, good, run};

/// gpg with a home of its own.
struct Gpg {
    home: tempfile::TempDir,
}

impl Gpg {
    fn new() -> Self {
        let home = tempfile::Builder::new()
            .prefix("kg")
            .tempdir()
            .expect("a directory");
        Gpg { home }
    }

    fn run(&self, arguments: &[&str]) -> String {
        let home = self.home.path().display().to_string();
        let common = [
            "--homedir",
            &home,
            "--batch",
            "--yes",
            "--no-tty",
            "--passphrase",
            "",
            "--pinentry-mode",
            "loopback",
        ];
        good("gpg", &[&common[..], arguments].concat())
    }

    fn key(&self, extra: &[&str], algorithm: &str, expires: &str) {
        let arguments = [
            "--quick-gen-key",
            "Outsider <out@example.org>",
            algorithm,
            "sign",
            expires,
        ];
        self.run(&[extra, &arguments[..]].concat());
    }

    fn public(&self) -> Vec<u8> {
        self.run(&["--armor", "--export"]).into_bytes()
    }

    /// Replaces the repository's signature by one of gpg.
    fn sign(&self, world: &World, extra: &[&str]) {
        let dists = world.path("mirror/dists/stable");
        let (from, to) = (
            dists.join("Release").display().to_string(),
            dists.join("InRelease").display().to_string(),
        );
        self.run(&[extra, &["--clearsign", "-o", &to, &from][..]].concat());
    }
}

impl Drop for Gpg {
    fn drop(&mut self) {
        // The agent would keep the directory.
        run(
            "gpgconf",
            &[
                "--homedir",
                &self.home.path().display().to_string(),
                "--kill",
                "all",
            ],
        );
    }
}

fn unsigned_world() -> World {
    World::of(Repository {
        signing: Signing::None,
        ..Repository::new(SUITE, [big("big")])
    })
}

fn accepted(world: &World, key: Vec<u8>) -> Result<String, kiln_packages::Error> {
    let mut repository = world.repository();
    repository.keys = Keys::Given {
        name: "out.asc".into(),
        bytes: key,
    };
    world
        .refresh_with(&repository)
        .map(|m| m.repositories[0].signer.fingerprint.clone())
}

#[test]
fn signatures_of_gpg_are_accepted() {
    for algorithm in ["ed25519", "rsa3072", "nistp256"] {
        let (gpg, world) = (Gpg::new(), unsigned_world());
        gpg.key(&[], algorithm, "never");
        gpg.sign(&world, &[]);
        let fingerprint = accepted(&world, gpg.public()).expect(algorithm);
        assert!(
            gpg.run(&["--with-colons", "--fingerprint"])
                .contains(&fingerprint)
        );
    }
}

#[test]
fn gpg_keys_that_expired_or_were_revoked_do_not_count() {
    let (gpg, world) = (Gpg::new(), unsigned_world());
    gpg.key(
        &["--faked-system-time", "20200101T000000!"],
        "ed25519",
        "2021-01-01",
    );
    gpg.sign(&world, &["--faked-system-time", "20200601T000000!"]);
    let error = accepted(&world, gpg.public()).expect_err("expired");
    assert_eq!(error.kind(), ErrorKind::BadSignature);
    assert!(error.to_string().contains("the key has expired"), "{error}");

    let (gpg, world) = (Gpg::new(), unsigned_world());
    gpg.key(&[], "ed25519", "never");
    gpg.sign(&world, &[]);
    let revocations = gpg.home.path().join("openpgp-revocs.d");
    let file = std::fs::read_dir(&revocations)
        .expect("revocations")
        .next()
        .expect("one")
        .expect("it")
        .path();
    let text = std::fs::read_to_string(&file)
        .expect("it")
        .replace(":-----BEGIN", "-----BEGIN");
    std::fs::write(&file, text).expect("writing");
    gpg.run(&["--import", &file.display().to_string()]);
    let error = accepted(&world, gpg.public()).expect_err("revoked");
    assert!(error.to_string().contains("the key was revoked"), "{error}");
}

#[test]
fn short_rsa_keys_do_not_count() {
    let (gpg, world) = (Gpg::new(), unsigned_world());
    gpg.key(&[], "rsa1024", "never");
    gpg.sign(&world, &[]);
    let error = accepted(&world, gpg.public()).expect_err("1,024 bits");
    assert!(
        error.to_string().contains("shorter than 2,048 bits"),
        "{error}"
    );
}

#[test]
fn weak_hashes_do_not_count() {
    let (gpg, world) = (Gpg::new(), unsigned_world());
    gpg.key(&[], "rsa3072", "never");
    gpg.sign(&world, &["--digest-algo", "SHA1"]);
    let error = accepted(&world, gpg.public()).expect_err("SHA-1");
    assert_eq!(error.kind(), ErrorKind::BadSignature);
    assert!(error.to_string().contains("SHA1 is too weak"), "{error}");
}

#[test]
fn gpgv_accepts_the_signatures_of_the_test_kit() {
    for signing in [Signing::Inline, Signing::Detached] {
        let world = World::of(Repository {
            signing,
            ..Repository::new(SUITE, [big("big")])
        });
        let keyring = world.path("key.gpg");
        std::fs::write(&keyring, world.key.public_binary()).expect("writing");
        let file = |name: &str| {
            world
                .path("mirror/dists/stable")
                .join(name)
                .display()
                .to_string()
        };
        let files = match signing {
            Signing::Inline => vec![file("InRelease")],
            _ => vec![file("Release.gpg"), file("Release")],
        };
        let arguments: Vec<&str> = files.iter().map(String::as_str).collect();
        good(
            "gpgv",
            &[
                &["--keyring", &keyring.display().to_string()][..],
                &arguments,
            ]
            .concat(),
        );
    }
}

#[test]
fn versions_are_ordered_as_dpkg_orders_them() {
    let known = [
        "1.0",
        "1.0-1",
        "1.0-1+b1",
        "1.0-1~bpo12+1",
        "1:0.5",
        "1.0+dfsg-1",
        "1.0~rc1-1",
        "2.36-9+deb12u10",
        "2.36-9",
        "0.0~git20200101-1",
        "1.0a",
        "1.0.1",
        "1.00",
        "10",
        "9",
        "1.0-0",
        "5:1",
        "1.2.3+really1.0-1",
    ];
    let mut versions: Vec<String> = known.iter().map(|v| (*v).to_owned()).collect();
    let mut state = 7u64;
    for _ in 0..25 {
        let mut version = "0".to_owned();
        for _ in 0..6 {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            version.push(b"0019.~+a-Z"[(state >> 33) as usize % 10].into());
        }
        versions.push(version + "1");
    }
    for (at, a) in versions.iter().enumerate() {
        let b = &versions[(at * 7 + 3) % versions.len()];
        let sign = match compare(a, b) {
            Ordering::Less => "lt",
            Ordering::Equal => "eq",
            Ordering::Greater => "gt",
        };
        assert!(
            run("dpkg", &["--compare-versions", a, sign, b])
                .status
                .success(),
            "{a} {sign} {b}"
        );
        assert_eq!(compare(b, a), compare(a, b).reverse(), "{a} {b}");
    }
}

/// apt accepts the same repository, and keeps the same files under the same names.
#[test]
fn apt_lists_are_named_as_apt_names_them() {
    let world = World::new();
    let apt = world.path("apt~1");
    for part in ["lists/partial", "cache/archives/partial", "etc"] {
        std::fs::create_dir_all(apt.join(part)).expect("a directory");
    }
    let write = |name: &str, bytes: &[u8]| -> PathBuf {
        let path = apt.join(name);
        std::fs::write(&path, bytes).expect("writing");
        path
    };
    let key = write("key.asc", &world.key.public_armored());
    let uri = world.mirror.url();
    let line = format!(
        "deb [arch=amd64 signed-by={}] {uri} {SUITE} main\n",
        key.display()
    );
    let sources = write("sources.list", line.as_bytes());
    let config = write("apt.conf", apt_conf(&apt, &sources).as_bytes());
    let empty = write("status", b"");
    let output = std::process::Command::new("apt-get")
        .args([
            "-o",
            &format!("Dir::State::status={}", empty.display()),
            "update",
        ])
        .env("APT_CONFIG", &config)
        .output()
        .unwrap_or_else(|e| panic!("this test needs apt-get: {e}"));
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata = world.refresh().expect("good metadata");
    for (name, path) in metadata.repositories[0].apt_lists() {
        let theirs = std::fs::read(apt.join("lists").join(&name));
        let theirs = theirs.unwrap_or_else(|e| {
            panic!(
                "{name}: {e}; apt has {:?}",
                crate::support::files(&apt.join("lists"))
            )
        });
        assert_eq!(theirs, std::fs::read(path).expect("ours"), "{name}");
    }
}

fn apt_conf(apt: &Path, sources: &Path) -> String {
    let at = apt.display();
    format!(
        "#clear Acquire::GzipIndexes;\nAcquire::GzipIndexes \"false\";\nAcquire::Languages \"none\";\n\
         APT::Architecture \"amd64\";\nAPT::Sandbox::User \"root\";\n#clear APT::Update::Post-Invoke;\n\
         #clear APT::Update::Post-Invoke-Success;\nDir::State::Lists \"{at}/lists\";\nDir::Cache \"{at}/cache\";\n\
         Dir::Etc::SourceList \"{}\";\nDir::Etc::SourceParts \"{at}/none\";\nDir::Etc::Parts \"{at}/none\";\n\
         Dir::Etc::Trusted \"{at}/none\";\nDir::Etc::TrustedParts \"{at}/none\";\n",
        sources.display()
    )
}
