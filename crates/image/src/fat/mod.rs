//! FAT32 file systems, written from nothing into a place of a disk image.
//!
//! ```text
//! sector 0       boot sector (BPB)        6  its backup
//!        1       FSInfo                   7  its backup
//!        2       third boot sector        8  its backup
//! reserved…      FAT 1, FAT 2 (4 bytes a cluster)
//! data…          clusters from 2: the root directory, then directories and files in the order of their names,
//!                each in one run
//! ```
//!
//! The same tree, spec and size give the same bytes: time comes from the spec, order from the names. Free space and the
//! unused part of the FATs are not written, so that they stay holes of a new file.
//!
//! One file may be in its place before its length is known, and so before the volume is laid out ([`FatTree::add_file_ahead`]).
//! Clusters of its volume have 4 KiB and begin at 16 MiB, whatever the volume's size: what the FATs do not need is reserved sectors.
//!
//! ```text
//! 16 MiB         directories, up to 1 MiB
//! 17 MiB         the file, in one run; then the other files
//! ```
//!
//! Source: Microsoft, "FAT32 File System Specification" 1.03 (fatgen103).

mod geometry;
mod name;
mod table;
mod time;
mod tree;
mod write;

pub use tree::{FatTree, MAX_FILE, Source};
pub use write::{FatImage, FatSpec};

/// Sector size in bytes.
const SECTOR: u64 = 512;
/// Size of a directory entry in bytes.
const ENTRY: usize = 32;
/// Most entries of a directory (2 MiB, section "FAT Directory Structure").
const MAX_DIR_ENTRIES: usize = 65_536;
/// First cluster of the root directory and of the data area.
const ROOT_CLUSTER: u32 = 2;
/// Marks a chain's end.
const END_OF_CHAIN: u32 = 0x0fff_ffff;
/// The bits of a FAT entry that count.
const CLUSTER_MASK: u32 = 0x0fff_ffff;

/// Directory entry attributes.
mod attribute {
    pub(super) const VOLUME_LABEL: u8 = 0x08;
    pub(super) const DIRECTORY: u8 = 0x10;
    pub(super) const ARCHIVE: u8 = 0x20;
    /// Read-only, hidden, system and label at once: part of a long name.
    pub(super) const LONG_NAME: u8 = 0x0f;
}
