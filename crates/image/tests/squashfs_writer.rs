//! What the SquashFS writer promises beside a readable image: equal bytes, locality, the block store, and errors.

mod nasty;

use std::collections::HashMap;
use std::fs;
use std::io::{self, Cursor, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::{Arc, Mutex};

use kiln_image::ErrorKind;
use kiln_image::squashfs::{self, BlockKey, BlockStore, Codec, Options, Stored, Summary};
use kiln_image::tree::{Content, Device, Inode, Kind, Meta, ScanOptions, Tree, Xattr};
use nasty::noise;

fn meta() -> Meta {
    Meta::root_owned(0o644, 1_700_000_000)
}

fn file(bytes: Vec<u8>) -> Inode {
    Inode::file(meta(), Content::bytes(bytes))
}

fn options(block_size: u32) -> Options {
    Options {
        level: 1,
        block_size,
        threads: 2,
        ..Options::new(Codec::Zstd)
    }
}

fn image(tree: &Tree, options: &Options) -> (Vec<u8>, Summary) {
    let mut out = Cursor::new(Vec::new());
    let summary = squashfs::write(tree, &mut out, options, &|_, _| {}).unwrap();
    (out.into_inner(), summary)
}

/// Directories, small files that share fragments, larger ones, duplicates and holes.
fn forest() -> Tree {
    let mut tree = Tree::new(Meta::root_owned(0o755, 1));
    let directory = Meta::root_owned(0o755, 2);
    for i in 0..900u64 {
        let length = (i * i * 7919) % 3000 + if i % 90 == 0 { 60_000 } else { 0 };
        let path = format!(
            "d{}/e{}/file{i}.{}",
            i % 7,
            i % 3,
            ["txt", "so", "py"][i as usize % 3]
        );
        let inode = file(noise(i % 800, length as usize));
        tree.insert_all(path, inode, &directory).unwrap();
    }
    let hole = Inode::file(meta(), Content::zeros(1_000_000));
    tree.insert("hole", hole).unwrap();
    tree
}

#[test]
fn the_image_does_not_depend_on_threads() {
    let tree = forest();
    for codec in [Codec::Gzip, Codec::Xz, Codec::Lz4, Codec::Zstd] {
        let with = |threads| {
            let options = Options {
                threads,
                level: 1,
                block_size: 16 << 10,
                ..Options::new(codec)
            };
            image(&tree, &options).0
        };
        let one = with(1);
        assert!(
            one == with(2) && one == with(4) && one == with(13),
            "{codec}"
        );
    }
}

#[test]
fn progress_rises_to_the_sum() {
    let seen = Mutex::new(Vec::new());
    let mut out = Cursor::new(Vec::new());
    squashfs::write(&forest(), &mut out, &options(16 << 10), &|done, total| {
        seen.lock().unwrap().push((done, total));
    })
    .unwrap();
    let seen = seen.into_inner().unwrap();
    assert!(
        seen.windows(2)
            .all(|w| w[0].0 <= w[1].0 && w[0].1 == w[1].1)
    );
    let (done, total) = *seen.last().unwrap();
    assert_eq!(done, total);
}

#[derive(Default)]
struct Memory {
    blocks: Mutex<HashMap<BlockKey, (bool, Vec<u8>)>>,
    puts: Mutex<usize>,
}

impl BlockStore for Memory {
    fn find(&self, key: &BlockKey) -> Option<Stored> {
        let blocks = self.blocks.lock().unwrap();
        blocks.get(key).map(|(raw, bytes)| Stored {
            key: *key,
            place: 0,
            length: bytes.len() as u32,
            raw: *raw,
        })
    }
    fn read(&self, wanted: &[Stored], out: &mut [u8]) -> Vec<bool> {
        let blocks = self.blocks.lock().unwrap();
        let mut at = 0;
        for block in wanted {
            let bytes = &blocks[&block.key].1;
            out[at..at + bytes.len()].copy_from_slice(bytes);
            at += bytes.len();
        }
        vec![true; wanted.len()]
    }
    fn put(&self, key: &BlockKey, raw: bool, bytes: &[u8]) {
        *self.puts.lock().unwrap() += 1;
        let block = (raw, bytes.to_vec());
        self.blocks.lock().unwrap().insert(*key, block);
    }
}

impl Memory {
    fn new_blocks(&self) -> usize {
        std::mem::take(&mut *self.puts.lock().unwrap())
    }
}

fn edit(tree: &mut Tree, round: u64) {
    let victim = (round * 37) % 900;
    let path = format!(
        "d{}/e{}/file{victim}.{}",
        victim % 7,
        victim % 3,
        ["txt", "so", "py"][victim as usize % 3]
    );
    match round % 4 {
        0 => assert!(tree.remove(path)),
        1 => tree
            .set_content(path, Content::bytes(noise(round, 1234)))
            .unwrap(),
        2 => drop(
            tree.insert(path + ".new", file(noise(round + 5000, 2000)))
                .unwrap(),
        ),
        _ => {
            let id = tree.lookup(path).unwrap();
            tree.inode_mut(id).meta.mode = 0o600;
        }
    }
}

#[test]
fn a_warm_image_is_the_cold_image_and_an_edit_stays_local() {
    let store = Arc::new(Memory::default());
    let warm_options = Options {
        block_store: Some(Arc::clone(&store) as Arc<dyn BlockStore>),
        ..options(16 << 10)
    };
    let mut tree = forest();
    let (cold, summary) = image(&tree, &options(16 << 10));
    assert_eq!(image(&tree, &warm_options).0, cold);
    let (again, warm) = image(&tree, &warm_options);
    assert_eq!(again, cold);
    assert_eq!(
        warm.reused_blocks,
        summary.blocks + u64::from(summary.fragments)
    );
    store.new_blocks();
    let mut changed = 0;
    for round in 0..40 {
        edit(&mut tree, round);
        let (cold, _) = image(&tree, &options(16 << 10));
        assert!(image(&tree, &warm_options).0 == cold, "round {round}");
        changed += store.new_blocks();
    }
    // A running counter would shift a hundred fragments with every edit.
    assert!(summary.fragments > 60, "{summary:?}");
    assert!(changed <= 40 * 4, "{changed} new blocks in 40 edits");
}

#[test]
fn an_entry_of_another_level_or_block_size_is_not_taken() {
    let store = Arc::new(Memory::default());
    let tree = forest();
    for (level, block_size) in [(1, 16 << 10), (2, 16 << 10), (1, 32 << 10)] {
        let cold = Options {
            level,
            ..options(block_size)
        };
        let warm = Options {
            block_store: Some(Arc::clone(&store) as Arc<dyn BlockStore>),
            ..cold.clone()
        };
        let (bytes, summary) = image(&tree, &warm);
        assert_eq!(bytes, image(&tree, &cold).0);
        // Equal blocks within the image may meet, as whole files are the only duplicates it looks for.
        assert!(
            summary.reused_blocks < summary.blocks / 2 + 1,
            "{summary:?}"
        );
    }
}

/// Takes so many bytes, then the disk is full.
struct Full(Cursor<Vec<u8>>, usize);

impl squashfs::Target for Full {}

impl Write for Full {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.get_ref().len() + bytes.len() > self.1 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.0.write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for Full {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.0.seek(to)
    }
}

#[test]
fn a_full_disk_ends_it_without_a_hang() {
    let mut tree = Tree::new(Meta::root_owned(0o755, 1));
    for i in 0..40 {
        tree.insert(format!("{i}"), file(noise(i, 300_000)))
            .unwrap();
    }
    for room in [0, 3 << 20] {
        let mut out = Full(Cursor::new(Vec::new()), room);
        let error = squashfs::write(&tree, &mut out, &options(4 << 10), &|_, _| {}).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Step, "{error}");
        assert!(std::error::Error::source(&error).is_some(), "{error}");
        // What is there must not pass for a file system.
        assert!(!out.0.get_ref().starts_with(b"hsqs"));
    }
}

