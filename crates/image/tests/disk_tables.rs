//! Partition tables, judged by sfdisk and sgdisk.

mod outsiders;

use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};

use kiln_image::ErrorKind;
use kiln_image::disk::*;
use outsiders::{run, text};
use uuid::Uuid;

fn guid(n: u8) -> Uuid {
    Uuid::from_bytes([0xa0, n, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15])
}

fn image(dir: &tempfile::TempDir) -> (std::path::PathBuf, File) {
    let path = dir.path().join("disk.raw");
    let file = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&path)
        .unwrap();
    (path, file)
}

fn lab() -> LayoutBuilder {
    let mut layout = LayoutBuilder::new(Table::Gpt { disk: guid(0) });
    let bios = PartitionSpec::new("BIOS boot", PartitionType::BIOS_BOOT, guid(1));
    let esp = PartitionSpec::new("EFI", PartitionType::EFI_SYSTEM, guid(2));
    let root = PartitionSpec::new("Würzelchen 🌱", PartitionType::LINUX, guid(3));
    let home = PartitionSpec::new("home", PartitionType::LINUX_HOME, guid(4));
    layout.add(bios, Bytes::mib(1)).unwrap();
    layout.add(esp, Bytes::mib(64)).unwrap();
    assert_eq!(layout.next_start(), Bytes::mib(66));
    layout.add(root, Bytes(123_456_789)).unwrap();
    let home = home.with(Attributes::GROW_FILE_SYSTEM.with(Attributes::NO_AUTO));
    let size = layout.room(Bytes::gib(1));
    layout.add(home, size).unwrap();
    layout
}

#[test]
fn sfdisk_and_sgdisk_accept_gpt() {
    let dir = tempfile::tempdir().unwrap();
    let (path, file) = image(&dir);
    let layout = lab().finish(Rounding::CLOUD).unwrap();
    layout.write(&file).unwrap();
    assert_eq!(file.metadata().unwrap().len(), 1 << 30);
    assert!(file.metadata().unwrap().blocks() < 200, "not sparse");

    let verdict = run("sfdisk", ["--verify", text(&path)]);
    assert!(verdict.contains("No errors detected"), "{verdict}");
    let verdict = run("sgdisk", ["-v", text(&path)]);
    assert!(verdict.contains("No problems found"), "{verdict}");
    assert!(
        !verdict.to_lowercase().contains("caution") && !verdict.contains("Warning"),
        "{verdict}"
    );

    let json: serde_json::Value =
        serde_json::from_str(&run("sfdisk", ["--json", text(&path)])).unwrap();
    let table = &json["partitiontable"];
    assert_eq!(table["label"], "gpt");
    assert_eq!(table["id"], guid(0).to_string().to_uppercase());
    assert_eq!(table["firstlba"], 34);
    assert_eq!(table["lastlba"], (1 << 21) - 34);
    let parts = table["partitions"].as_array().unwrap();
    assert_eq!(parts.len(), 4);
    for (shown, ours) in parts.iter().zip(layout.partitions()) {
        assert_eq!(shown["start"], ours.extent.start.0);
        assert_eq!(shown["size"], ours.extent.sectors.0);
        assert_eq!(shown["name"], ours.spec.name);
        assert_eq!(shown["uuid"], ours.spec.guid.to_string().to_uppercase());
        assert_eq!(shown["type"], ours.spec.kind.gpt.to_string().to_uppercase());
    }
    assert_eq!(parts[0]["start"], 2048);
    assert_eq!(parts[1]["start"], 4096);
    assert_eq!(parts[3]["attrs"], "GUID:59,63");
}

#[test]
fn sgdisk_accepts_the_backup_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (path, file) = image(&dir);
    let layout = lab().finish(Rounding::TIGHT).unwrap();
    layout.write(&file).unwrap();
    file.write_all_at(&[0; 512], 512).unwrap();
    let verdict = run("sgdisk", ["--print", text(&path)]);
    assert!(verdict.contains("Würzelchen"), "{verdict}");
}

