//! Metadata: forms, caching, offline use, several suites.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, SystemTime};

use kiln_packages::debian::{Keys, Universe, closure};
use kiln_packages::{
    CancelToken, ErrorKind, FetchOptions, Fetcher, LockedPackage, Verdict, debian,
};
use kiln_testkit::package::Compression;
use kiln_testkit::{Key, Package, Repository, Signing};

use crate::support::{SUITE, World, big, fetcher, options};

#[test]
fn every_form_of_packages_is_read() {
    use Compression::{Gzip, None, Xz, Zstd};
    for forms in [vec![Xz], vec![Gzip], vec![Zstd], vec![None], vec![Gzip, Xz]] {
        for (list_plain, by_hash) in [(true, true), (false, false)] {
            let repository = Repository {
                forms: forms.clone(),
                list_plain,
                by_hash,
                ..Repository::new(SUITE, [big("big")])
            };
            let world = World::of(repository);
            let universe = world.universe();
            assert_eq!(
                universe.best("big").map(|p| p.version()),
                Some("1.0"),
                "{forms:?} {list_plain}"
            );
        }
    }
}

#[test]
fn detached_signatures_count() {
    let world = World::of(Repository {
        signing: Signing::Detached,
        ..Repository::new(SUITE, [big("big")])
    });
    let metadata = world.refresh().expect("a signed release");
    assert!(metadata.repositories[0].signature_file.is_some());
    assert_eq!(metadata.repositories[0].apt_lists().len(), 3);
    let path = world.path("mirror/dists/stable/Release");
    let changed = std::fs::read_to_string(&path)
        .expect("it")
        .replace("Suite: stable", "Suite: stablf");
    std::fs::write(&path, changed).expect("writing");
    assert_eq!(
        world.refresh().expect_err("changed").kind(),
        ErrorKind::BadSignature
    );
}

#[test]
fn signing_subkeys_and_binary_certificates_count() {
    let directory = tempfile::tempdir().expect("a directory");
    let key = Key::generate_with_subkey("Sub <sub@example.org>");
    Repository::new(SUITE, [big("big")]).write(directory.path(), &key);
    let world = World::new();
    let mut repository = world.repository();
    repository.uri = format!("file://{}", directory.path().display());
    repository.keys = Keys::Given {
        name: "sub.gpg".into(),
        bytes: key.public_binary(),
    };
    let metadata = world.refresh_with(&repository).expect("signed by a subkey");
    assert_ne!(
        metadata.repositories[0].signer.fingerprint,
        key.fingerprint()
    );
}

#[test]
fn several_armoured_keys_in_one_file_are_read() {
    let world = World::new();
    let mut repository = world.repository();
    let other = Key::generate("Other <other@example.org>").public_armored();
    let bytes = [other, b"\n\n".to_vec(), world.key.public_armored()].concat();
    repository.keys = Keys::Given {
        name: "two.asc".into(),
        bytes,
    };
    assert!(world.refresh_with(&repository).is_ok());
    for (bytes, name) in [
        (b"hello".to_vec(), "text"),
        (Vec::new(), "empty"),
        (world.key.public_armored()[..200].to_vec(), "half"),
    ] {
        repository.keys = Keys::Given {
            name: name.into(),
            bytes,
        };
        assert_eq!(
            world.refresh_with(&repository).expect_err(name).kind(),
            ErrorKind::Input,
            "{name}"
        );
    }
}

#[test]
fn second_refresh_fetches_nothing_that_is_there() {
    let world = World::new();
    world.refresh().expect("the first");
    world.mirror.take_requests();
    world.refresh().expect("the second");
    let seen: Vec<(String, u16)> = world
        .mirror
        .take_requests()
        .into_iter()
        .map(|r| (r.target, r.status))
        .collect();
    assert_eq!(seen, [("/dists/stable/InRelease".to_owned(), 304)]);
}

#[test]
fn damaged_cache_is_fetched_again() {
    let world = World::new();
    let metadata = world.refresh().expect("the first");
    for path in [
        metadata.repositories[0].indices[0].path(),
        &metadata.repositories[0].release_file,
    ] {
        std::fs::write(path, "Package: evil\n").expect("damaging");
    }
    assert_eq!(
        world.universe().best("big").map(|p| p.version()),
        Some("1.0")
    );
}

#[test]
fn damage_after_the_refresh_is_noticed() {
    let world = World::new();
    let metadata = world.refresh().expect("good");
    std::fs::write(
        metadata.repositories[0].indices[0].path(),
        "Package: evil\n",
    )
    .expect("damaging");
    assert_eq!(
        Universe::read(&metadata).expect_err("damaged").kind(),
        ErrorKind::HashMismatch
    );
}

