//! FAT32 volumes, judged by fsck.fat and mtools.

mod outsiders;

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use kiln_image::disk::Bytes;
use kiln_image::fat::*;
use outsiders::{noise, run, text};

const AT: Bytes = Bytes::mib(2);

fn spec() -> FatSpec {
    FatSpec {
        volume_id: 0xb007_cafe,
        label: "kiln boot".into(),
        time: 1_709_251_199,
    }
}

fn image(dir: &Path) -> (PathBuf, File) {
    let path = dir.join("disk.raw");
    let file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(&path)
        .unwrap();
    (path, file)
}

fn write(tree: &FatTree, size: Bytes, file: &File) -> u64 {
    let mut passed = 0;
    FatImage::new(tree, &spec(), size)
        .unwrap()
        .write(file, AT, &mut |n| {
            passed += n;
            Ok(())
        })
        .unwrap();
    file.set_len(AT.0 + size.0).unwrap();
    passed
}

/// Cuts the volume out and lets fsck.fat look at it.
fn fsck(dir: &Path, file: &File, size: Bytes) -> String {
    let path = dir.join("volume");
    let volume = File::create(&path).unwrap();
    volume.set_len(size.0).unwrap();
    let mut whole = vec![0; size.0 as usize];
    file.read_exact_at(&mut whole, AT.0).unwrap();
    for (index, block) in whole.chunks(1 << 16).enumerate() {
        if block.iter().any(|b| *b != 0) {
            volume.write_all_at(block, (index << 16) as u64).unwrap();
        }
    }
    let said = run("fsck.fat", ["-n", "-v", text(&path)]);
    for word in [
        "differ",
        "Dirty",
        "wrong",
        "bad",
        "Bad",
        "Free cluster",
        "not",
    ] {
        assert!(!said.contains(word), "{said}");
    }
    said
}

fn mcopy(dir: &Path, image: &Path) -> PathBuf {
    let out = dir.join("out");
    let _ = fs::remove_dir_all(&out);
    fs::create_dir(&out).unwrap();
    let at = format!("{}@@{}", text(image), AT.0);
    run(
        "mcopy",
        ["-i", &at, "-s", "-n", "-Q", "-m", "::/", text(&out)],
    );
    out
}

