//! What the block store promises: a warm image is the cold one whatever happens to the store.

mod nasty;

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{Cursor, Read, Seek, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use kiln_image::blocks::{self, Limits, Outcome, PackStore};
use kiln_image::squashfs::{self, BlockStore, Codec, Options, Summary, Told};
use kiln_image::tree::{Content, Inode, Meta, Tree};
use nasty::{need_root, noise};

const BLOCK: u32 = 8 << 10;
/// Tells a process that a test starts from this binary where it is to work.
const STORE: &str = "KILN_TEST_STORE";
/// And in which round it is.
const ROUND: &str = "KILN_TEST_ROUND";

fn options() -> Options {
    Options {
        level: 1,
        block_size: BLOCK,
        threads: 2,
        ..Options::new(Codec::Zstd)
    }
}

/// Files of one to several blocks; about a quarter does not compress.
fn tree(files: u64, seed: u64) -> Tree {
    let mut tree = Tree::new(Meta::root_owned(0o755, 1));
    for i in 0..files {
        let length = (i * 7919 % 40_000) as usize + 100;
        let mut bytes = noise(seed + i, length);
        if i % 4 != 0 {
            bytes.iter_mut().for_each(|b| *b &= 7);
        }
        let meta = Meta::root_owned(0o644, 2);
        tree.insert(format!("f{i:04}"), Inode::file(meta, Content::bytes(bytes)))
            .unwrap();
    }
    tree
}

/// What lies before an image.
const BEFORE: [u8; 5000] = [7; 5000];

fn cold(tree: &Tree) -> Vec<u8> {
    let mut out = Cursor::new(Vec::new());
    squashfs::write(tree, &mut out, &options(), &|_, _| {}).unwrap();
    out.into_inner()
}

fn open(directory: &Path) -> PackStore {
    PackStore::open(handle(directory)).unwrap().with_reserve(0)
}

fn handle(directory: &Path) -> OwnedFd {
    File::open(directory).unwrap().into()
}

fn warm(tree: &Tree, directory: &Path) -> (Vec<u8>, Summary, Outcome) {
    warm_with(tree, directory, options())
}

/// What is new is compressed when its turn comes, not before everything else.
fn as_it_comes() -> Options {
    Options {
        new_first: 0,
        ..options()
    }
}

fn warm_with(tree: &Tree, directory: &Path, options: Options) -> (Vec<u8>, Summary, Outcome) {
    let packs = Arc::new(open(directory));
    let options = Options {
        block_store: Some(Arc::clone(&packs) as Arc<dyn BlockStore>),
        ..options
    };
    // In the middle of a file, as in a build: what is known is copied into it by several threads.
    let mut out = tempfile::tempfile().unwrap();
    out.write_all(&BEFORE).unwrap();
    let summary = squashfs::write(tree, &mut out, &options, &|_, _| {}).unwrap();
    let behind = out.stream_position().unwrap();
    assert_eq!(behind, BEFORE.len() as u64 + summary.padded_bytes);
    let mut bytes = Vec::new();
    out.rewind().unwrap();
    out.read_to_end(&mut bytes).unwrap();
    let image = bytes.split_off(BEFORE.len());
    assert_eq!(bytes, BEFORE);
    (image, summary, packs.finish())
}

fn all(summary: &Summary) -> u64 {
    summary.blocks + u64::from(summary.fragments)
}

fn files(directory: &Path, suffix: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.to_string_lossy().ends_with(suffix));
    paths.sort();
    paths
}

