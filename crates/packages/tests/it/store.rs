//! The download store.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use kiln_packages::{ErrorKind, LockedPackage, download};
use kiln_testkit::{Fault, Rule};

use crate::support::{World, fetcher, files};

#[test]
fn stored_files_are_used_and_damaged_ones_replaced() {
    let world = World::new();
    let (item, store) = (world.item(), world.store());
    let path = store.obtain(&fetcher(), &item).expect("the first time");
    assert_eq!(path, store.path(&item.sha256));
    world.mirror.take_requests();
    store.obtain(&fetcher(), &item).expect("the second time");
    assert!(world.mirror.take_requests().is_empty(), "no network");
    let good = std::fs::read(&path).expect("it");
    for damage in [
        &good[..100],
        &[&good[..good.len() - 1], b"?"].concat()[..],
        b"",
    ] {
        std::fs::write(&path, damage).expect("damaging");
        assert_eq!(
            std::fs::read(store.obtain(&fetcher(), &item).expect("repaired")).expect("it"),
            good
        );
    }
}

#[test]
fn interrupted_download_is_continued_by_the_next_build() {
    let world = World::new();
    let item = world.item();
    let cut = Fault::Truncate { after: 70_000 };
    world.mirror.inject(Rule::times(1, "*", cut));
    let once = kiln_packages::FetchOptions {
        attempts: 1,
        ..crate::support::options()
    };
    let once =
        kiln_packages::Fetcher::new(once, kiln_packages::CancelToken::new()).expect("a fetcher");
    assert_eq!(
        world.store().obtain(&once, &item).expect_err("cut").kind(),
        ErrorKind::Truncated
    );
    world.mirror.heal();
    world.mirror.take_requests();
    world.store().obtain(&fetcher(), &item).expect("the rest");
    let requests = world.mirror.take_requests();
    assert_eq!((requests.len(), requests[0].from), (1, 70_000));
    assert!(files(&world.path("downloads/partial")).is_empty());
}

#[test]
fn damaged_beginning_is_thrown_away() {
    let world = World::new();
    let (item, store) = (world.item(), world.store());
    let partial = world
        .path("downloads/partial")
        .join(item.sha256.to_string());
    for junk in [
        vec![b'x'; 1000],
        vec![b'x'; item.size as usize],
        vec![b'x'; item.size as usize + 5],
    ] {
        std::fs::write(&partial, junk).expect("junk");
        let path = store.obtain(&fetcher(), &item).expect("anew");
        std::fs::remove_file(path).expect("removing it again");
    }
}

#[test]
fn builds_at_the_same_time_share_one_download() {
    let world = World::new();
    let item = world.item();
    world
        .mirror
        .inject(Rule::always("*.deb", Fault::Slow { rate: 400_000 }));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| world.store().obtain(&fetcher(), &item).expect("it"));
        }
    });
    assert_eq!(world.mirror.take_requests().len(), 1);
}

#[test]
fn many_packages_come_in_order_with_progress() {
    let world = World::new();
    let universe = world.universe();
    let locked = |name: &str| {
        let package = universe.best(name).expect("a package");
        LockedPackage {
            name: name.into(),
            version: package.version().into(),
            architecture: package.architecture().into(),
            url: package.url(),
            sha256: package.sha256(),
            size: package.size(),
            layer: "base.ks".into(),
            auto: false,
            facts: BTreeMap::new(),
        }
    };
    let all = [locked("small"), locked("big"), locked("small")];
    let (bytes, items) = (AtomicU64::new(0), AtomicU64::new(0));
    let paths = download(&fetcher(), &world.store(), &all, &|progress| {
        bytes.fetch_max(progress.done, Ordering::Relaxed);
        items.fetch_max(progress.items_done as u64, Ordering::Relaxed);
        assert_eq!(
            (progress.items, progress.total),
            (3, all.iter().map(|p| p.size).sum())
        );
    })
    .expect("all");
    let expected: Vec<_> = all.iter().map(|p| world.store().path(&p.sha256)).collect();
    assert_eq!(paths, expected);
    assert_eq!(bytes.into_inner(), all.iter().map(|p| p.size).sum::<u64>());
    assert_eq!(items.into_inner(), 3);
}

#[test]
fn first_failure_ends_a_group() {
    let world = World::new();
    let mut item = world.item();
    let good = item.clone();
    item.url = item.url.replace("big", "bag");
    item.sha256 = kiln_packages::Digest::of(b"other");
    let error = world
        .store()
        .obtain_all(&fetcher(), &[item, good], &|_| ())
        .expect_err("one is missing");
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

#[test]
fn garbage_of_dead_builds_is_removed() {
    let world = World::new();
    let store = world.store();
    std::fs::write(world.path("downloads/partial/abcd"), "12345").expect("junk");
    let now = std::time::SystemTime::now();
    let hour = std::time::Duration::from_secs(3600);
    assert_eq!(store.remove_partial(hour, now).expect("young"), 0);
    assert_eq!(store.remove_partial(hour, now + 2 * hour).expect("old"), 5);
    assert!(files(&world.path("downloads")).is_empty());
}