fn scanned(work: &Path) -> Tree {
    for name in ["small", "large"] {
        let size = if name == "small" { 100 } else { 1_000_000 };
        fs::write(work.join(name), noise(1, size)).unwrap();
    }
    Tree::scan(work, &ScanOptions::default()).unwrap()
}

#[test]
fn a_file_that_changes_or_vanishes_after_the_scan_is_named() {
    type Harm = fn(&Path);
    let harms: [Harm; 5] = [
        |path| fs::remove_file(path).unwrap(),
        |path| fs::write(path, b"shorter").unwrap(),
        |path| fs::write(path, noise(2, 2_000_000)).unwrap(),
        |path| {
            fs::remove_file(path).unwrap();
            std::os::unix::fs::symlink("/etc/passwd", path).unwrap();
        },
        |path| {
            fs::remove_file(path).unwrap();
            nasty::run(std::process::Command::new("mkfifo").arg(path));
        },
    ];
    for (i, harm) in harms.into_iter().enumerate() {
        for name in ["small", "large"] {
            let work = tempfile::tempdir().unwrap();
            let tree = scanned(work.path());
            harm(&work.path().join(name));
            let mut out = Cursor::new(Vec::new());
            let error = squashfs::write(&tree, &mut out, &options(4 << 10), &|_, _| {});
            let message = error.unwrap_err().to_string();
            assert!(message.contains(name), "harm {i}: {message}");
        }
    }
}

#[test]
fn what_no_squashfs_holds_is_refused() {
    let refused = |tree: &Tree, options: &Options| {
        let mut out = Cursor::new(Vec::new());
        let error = squashfs::write(tree, &mut out, options, &|_, _| {}).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Input);
        error.to_string()
    };
    let empty = || Tree::new(Meta::root_owned(0o755, 1));
    for block_size in [0, 1000, 2048, 5000, 2 << 20] {
        let message = refused(&empty(), &options(block_size));
        assert!(message.contains(&block_size.to_string()), "{message}");
    }
    for (codec, level) in [
        (Codec::Zstd, 23),
        (Codec::Gzip, 0),
        (Codec::Xz, 10),
        (Codec::Lz4, 13),
    ] {
        let options = Options {
            level,
            ..Options::new(codec)
        };
        assert!(refused(&empty(), &options).contains(&level.to_string()));
    }
    let mut tree = empty();
    let kind = Kind::CharDevice(Device {
        major: 4096,
        minor: 0,
    });
    tree.insert("device", Inode { meta: meta(), kind }).unwrap();
    assert!(refused(&tree, &options(4096)).contains("4096:0"));

    for name in ["system.posix_acl_access", "user.", "none"] {
        let mut tree = empty();
        let meta = meta().with_xattrs([Xattr::new(name, "x")]);
        tree.insert("file", Inode::file(meta, Content::bytes(*b"")))
            .unwrap();
        assert!(refused(&tree, &options(4096)).contains(name));
    }
    let mut tree = empty();
    for owner in 0..65_536 {
        let meta = Meta {
            uid: owner,
            ..meta()
        };
        tree.insert(format!("{owner}"), Inode::file(meta, Content::bytes(*b"")))
            .unwrap();
    }
    assert!(refused(&tree, &options(4096)).contains("65,535"));
}
