//! Where everything lies on the disk, and how it is called: from the plan's partitions to the table's.

use kiln_image::disk::{
    self, Attributes, Bytes, DiskLayout, LayoutBuilder, PartitionSpec, PartitionType, Rounding,
    Table,
};
use kiln_image::fat::{FatImage, MAX_FILE};
use kiln_plan::{Disk, Id, Partition, PartitionTable, Role};
use kiln_rootfs::family::Medium;
use uuid::Uuid;

use crate::{Failure, FailureKind};

/// A disk whose names follow from what the image is made of.
pub(crate) struct Parts<'a> {
    disk: &'a Disk,
    image: Id,
    table: Table,
}

impl<'a> Parts<'a> {
    pub(crate) fn new(disk: &'a Disk, image: Id) -> Self {
        let own = image.uuid("disk");
        let table = match disk.table {
            PartitionTable::Gpt => Table::Gpt { disk: own },
            // 0 would mean that there is none.
            PartitionTable::Mbr => Table::Mbr {
                signature: word(own).max(1),
            },
        };
        Parts { disk, image, table }
    }

    /// The serial number of the boot partition's file system.
    pub(crate) fn volume(&self) -> u32 {
        word(self.image.uuid("volume"))
    }

    fn spec(&self, partition: &Partition) -> PartitionSpec {
        let (purpose, kind, attributes) = match (partition.role, self.disk.table) {
            (Role::BiosBoot, _) => ("bios-boot", PartitionType::BIOS_BOOT, Attributes::default()),
            (Role::Boot, PartitionTable::Gpt) => {
                ("esp", PartitionType::EFI_SYSTEM, Attributes::default())
            }
            // Windows shows it, all firmware starts from it, and some of it only if it is active.
            (Role::Boot, PartitionTable::Mbr) => {
                ("esp", PartitionType::BASIC_DATA, Attributes::LEGACY_BOOT)
            }
            (Role::Root, _) => (
                "root",
                PartitionType::LINUX,
                Attributes::READ_ONLY.with(Attributes::NO_AUTO),
            ),
            (Role::Home, _) => ("home", PartitionType::LINUX_HOME, Attributes::NO_AUTO),
        };
        let guid = self.image.uuid(purpose);
        PartitionSpec::new(partition.label.clone(), kind, guid).with(attributes)
    }

    /// The partition that has the root, in one way or the other.
    fn with_root(&self) -> Role {
        match self.disk.has_root_file() {
            true => Role::Boot,
            false => Role::Root,
        }
    }

    /// Where the root is written while nothing that lies before it is known: behind partitions of their least size.
    pub(crate) fn root_expected(&self) -> Result<Bytes, Failure> {
        let mut builder = LayoutBuilder::new(self.table);
        let role = self.with_root();
        for partition in self.disk.partitions.iter().take_while(|p| p.role != role) {
            builder.add(self.spec(partition), Bytes(partition.size.least()))?;
        }
        Ok(self.root_in(builder.next_start()))
    }

    /// Where the root belongs.
    pub(crate) fn root(&self, layout: &DiskLayout) -> Result<Bytes, Failure> {
        let place = self.place(layout, self.with_root())?;
        Ok(self.root_in(place.extent.offset()))
    }

    fn root_in(&self, partition: Bytes) -> Bytes {
        match self.disk.has_root_file() {
            true => Bytes(partition.0 + FatImage::AHEAD.0),
            false => partition,
        }
    }

    /// What tells the running system where the root is.
    pub(crate) fn medium(&self) -> Result<Medium, Failure> {
        let (number, partition) = self.numbered(self.with_root())?;
        Ok(Medium {
            partition: self.table.partuuid(self.spec(partition).guid, number),
            is_file: self.disk.has_root_file(),
            in_memory: false,
        })
    }

    fn numbered(&self, role: Role) -> Result<(u32, &Partition), Failure> {
        let mut numbered = (1..).zip(&self.disk.partitions);
        let found = numbered.find(|(_, partition)| partition.role == role);
        found.ok_or_else(|| lacking(role))
    }

    /// The number of the partition with this role.
    pub(crate) fn number(&self, role: Role) -> Result<u32, Failure> {
        self.numbered(role).map(|(number, _)| number)
    }

    /// The kind of partition table.
    pub(crate) fn table(&self) -> &Table {
        &self.table
    }

    /// The disk, with partitions of the sizes given.
    pub(crate) fn layout(
        &self,
        size: impl Fn(&Partition) -> Result<Bytes, Failure>,
        rounding: Rounding,
    ) -> Result<DiskLayout, Failure> {
        let mut builder = LayoutBuilder::new(self.table);
        for partition in &self.disk.partitions {
            builder.add(self.spec(partition), size(partition)?)?;
        }
        Ok(builder.finish(rounding)?)
    }

    /// The partition with this role.
    pub(crate) fn place<'l>(
        &self,
        layout: &'l DiskLayout,
        role: Role,
    ) -> Result<&'l disk::Partition, Failure> {
        let mut both = self.disk.partitions.iter().zip(layout.partitions());
        let found = both.find(|(partition, _)| partition.role == role);
        found.map(|(_, place)| place).ok_or_else(|| lacking(role))
    }
}

