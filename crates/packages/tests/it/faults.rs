//! Every fault of a mirror gives the right error or the right recovery, and no unverified byte is used.

use std::time::{Duration, Instant, SystemTime};

use kiln_packages::{CancelToken, ErrorKind, FetchOptions, Fetcher, Item};
use kiln_testkit::{Fault, Repository, Rule, Signing};

use crate::support::{SUITE, World, big, fetcher, files, options};

const DEB: &str = "*/big_1.0_all.deb";
const PACKAGES: &str = "*/Packages*";
const BY_HASH: &str = "*/by-hash/*";

/// Fetching `big` must fail so, and leave nothing in the store.
fn fails(world: &World, item: &Item, kind: ErrorKind) -> String {
    let error = world
        .store()
        .obtain(&fetcher(), item)
        .expect_err("the fault must be noticed");
    assert_eq!(error.kind(), kind, "{error}");
    assert!(
        error.to_string().contains("big_1.0_all.deb"),
        "it names the file: {error}"
    );
    assert!(
        files(&world.path("downloads/sha256")).is_empty(),
        "nothing is committed"
    );
    error.to_string()
}

/// Fetching `big` must succeed with the right bytes.
fn succeeds(world: &World, item: &Item) {
    let path = world
        .store()
        .obtain(&fetcher(), item)
        .expect("the fault must be overcome");
    let expected =
        std::fs::read(world.path("mirror/pool/main/big_1.0_all.deb")).expect("the original");
    assert_eq!(std::fs::read(path).expect("the copy"), expected);
}

#[test]
fn missing_package_is_named_and_not_retried() {
    let world = World::new();
    let item = world.item();
    world.mirror.inject(Rule::always(DEB, Fault::NotFound));
    fails(&world, &item, ErrorKind::NotFound);
    assert_eq!(world.mirror.take_requests().len(), 1);
}

#[test]
fn two_server_errors_are_overcome() {
    let world = World::new();
    let item = world.item();
    world.mirror.inject(Rule::times(2, DEB, Fault::Status(500)));
    succeeds(&world, &item);
    let statuses: Vec<u16> = world
        .mirror
        .take_requests()
        .iter()
        .map(|r| r.status)
        .collect();
    assert_eq!(statuses, [500, 500, 200]);
}

#[test]
fn lasting_server_errors_and_closed_connections_end() {
    let world = World::new();
    let item = world.item();
    world.mirror.inject(Rule::always(DEB, Fault::Status(503)));
    assert!(fails(&world, &item, ErrorKind::Refused).contains("503"));
    world.mirror.heal();
    world.mirror.inject(Rule::always(DEB, Fault::Close));
    let error = world
        .store()
        .obtain(&fetcher(), &item)
        .expect_err("no answer");
    assert!(
        matches!(error.kind(), ErrorKind::Truncated | ErrorKind::Network),
        "{error}"
    );
}

#[test]
fn stalled_transfer_is_resumed_where_it_stopped() {
    let world = World::new();
    let item = world.item();
    let stall = Fault::Stall {
        after: 100_000,
        time: Duration::from_secs(30),
    };
    world.mirror.inject(Rule::times(1, DEB, stall));
    succeeds(&world, &item);
    let resumed = world
        .mirror
        .take_requests()
        .into_iter()
        .find(|r| r.status == 206)
        .expect("a range request");
    assert_eq!(
        (resumed.from, resumed.from + resumed.sent),
        (100_000, item.size)
    );
}

#[test]
fn lasting_stall_ends_with_its_name() {
    let world = World::new();
    let item = world.item();
    world.mirror.inject(Rule::always(
        DEB,
        Fault::Stall {
            after: 0,
            time: Duration::from_secs(60),
        },
    ));
    let begun = Instant::now();
    fails(&world, &item, ErrorKind::Stalled);
    assert!(
        begun.elapsed() < Duration::from_secs(30),
        "{:?}",
        begun.elapsed()
    );
}

