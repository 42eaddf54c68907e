//! `unsquashfs` and the kernel judge what the SquashFS writer makes.

mod nasty;

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::process::Command;

use kiln_image::squashfs::{self, Codec, Options, Summary};
use kiln_image::tree::{Content, Inode, Meta, ScanOptions, Tree};
use nasty::{Builder, assert_same, kernel_copy, manifest, need_root, run, unsquash};

fn write(tree: &Tree, image: &Path, options: &Options) -> Summary {
    let out = File::create(image).unwrap();
    let summary = squashfs::write(tree, out, options, &|_, _| {}).unwrap();
    assert_eq!(fs::metadata(image).unwrap().len(), summary.padded_bytes);
    summary
}

fn fast(codec: Codec, block_size: u32) -> Options {
    Options {
        level: match codec {
            Codec::Zstd => 3,
            Codec::Gzip => 6,
            Codec::Lz4 => 4,
            Codec::Xz => 1,
        },
        block_size,
        threads: 2,
        ..Options::new(codec)
    }
}

const CODECS: [Codec; 4] = [Codec::Gzip, Codec::Xz, Codec::Lz4, Codec::Zstd];

#[test]
fn unsquashfs_gives_the_nasty_tree_back_needs_root() {
    need_root();
    let work = tempfile::tempdir().unwrap();
    let source = work.path().join("source");
    Builder::nasty(&source);
    let expected = manifest(&source);
    let tree = Tree::scan(&source, &ScanOptions::default()).unwrap();
    let image = work.path().join("image");
    for codec in CODECS {
        for (block, tail_ends) in [(4 << 10, true), (128 << 10, false), (1 << 20, true)] {
            let options = Options {
                tail_ends,
                ..fast(codec, block)
            };
            let summary = write(&tree, &image, &options);
            assert!(summary.duplicates >= 5, "{summary:?}");
            let target = work.path().join("target");
            unsquash(&image, &target);
            assert_same(&expected, &manifest(&target), &format!("{options:?}"));
            fs::remove_dir_all(&target).unwrap();
        }
    }
}

#[test]
fn kernel_gives_the_nasty_tree_back_needs_root_and_loop() {
    need_root();
    let work = tempfile::tempdir().unwrap();
    let source = work.path().join("source");
    Builder::nasty(&source);
    let expected = manifest(&source);
    let tree = Tree::scan(&source, &ScanOptions::default()).unwrap();
    let image = work.path().join("image");
    for codec in CODECS {
        for (block, tail_ends) in [(4 << 10, false), (128 << 10, true), (1 << 20, false)] {
            let options = Options {
                tail_ends,
                ..fast(codec, block)
            };
            write(&tree, &image, &options);
            let target = work.path().join("target");
            kernel_copy(&image, &target);
            assert_same(&expected, &manifest(&target), &format!("{options:?}"));
            fs::remove_dir_all(&target).unwrap();
        }
    }
}

/// 70,000 names need extended directories with an index; 65,535 owners are what the id table holds.
#[test]
fn kernel_and_unsquashfs_list_70000_names_and_65535_owners_needs_root_and_loop() {
    need_root();
    let mut tree = Tree::new(Meta::root_owned(0o755, 5));
    tree.insert("big", Inode::directory(Meta::root_owned(0o755, 6)))
        .unwrap();
    let mut expected = String::new();
    for i in 0..70_000u32 {
        let owner = (i * 61_001) % 65_535;
        let meta = Meta {
            uid: owner,
            ..Meta::root_owned(0o644, 7)
        };
        let name = format!("{:05}-{}", i, "y".repeat(i as usize % 60));
        let text = if i % 1000 == 0 {
            name.clone()
        } else {
            String::new()
        };
        expected += &format!("{name} {owner} {}\n", text.len());
        let content = Content::bytes(text.into_bytes());
        tree.insert(format!("big/{name}"), Inode::file(meta, content))
            .unwrap();
    }
    let work = tempfile::tempdir().unwrap();
    let image = work.path().join("image");
    let summary = write(&tree, &image, &fast(Codec::Zstd, 128 << 10));
    assert_eq!((summary.inodes, summary.ids), (70_002, 65_535));

    let mount = work.path().join("mount");
    fs::create_dir(&mount).unwrap();
    let script = r#"mount -t squashfs -o loop,ro "$1" "$2" && cd "$2/big" && find . -mindepth 1 -printf '%f %U %s\n' | LC_ALL=C sort && cat 07000-* 69000-*"#;
    let mut command = nasty::own_mounts(script);
    let seen = run(command.arg(&image).arg(&mount)).stdout;
    let seen = String::from_utf8(seen).unwrap();
    let names = [7000, 69_000]
        .map(|i| format!("{:05}-{}", i, "y".repeat(i % 60)))
        .concat();
    assert!(seen == expected + &names, "the kernel's listing differs");

    let listing = run(Command::new("unsquashfs")
        .args(["-lln", "-no-progress"])
        .arg(&image))
    .stdout;
    let listing = String::from_utf8(listing).unwrap();
    assert_eq!(
        listing
            .lines()
            .filter(|line| line.contains("/big/"))
            .count(),
        70_000
    );
}