#[test]
fn a_flipped_bit_anywhere_is_a_miss_and_never_in_an_image() {
    let store = tempfile::tempdir().unwrap();
    let tree = tree(120, 1);
    let expected = cold(&tree);
    let (first, _, outcome) = warm(&tree, store.path());
    assert!(first == expected && outcome.added > 100, "{outcome:?}");
    let (again, summary, _) = warm(&tree, store.path());
    assert!(again == expected);
    assert_eq!(summary.reused_blocks, all(&summary));

    let pack = files(store.path(), ".pack").remove(0);
    let whole = fs::read(&pack).unwrap();
    let (mut missed, mut noticed) = (0, 0);
    for round in 0..60 {
        let mut bytes = whole.clone();
        // Blocks, index and footer: the index has 64 bytes for each block, at the end.
        let at = match round % 3 {
            0 => whole.len() - 1 - round * 131 % 9000,
            _ => whole.len() * round / 60,
        };
        bytes[at] ^= 1 << (round % 8);
        let own = tempfile::tempdir().unwrap();
        fs::write(own.path().join(pack.file_name().unwrap()), &bytes).unwrap();
        let options = if round % 2 == 0 {
            options()
        } else {
            as_it_comes()
        };
        let (image, summary, outcome) = warm_with(&tree, own.path(), options);
        assert!(image == expected, "bit of byte {at}");
        missed += all(&summary) - summary.reused_blocks;
        noticed += outcome.damaged;
        // The repaired store is as good as new.
        let (image, summary, _) = warm(&tree, own.path());
        assert!(image == expected && summary.reused_blocks + 1 >= all(&summary));
    }
    assert!(missed >= 55 && noticed >= 30, "{missed} {noticed}");
}

#[test]
fn a_damaged_block_of_another_length_ends_the_image() {
    let store = tempfile::tempdir().unwrap();
    let tree = tree(120, 1);
    warm(&tree, store.path());
    let packs = Arc::new(open(store.path()));
    let stored = |packs: &Arc<PackStore>| Options {
        block_store: Some(Arc::clone(packs) as Arc<dyn BlockStore>),
        ..options()
    };
    let empty = tempfile::tempdir().unwrap();
    let keys = squashfs::missing(&tree, &stored(&Arc::new(open(empty.path())))).unwrap();
    // As another encoder could have left it: sound, and one block a byte shorter.
    let odd = keys[keys.len() / 2];
    let copy = Arc::new(open(empty.path()));
    for key in &keys {
        let known = packs.find(key).unwrap();
        let mut bytes = vec![0; known.length as usize];
        packs.read(&[known], &mut bytes);
        bytes.truncate(bytes.len() - usize::from(*key == odd));
        copy.put(key, known.raw, &bytes);
    }
    copy.finish();
    let pack = files(empty.path(), ".pack").remove(0);
    let shorter = open(empty.path()).find(&odd).unwrap();
    assert_eq!(shorter.length + 1, packs.find(&shorter.key).unwrap().length);
    // Damage all of the pack's blocks, so that they are made anew.
    let mut bytes = fs::read(&pack).unwrap();
    let index = bytes.len() - 64 * keys.len() - 40;
    (8..index).step_by(50).for_each(|at| bytes[at] ^= 1);
    fs::write(&pack, &bytes).unwrap();
    let mut out = tempfile::tempfile().unwrap();
    let damaged = stored(&Arc::new(open(empty.path())));
    let error = squashfs::write(&tree, &mut out, &damaged, &|_, _| {}).unwrap_err();
    assert!(error.to_string().contains("not as long"), "{error}");
}

