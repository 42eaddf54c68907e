//! A guest of 141 bytes for tests: a boot sector that plays a script over the two serial ports, so that a whole boot
//! can be staged in a second.
//!
//! The script follows the boot sector, up to 8 KiB of it. Bytes above 7 are sent to the chosen port; the others are orders.

use std::path::{Path, PathBuf};

/// Send to the first serial port, the console.
pub(crate) const CONSOLE: &[u8] = &[1];
/// Send to the second serial port, the observer's.
pub(crate) const OBSERVER: &[u8] = &[2];
/// Wait for a line on the chosen port.
pub(crate) const LISTEN: &[u8] = &[3];
/// Reset the machine.
pub(crate) const RESET: &[u8] = &[4];
/// Write the boot sector over sector 40 (counted from 1).
pub(crate) const WRITE_DISK: &[u8] = &[5];
/// Switch the machine off.
pub(crate) const POWER_OFF: &[u8] = &[6];
/// Halt for good.
pub(crate) const HALT: &[u8] = &[7];

/// Real-mode code at 0x7c00.
const CODE: [u8; 141] = [
    0xfa, 0x31, 0xc0, 0x8e, 0xd8, 0x8e, 0xc0, 0x8e, 0xd0, 0xbc, 0x00,
    0x7c, // cli; ds = es = ss = 0; sp = 0x7c00
    0xb8, 0x10, 0x02, 0xbb, 0x00, 0x7e, 0xb9, 0x02, 0x00, 0xb6, 0x00,
    0x52, // read 16 sectors from sector 2 …
    0xcd, 0x13, 0x5d, 0xbe, 0x00, 0x7e, 0xbb, 0xf8,
    0x03, // … to 0x7e00; bp = drive, si = script, bx = COM1
    0xac, 0x3c, 0x07, 0x77, 0x56, 0x72, 0x03, // next: lodsb; above 7: send; below 7: orders
    0xf4, 0xeb, 0xfd, // 7: hlt for ever
    0x3c, 0x01, 0x75, 0x05, 0xbb, 0xf8, 0x03, 0xeb, 0xed, // 1: bx = COM1
    0x3c, 0x02, 0x75, 0x05, 0xbb, 0xf8, 0x02, 0xeb, 0xe4, // 2: bx = COM2
    0x3c, 0x03, 0x75, 0x11, 0x8d, 0x57, 0x05, 0xec, 0xa8, 0x01, 0x74,
    0xf8, // 3: wait until a byte is there …
    0x89, 0xda, 0xec, 0x3c, 0x0a, 0x75, 0xf1, 0xeb,
    0xcf, // … take it; again unless it ends the line
    0x3c, 0x04, 0x75, 0x06, 0xb0, 0xfe, 0xe6, 0x64, 0xeb,
    0xcc, // 4: reset through the keyboard controller
    0x3c, 0x05, 0x75, 0x13, 0x53, 0xb8, 0x01, 0x03, 0xbb, 0x00, 0x7c,
    0xb9, // 5: write one sector from 0x7c00 …
    0x28, 0x00, 0x89, 0xea, 0xb6, 0x00, 0xcd, 0x13, 0x5b, 0xeb, 0xae, // … to sector 40
    0xba, 0x04, 0x06, 0xb8, 0x00, 0x20, 0xef, 0xeb,
    0xac, // 6: power off through the ACPI port of q35
    0x88, 0xc4, 0x8d, 0x57, 0x05, 0xec, 0xa8, 0x20, 0x74,
    0xfb, // send: wait until the port is free …
    0x88, 0xe0, 0x89, 0xda, 0xee, 0xeb, 0x94, // … and send
];

/// Writes a bootable disk that plays `script`, and returns its path.
pub(crate) fn image(dir: &Path, script: &[&[u8]]) -> PathBuf {
    // The BIOS may leave its own last line unfinished.
    let script = [b"\r\n", script.concat().as_slice()].concat();
    assert!(script.len() < 8192, "the boot sector reads 16 sectors");
    let mut disk = vec![0; 1 << 20];
    disk[..CODE.len()].copy_from_slice(&CODE);
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    disk[512..512 + script.len()].copy_from_slice(&script);
    disk[512 + script.len()] = HALT[0];
    let path = dir.join("disk.raw");
    std::fs::write(&path, disk).unwrap();
    path
}