#[test]
fn a_sparse_file_over_4_gib_comes_back_with_its_holes() {
    const LENGTH: u64 = (5 << 30) + 12_345;
    let work = tempfile::tempdir().unwrap();
    let source = work.path().join("source");
    fs::create_dir(&source).unwrap();
    let spots = [0, (4 << 30) - 3, (4 << 30) + 700_000, LENGTH - 100];
    let file = File::create(source.join("huge")).unwrap();
    file.set_len(LENGTH).unwrap();
    for spot in spots {
        file.write_all_at(&nasty::noise(spot + 1, 100), spot)
            .unwrap();
    }
    let tree = Tree::scan(&source, &ScanOptions::default()).unwrap();
    let image = work.path().join("image");
    let summary = write(&tree, &image, &fast(Codec::Zstd, 1 << 20));
    assert!(summary.bytes < 100_000, "{summary:?}");

    let target = work.path().join("target");
    unsquash(&image, &target);
    let back = File::open(target.join("huge")).unwrap();
    let stat = back.metadata().unwrap();
    assert_eq!(stat.len(), LENGTH);
    // No more than the blocks around the spots is allocated, so everything else reads as zeros.
    assert!(stat.blocks() * 512 <= 6 << 20, "{} blocks", stat.blocks());
    for spot in spots {
        let (mut found, from) = (vec![0; 300], spot.saturating_sub(100));
        let length = found.len().min((LENGTH - from) as usize);
        back.read_exact_at(&mut found[..length], from).unwrap();
        let mut expected = vec![0; 300];
        file_bytes(&source.join("huge"), from, &mut expected[..length]);
        assert_eq!(found, expected, "at {spot}");
    }
}

fn file_bytes(path: &Path, offset: u64, buffer: &mut [u8]) {
    File::open(path)
        .unwrap()
        .read_exact_at(buffer, offset)
        .unwrap();
}

/// The image is streamed into a partition: it must not care where it starts, and leave the rest alone.
#[test]
fn an_image_in_the_middle_of_a_file_is_the_same_image() {
    use std::io::{Seek, SeekFrom};
    const OFFSET: u64 = 3 * 1024 * 1024 + 512;
    let mut tree = Tree::new(Meta::root_owned(0o755, 1));
    let content = Content::bytes(nasty::noise(1, 500_000));
    tree.insert("file", Inode::file(Meta::root_owned(0o644, 1), content))
        .unwrap();
    let work = tempfile::tempdir().unwrap();
    let (alone, disk) = (work.path().join("alone"), work.path().join("disk"));
    let options = fast(Codec::Zstd, 128 << 10);
    let summary = write(&tree, &alone, &options);

    fs::write(&disk, vec![0xaa; 8 << 20]).unwrap();
    let mut file = File::options().write(true).open(&disk).unwrap();
    file.seek(SeekFrom::Start(OFFSET)).unwrap();
    squashfs::write(&tree, &file, &options, &|_, _| {}).unwrap();
    assert_eq!(
        file.stream_position().unwrap(),
        OFFSET + summary.padded_bytes
    );

    let disk_bytes = fs::read(&disk).unwrap();
    let end = OFFSET as usize + summary.padded_bytes as usize;
    assert!(disk_bytes[OFFSET as usize..end] == fs::read(&alone).unwrap());
    assert!(disk_bytes[..OFFSET as usize].iter().all(|b| *b == 0xaa));
    assert!(disk_bytes[end..].iter().all(|b| *b == 0xaa));
    run(Command::new("unsquashfs")
        .args(["-offset", &OFFSET.to_string(), "-ls"])
        .arg(&disk));
}