/// Nothing that was told to be final changes any more, and the length comes first.
#[test]
fn an_image_of_known_blocks_can_be_read_while_it_is_copied() {
    let store = tempfile::tempdir().unwrap();
    warm(&tree(150, 3), store.path());
    let tree = tree(160, 3);
    let expected = cold(&tree);
    let copy = tempfile::tempdir().unwrap();
    for pack in files(store.path(), ".pack") {
        fs::copy(&pack, copy.path().join(pack.file_name().unwrap())).unwrap();
    }
    let packs = Arc::new(open(store.path()));
    let options = Options {
        block_store: Some(Arc::clone(&packs) as Arc<dyn BlockStore>),
        ..options()
    };
    let mut out = tempfile::tempfile().unwrap();
    out.write_all(&BEFORE).unwrap();
    let reader = out.try_clone().unwrap();
    let (length, finals) = (Cell::new(None), RefCell::new(Vec::new()));
    let tell = |told| match told {
        Told::Contents(..) => {}
        Told::Length(bytes) => assert_eq!(length.replace(Some(bytes)), None),
        Told::Final(bytes) => {
            assert!(length.get().is_some());
            let mut there = vec![0; bytes as usize];
            reader
                .read_exact_at(&mut there, BEFORE.len() as u64)
                .unwrap();
            assert!(there == expected[..bytes as usize], "{bytes}");
            finals.borrow_mut().push(bytes);
        }
    };
    let summary = squashfs::write_told(&tree, &mut out, &options, &tell).unwrap();
    assert_eq!(length.get(), Some(expected.len() as u64));
    let finals = finals.into_inner();
    assert!(finals.len() > 1 && finals.is_sorted(), "{finals:?}");
    assert_eq!(finals.last(), Some(&summary.padded_bytes));
    // As if it had been made as it comes; what is new is in the store.
    let outcome = packs.finish();
    let (image, other, of_other) = warm_with(&tree, copy.path(), as_it_comes());
    assert!(image == expected && summary == other);
    assert!(summary.reused_blocks > 0 && outcome.added > 0);
    assert_eq!(outcome.added, of_other.added);
    let (_, again, _) = warm(&tree, store.path());
    assert_eq!(again.reused_blocks, all(&again));
}

#[test]
fn packs_that_are_cut_off_empty_or_no_packs_are_misses() {
    let store = tempfile::tempdir().unwrap();
    let tree = tree(40, 2);
    let expected = cold(&tree);
    warm(&tree, store.path());
    let pack = files(store.path(), ".pack").remove(0);
    let whole = fs::read(&pack).unwrap();
    for length in [0, 1, 31, 32, 1000, whole.len() / 2, whole.len() - 1] {
        fs::write(&pack, &whole[..length]).unwrap();
        assert!(warm(&tree, store.path()).0 == expected, "{length} bytes");
        for made in files(store.path(), ".pack") {
            fs::remove_file(made).unwrap();
        }
    }
    fs::write(&pack, vec![0xff; 4096]).unwrap();
    assert!(warm(&tree, store.path()).0 == expected);
    // Damaged packs go with the next collection.
    fs::write(store.path().join("00.pack"), b"nothing").unwrap();
    blocks::collect(&handle(store.path()), &Limits::default()).unwrap();
    assert!(!store.path().join("00.pack").exists());
}

/// This test's binary again, to run the named test alone as a process that works on `store`.
fn again(test: &str, store: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--test-threads=1"]);
    command.env(STORE, store);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// Where the process that a test started is to work.
fn given_store() -> Option<PathBuf> {
    std::env::var_os(STORE).map(PathBuf::from)
}

/// Waits for what another process makes.
fn until(what: &str, mut done: impl FnMut() -> bool) {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < Duration::from_secs(60), "no {what}");
        std::thread::yield_now();
    }
}

fn writes_images_until_it_is_killed(directory: &Path) {
    // Trees that no earlier round stored, so that there is something to write at once.
    let round: u64 = std::env::var(ROUND).unwrap().parse().unwrap();
    for tree_of_it in 0.. {
        warm(&tree(60, round * 100_000 + tree_of_it * 1000), directory);
    }
}