#[test]
fn truncated_transfers_are_resumed() {
    let world = World::new();
    let item = world.item();
    world
        .mirror
        .inject(Rule::times(4, DEB, Fault::Truncate { after: 60_000 }));
    succeeds(&world, &item);
    let requests = world.mirror.take_requests();
    let starts: Vec<u64> = requests.iter().map(|r| r.from).collect();
    assert_eq!(
        starts,
        [0, 60_000, 120_000, 180_000, 240_000],
        "more tries than allowed, since each got further"
    );
    assert_eq!(
        requests.iter().map(|r| r.sent).sum::<u64>(),
        item.size,
        "no byte twice"
    );
}

#[test]
fn truncation_without_progress_ends() {
    let world = World::new();
    let item = world.item();
    world
        .mirror
        .inject(Rule::always(DEB, Fault::Truncate { after: 0 }));
    fails(&world, &item, ErrorKind::Truncated);
}

#[test]
fn server_without_ranges_starts_again() {
    let world = World::new();
    let item = world.item();
    world
        .mirror
        .inject(Rule::times(1, DEB, Fault::Truncate { after: 50_000 }));
    world.mirror.inject(Rule::always(DEB, Fault::NoRange));
    succeeds(&world, &item);
}

#[test]
fn flipped_byte_in_a_package_is_fetched_again_once() {
    let world = World::new();
    let item = world.item();
    world
        .mirror
        .inject(Rule::times(1, DEB, Fault::Flip { offset: 1000 }));
    succeeds(&world, &item);
}

#[test]
fn lasting_flipped_byte_in_a_package_is_refused() {
    let world = World::new();
    let item = world.item();
    world
        .mirror
        .inject(Rule::always(DEB, Fault::Flip { offset: 1000 }));
    let message = fails(&world, &item, ErrorKind::HashMismatch);
    assert!(
        message.contains(&item.sha256.to_string()) && message.contains(&world.mirror.url()),
        "{message}"
    );
    assert!(
        message.matches("SHA-256").count() >= 2,
        "expected and found: {message}"
    );
}

#[test]
fn other_files_in_its_place_are_refused() {
    let world = World::new();
    let item = world.item();
    for fault in [
        Fault::Short { length: 5_000 },
        Fault::Replace(b"<html>log in</html>".to_vec()),
        Fault::Replace(vec![0; 900_000]),
    ] {
        world.mirror.heal();
        world.mirror.inject(Rule::always(DEB, fault));
        fails(&world, &item, ErrorKind::HashMismatch);
    }
}

#[test]
fn slow_but_steady_is_fine() {
    let world = World::new();
    let item = world.item();
    world
        .mirror
        .inject(Rule::always(DEB, Fault::Slow { rate: 200_000 }));
    succeeds(&world, &item);
}

#[test]
fn flipped_byte_in_packages_is_refused() {
    let world = World::new();
    world
        .mirror
        .inject(Rule::always(BY_HASH, Fault::Flip { offset: 30 }));
    world
        .mirror
        .inject(Rule::always(PACKAGES, Fault::Flip { offset: 30 }));
    let error = world.refresh().expect_err("a damaged index");
    assert_eq!(error.kind(), ErrorKind::HashMismatch, "{error}");
    assert_eq!(error.origin(), Some("lab.ks:7"));
    assert!(error.to_string().contains("by-hash/SHA256"), "{error}");
    world.mirror.heal();
    assert_eq!(world.universe().len(), 2, "and it recovers");
}

#[test]
fn missing_by_hash_falls_back_to_the_name() {
    let world = World::new();
    world.mirror.inject(Rule::always(BY_HASH, Fault::NotFound));
    assert_eq!(world.universe().len(), 2);
}

#[test]
fn every_flipped_byte_in_inrelease_is_refused() {
    let world = World::new();
    let length = std::fs::metadata(world.path("mirror/dists/stable/InRelease"))
        .expect("it")
        .len();
    let positions = (0..length).step_by(97).chain([length - 60]);
    for offset in positions {
        world.mirror.heal();
        world
            .mirror
            .inject(Rule::always("*/InRelease", Fault::Flip { offset }));
        match world.refresh() {
            Err(error) => assert!(
                matches!(error.kind(), ErrorKind::BadSignature | ErrorKind::Unsigned),
                "offset {offset}: {:?} {error}",
                error.kind()
            ),
            // Some bytes are not part of what is signed (armour headers, line ends). What is used must be right.
            Ok(metadata) => {
                let expected = kiln_packages::Digest::of(
                    &std::fs::read(world.path("mirror/pool/main/big_1.0_all.deb")).expect("it"),
                );
                let universe = kiln_packages::debian::Universe::read(&metadata).expect("an index");
                assert_eq!(
                    universe.best("big").map(|p| p.sha256()),
                    Some(expected),
                    "offset {offset}"
                );
            }
        }
        let _ = std::fs::remove_dir_all(world.path("metadata"));
    }
}

