//! The arithmetic: from sizes to places.

use std::fs::File;

use serde::{Deserialize, Serialize};

use super::partition::{Partition, PartitionSpec, Table};
use super::units::{Bytes, Extent, Lba};
use super::{gpt, mbr};
use crate::error::{Error, IoContext, Result};

/// Every partition starts and ends at a multiple of this (1 MiB, as partitioning tools do), the first starts at LBA 2048.
const ALIGN: Bytes = Bytes::mib(1);
/// Larger disks are taken for a mistake: 256 TiB.
const MAX_DISK: Bytes = Bytes::gib(256 << 10);

/// How the disk's size follows from its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rounding {
    /// The size is a multiple of this.
    pub multiple: Bytes,
    /// The size is at least this; 0 for no minimum.
    pub minimum: Bytes,
}

impl Rounding {
    /// Whole GiB. Google Compute Engine imports `disk.raw` only at such sizes; the rest is a hole and costs nothing.
    pub const CLOUD: Self = Rounding {
        multiple: Bytes::gib(1),
        minimum: Bytes(0),
    };
    /// Whole MiB, for sticks.
    pub const TIGHT: Self = Rounding {
        multiple: Bytes::mib(1),
        minimum: Bytes(0),
    };

    fn apply(self, used: Bytes) -> Result<Bytes> {
        if self.multiple.0 == 0 || !self.multiple.0.is_multiple_of(ALIGN.0) {
            return Err(Error::input(format!(
                "a disk cannot be a multiple of {}; it needs a multiple of {ALIGN}",
                self.multiple
            )));
        }
        used.max(self.minimum)
            .round_up(self.multiple)
            .filter(|total| *total <= MAX_DISK)
            .ok_or_else(|| Error::input(format!("the disk would be larger than {MAX_DISK}")))
    }
}

/// Takes partitions in disk order and gives each its place.
#[derive(Clone, Debug)]
pub struct LayoutBuilder {
    table: Table,
    partitions: Vec<Partition>,
}

impl LayoutBuilder {
    /// Makes an empty disk.
    pub fn new(table: Table) -> Self {
        LayoutBuilder {
            table,
            partitions: Vec::new(),
        }
    }

    /// Byte offset at which the next partition will begin.
    pub fn next_start(&self) -> Bytes {
        let used = self
            .partitions
            .last()
            .map_or(Bytes(1), |p| p.extent.end().bytes());
        used.round_up(ALIGN).unwrap_or(MAX_DISK)
    }

    /// Size of the largest partition that can still be added to a disk of `total` bytes; 0 if none.
    pub fn room(&self, total: Bytes) -> Bytes {
        let end = total.0.saturating_sub(self.tail().0);
        let room = end.saturating_sub(self.next_start().0);
        Bytes(room - room % ALIGN.0)
    }

    /// Adds a partition of `size` bytes (rounded up to 1 MiB) at [`LayoutBuilder::next_start`].
    ///
    /// # Errors
    /// An empty or huge size, a name that is too long, a GUID that is there already, a table that is full, or a type that
    /// the table does not know.
    pub fn add(&mut self, spec: PartitionSpec, size: Bytes) -> Result<Extent> {
        spec.check_name()?;
        self.check_unique(&spec)?;
        let start = self.next_start();
        let size = size
            .round_up(ALIGN)
            .filter(|s| s.0 > 0 && start.0 + s.0.min(MAX_DISK.0) < MAX_DISK.0);
        let Some(size) = size else {
            return Err(Error::input(format!(
                "the partition `{}` is empty or larger than {MAX_DISK}",
                spec.name
            )));
        };
        let extent = Extent {
            start: Lba(start.sectors().0),
            sectors: size.sectors(),
        };
        let number = u32::try_from(self.partitions.len() + 1).unwrap_or(u32::MAX);
        match self.table {
            Table::Gpt { .. } => gpt::check(number)?,
            Table::Mbr { .. } => mbr::check(&spec, number, extent)?,
        }
        self.partitions.push(Partition {
            spec,
            number,
            extent,
        });
        Ok(extent)
    }

    fn check_unique(&self, spec: &PartitionSpec) -> Result<()> {
        match self.partitions.iter().find(|p| p.spec.guid == spec.guid) {
            Some(other) => Err(Error::new(
                crate::ErrorKind::Internal,
                format!(
                    "the partitions `{}` and `{}` have the same GUID {}",
                    other.spec.name, spec.name, spec.guid
                ),
            )),
            None => Ok(()),
        }
    }

    /// What the table needs behind the last partition.
    fn tail(&self) -> Bytes {
        match self.table {
            Table::Gpt { .. } => gpt::BACKUP.bytes(),
            Table::Mbr { .. } => Bytes(0),
        }
    }

    /// Settles the disk's size.
    ///
    /// # Errors
    /// A disk that would be too large, or a rounding that is not a multiple of 1 MiB.
    pub fn finish(self, rounding: Rounding) -> Result<DiskLayout> {
        let used = self
            .partitions
            .last()
            .map_or(ALIGN, |p| p.extent.end().bytes());
        let total = rounding.apply(Bytes(used.0 + self.tail().0))?;
        Ok(DiskLayout {
            table: self.table,
            partitions: self.partitions,
            total,
        })
    }
}

/// Where everything lies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskLayout {
    table: Table,
    partitions: Vec<Partition>,
    total: Bytes,
}

impl DiskLayout {
    /// Returns the table.
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// Returns the partitions in disk order.
    pub fn partitions(&self) -> &[Partition] {
        &self.partitions
    }

    /// Returns the disk's size.
    pub fn total(&self) -> Bytes {
        self.total
    }

    /// Brings `file` to the disk's size and writes the tables: nothing else is touched, and of sector 0 the boot code
    /// (the first 440 bytes) is kept.
    ///
    /// # Errors
    /// A failed write, or a file that is already larger than the disk.
    pub fn write(&self, file: &File) -> Result<()> {
        let have = file
            .metadata()
            .doing(|| "looking at the disk image".into())?
            .len();
        if have > self.total.0 {
            return Err(Error::new(
                crate::ErrorKind::Internal,
                format!(
                    "the disk image has {have} bytes, but its layout ends at {}",
                    self.total.0
                ),
            ));
        }
        file.set_len(self.total.0)
            .doing(|| format!("growing the disk image to {}", self.total))?;
        match self.table {
            Table::Gpt { disk } => gpt::write(file, disk, &self.partitions, self.total),
            Table::Mbr { signature } => mbr::write(file, signature, &self.partitions),
        }
        .doing(|| "writing the partition table".into())
    }
}