#[test]
fn a_kill_at_any_instant_leaves_a_good_store() {
    if let Some(directory) = given_store() {
        return writes_images_until_it_is_killed(&directory);
    }
    let store = tempfile::tempdir().unwrap();
    let packs = || files(store.path(), ".pack").len();
    let (mut in_the_making, mut entries) = (0, 0);
    for round in 0..100u64 {
        let test = "a_kill_at_any_instant_leaves_a_good_store";
        let before = packs();
        let mut child = again(test, store.path());
        let mut child = child.env(ROUND, round.to_string()).spawn().unwrap();
        // Around a commit, and while a pack is written: what it does says when, not a clock that fits one machine.
        match round % 4 {
            0 => until("pack", || packs() > before),
            _ => until("pack in the making", || {
                files(store.path(), "").len() > packs()
            }),
        }
        std::thread::sleep(Duration::from_micros(round * 37 % 400 * 10));
        child.kill().unwrap();
        child.wait().unwrap();
        in_the_making += files(store.path(), "").len() - packs();
        entries += open(store.path()).len();
        // No lock is left: the next command cleans up.
        blocks::reclaim(&handle(store.path())).unwrap();
        let names = files(store.path(), "");
        assert!(
            names.iter().all(|n| !n.to_string_lossy().contains("new-")),
            "{names:?}"
        );
    }
    assert!(
        in_the_making > 5 && entries > 0,
        "{in_the_making} {entries}"
    );
    for round in 0..8 {
        let tree = tree(60, round * 100_000);
        assert!(warm(&tree, store.path()).0 == cold(&tree));
    }
}

#[test]
fn writers_at_once_and_a_collection_all_the_while() {
    let store = tempfile::tempdir().unwrap();
    let trees: Vec<Tree> = (0..4).map(|seed| tree(60, seed * 20)).collect();
    let expected: Vec<Vec<u8>> = trees.iter().map(cold).collect();
    let done = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for offset in 0..3 {
            let (trees, expected, done, path) = (&trees, &expected, &done, store.path());
            scope.spawn(move || {
                for round in 0..12 {
                    let which = (round + offset) % trees.len();
                    let (image, _, outcome) = warm(&trees[which], path);
                    assert!(image == expected[which], "{round} {offset}");
                    assert_eq!((outcome.damaged, outcome.trouble), (0, None));
                }
                done.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            });
        }
        let mut round = 0;
        while done.load(std::sync::atomic::Ordering::Relaxed) < 3 {
            round += 1;
            let age = (round % 2 == 0).then_some(Duration::ZERO);
            let limits = Limits {
                age,
                ..Limits::default()
            };
            blocks::collect(&handle(store.path()), &limits).unwrap();
        }
        assert!(round > 10, "{round}");
    });
}

#[test]
fn a_collection_goes_by_age_and_size_and_puts_small_packs_together() {
    let store = tempfile::tempdir().unwrap();
    for seed in 0..20 {
        warm(&tree(20, seed * 100), store.path());
    }
    let directory = handle(store.path());
    let before = blocks::usage(&directory).unwrap();
    assert_eq!(before.packs, 20);
    let nothing = Limits::default();
    assert_eq!(blocks::collect(&directory, &nothing).unwrap().blocks, 0);
    let merged = blocks::usage(&directory).unwrap();
    assert_eq!((merged.packs, merged.blocks), (1, before.blocks));
    let (image, summary, _) = warm(&tree(20, 300), store.path());
    assert!(image == cold(&tree(20, 300)));
    assert_eq!(summary.reused_blocks, all(&summary));

    let half = Limits {
        bytes: Some(merged.bytes / 2),
        ..Limits::default()
    };
    let dry = Limits {
        dry_run: true,
        ..half
    };
    let would = blocks::collect(&directory, &dry).unwrap();
    assert!(would.blocks > before.blocks / 3, "{would:?}");
    assert_eq!(blocks::usage(&directory).unwrap(), merged);
    assert_eq!(blocks::collect(&directory, &half).unwrap(), would);
    let after = blocks::usage(&directory).unwrap();
    assert!(after.bytes <= merged.bytes / 2 + 100_000, "{after:?}");

    // What was used long ago goes, what was used today stays.
    for pack in files(store.path(), ".pack") {
        let used = pack.with_extension("used");
        let note = File::create(used).unwrap();
        for block in 0..after.blocks {
            let day: u32 = if block % 2 == 0 { 10_000 } else { 4_000_000 };
            note.write_all_at(&day.to_le_bytes(), block * 4).unwrap();
        }
    }
    let old = Limits {
        age: Some(Duration::from_secs(30 * 86_400)),
        ..Limits::default()
    };
    let gone = blocks::collect(&directory, &old).unwrap();
    assert_eq!(gone.blocks, after.blocks.div_ceil(2));
    let everything = Limits {
        age: Some(Duration::ZERO),
        ..Limits::default()
    };
    for note in files(store.path(), ".used") {
        fs::remove_file(note).unwrap();
    }
    blocks::collect(&directory, &everything).unwrap();
    assert!(files(store.path(), "").is_empty());
}

