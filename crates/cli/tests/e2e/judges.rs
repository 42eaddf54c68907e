//! Tools that Kiln did not write accept the parts of a disk that it did.

use std::fs;
use std::process::Command;

use crate::disk::{EXT4, FAT, extract, unpack};
use crate::harness::{LONGEST, Turn, run, text, tool};

#[test]
fn every_part_is_accepted() {
    let turn = Turn::warm();
    turn.minimal_with("part /home --fstype=ext4 --size=64\n");
    let ran = turn.kiln(&["build", "minimal.ks", "-o", "output"]);
    ran.assert(0);
    let disk = turn.path("output/disk.raw");
    let verdict = tool("sfdisk", &["--verify", &text(&disk)]);
    assert!(
        verdict.assert(0).stdout.contains("No errors detected"),
        "{}",
        verdict.whole()
    );
    let fat = extract(&disk, FAT, turn.path("esp"));
    tool("fsck.fat", &["-n", &text(&fat)]).assert(0);
    let listed = tool("mdir", &["-/", "-b", "-i", &text(&fat), "::"]);
    let has_loader = listed.stdout.to_ascii_lowercase().contains("bootx64.efi");
    assert!(has_loader, "{}", listed.whole());
    let home = extract(&disk, EXT4, turn.path("home-part"));
    tool("e2fsck", &["-fn", &text(&home)]).assert(0);
    unpack(&disk, turn.path("unpacked"));
    the_kernel_mounts(&turn);
    the_archive_has_the_disk(&turn);
    let left = turn.before.of_the_machine();
    assert!(left.is_empty(), "{left:?}");
}

/// Not the FAT: not every kernel has it. In a mount namespace of its own, so that nothing stays mounted; `mount -o loop` frees its device by itself.
fn the_kernel_mounts(turn: &Turn) {
    let script = "set -e; mkdir m; for part in unpacked.squashfs home-part; do \
        mount -o loop,ro $part m; ls m | head -n 3 >> listed; \
        if [ $part = unpacked.squashfs ]; then diff -r --no-dereference m/etc unpacked/etc; cmp m/usr/bin/bash unpacked/usr/bin/bash; fi; \
        umount m; done";
    let mut command = Command::new("unshare");
    command
        .args(["-m", "sh", "-c", script])
        .current_dir(turn.path("."));
    run(&mut command, LONGEST).assert(0);
    assert!(fs::read_to_string(turn.path("listed")).is_ok_and(|listed| !listed.is_empty()));
}

fn the_archive_has_the_disk(turn: &Turn) {
    let unpack = tool(
        "tar",
        &[
            "-xzSf",
            &text(&turn.path("output/disk.tar.gz")),
            "-C",
            &text(&turn.path("unpacked")),
        ],
    );
    unpack.assert(0);
    tool(
        "cmp",
        &[
            &text(&turn.path("output/disk.raw")),
            &text(&turn.path("unpacked/disk.raw")),
        ],
    )
    .assert(0);
}