#[test]
fn text_outside_the_signature_is_not_used() {
    let world = World::new();
    let path = world.path("mirror/dists/stable/InRelease");
    let signed = std::fs::read_to_string(&path).expect("it");
    for text in [
        format!("Suite: evil\n{signed}"),
        format!("{signed}\nSuite: evil\n"),
        signed.replace("Suite: stable", "Suite: unstable"),
    ] {
        std::fs::write(&path, text).expect("writing");
        let error = world.refresh().expect_err("a changed file");
        assert!(
            matches!(error.kind(), ErrorKind::BadSignature | ErrorKind::Unsigned),
            "{error}"
        );
    }
}

#[test]
fn log_in_page_is_no_release_file() {
    let world = World::new();
    world.mirror.inject(Rule::always(
        "*",
        Fault::Replace(b"<html>Welcome to the hotel</html>".to_vec()),
    ));
    assert_eq!(
        world.refresh().expect_err("no release").kind(),
        ErrorKind::Unsigned
    );
}

#[test]
fn expired_release_is_refused_unless_told_otherwise() {
    let day = Duration::from_secs(86400);
    let repository = Repository {
        date: SystemTime::now() - 10 * day,
        valid: Some(7 * day),
        ..Repository::new(SUITE, [big("big")])
    };
    let world = World::of(repository);
    let error = world.refresh().expect_err("an expired release");
    assert_eq!(error.kind(), ErrorKind::Expired, "{error}");
    assert!(
        error.to_string().contains("valid until") && error.hints()[0].contains("Valid-Until"),
        "{error}"
    );
    let mut lenient = world.repository();
    lenient.check_valid_until = false;
    assert!(world.refresh_with(&lenient).is_ok());
}

#[test]
fn release_from_the_future_is_refused() {
    let date = SystemTime::now() + Duration::from_secs(5 * 86400);
    let world = World::of(Repository {
        date,
        ..Repository::new(SUITE, [big("big")])
    });
    let error = world.refresh().expect_err("a release from the future");
    assert_eq!(error.kind(), ErrorKind::Expired, "{error}");
    assert!(error.hints()[0].contains("clock"));
}

#[test]
fn wrong_key_is_refused_with_a_hint() {
    let world = World::new();
    let mut repository = world.repository();
    let other = kiln_testkit::Key::generate("Other <other@example.org>");
    let bytes = other.public_armored();
    repository.keys = kiln_packages::debian::Keys::Given {
        name: "other.asc".into(),
        bytes,
    };
    let error = world.refresh_with(&repository).expect_err("another key");
    assert_eq!(error.kind(), ErrorKind::BadSignature);
    assert!(
        error.to_string().contains(&world.key.fingerprint()),
        "it names the signer: {error}"
    );
    assert!(
        error.hints()[0].contains("other.asc"),
        "{:?}",
        error.hints()
    );
    repository.keys = kiln_packages::debian::Keys::Builtin(kiln_packages::debian::Archive::Debian);
    assert_eq!(
        world
            .refresh_with(&repository)
            .expect_err("Debian's keys")
            .kind(),
        ErrorKind::BadSignature
    );
}

#[test]
fn unsigned_repository_is_refused_with_a_hint() {
    let world = World::of(Repository {
        signing: Signing::None,
        ..Repository::new(SUITE, [big("big")])
    });
    let error = world.refresh().expect_err("unsigned");
    assert_eq!(error.kind(), ErrorKind::Unsigned, "{error}");
    assert!(
        error.hints()[0].contains("clearsign"),
        "{:?}",
        error.hints()
    );
}

#[test]
fn no_repository_at_all_is_told_apart() {
    let world = World::new();
    let mut repository = world.repository();
    repository.suite = "nowhere".into();
    let error = world.refresh_with(&repository).expect_err("no suite");
    assert_eq!(error.kind(), ErrorKind::Input, "{error}");
    assert!(
        error.hints()[0].contains("/dists/nowhere/InRelease"),
        "{:?}",
        error.hints()
    );
}