#[test]
fn offline_uses_what_was_seen() {
    let world = World::new();
    let offline = FetchOptions {
        offline: true,
        ..options()
    };
    let offline = Fetcher::new(offline, CancelToken::new()).expect("a fetcher");
    let all = [world.repository()];
    let refresh = || debian::refresh(&offline, &all, &world.path("metadata"), SystemTime::now());
    let error = refresh().expect_err("nothing was seen");
    assert_eq!(error.kind(), ErrorKind::Offline);
    world.refresh().expect("online");
    world.mirror.take_requests();
    assert_eq!(refresh().expect("cached").repositories[0].indices.len(), 1);
    assert!(world.mirror.take_requests().is_empty());
    let later = SystemTime::now() + Duration::from_secs(365 * 86400);
    assert!(debian::load_cached(&all, &world.path("metadata"), later).is_ok());
}

#[test]
fn mirror_that_is_behind_does_not_take_back_updates() {
    let world = World::of(Repository::new(SUITE, [Package::new("big", "2.0")]));
    world.refresh().expect("the new state");
    let date = SystemTime::now() - Duration::from_secs(86400);
    world.rewrite(&Repository {
        date,
        ..Repository::new(SUITE, [Package::new("big", "1.0")])
    });
    let metadata = world.refresh().expect("the old state");
    assert!(
        metadata.warnings[0].contains("behind"),
        "{:?}",
        metadata.warnings
    );
    let universe = Universe::read(&metadata).expect("an index");
    assert_eq!(universe.best("big").map(|p| p.version()), Some("2.0"));
}

#[test]
fn highest_version_wins_over_suites() {
    let world = World::new();
    let updates = Repository::new(
        "stable-updates",
        [Package::new("big", "1.0+u1"), Package::new("small", "0.9")],
    );
    world.rewrite(&updates);
    let mut second = world.repository();
    second.suite = "stable-updates".into();
    for all in [
        [world.repository(), second.clone()],
        [second, world.repository()],
    ] {
        let metadata =
            debian::refresh(&fetcher(), &all, &world.path("metadata"), SystemTime::now());
        let universe = Universe::read(&metadata.expect("both")).expect("indices");
        let best = |name| {
            universe
                .best(name)
                .map(|p| (p.version().to_owned(), p.repository().suite.clone()))
        };
        assert_eq!(
            best("big"),
            Some(("1.0+u1".into(), "stable-updates".into()))
        );
        assert_eq!(best("small"), Some(("1.0".into(), "stable".into())));
    }
}

/// The state of the files that an apt beside this process may be reading.
fn states(metadata: &debian::Metadata) -> Vec<Option<(u64, SystemTime, Vec<u8>)>> {
    let state = |path: &std::path::Path| {
        let found = std::fs::metadata(path).ok()?;
        let content = std::fs::read(path).ok()?;
        Some((found.ino(), found.modified().ok()?, content))
    };
    let lists = metadata.repositories.iter().flat_map(|r| r.apt_lists());
    lists.map(|(_, path)| state(path)).collect()
}

#[test]
fn nothing_changes_under_a_reader_and_garbage_goes_after_it() {
    let world = World::new();
    let first = world.refresh().expect("the first");
    let before = states(&first);
    // The same again, then another state, seen by a clock of another day.
    world.refresh().expect("the same");
    assert_eq!(states(&first), before);
    let date = SystemTime::now() + Duration::from_secs(60);
    world.rewrite(&Repository {
        date,
        ..Repository::new(SUITE, [Package::new("big", "2.0")])
    });
    let tomorrow = SystemTime::now() + Duration::from_secs(2 * 86400);
    let all = [world.repository()];
    let second = debian::refresh(&fetcher(), &all, &world.path("metadata"), tomorrow);
    let second = second.expect("another state");
    assert_eq!(states(&first), before);
    assert_ne!(states(&second), before);
    drop(first.clone());
    world.refresh().expect("once more");
    assert_eq!(states(&first), before, "a copy is still held");
    let forgotten = first.repositories[0].release_file.clone();
    drop((first, second));
    let third = world.refresh().expect("alone");
    assert!(!forgotten.exists());
    assert!(states(&third).iter().all(Option::is_some));
}

#[test]
fn a_locked_package_counts_at_each_place_that_has_it() {
    let world = World::new();
    let mut second = world.repository();
    second.suite = "other".into();
    // The same file is at another place, as in a security archive and the release that takes its packages up.
    let index = world.path("mirror/elsewhere");
    Repository::new("other", [Package::new("small", "1.0")]).write(&index, &world.key);
    second.uri += "/elsewhere";
    let all = [world.repository(), second.clone()];
    let metadata = debian::refresh(&fetcher(), &all, &world.path("metadata"), SystemTime::now());
    let universe = Universe::read(&metadata.expect("both")).expect("indices");
    let small = universe.best("small").expect("the package");
    let mut locked = LockedPackage {
        name: "small".into(),
        version: "1.0".into(),
        architecture: "all".into(),
        url: small.url(),
        sha256: small.sha256(),
        size: small.size(),
        layer: "base".into(),
        auto: false,
        facts: BTreeMap::new(),
    };
    assert_eq!(debian::verdict(&universe, &locked), Verdict::Signed);
    locked.url = second.package_url(small.filename());
    assert_ne!(locked.url, small.url());
    assert_eq!(debian::verdict(&universe, &locked), Verdict::Signed);
    assert_eq!(debian::outside(&all, &locked), None);
    locked.url = locked.url.replace("elsewhere", "nowhere");
    assert!(matches!(
        debian::verdict(&universe, &locked),
        Verdict::Differs(_)
    ));
}

