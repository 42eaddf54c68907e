//! The disk that takes what the guest writes: an empty qcow2 over the image.
//!
//! ```text
//! cluster 0       header, version 3, no backing file: QEMU is told which node lies below
//! cluster 1       refcount table, one entry
//! cluster 2       refcount block: every cluster of this file counts 1
//! clusters 3…     L1 table, all zero: nothing is written yet
//! ```
//! The format is QEMU's `docs/interop/qcow2.txt`; integers are big endian.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::error::{Error, Result};

const CLUSTER_BITS: u32 = 16;
const CLUSTER: u64 = 1 << CLUSTER_BITS;
/// What one entry of the L1 table stands for: a cluster of 8-byte entries, a cluster each.
const PER_ENTRY: u64 = CLUSTER / 8 * CLUSTER;
/// Counts in one refcount block, 16 bits each: all of the first clusters must fit.
const COUNTS: u64 = CLUSTER / 2;
const HEADER: u32 = 104;
const FIRST_L1: u64 = 3;

/// Makes one of `size` bytes in a directory and removes its name at once.
pub(super) fn make(directory: &Path, size: u64) -> Result<File> {
    // QEMU counts in sectors.
    let size = size.next_multiple_of(512);
    let entries = size.div_ceil(PER_ENTRY);
    let clusters = FIRST_L1 + (entries * 8).div_ceil(CLUSTER);
    if clusters > COUNTS {
        return Err(Error::input(format!(
            "a disk of {size} bytes is larger than a machine can have"
        )));
    }
    let high = |value: u64| (value >> 32) as u32;
    #[rustfmt::skip]
    let header: [u32; HEADER as usize / 4] = [
        u32::from_be_bytes(*b"QFI\xfb"), 3,
        // No backing file: offset and length of its name.
        0, 0, 0,
        CLUSTER_BITS, high(size), size as u32,
        // Not encrypted.
        0,
        // Not cut: as many entries as fit into as many clusters.
        entries as u32, 0, (FIRST_L1 * CLUSTER) as u32,
        // The refcount table: its offset, and its length in clusters.
        0, CLUSTER as u32, 1,
        // No snapshots: their number, and the offset of their table.
        0, 0, 0,
        // Incompatible, compatible and autoclear features.
        0, 0, 0, 0, 0, 0,
        // Counts of 2^4 bits.
        4, HEADER,
    ];
    let header: Vec<u8> = header.into_iter().flat_map(u32::to_be_bytes).collect();
    let counts: Vec<u8> = (0..clusters).flat_map(|_| 1u16.to_be_bytes()).collect();
    let write = || {
        let file = tempfile::tempfile_in(directory)?;
        file.set_len(clusters * CLUSTER)?;
        file.write_all_at(&header, 0)?;
        file.write_all_at(&(2 * CLUSTER).to_be_bytes(), CLUSTER)?;
        file.write_all_at(&counts, 2 * CLUSTER)?;
        Ok(file)
    };
    write().map_err(|e| Error::file("making a disk for what the guest writes in", directory, e))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Needs the Debian package qemu-utils.
    #[test]
    fn qemu_img_finds_nothing_wrong() {
        let dir = tempfile::tempdir().unwrap();
        for size in [0, 1, 512, PER_ENTRY, PER_ENTRY + 1, 1 << 40] {
            let mut made = make(dir.path(), size).unwrap();
            let named = dir.path().join("changes.qcow2");
            std::io::copy(&mut made, &mut File::create(&named).unwrap()).unwrap();
            let run = |arguments: &[&str]| {
                let mut command = std::process::Command::new("qemu-img");
                let output = command.args(arguments).arg(&named).output().unwrap();
                assert!(output.status.success(), "{size}: {output:?}");
                String::from_utf8(output.stdout).unwrap()
            };
            let said = run(&["check", "-f", "qcow2"]);
            assert!(said.contains("No errors were found"), "{said}");
            let info = run(&["info", "-f", "qcow2", "--output=json"]);
            let info: serde_json::Value = serde_json::from_str(&info).unwrap();
            assert_eq!(info["virtual-size"], size.next_multiple_of(512));
        }
        assert!(make(dir.path(), 1 << 62).is_err());
    }
}
