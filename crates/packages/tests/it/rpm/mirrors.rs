//! Mirrors with the same content, of which some have it not, or wrong.

use std::fs;
use std::time::SystemTime;

use kiln_packages::rpm::{Package, Source};
use kiln_packages::{DownloadStore, ErrorKind, Fetcher, Item, Progress};
use kiln_testkit::{Fault, Mirror, Rule};

use super::World;

/// A fetcher that knows the mirrors of a repository, and the repository's packages.
fn mirrored(world: &World, mirrors: &[&Mirror]) -> (Fetcher, Vec<Item>) {
    let urls = mirrors.iter().map(|mirror| mirror.url()).collect();
    let repository = world.repository(Source::Base(urls));
    let fetcher = crate::support::fetcher();
    let directory = world.path("metadata");
    let now = SystemTime::now();
    let metadata = kiln_packages::rpm::refresh(&fetcher, &[repository], &directory, now);
    let verified = metadata.expect("good metadata").repositories.remove(0);
    let item = |package: &Package| Item {
        name: package.name.clone(),
        url: verified.url(package),
        size: package.size,
        sha256: package.sha256.expect("a digest"),
    };
    let packages = verified.packages().expect("packages");
    (fetcher, packages.iter().map(item).collect())
}

/// Package files, too, come from the mirror that has them right.
#[test]
fn packages_come_from_the_first_mirror_that_is_good() {
    let world = World::new();
    let (bad, good) = (Mirror::of(world.path("mirror")), &world.mirror);
    for fault in [
        Fault::NotFound,
        Fault::Flip { offset: 100 },
        Fault::Truncate { after: 0 },
        Fault::Close,
        Fault::Replace(b"sign in".to_vec()),
    ] {
        bad.heal();
        bad.inject(Rule::always("/Packages/*", fault.clone()));
        let (fetcher, items) = mirrored(&world, &[&bad, good]);
        assert!(items.iter().all(|item| item.url.starts_with(&bad.url())));
        let downloads = tempfile::tempdir().expect("a temporary directory");
        let store = DownloadStore::open(downloads.path()).expect("a store");
        let done = std::sync::Mutex::new(0);
        let progress = |p: Progress<'_>| *done.lock().expect("a number") = p.done;
        let obtained = store.obtain_all(&fetcher, &items, &progress);
        obtained.unwrap_or_else(|e| panic!("{fault:?}: {e}"));
        let total: u64 = items.iter().map(|item| item.size).sum();
        assert_eq!(done.into_inner().expect("a number"), total, "{fault:?}");
        // Whoever failed is asked last from then on.
        bad.take_requests();
        fs::remove_file(store.path(&items[0].sha256)).expect("forgetting");
        store.obtain(&fetcher, &items[0]).expect("a package");
        assert!(bad.take_requests().is_empty(), "{fault:?}");
    }
}

#[test]
fn a_package_that_no_mirror_has_is_named_with_all_of_them() {
    let world = World::new();
    let (other, one) = (Mirror::of(world.path("mirror")), &world.mirror);
    for mirror in [&other, one] {
        mirror.inject(Rule::always("/Packages/*", Fault::NotFound));
    }
    let (fetcher, items) = mirrored(&world, &[&other, one]);
    let store = DownloadStore::open(world.path("downloads")).expect("a store");
    let error = store
        .obtain(&fetcher, &items[0])
        .expect_err("nobody has it");
    let said = error.to_string();
    assert!(said.starts_with("no mirror has a good file of "), "{said}");
    assert!(
        said.contains(&other.url()) && said.contains(&one.url()),
        "{said}"
    );
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

/// Each of several mirrors is asked once, and again only when all have failed.
#[test]
fn a_mirror_that_may_recover_is_asked_again_after_the_others() {
    let world = World::new();
    let other = Mirror::of(world.path("mirror"));
    for mirror in [&other, &world.mirror] {
        mirror.inject(Rule::times(1, "*/repomd.xml", Fault::Status(503)));
    }
    let source = Source::Base(vec![other.url(), world.mirror.url()]);
    let metadata = world
        .refresh_with(&world.repository(source))
        .expect("the second round");
    assert_eq!(metadata.repositories[0].bases[0], other.url());
    let asked = |mirror: &Mirror| {
        let requests = mirror.take_requests().into_iter();
        requests
            .filter(|request| request.target.ends_with("/repomd.xml"))
            .count()
    };
    assert_eq!((asked(&other), asked(&world.mirror)), (2, 1));
}

/// A build from a lock asks for no metadata, and still knows the mirrors.
#[test]
fn mirrors_are_known_from_what_was_seen_before() {
    let world = World::new();
    let (bad, good) = (Mirror::of(world.path("mirror")), &world.mirror);
    let list = format!("{}\n{}\n", bad.url(), good.url());
    fs::write(world.path("mirror/list"), list).expect("a list");
    let repository = world.repository(Source::MirrorList(format!("{}/list", good.url())));
    let metadata = world.refresh_with(&repository).expect("good metadata");
    let verified = &metadata.repositories[0];
    let package = verified.packages().expect("packages").remove(0);
    let item = Item {
        name: package.name.clone(),
        url: verified.url(&package),
        size: package.size,
        sha256: package.sha256.expect("a digest"),
    };
    assert!(item.url.starts_with(&bad.url()));
    bad.inject(Rule::always("*", Fault::NotFound));
    let fetcher = crate::support::fetcher();
    let store = DownloadStore::open(world.path("downloads")).expect("a store");
    let error = store
        .obtain(&fetcher, &item)
        .expect_err("nobody else is known");
    assert_eq!((error.kind(), error.origin()), (ErrorKind::NotFound, None));
    good.take_requests();
    kiln_packages::rpm::know_mirrors(&fetcher, &[repository], &world.path("metadata"))
        .expect("mirrors");
    store.obtain(&fetcher, &item).expect("the other has it");
    let asked: Vec<_> = good.take_requests().into_iter().map(|r| r.target).collect();
    assert!(
        asked.iter().all(|target| target.starts_with("/Packages/")),
        "{asked:?}"
    );
    good.inject(Rule::always("*", Fault::NotFound));
    fs::remove_file(store.path(&item.sha256)).expect("forgetting");
    let error = store.obtain(&fetcher, &item).expect_err("nobody has it");
    assert_eq!(error.origin(), Some("lab.ks:7"), "{error}");
}
