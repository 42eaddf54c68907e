//! The minimal image boots to a login, under both kinds of firmware.

use std::fs;

use crate::harness::{Turn, image, text};

fn boots(firmware: &str) {
    let turn = Turn::warm();
    let output = text(&turn.path("boot"));
    let ran = turn.kiln(&[
        "test",
        &text(&image()),
        "--firmware",
        firmware,
        "--expect",
        "login",
        "-o",
        &output,
    ]);
    ran.assert(0);
    let report = fs::read_to_string(turn.path("boot/boot.json")).expect("a report");
    assert!(report.contains("login"), "{report}");
    let left = turn.before.of_the_machine();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn under_bios() {
    boots("bios");
}

#[test]
fn under_uefi() {
    boots("uefi");
}