fn stores_on_a_full_disk(directory: &Path) {
    let tree = tree(400, 5);
    let packs = Arc::new(PackStore::open(handle(directory)).unwrap());
    let options = Options {
        block_store: Some(Arc::clone(&packs) as Arc<dyn BlockStore>),
        ..options()
    };
    let mut out = Cursor::new(Vec::new());
    squashfs::write(&tree, &mut out, &options, &|_, _| {}).unwrap();
    assert!(out.into_inner() == cold(&tree));
    let trouble = packs.finish().trouble.unwrap();
    assert!(trouble.contains("1088 MiB"), "{trouble}");
    // Without a reserve the disk runs full in the middle: the file check at the start needs 64 MiB.
    let filler = File::create(directory.join("filler")).unwrap();
    let (image, _, outcome) = {
        let packs = Arc::new(open(directory));
        let options = Options {
            block_store: Some(Arc::clone(&packs) as Arc<dyn BlockStore>),
            ..options.clone()
        };
        let filling = || {
            let mut at = 0;
            while filler.write_all_at(&[1; 65_536], at).is_ok() {
                at += 65_536;
            }
        };
        let progress = |done: u64, total: u64| {
            if done > total / 2 && filler.metadata().unwrap().len() == 0 {
                filling();
            }
        };
        let mut out = Cursor::new(Vec::new());
        let summary = squashfs::write(&tree, &mut out, &options, &progress).unwrap();
        (out.into_inner(), summary, packs.finish())
    };
    assert!(image == cold(&tree));
    let trouble = outcome.trouble.unwrap();
    assert!(trouble.contains("No space left"), "{trouble}");
    assert!(files(directory, ".pack").is_empty());
    assert!(files(directory, "").iter().all(|f| f.ends_with("filler")));
}

