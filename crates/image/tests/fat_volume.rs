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
    for (name, bytes) in &contents {
        let runs = runs(&path, name);
        assert_eq!(runs, u32::from(!bytes.is_empty()), "{name}");
    }
}

/// In how many runs of clusters a file lies.
fn runs(image: &Path, name: &str) -> u32 {
    let at = format!("{}@@{}", text(image), AT.0);
    let shown = run("mshowfat", ["-i", &at, &format!("::/{name}")]);
    shown.matches('<').count() as u32
}

#[test]
fn a_file_that_was_there_before_its_volume() {
    for (len, mib) in [(9_000_001, 400), (0, 300)] {
        let dir = tempfile::tempdir().unwrap();
        let (path, file) = image(dir.path());
        let root = noise(len, 1);
        file.write_all_at(&root, AT.0 + FatImage::AHEAD.0).unwrap();
        let mut tree = FatTree::new();
        tree.add_file("boot/grub/grub.cfg", noise(511, 3)).unwrap();
        tree.add_file("live/initrd.img", noise(3_000_000, 4))
            .unwrap();
        tree.add_file_ahead("live/filesystem.squashfs", len as u64)
            .unwrap();
        assert!(tree.add_file_ahead("live/second", 1).is_err());
        for n in 0..500 {
            let name = format!("EFI/a directory of several clusters/{n}");
            tree.add_file(&name, noise(n, 5)).unwrap();
        }
        assert_eq!(
            FatImage::size_for(&tree, Bytes(0)).unwrap(),
            Bytes::mib(273)
        );
        let size = Bytes::mib(mib);
        write(&tree, size, &file);
        let said = fsck(dir.path(), &file, size);
        assert!(said.contains("4096 bytes per cluster"), "{said}");
        let out = mcopy(dir.path(), &path);
        assert!(fs::read(out.join("live/filesystem.squashfs")).unwrap() == root);
        assert!(fs::read(out.join("live/initrd.img")).unwrap() == noise(3_000_000, 4));
        let inner = out.join("EFI/a directory of several clusters");
        assert_eq!(fs::read_dir(inner).unwrap().count(), 500);
        assert_eq!(runs(&path, "live/filesystem.squashfs"), u32::from(len > 0));
    }
}

#[test]
fn a_volume_with_a_file_ahead_holds_almost_four_gigabytes() {
    let dir = tempfile::tempdir().unwrap();
    let (path, file) = image(dir.path());
    let mut tree = FatTree::new();
    // A SquashFS is padded to 4 KiB. Of longer files fsck.fat does not get the length of the chain right.
    let most = MAX_FILE - MAX_FILE % 4096;
    tree.add_file_ahead("root", most).unwrap();
    tree.add_file("small", noise(5000, 1)).unwrap();
    let size = FatImage::size_for(&tree, Bytes::mib(128)).unwrap();
    FatImage::new(&tree, &spec(), size)
        .unwrap()
        .write(&file, Bytes(0), &mut |_| Ok(()))
        .unwrap();
    file.set_len(size.0).unwrap();
    run("fsck.fat", ["-n", "-v", text(&path)]);
    let at = text(&path).to_owned();
    let listed = run("mdir", ["-i", &*at, "::/"]);
    assert!(listed.contains("4294963200"), "{listed}");
    assert!(MAX_FILE + 1 == 1 << 32 && FatTree::new().add_file_ahead("x", MAX_FILE + 1).is_err());
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
