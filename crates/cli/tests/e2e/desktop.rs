//! README's main job: `examples/lab` builds, and boots to its desktop. The one desktop boot of the test command.

use std::fs;
use std::path::Path;

use crate::harness::{Turn, text};

/// Seconds from power-on to the desktop under software emulation, on a machine that does other things too.
const PATIENCE: &str = "1400";

#[test]
fn the_lab_boots_to_its_desktop_under_uefi() {
    let turn = Turn::cold();
    let lab = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/lab");
    let output = turn.path("output");
    turn.kiln(&[
        "build",
        &text(&lab),
        "-o",
        &text(&output),
        "--format",
        "raw",
    ])
    .assert(0);
    turn.kiln(&[
        "test",
        &text(&output.join("disk.raw")),
        "--firmware",
        "uefi",
        "--timeout",
        PATIENCE,
        "-o",
        &text(&turn.path("boot")),
    ])
    .assert(0);
    let picture = fs::read(turn.path("boot/desktop.png")).expect("a picture of the desktop");
    assert!(picture.starts_with(b"\x89PNG"), "{} bytes", picture.len());
    let left = turn.before.of_the_machine();
    assert!(left.is_empty(), "{left:?}");
}