#[test]
fn mtools_reads_what_was_written() {
    let dir = tempfile::tempdir().unwrap();
    let (path, file) = image(dir.path());
    let contents: Vec<(&str, Vec<u8>)> = vec![
        ("EFI/BOOT/BOOTX64.EFI", noise(1_000_001, 1)),
        ("EFI/BOOT/grubx64.efi", noise(4096, 2)),
        (
            "EFI/debian/grub.cfg",
            b"configfile /boot/grub/grub.cfg\n".to_vec(),
        ),
        ("boot/grub/grub.cfg", noise(511, 3)),
        ("live/vmlinuz-6.1.0-28-amd64", noise(9_000_000, 4)),
        ("live/vmlinuz-6.1.0-29-amd64", noise(512, 5)),
        ("live/empty", Vec::new()),
        ("a name of exactly 26 charac", noise(1, 6)),
        ("Grüße, ♥.txt", noise(2, 7)),
        (".disk", noise(3, 8)),
        ("zeros", vec![0; 3 << 20]),
    ];
    let mut tree = FatTree::new();
    for (name, bytes) in contents.iter().rev() {
        tree.add_file(name, bytes.clone()).unwrap();
    }
    tree.add_directory("EFI/empty").unwrap();
    let size = FatImage::size_for(&tree, Bytes::mib(4)).unwrap();
    assert_eq!(size, Bytes::mib(34));
    let passed = write(&tree, size, &file);
    assert_eq!(passed, contents.iter().map(|(_, b)| b.len() as u64).sum());
    assert!(
        file.metadata().unwrap().blocks() * 512 < 11 << 20,
        "not sparse"
    );

    let said = fsck(dir.path(), &file, size);
    assert!(said.contains("19 files,"), "files and directories: {said}");
    let listing = run(
        "mdir",
        ["-i", &format!("{}@@{}", text(&path), AT.0), "-/", "::"],
    );
    assert!(
        listing.contains("Volume in drive : is KILN BOOT"),
        "{listing}"
    );
    assert!(
        listing.contains("Volume Serial Number is B007-CAFE"),
        "{listing}"
    );
    assert!(listing.contains("2024-02-29  23:59"), "{listing}");

    let out = mcopy(dir.path(), &path);
    for (name, bytes) in &contents {
        let copied = fs::read(out.join(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert!(copied == *bytes, "{name}");
    }
    assert!(out.join("EFI/empty").is_dir());

    let volume = FatVolume::open(&file, AT).unwrap();
    assert_eq!(volume.volume_id(), 0xb007_cafe);
    for (name, bytes) in &contents {
        assert!(
            volume.read(&name.to_uppercase(), Bytes::mib(16)).unwrap() == *bytes,
            "{name}"
        );
        assert!(volume.find(name).unwrap().unwrap().extents.len() <= 1);
    }
    assert_eq!(volume.find("EFI/none").unwrap(), None);
    let mut names: Vec<_> = volume
        .list("/EFI")
        .unwrap()
        .into_iter()
        .map(|e| e.name)
        .collect();
    names.sort();
    assert_eq!(names, ["BOOT", "debian", "empty"]);
}

#[test]
fn the_same_tree_gives_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let names = ["b/two.long", "a/one", "c", "a/TWO"];
    let bytes = |names: &mut dyn Iterator<Item = &&str>| {
        let mut tree = FatTree::new();
        names.for_each(|n| tree.add_file(n, n.repeat(300)).unwrap());
        let (path, file) = image(dir.path());
        write(&tree, Bytes::mib(34), &file);
        fs::read(path).unwrap()
    };
    assert!(bytes(&mut names.iter()) == bytes(&mut names.iter().rev()));
}

#[test]
fn many_files_and_a_directory_of_several_clusters() {
    let dir = tempfile::tempdir().unwrap();
    let (path, file) = image(dir.path());
    let mut tree = FatTree::new();
    for n in 0..1500 {
        tree.add_file(
            &format!("modules/some long module name {n}.mod"),
            format!("{n}\n"),
        )
        .unwrap();
    }
    let size = Bytes::mib(34);
    write(&tree, size, &file);
    fsck(dir.path(), &file, size);
    let out = mcopy(dir.path(), &path);
    assert_eq!(fs::read_dir(out.join("modules")).unwrap().count(), 1500);
    assert_eq!(
        fs::read(out.join("modules/some long module name 1499.mod")).unwrap(),
        b"1499\n"
    );
}

#[test]
fn every_cluster_size_is_accepted_and_holes_stay_holes() {
    let dir = tempfile::tempdir().unwrap();
    let sparse = tempfile::tempfile().unwrap();
    sparse.set_len(20 << 20).unwrap();
    sparse.write_all_at(b"in the middle", 10 << 20).unwrap();
    let mut tree = FatTree::new();
    tree.add_file("sparse", Source::whole(sparse).unwrap())
        .unwrap();
    tree.add_file("EFI/x", noise(100_000, 1)).unwrap();
    for mib in [40, 70, 150, 300] {
        let (path, file) = image(dir.path());
        let size = Bytes::mib(mib);
        write(&tree, size, &file);
        assert!(
            file.metadata().unwrap().blocks() * 512 < 1 << 20,
            "{mib}: not sparse"
        );
        fsck(dir.path(), &file, size);
        let out = mcopy(dir.path(), &path);
        assert_eq!(
            fs::read(out.join("sparse")).unwrap()[10 << 20..][..13],
            *b"in the middle"
        );
    }
}

#[test]
fn a_full_volume_and_one_byte_more() {
    let dir = tempfile::tempdir().unwrap();
    let size = Bytes::mib(34);
    let filled = |bytes: u64| {
        let source = tempfile::tempfile().unwrap();
        source.set_len(bytes).unwrap();
        let mut tree = FatTree::new();
        tree.add_file("FILL", Source::whole(source).unwrap())
            .unwrap();
        tree
    };
    let clusters = 69_632 - 32 - 2 * 544;
    let most = (clusters - 1) * 512;
    let tree = filled(most);
    assert_eq!(FatImage::size_for(&tree, Bytes(0)).unwrap(), size);
    let (_, file) = image(dir.path());
    write(&tree, size, &file);
    fsck(dir.path(), &file, size);
    let tree = filled(most + 1);
    let error = FatImage::new(&tree, &spec(), size).unwrap_err();
    assert!(
        error.to_string().starts_with("the EFI partition needs"),
        "{error}"
    );
    assert_eq!(FatImage::size_for(&tree, Bytes(0)).unwrap(), Bytes::mib(35));
}

#[test]
fn labels_that_fat_cannot_hold() {
    let tree = FatTree::new();
    for label in ["twelve chars", "ü", "a/b", " x"] {
        let spec = FatSpec {
            label: label.into(),
            ..spec()
        };
        assert!(
            FatImage::new(&tree, &spec, Bytes::mib(34)).is_err(),
            "{label}"
        );
    }
    let spec = FatSpec {
        label: String::new(),
        ..spec()
    };
    assert!(FatImage::new(&tree, &spec, Bytes::mib(34)).is_ok());
}

#[test]
fn damaged_volumes_end_in_errors() {
    let dir = tempfile::tempdir().unwrap();
    let mut tree = FatTree::new();
    tree.add_file("a/b/some long name.txt", noise(5000, 1))
        .unwrap();
    tree.add_file("c", noise(5000, 2)).unwrap();
    let (path, file) = image(dir.path());
    write(&tree, Bytes::mib(34), &file);
    let good = fs::read(path).unwrap();
    let start = AT.0 as usize;
    let damaged = tempfile::tempfile().unwrap();
    damaged.write_all_at(&good[..start + (2 << 20)], 0).unwrap();
    damaged.set_len(good.len() as u64).unwrap();
    for round in 0..4000u64 {
        let pick = noise(16, round + 1);
        let areas = [0, 32 * 512, (32 + 2 * 544) * 512];
        let at = start
            + areas[pick[0] as usize % 3]
            + (u16::from_le_bytes([pick[1], pick[2]]) % 3000) as usize;
        damaged
            .write_all_at(&pick[3..4 + pick[8] as usize % 4], at as u64)
            .unwrap();
        if let Ok(volume) = FatVolume::open(&damaged, AT) {
            for name in ["a/b/some long name.txt", "c"] {
                let _ = volume.read(name, Bytes::mib(1));
            }
            let _ = volume.list("a/b");
        }
        damaged.write_all_at(&good[at..at + 4], at as u64).unwrap();
    }
}
