//! The distributions' own repositories and keys. Nothing here asks a mirror.

use std::collections::BTreeSet;

use kiln_packages::openpgp::Keyring;
use kiln_packages::rpm::presets::{archive, preset, releases};
use kiln_packages::rpm::{Filter, Proof, Repository, Source};

use crate::support::good;

const KEYS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/keys/rpm");

/// The fingerprints that the table beside the keys has, by file.
fn documented() -> Vec<(String, Vec<String>)> {
    let table = std::fs::read_to_string(format!("{KEYS}/README.md")).expect("the table");
    let rows = table.lines().filter_map(|line| line.strip_prefix("| `"));
    rows.map(|row| {
        let (file, rest) = row.split_once("` | ").expect("a row");
        let prints = rest.trim_end_matches(" |").split(", ");
        (file.to_owned(), prints.map(str::to_owned).collect())
    })
    .collect()
}

#[test]
fn keys_are_those_that_are_documented() {
    let documented = documented();
    let files = std::fs::read_dir(KEYS).expect("keys").count();
    assert_eq!(documented.len(), files - 1);
    for (file, prints) in documented {
        let path = format!("{KEYS}/{file}");
        let bytes = std::fs::read(&path).expect("a key");
        let ring = Keyring::read(&file, &bytes).expect("a certificate");
        assert_eq!(ring.fingerprints(), prints, "{file}");
        let theirs = good("gpg", &["--show-keys", "--with-colons", &path]);
        for print in prints {
            assert!(theirs.contains(&print), "{file}: {theirs}");
        }
    }
}

#[test]
fn every_release_has_repositories_and_keys() {
    let mut seen = BTreeSet::new();
    for distribution in ["centos", "almalinux", "rocky", "fedora"] {
        for release in releases(distribution) {
            let preset = preset(distribution, release).expect("a preset");
            assert_eq!(preset.ended, None);
            seen.insert((distribution, release, preset.level));
            for known in preset.repositories {
                let repository = Repository {
                    name: known.name.into(),
                    source: known.source,
                    variables: vec![
                        ("releasever".into(), release.into()),
                        ("basearch".into(), "x86_64".into()),
                    ],
                    keys: preset.keys.clone(),
                    proof: Proof::Packages,
                    cost: Repository::COST,
                    filter: Filter::default(),
                    proxy: None,
                    origin: String::new(),
                };
                repository.keyring().expect("keys");
                let place = repository.describe();
                assert!(place.contains("(https://"), "{place}");
            }
        }
    }
    // Enterprise Linux 10 needs AVX2 and more.
    let levels = [
        ("centos", "10", 3),
        ("almalinux", "9", 2),
        ("rocky", "8", 1),
        ("fedora", "rawhide", 1),
    ];
    assert!(levels.iter().all(|level| seen.contains(level)), "{seen:?}");
}

#[test]
fn what_has_ended_names_its_archive() {
    for (distribution, release, path) in [
        ("centos", "8", "/8.5.2111/BaseOS/$basearch/os/"),
        ("centos", "8.4.2105", "/8.4.2105/BaseOS/$basearch/os/"),
        ("almalinux", "9.4", "/9.4/BaseOS/$basearch/os/"),
        ("rocky", "8.9", "/vault/rocky/8.9/BaseOS/$basearch/os/"),
    ] {
        let preset = preset(distribution, release).expect("an archive");
        let Source::Base(urls) = &preset.repositories[0].source else {
            panic!("{distribution} {release} has mirrors");
        };
        assert!(
            urls[0].starts_with("https://") && urls[0].ends_with(path),
            "{urls:?}"
        );
        let said = preset.ended.expect("a sentence");
        assert!(
            said.starts_with(&format!(
                "{distribution}:{release} gets no updates any more"
            )),
            "{said}"
        );
    }
    for (distribution, release) in [
        ("centos", "7"),
        ("centos", "11"),
        ("fedora", "41"),
        ("rhel", "9"),
        ("rocky", "11.1"),
    ] {
        assert_eq!(
            preset(distribution, release),
            None,
            "{distribution}:{release}"
        );
    }
    let archived = archive("fedora", "41").expect("an archive");
    assert!(archived.contains("/releases/41/"), "{archived}");
    assert_eq!(
        (archive("fedora", "44"), archive("centos", "7")),
        (None, None)
    );
}

/// CentOS's key as CentOS gives it away: a SHA-1 signature of itself says when it was made and what it is for. The certificate is
/// trusted because the definition names it; on data, SHA-1 never counts.
#[test]
fn a_certificate_may_sign_itself_with_sha1_but_nothing_else() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let home = directory.path().display().to_string();
    let gpg = |words: &[&str]| {
        let common = [
            "--homedir",
            &home,
            "--batch",
            "--quiet",
            "--yes",
            "--passphrase",
            "",
        ];
        good("gpg", &[&common, words].concat())
    };
    gpg(&[
        "--cert-digest-algo",
        "SHA1",
        "--quick-gen-key",
        "old@example.org",
        "rsa2048",
        "sign",
        "never",
    ]);
    let key = directory.path().join("key");
    gpg(&[
        "--armor",
        "--output",
        &key.display().to_string(),
        "--export",
    ]);
    let packets = gpg(&["--list-packets", &key.display().to_string()]);
    assert!(packets.contains("digest algo 2,"), "{packets}");
    let ring = Keyring::read("old", &std::fs::read(key).expect("the key")).expect("a certificate");
    let text = directory.path().join("text");
    std::fs::write(&text, "hello").expect("a text");
    let signed = |digest: &str| {
        let path = directory.path().join(digest);
        let output = path.display().to_string();
        let text = text.display().to_string();
        gpg(&[
            "--digest-algo",
            digest,
            "--output",
            &output,
            "--detach-sign",
            &text,
        ]);
        let signature = std::fs::read(path).expect("a signature");
        ring.verify_detached("text", b"hello", &signature, std::time::SystemTime::now())
    };
    signed("SHA256").expect("a good signature");
    let error = signed("SHA1").expect_err("SHA-1 on data");
    assert!(
        error
            .to_string()
            .contains("the hash algorithm SHA1 is too weak"),
        "{error}"
    );
    let agent = ["--homedir", &home, "--kill", "all"];
    good("gpgconf", &agent);
}
