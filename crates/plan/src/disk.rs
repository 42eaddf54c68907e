//! The disk as data. What else depends on it follows from here: the image's ids, the boot menu, where GRUB searches.

use serde::{Deserialize, Serialize};

const MIB: u64 = 1 << 20;
/// GRUB's core image needs about 150 KiB.
const BIOS_BOOT: u64 = MIB;
/// Room for kernel, initramfs and boot loaders, with some for a later kernel beside the first. Where the root has a partition of its
/// own behind it, writing begins before the initramfs is known; a larger boot partition then moves the root.
const BOOT: u64 = 256 * MIB;
/// Free space that a boot partition has at least.
const BOOT_FREE: u64 = 16 * MIB;
/// Free space beside a root that lies in the boot partition: a later kernel, and files that people bring along.
const STICK_FREE: u64 = 128 * MIB;

/// A disk: its table, and its partitions in their order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    /// The partition table.
    pub table: PartitionTable,
    /// The partitions in their order. One of them is [`Role::Boot`].
    pub partitions: Vec<Partition>,
}

/// A partition table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PartitionTable {
    /// GUID partition table.
    Gpt,
    /// Master boot record.
    Mbr,
}

/// A partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Partition {
    /// What it is for.
    pub role: Role,
    /// Its name in a table that has names; of `/home` also the ext4 label, at most 16 bytes.
    pub label: String,
    /// How large it is.
    pub size: Size,
    /// Whether it takes the rest of the stick at the first boot.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub grow: bool,
    /// `file:line` that asked for it, where somebody did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
}

/// What a partition is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// GRUB's core image, where the table leaves no gap before the first partition.
    BiosBoot,
    /// FAT32: boot loaders, boot menu, kernel and initramfs; and the root as a file, where it has no partition.
    Boot,
    /// The root's SquashFS, as it is.
    Root,
    /// `/home`, ext4.
    Home,
}

/// How large a partition is, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Size {
    /// So large.
    Fixed(u64),
    /// As large as what it holds.
    Content {
        /// Even if it holds less.
        least: u64,
        /// What is free beside it.
        free: u64,
    },
}

impl PartitionTable {
    /// All, in the order in which they are offered.
    pub const ALL: &[Self] = &[Self::Gpt, Self::Mbr];

    /// As `--layout` and `[disk] layout` call it.
    pub fn name(self) -> &'static str {
        match self {
            PartitionTable::Gpt => "gpt",
            PartitionTable::Mbr => "mbr",
        }
    }
}

impl Partition {
    fn new(role: Role, label: &str, size: Size) -> Self {
        Partition {
            role,
            label: label.to_owned(),
            size,
            grow: false,
            origin: None,
        }
    }

    /// A `/home` of so many bytes.
    pub fn home(label: &str, size: u64, grow: bool, origin: String) -> Self {
        Partition {
            grow,
            origin: Some(origin),
            ..Partition::new(Role::Home, label, Size::Fixed(size))
        }
    }
}

impl Size {
    /// The size that a partition has even if it holds nothing.
    pub fn least(self) -> u64 {
        match self {
            Size::Fixed(size) | Size::Content { least: size, .. } => size,
        }
    }
}

impl Disk {
    /// The disk that Kiln makes with this table.
    pub fn new(table: PartitionTable, home: Option<Partition>) -> Self {
        let content = |least, free| Size::Content { least, free };
        let boot = |size| Partition::new(Role::Boot, "EFI system", size);
        let mut partitions = match table {
            PartitionTable::Gpt => vec![
                Partition::new(Role::BiosBoot, "BIOS boot", Size::Fixed(BIOS_BOOT)),
                boot(content(BOOT, BOOT_FREE)),
                Partition::new(Role::Root, "Kiln root", content(0, 0)),
            ],
            PartitionTable::Mbr => vec![boot(content(0, STICK_FREE))],
        };
        partitions.extend(home);
        Disk { table, partitions }
    }

    /// The partition with this role.
    pub fn partition(&self, role: Role) -> Option<&Partition> {
        self.partitions.iter().find(|p| p.role == role)
    }

    /// The `/home` partition.
    pub fn home(&self) -> Option<&Partition> {
        self.partition(Role::Home)
    }

    /// Whether the root lies in the boot partition, as a file.
    pub fn has_root_file(&self) -> bool {
        self.partition(Role::Root).is_none()
    }

    /// What of the disk makes another image: the table, and what the definition says of `/home`. The rest follows from the table.
    pub(crate) fn identity(&self) -> impl Serialize + '_ {
        let home = self.home();
        (self.table, home.map(|h| (&h.label, h.size.least(), h.grow)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn home() -> Partition {
        Partition::home("home", 1 << 29, true, "a.ks:1".to_owned())
    }

    /// Images have names that follow from it.
    #[test]
    fn the_identity_is_pinned() {
        let identity = |table, home| {
            let disk = Disk::new(table, home);
            serde_json::to_string(&disk.identity()).unwrap()
        };
        assert_eq!(identity(PartitionTable::Gpt, None), r#"["gpt",null]"#);
        assert_eq!(
            identity(PartitionTable::Gpt, Some(home())),
            r#"["gpt",["home",536870912,true]]"#
        );
        assert_eq!(identity(PartitionTable::Mbr, None), r#"["mbr",null]"#);
    }

    #[test]
    fn a_disk_is_written_and_read() {
        for table in PartitionTable::ALL {
            let disk = Disk::new(*table, Some(home()));
            let text = serde_json::to_string(&disk).unwrap();
            assert_eq!(serde_json::from_str::<Disk>(&text).unwrap(), disk, "{text}");
            let boots = disk.partitions.iter().filter(|p| p.role == Role::Boot);
            assert_eq!(boots.count(), 1);
        }
    }
}
