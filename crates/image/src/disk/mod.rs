//! Partition tables: where everything on the disk lies, then the bytes that say so.
//!
//! The layout is arithmetic alone. Partitions are added in the order in which they lie on the disk, each starting at the
//! next MiB; [`LayoutBuilder::next_start`] tells where the next one will begin, so that data of unknown size (the
//! SquashFS) can be streamed into place first and be added when it is finished. [`LayoutBuilder::finish`] returns the
//! [`DiskLayout`], whose [`DiskLayout::write`] puts the tables into the file.
//!
//! ```text
//! GPT                                           MBR
//! LBA 0      protective MBR, GRUB's boot.img    LBA 0      table, GRUB's boot.img
//! LBA 1      header                             LBA 1      gap: GRUB's core.img
//! LBA 2–33   128 entries of 128 bytes
//! LBA 2048   first partition                    LBA 2048   first partition
//! …                                             …
//! last − 32  backup entries
//! last       backup header
//! ```
//!
//! Sources: UEFI Specification 2.10, chapter 5 (GPT, protective MBR) and appendix A (GUIDs).
//!
//! The file should be new: parts that nothing writes to are left as they are, so that they stay holes.

mod gpt;
mod layout;
mod mbr;
mod partition;
mod units;

pub use layout::{DiskLayout, LayoutBuilder, Rounding};
pub use partition::{Attributes, Partition, PartitionSpec, PartitionType, Table};
pub use units::{Bytes, Extent, Lba, SECTOR, Sectors};

use std::fs::File;
use std::ops::Range;

use crate::error::Result;
use crate::sparse;

/// Returns the parts of a file's range that hold data, in order. What lies between them reads as zeros.
///
/// # Errors
/// The file cannot be looked at.
pub fn data(file: &File, range: Range<u64>) -> Result<Vec<Range<u64>>> {
    sparse::DataExtents::new(file, range).collect()
}

/// Copies the first `len` bytes of `source` to `target` at `at`; holes and what the file system knows to be unwritten stay holes.
///
/// `name` names the source in errors. `progress` is told the bytes passed since it was last called and may stop the copy
/// with an error ([`crate::Error::cancelled`]).
///
/// # Errors
/// A failed read or write, or a source that is shorter than `len`.
pub fn copy_into(
    name: &str,
    source: &File,
    len: Bytes,
    target: &File,
    at: Bytes,
    progress: &mut dyn FnMut(u64) -> Result<()>,
) -> Result<()> {
    sparse::copy(name, source, 0, len.0, target, at.0, progress)
}