#[test]
fn nobody_listening_is_a_network_failure() {
    let world = World::new();
    let mut item = world.item();
    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .and_then(|l| l.local_addr())
        .expect("a port");
    item.url = format!("http://{free}/big_1.0_all.deb");
    fails(&world, &item, ErrorKind::Network);
}

#[test]
fn cancelling_ends_a_stalled_transfer_at_once() {
    let world = World::new();
    let item = world.item();
    world.mirror.inject(Rule::always(
        DEB,
        Fault::Stall {
            after: 10,
            time: Duration::from_secs(60),
        },
    ));
    let cancel = CancelToken::new();
    let patient = kiln_packages::FetchOptions {
        stall_timeout: Duration::from_secs(50),
        ..options()
    };
    let fetcher = Fetcher::new(patient, cancel.clone()).expect("a fetcher");
    let begun = Instant::now();
    let result = std::thread::scope(|scope| {
        scope.spawn(move || {
            std::thread::sleep(Duration::from_millis(700));
            cancel.cancel();
        });
        world.store().obtain(&fetcher, &item)
    });
    assert_eq!(result.expect_err("cancelled").kind(), ErrorKind::Cancelled);
    assert!(
        begun.elapsed() < Duration::from_secs(20),
        "{:?}",
        begun.elapsed()
    );
}

/// What comes without a length looks complete wherever it ends.
#[test]
fn an_end_that_the_cancellation_made_is_no_end() {
    let world = World::new();
    std::fs::write(world.path("mirror/text"), vec![b'x'; 100_000]).expect("writing");
    world.mirror.inject(Rule::always("/text", Fault::NoLength));
    world
        .mirror
        .inject(Rule::always("/text", Fault::Slow { rate: 20_000 }));
    let cancel = CancelToken::new();
    let fetcher = Fetcher::new(options(), cancel.clone()).expect("a fetcher");
    let outcome = std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(700));
            cancel.cancel();
        });
        fetcher.bytes(&format!("{}/text", world.mirror.url()), 1 << 20, None)
    });
    assert_eq!(outcome.expect_err("cut").kind(), ErrorKind::Cancelled);
}

#[test]
fn what_has_no_length_is_refused_where_nothing_verifies_it() {
    let world = World::new();
    std::fs::write(world.path("mirror/text"), "all of it\n").expect("writing");
    world.mirror.inject(Rule::always("/text", Fault::NoLength));
    let url = format!("{}/text", world.mirror.url());
    assert!(fetcher().bytes(&url, 1 << 20, None).is_ok());
    let strict = FetchOptions {
        unframed: false,
        ..options()
    };
    let strict = Fetcher::new(strict, CancelToken::new()).expect("a fetcher");
    let error = strict.bytes(&url, 1 << 20, None).expect_err("no length");
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert!(
        error.to_string().contains("/text comes without a length"),
        "{error}"
    );
    world.mirror.heal();
    assert!(strict.bytes(&url, 1 << 20, None).is_ok());
}

/// A server that sends a little now and then never stalls.
#[test]
fn every_metadata_file_has_a_deadline() {
    for (pattern, file) in [("*/InRelease", "InRelease"), (BY_HASH, "by-hash")] {
        let world = World::new();
        world
            .mirror
            .inject(Rule::always(pattern, Fault::Slow { rate: 200 }));
        let impatient = FetchOptions {
            file_deadline: Duration::from_millis(500),
            ..options()
        };
        let fetcher = Fetcher::new(impatient, CancelToken::new()).expect("a fetcher");
        let all = [world.repository()];
        let began = Instant::now();
        let error = kiln_packages::debian::refresh(
            &fetcher,
            &all,
            &world.path("metadata"),
            SystemTime::now(),
        )
        .expect_err("too slow");
        assert_eq!(error.kind(), ErrorKind::Stalled, "{error}");
        let text = error.to_string();
        assert!(
            text.contains(file) && text.contains("did not come within 0.5 seconds"),
            "{text}"
        );
        assert!(began.elapsed() < Duration::from_secs(20));
    }
}