#[test]
fn a_full_disk_ends_the_storing_and_not_the_image_needs_root() {
    if let Some(directory) = given_store() {
        return stores_on_a_full_disk(&directory);
    }
    need_root();
    let work = tempfile::tempdir().unwrap();
    let script = format!(r#"mount -t tmpfs -o size=80m tmpfs "${STORE}" && exec "$@""#);
    let mut command = nasty::own_mounts(&script);
    command.arg(std::env::current_exe().unwrap());
    command.args([
        "--exact",
        "a_full_disk_ends_the_storing_and_not_the_image_needs_root",
    ]);
    nasty::run(command.env(STORE, work.path()));
}

/// Another machine sees which blocks it lacks, where they lie in packs, and takes them, also from a pack with gaps.
#[test]
fn blocks_are_carried_to_another_store() {
    let (ours, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let tree = tree(150, 3);
    let expected = cold(&tree);
    let (image, _, outcome) = warm(&tree, ours.path());
    assert_eq!(image, expected);
    assert!(!outcome.used.is_empty(), "the new packs are named");

    let missing = |directory: &Path| -> HashSet<_> {
        let options = Options {
            block_store: Some(Arc::new(open(directory))),
            ..options()
        };
        squashfs::missing(&tree, &options)
            .unwrap()
            .into_iter()
            .collect()
    };
    assert!(missing(ours.path()).is_empty());
    let wanted = missing(theirs.path());
    let (mut found, mut taken) = (0, 0);
    for name in &outcome.used {
        let pack = File::open(ours.path().join(format!("{name}.pack"))).unwrap();
        let size = pack.metadata().unwrap().len();
        let index = blocks::index(&pack).unwrap();
        let places = blocks::places(&index, size, &wanted).unwrap();
        found += places.len();
        assert!(places.iter().all(|(at, length)| at + length <= size));
        // A damaged index is none.
        let mut flipped = index.clone();
        flipped[70] ^= 1;
        assert!(blocks::places(&flipped, size, &wanted).is_none());
        assert!(blocks::places(&index, size + 1, &wanted).is_none());
        assert!(blocks::places(&index[64..], size, &wanted).is_none());
        // The first wanted block is left out, as if its chunk had not come.
        let copy = tempfile::tempfile().unwrap();
        let mut bytes = fs::read(ours.path().join(format!("{name}.pack"))).unwrap();
        let (at, length) = places[0];
        bytes[at as usize..(at + length) as usize].fill(0);
        copy.write_all_at(&bytes, 0).unwrap();
        taken += blocks::adopt(handle(theirs.path()), &copy).unwrap();
        assert_eq!(blocks::adopt(handle(theirs.path()), &copy).unwrap(), 0);
    }
    assert_eq!(found, wanted.len());
    assert_eq!(taken as usize, wanted.len() - outcome.used.len());
    let (image, ..) = warm(&tree, theirs.path());
    assert_eq!(image, expected);
}

/// Where the store has an image's blocks, there are the image's bytes, one block behind the other.
#[test]
fn an_images_blocks_are_where_the_store_says() {
    let directory = tempfile::tempdir().unwrap();
    let tree = tree(150, 3);
    let stored = |packs: &Arc<PackStore>| {
        let store = Arc::clone(packs) as Arc<dyn BlockStore>;
        let options = Options {
            block_store: Some(store),
            ..options()
        };
        squashfs::stored(&tree, &options).unwrap()
    };
    assert_eq!(stored(&Arc::new(open(directory.path()))), None);
    let (image, ..) = warm(&tree, directory.path());
    let packs = Arc::new(open(directory.path()));
    let (start, blocks) = stored(&packs).expect("all are there");
    let mut at = start as usize;
    for block in &blocks {
        let (name, offset) = packs.place(block).expect("a place");
        let pack = File::open(directory.path().join(format!("{name}.pack"))).unwrap();
        let mut bytes = vec![0; block.length as usize];
        pack.read_exact_at(&mut bytes, offset).unwrap();
        assert!(image[at..].starts_with(&bytes), "{at}");
        at += bytes.len();
    }
    let stored: usize = blocks.iter().map(|block| block.length as usize).sum();
    assert!(stored > image.len() / 2, "most of the image is blocks");
}

/// Blocks made ahead, of only a part of the tree that the image has in the end, are those that the image would have made.
#[test]
fn blocks_made_ahead_are_found_by_the_image() {
    let (all, store) = (tree(150, 3), tempfile::tempdir().unwrap());
    let prepare = |go_on: &dyn Fn() -> bool| {
        let packs = Arc::new(open(store.path()));
        let options = Options {
            block_store: Some(Arc::clone(&packs) as Arc<dyn BlockStore>),
            ..options()
        };
        let made = squashfs::prepare(&all, &options, go_on).unwrap();
        assert_eq!(packs.finish().trouble, None);
        made
    };
    // Stopped after the first blocks, it keeps these and makes the others the next time.
    let first = prepare(&|| false);
    let rest = prepare(&|| true);
    assert!(first > 0 && rest > 0, "{first} {rest}");
    assert_eq!(prepare(&|| true), 0);
    let (image, summary, _) = warm(&all, store.path());
    assert_eq!(image, cold(&all));
    assert_eq!(summary.reused_blocks, first + rest);
    assert!(
        summary.fragments > 0,
        "files shorter than a block are left to the image"
    );
}