#[test]
fn sfdisk_accepts_mbr() {
    let dir = tempfile::tempdir().unwrap();
    let (path, file) = image(&dir);
    file.write_all_at(&[0xab; 440], 0).unwrap();
    let mut layout = LayoutBuilder::new(Table::Mbr {
        signature: 0xcafe_b007,
    });
    let boot = PartitionSpec::new("boot", PartitionType::BASIC_DATA, guid(1))
        .with(Attributes::LEGACY_BOOT);
    let home = PartitionSpec::new("home", PartitionType::LINUX, guid(2));
    layout.add(boot, Bytes::mib(64)).unwrap();
    layout.add(home, Bytes::mib(100)).unwrap();
    let layout = layout.finish(Rounding::TIGHT).unwrap();
    layout.write(&file).unwrap();

    let verdict = run("sfdisk", ["--verify", text(&path)]);
    assert!(verdict.contains("No errors detected"), "{verdict}");
    let json: serde_json::Value =
        serde_json::from_str(&run("sfdisk", ["--json", text(&path)])).unwrap();
    let table = &json["partitiontable"];
    assert_eq!(table["label"], "dos");
    assert_eq!(table["id"], "0xcafeb007");
    assert_eq!(table["partitions"][0]["bootable"], true);
    assert_eq!(table["partitions"][0]["type"], "c");
    assert_eq!(table["partitions"][1]["start"], 2048 * 65);
    assert_eq!(
        layout.partitions()[1].partuuid(layout.table()),
        "cafeb007-02"
    );
    let mut code = [0; 440];
    file.read_exact_at(&mut code, 0).unwrap();
    assert_eq!(code, [0xab; 440]);
}

#[test]
fn wrong_specs_are_refused() {
    let gpt = || LayoutBuilder::new(Table::Gpt { disk: guid(0) });
    let spec = |n| PartitionSpec::new("x", PartitionType::LINUX, guid(n));
    assert!(gpt().add(spec(1), Bytes(0)).is_err());
    assert!(gpt().add(spec(1), Bytes(u64::MAX)).is_err());
    assert!(
        gpt()
            .add(
                PartitionSpec::new("x".repeat(37), PartitionType::LINUX, guid(1)),
                Bytes(1)
            )
            .is_err()
    );
    let mut twice = gpt();
    twice.add(spec(1), Bytes(1)).unwrap();
    assert_eq!(
        twice.add(spec(1), Bytes(1)).unwrap_err().kind(),
        ErrorKind::Internal
    );
    let mut mbr = LayoutBuilder::new(Table::Mbr { signature: 1 });
    assert!(mbr.add(spec(1), Bytes::gib(3000)).is_err());
    assert!(
        mbr.add(
            PartitionSpec::new("x", PartitionType::BIOS_BOOT, guid(1)),
            Bytes(1)
        )
        .is_err()
    );
    for n in 1..=4 {
        mbr.add(spec(n), Bytes(1)).unwrap();
    }
    assert!(mbr.add(spec(5), Bytes(1)).is_err());
    let mut full = gpt();
    for n in 1..=128 {
        full.add(spec(n), Bytes(1)).unwrap();
    }
    assert!(full.add(spec(129), Bytes(1)).is_err());
    let odd = Rounding {
        multiple: Bytes(1000),
        minimum: Bytes(0),
    };
    assert!(full.clone().finish(odd).is_err());
    let huge = Rounding {
        multiple: Bytes::mib(1),
        minimum: Bytes(u64::MAX),
    };
    assert!(full.finish(huge).is_err());
}

#[test]
fn a_file_larger_than_the_disk_is_not_cut() {
    let dir = tempfile::tempdir().unwrap();
    let (_, file) = image(&dir);
    file.set_len(2 << 30).unwrap();
    let layout = lab().finish(Rounding::CLOUD).unwrap();
    assert!(layout.write(&file).is_err());
    assert_eq!(file.metadata().unwrap().len(), 2 << 30);
}

#[test]
fn an_ext4_image_is_copied_with_its_holes() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("home.ext4");
    File::create(&home).unwrap().set_len(256 << 20).unwrap();
    run(
        "mke2fs",
        ["-q", "-t", "ext4", "-b", "4096", "-L", "home", text(&home)],
    );
    let home = File::open(home).unwrap();
    let (path, file) = image(&dir);
    let at = Bytes::mib(7);
    let mut passed = 0;
    copy_into("home.ext4", &home, Bytes::mib(256), &file, at, &mut |n| {
        passed += n;
        Ok(())
    })
    .unwrap();
    file.set_len(300 << 20).unwrap();
    assert_eq!(passed, 256 << 20);
    let blocks = |file: &File| file.metadata().unwrap().blocks();
    assert!(blocks(&file) <= blocks(&home) + 64, "holes were filled");
    let said = run(
        "e2fsck",
        ["-fn", &format!("{}?offset={}", text(&path), at.0)],
    );
    assert!(said.contains("home: 11/65536 files"), "{said}");
    let stopped = copy_into("home.ext4", &home, Bytes::mib(256), &file, at, &mut |_| {
        Err(kiln_image::Error::cancelled())
    });
    assert_eq!(stopped.unwrap_err().kind(), ErrorKind::Cancelled);
}
