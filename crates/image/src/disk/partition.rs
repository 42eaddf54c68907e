//! What a partition is, before and after it has a place.

use serde::{Deserialize, Serialize};
use uuid::{Uuid, uuid};

use super::units::Extent;
use crate::error::{Error, Result};

/// Longest partition name that GPT holds, in UTF-16 units.
const MAX_NAME: usize = 36;

/// Which table the disk has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Table {
    /// A GUID partition table with a protective MBR.
    Gpt {
        /// The disk's own GUID.
        disk: Uuid,
    },
    /// A master boot record with up to four primary partitions.
    Mbr {
        /// The disk signature; Linux derives PARTUUIDs from it (`signature-0n`).
        signature: u32,
    },
}

impl Table {
    /// Returns the PARTUUID that Linux shows for the partition with this GUID and number, as under `/dev/disk/by-partuuid/`.
    pub fn partuuid(&self, guid: Uuid, number: u32) -> String {
        match self {
            Table::Gpt { .. } => guid.to_string(),
            Table::Mbr { signature } => format!("{signature:08x}-{number:02x}"),
        }
    }
}

/// What a partition is for, in both tables' words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionType {
    /// GPT partition type GUID.
    pub gpt: Uuid,
    /// MBR partition type; 0 where MBR has none.
    pub mbr: u8,
}

impl PartitionType {
    /// Where GRUB's core.img lies on GPT disks. MBR disks use the gap before the first partition.
    pub const BIOS_BOOT: Self = Self::new(uuid!("21686148-6449-6e6f-744e-656564454649"), 0);
    /// EFI system partition (UEFI 2.10, table 5.7; MBR type 0xef).
    pub const EFI_SYSTEM: Self = Self::new(uuid!("c12a7328-f81f-11d2-ba4b-00a0c93ec93b"), 0xef);
    /// Linux data of no more special kind.
    pub const LINUX: Self = Self::new(uuid!("0fc63daf-8483-4772-8e79-3d69d8477de4"), 0x83);
    /// `/home` (UAPI Discoverable Partitions Specification).
    pub const LINUX_HOME: Self = Self::new(uuid!("933ac7e1-2eb4-4f13-b844-0e14e2aef915"), 0x83);
    /// Data that Windows shows too: FAT32 with LBA addressing.
    pub const BASIC_DATA: Self = Self::new(uuid!("ebd0a0a2-b9e5-4433-87c0-68b6b72699c7"), 0x0c);

    /// Makes a type by its GPT GUID and MBR byte.
    pub const fn new(gpt: Uuid, mbr: u8) -> Self {
        PartitionType { gpt, mbr }
    }
}

/// GPT attribute bits (UEFI 2.10, table 5.8; bits 48–63 belong to the type).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Attributes(pub u64);

impl Attributes {
    /// The platform needs it to work.
    pub const REQUIRED: Self = Attributes(1);
    /// Firmware shall not look inside.
    pub const NO_BLOCK_IO: Self = Attributes(1 << 1);
    /// BIOS boot loaders may boot it; on MBR disks it sets the active flag.
    pub const LEGACY_BOOT: Self = Attributes(1 << 2);
    /// systemd may grow the file system to the partition (Discoverable Partitions Specification).
    pub const GROW_FILE_SYSTEM: Self = Attributes(1 << 59);
    /// systemd mounts it read-only.
    pub const READ_ONLY: Self = Attributes(1 << 60);
    /// systemd does not mount it by itself.
    pub const NO_AUTO: Self = Attributes(1 << 63);

    /// Returns these attributes and those of `other`.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Attributes(self.0 | other.0)
    }

    /// Returns whether all bits of `other` are set.
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// A partition that has no place yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionSpec {
    /// Shown by tools, and `/dev/disk/by-partlabel/`; up to 36 UTF-16 units. MBR has no names.
    pub name: String,
    /// What it is for.
    pub kind: PartitionType,
    /// Its own GUID, `/dev/disk/by-partuuid/`. Unused on MBR.
    pub guid: Uuid,
    /// Flags.
    pub attributes: Attributes,
}

impl PartitionSpec {
    /// Makes a partition without attributes.
    pub fn new(name: impl Into<String>, kind: PartitionType, guid: Uuid) -> Self {
        PartitionSpec {
            name: name.into(),
            kind,
            guid,
            attributes: Attributes::default(),
        }
    }

    /// Adds attributes.
    #[must_use]
    pub fn with(mut self, attributes: Attributes) -> Self {
        self.attributes = self.attributes.with(attributes);
        self
    }

    pub(super) fn check_name(&self) -> Result<()> {
        let units = self.name.encode_utf16().count();
        if units > MAX_NAME || self.name.contains('\0') {
            return Err(Error::input(format!(
                "the partition name `{}` has {units} characters; GPT holds {MAX_NAME}",
                self.name.escape_debug()
            ))
            .with_hint("give the partition a shorter label"));
        }
        Ok(())
    }
}

/// A partition in its place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Partition {
    /// What it is.
    #[serde(flatten)]
    pub spec: PartitionSpec,
    /// Number in the table, from 1.
    pub number: u32,
    /// Its sectors.
    pub extent: Extent,
}

impl Partition {
    /// Returns the PARTUUID that Linux shows for it under `table`, as under `/dev/disk/by-partuuid/`.
    pub fn partuuid(&self, table: &Table) -> String {
        table.partuuid(self.spec.guid, self.number)
    }
}