fn lacking(role: Role) -> Failure {
    let message = format!("the disk has no partition for {role:?}");
    Failure::new(FailureKind::Internal, message)
}

fn word(uuid: Uuid) -> u32 {
    uuid.as_fields().0
}

/// How much better an image may be compressed than packages are, at most: some are not compressed at all well, and a file that several have
/// is in the image once.
const BETTER: u64 = 2;

/// Refuses a root that surely will not fit into the boot partition, as far as its packages tell; returns what is to be said of one that
/// may not. `shrinks` is whether something leaves files of the packages out, or may remove some.
pub(crate) fn check_packages(
    disk: &Disk,
    bytes: u64,
    shrinks: bool,
) -> Result<Option<Failure>, Failure> {
    let what = "its packages alone have";
    match check(disk, bytes, "may be", what) {
        Err(_) if !shrinks && bytes / BETTER > MAX_FILE => {
            check(disk, bytes, "is", what).map(|()| None)
        }
        Err(doubt) => Ok(Some(doubt)),
        Ok(()) => Ok(None),
    }
}

/// Refuses a root that does not fit into the boot partition.
pub(crate) fn check_root(disk: &Disk, bytes: u64) -> Result<(), Failure> {
    check(disk, bytes, "is", "its SquashFS has")
}

fn check(disk: &Disk, bytes: u64, how: &str, what: &str) -> Result<(), Failure> {
    if bytes <= MAX_FILE || !disk.has_root_file() {
        return Ok(());
    }
    let message = format!(
        "the root {how} too large for the disk layout `{}`: {what} {}, and there it is a file on FAT32, which ends below 4 GiB",
        disk.table.name(),
        Bytes(bytes)
    );
    Err(Failure::new(FailureKind::Definition, message)
        .hint("use the layout `gpt`: there the root has a partition of its own, of any size")
        .hint("or make the root smaller: leave packages out, or compress more with `compression = \"xz\"` in a profile"))
}

#[cfg(test)]
mod tests {
    use kiln_plan::Hasher;

    use super::*;

    fn image() -> Id {
        Hasher::new("test").finish()
    }

    fn sized(partition: &Partition) -> Result<Bytes, Failure> {
        Ok(Bytes(partition.size.least().max(1)))
    }

    #[test]
    fn the_root_is_written_where_it_belongs() {
        for table in PartitionTable::ALL {
            let home = Partition::home("home", 64 << 20, false, "a.ks:1".to_owned());
            let disk = Disk::new(*table, Some(home));
            let parts = Parts::new(&disk, image());
            let layout = parts.layout(sized, Rounding::TIGHT).unwrap();
            assert_eq!(
                parts.root_expected().unwrap(),
                parts.root(&layout).unwrap(),
                "{table:?}"
            );
        }
    }

    #[test]
    fn the_medium_is_the_partition_with_the_root() {
        for (table, number) in [(PartitionTable::Gpt, 3), (PartitionTable::Mbr, 1)] {
            let disk = Disk::new(table, None);
            let parts = Parts::new(&disk, image());
            let layout = parts.layout(sized, Rounding::TIGHT).unwrap();
            let medium = parts.medium().unwrap();
            let place = parts.place(&layout, parts.with_root()).unwrap();
            assert_eq!(place.number, number);
            assert_eq!(medium.partition, place.partuuid(layout.table()));
            assert_eq!(medium.is_file, table == PartitionTable::Mbr);
        }
    }

    #[test]
    fn a_root_of_four_gibibytes_is_refused_where_it_is_a_file() {
        let mbr = Disk::new(PartitionTable::Mbr, None);
        let gpt = Disk::new(PartitionTable::Gpt, None);
        assert!(check_root(&mbr, MAX_FILE).is_ok());
        for refused in [
            check_packages(&mbr, 2 * MAX_FILE + 2, false).map(drop),
            check_root(&mbr, 5 << 30),
        ] {
            let failure = refused.unwrap_err();
            assert!(failure.message.contains("is too large"), "{failure:?}");
            assert_eq!(failure.kind, FailureKind::Definition);
            assert!(failure.message.contains("GiB"), "{}", failure.message);
            assert!(failure.hints.iter().any(|hint| hint.contains("`gpt`")));
        }
        assert!(check_root(&gpt, 5 << 30).is_ok());
        assert!(check_packages(&gpt, 50 << 30, false).unwrap().is_none());
    }

    /// Documentation that is left out was counted, and so was what a script removes.
    #[test]
    fn packages_that_may_fit_are_not_refused_before_they_are_packed() {
        let mbr = Disk::new(PartitionTable::Mbr, None);
        assert!(check_packages(&mbr, MAX_FILE, false).unwrap().is_none());
        for (bytes, shrinks) in [(MAX_FILE + 1, false), (9 << 30, true)] {
            let doubt = check_packages(&mbr, bytes, shrinks).unwrap();
            let doubt = doubt.expect("something to say");
            assert!(doubt.message.contains("may be too large"), "{doubt:?}");
        }
    }
}
