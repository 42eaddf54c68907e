//! Bytes, sectors and positions, so that they cannot be mixed up.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The sector that every image is laid out in, in bytes. Sticks and virtual disks present 512 (or emulate it).
pub const SECTOR: u64 = 512;

/// A number of bytes, or a byte offset.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Bytes(pub u64);

impl Bytes {
    /// Returns that many KiB.
    pub const fn kib(n: u64) -> Self {
        Bytes(n << 10)
    }

    /// Returns that many MiB.
    pub const fn mib(n: u64) -> Self {
        Bytes(n << 20)
    }

    /// Returns that many GiB.
    pub const fn gib(n: u64) -> Self {
        Bytes(n << 30)
    }

    /// Returns the next multiple of `unit`, if it can be told.
    pub fn round_up(self, unit: Bytes) -> Option<Bytes> {
        self.0.checked_next_multiple_of(unit.0).map(Bytes)
    }

    /// Sectors that these bytes touch.
    pub fn sectors(self) -> Sectors {
        Sectors(self.0.div_ceil(SECTOR))
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            n if n >= 10 << 30 => write!(f, "{:.1} GiB", n as f64 / f64::from(1 << 30)),
            n if n >= 1 << 20 => write!(f, "{:.1} MiB", n as f64 / f64::from(1 << 20)),
            n => write!(f, "{n} bytes"),
        }
    }
}

/// A number of 512-byte sectors.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Sectors(pub u64);

impl Sectors {
    /// In bytes; saturates, which no disk reaches.
    pub const fn bytes(self) -> Bytes {
        Bytes(self.0.saturating_mul(SECTOR))
    }
}

/// The address of a sector, counted from the start of the disk.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Lba(pub u64);

impl Lba {
    /// Returns the byte offset of the sector; saturates, which no disk reaches.
    pub const fn bytes(self) -> Bytes {
        Bytes(self.0.saturating_mul(SECTOR))
    }
}

/// A run of sectors; never empty when it comes out of a layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Extent {
    /// The first sector.
    pub start: Lba,
    /// How many.
    pub sectors: Sectors,
}

impl Extent {
    /// Returns the first sector behind it.
    pub const fn end(self) -> Lba {
        Lba(self.start.0.saturating_add(self.sectors.0))
    }

    /// Returns its last sector.
    pub const fn last(self) -> Lba {
        Lba(self.end().0.saturating_sub(1))
    }

    /// Byte offset of its start.
    pub const fn offset(self) -> Bytes {
        self.start.bytes()
    }

    /// Returns its length in bytes.
    pub const fn len(self) -> Bytes {
        self.sectors.bytes()
    }

    /// Returns whether it has no sector.
    pub const fn is_empty(self) -> bool {
        self.sectors.0 == 0
    }
}