#[test]
fn missing_components_and_architectures_are_named() {
    let world = World::new();
    let mut repository = world.repository();
    repository.components = vec!["contrib".into()];
    let error = world.refresh_with(&repository).expect_err("no contrib");
    assert_eq!(error.kind(), ErrorKind::Input);
    assert!(
        error
            .to_string()
            .contains("no component contrib; it has main"),
        "{error}"
    );
    let mut repository = world.repository();
    repository.architecture = "riscv64".into();
    let error = world.refresh_with(&repository).expect_err("no riscv64");
    assert!(
        error.to_string().contains("riscv64") && error.to_string().contains("amd64"),
        "{error}"
    );
}

#[test]
fn suite_under_another_name_is_refused_for_debian_and_told_for_others() {
    let world = World::new();
    let dists = world.path("mirror/dists");
    std::os::unix::fs::symlink("stable", dists.join("testing")).expect("a link");
    let mut repository = world.repository();
    repository.suite = "testing".into();
    let metadata = world.refresh_with(&repository).expect("only a warning");
    assert!(
        metadata.warnings[0].contains("another suite"),
        "{:?}",
        metadata.warnings
    );
}

#[test]
fn closure_takes_what_is_needed() {
    let packages = [
        Package::new("tool", "1")
            .field("Depends", "lib (>= 1.5), awk | other, virtual")
            .field("Pre-Depends", "base"),
        Package::new("lib", "2").field("Depends", "tool"),
        Package::new("lib", "1"),
        Package::new("awk", "1"),
        Package::new("other", "1"),
        Package::new("base", "1"),
        Package::new("provider-b", "1")
            .field("Provides", "virtual")
            .field("Priority", "optional"),
        Package::new("provider-a", "1")
            .field("Provides", "virtual (= 3)")
            .field("Priority", "extra"),
        Package::new("unrelated", "1"),
        Package::new("broken", "1").field("Depends", "lib (>= 9)"),
    ];
    let universe = World::of(Repository::new(SUITE, packages)).universe();
    let names = |roots: &[&str]| {
        closure(&universe, roots).map(|all| {
            all.into_iter()
                .map(|p| p.describe())
                .collect::<Vec<_>>()
                .join(",")
        })
    };
    let expected = "awk 1 all,base 1 all,lib 2 all,provider-b 1 all,tool 1 all";
    assert_eq!(names(&["tool"]).expect("a closure"), expected);
    let error = names(&["broken"]).expect_err("lib 9");
    assert_eq!(error.kind(), ErrorKind::Unsatisfiable);
    assert!(
        error.to_string().contains("broken needs lib (>= 9)"),
        "{error}"
    );
    assert!(error.hints()[0].contains("lib 2"), "{:?}", error.hints());
    let error = names(&["tol"]).expect_err("misspelt");
    assert_eq!(error.kind(), ErrorKind::UnknownPackage);
    assert!(error.hints()[0].contains("tool"), "{:?}", error.hints());
    let matching: Vec<&str> = universe.matching("provider-*").map(|p| p.name()).collect();
    assert_eq!(matching, ["provider-a", "provider-b"]);
}

/// What the OpenPGP parser says of a damaged file is its own structure, over many lines.
#[test]
fn a_damaged_signature_is_one_line() {
    let world = World::new();
    let path = world.path("mirror/dists/stable/InRelease");
    let good = std::fs::read_to_string(&path).expect("InRelease");
    let at = good.find("-----BEGIN PGP SIGNATURE").expect("a signature");
    for bad in [
        format!(
            "{}-----BEGIN PGP SIGNATURE-----\n\nAAAA\nBBBB\n-----END PGP SIGNATURE-----\n",
            &good[..at]
        ),
        good[..at + 60].to_owned(),
        good[..at].to_owned(),
        "-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA512\nx\n".to_owned(),
    ] {
        std::fs::write(&path, bad).expect("writing");
        let error = world.refresh().expect_err("damaged");
        let mut text = error.to_string();
        let mut source = std::error::Error::source(&error);
        while let Some(cause) = source {
            text += &format!(": {cause}");
            source = cause.source();
        }
        assert!(
            !text.contains(['\n', '{', '\u{1b}']) && text.len() < 250,
            "{text}"
        );
        assert!(text.contains("/dists/stable/InRelease"), "{text}");
    }
}
