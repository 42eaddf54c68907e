//! A stick with a master boot record: accepted by tools that Kiln did not write, and booted from USB under both kinds of firmware.

use std::fs::{self, File};
use std::path::Path;

use crate::disk::{EXT4, FAT, extract};
use crate::harness::{Turn, text, tool};

/// Where the first partition begins, as mtools want it.
const FIRST: &str = "@@1M";
const ROOT: &str = "::/live/filesystem.squashfs";

#[test]
fn a_stick_with_a_master_boot_record_boots_everywhere() {
    let turn = Turn::warm();
    turn.minimal_with("part /home --fstype=ext4 --size=64 --grow\n");
    turn.kiln(&["build", "minimal.ks", "--layout", "mbr", "-o", "output"])
        .assert(0);
    let disk = turn.path("output/disk.raw");
    its_parts_are_accepted(&turn, &disk);
    // The stick is larger than the image.
    let stick = File::options().write(true).open(&disk).expect("the disk");
    stick.set_len(2 << 30).expect("a larger disk");
    boots(
        &turn,
        "bios",
        "findmnt -n -t vfat /run/live/medium && findmnt -n -t ext4 /home\n\
         test \"$(df --output=size -BM /home | tail -n 1 | tr -dc 0-9)\" -gt 500\n",
    );
    let menu = turn.path("grub.cfg");
    let (fat, config) = (format!("{}{FIRST}", text(&disk)), "::/boot/grub/grub.cfg");
    tool("mcopy", &["-i", &fat, config, &text(&menu)]).assert(0);
    let edited = fs::read_to_string(&menu).expect("the menu");
    assert!(edited.contains("\nset default=start\n"), "{edited}");
    let edited = edited.replace("\nset default=start\n", "\nset default=ram\n");
    fs::write(&menu, edited).expect("the menu");
    tool("mcopy", &["-o", "-i", &fat, &text(&menu), config]).assert(0);
    boots(
        &turn,
        "uefi",
        "findmnt -n -t tmpfs /run/live/medium\ntest -z \"$(findmnt -n -t vfat)\"\n",
    );
    let left = turn.before.of_the_machine();
    assert!(left.is_empty(), "{left:?}");
}

fn its_parts_are_accepted(turn: &Turn, disk: &Path) {
    let verdict = tool("sfdisk", &["--verify", &text(disk)]);
    assert!(
        verdict.assert(0).stdout.contains("No errors detected"),
        "{}",
        verdict.whole()
    );
    let listed = tool("sfdisk", &["--json", &text(disk)]);
    let listed: serde_json::Value = serde_json::from_str(&listed.stdout).expect("JSON");
    let table = &listed["partitiontable"];
    assert_eq!(table["label"], "dos");
    let parts = table["partitions"].as_array().expect("partitions");
    let kinds: Vec<&str> = parts.iter().filter_map(|p| p["type"].as_str()).collect();
    assert_eq!(kinds, ["c", "83"]);
    assert_eq!(parts[0]["bootable"], true);
    let fat = text(&extract(disk, FAT, turn.path("fat")));
    tool("fsck.fat", &["-n", &fat]).assert(0);
    let home = extract(disk, EXT4, turn.path("home-part"));
    tool("e2fsck", &["-fn", &text(&home)]).assert(0);
    // Written to its place, not copied there: one run of clusters.
    let shown = tool("mshowfat", &["-i", &fat, ROOT]);
    assert_eq!(shown.stdout.matches('<').count(), 1, "{}", shown.whole());
    let root = text(&turn.path("root.squashfs"));
    tool("mcopy", &["-i", &fat, ROOT, &root]).assert(0);
    let unpacked = text(&turn.path("unpacked"));
    tool("unsquashfs", &["-q", "-n", "-d", &unpacked, &root]).assert(0);
    let packed = text(&turn.path("output/disk.tar.gz"));
    tool("tar", &["-xzSf", &packed, "-C", &unpacked]).assert(0);
    let raw = text(&turn.path("unpacked/disk.raw"));
    tool("cmp", &[&text(disk), &raw]).assert(0);
}

fn boots(turn: &Turn, firmware: &str, script: &str) {
    turn.write("script", &format!("set -ex\n{script}"));
    let (disk, script) = (turn.path("output/disk.raw"), turn.path("script"));
    turn.kiln(&[
        "test",
        &text(&disk),
        "--firmware",
        firmware,
        "--bus",
        "usb",
        "--expect",
        "login",
        "--script",
        &text(&script),
        "-o",
        &text(&turn.path(firmware)),
    ])
    .assert(0);
}
