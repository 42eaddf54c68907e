//! `part` and `[disk]`.

use super::{Lowering, commands};
use crate::definition::Definition;
use crate::disk::{Disk, Partition, PartitionTable};
use crate::model::{Layer, Located};
use crate::problem::Problem;

const MIB: u64 = 1 << 20;
/// ext4 is made with 4 KiB blocks; below this there is no room for its journal.
const SMALLEST_HOME: u64 = 16 * MIB;
/// What a sparse image holds on every file system that images are made on, and mke2fs makes in seconds.
const LARGEST_HOME: u64 = 8 << 40;
/// A master boot record counts 2^32 sectors of 512 bytes; the partition before /home takes its part.
const LARGEST_HOME_IN_MBR: u64 = (2 << 40) - (8 << 30);
/// What `part /home --grow` without `--size` starts with.
const DEFAULT_HOME: u64 = 256 * MIB;

impl Lowering<'_> {
    pub(super) fn disk(&mut self, definition: &Definition, layers: &[Layer]) -> Disk {
        let table = self.table(definition);
        let mut home = None;
        for part in commands(layers, "part") {
            match part.item.args.first().map(String::as_str) {
                Some("/home") => home = self.home(part, table),
                Some("/") => {}
                Some("swap") => self.ignored(part, "swap", "a live system swaps to no disk"),
                Some("/boot" | "/boot/efi" | "biosboot") => {
                    self.ignored(
                        part,
                        &part.item.args[0],
                        "Kiln lays out the boot partitions itself",
                    );
                }
                Some(other) => {
                    let message = format!(
                        "`part {other}`: a live image has a root and, if asked for, a /home partition"
                    );
                    let hint = "put the data below /home, or drop the line";
                    self.problems
                        .push(Problem::error(message).at(part.origin.clone()).hint(hint));
                }
                None => {}
            }
        }
        Disk::new(table, home)
    }

    fn table(&mut self, definition: &Definition) -> PartitionTable {
        let said = self.input.layout.as_ref();
        let Some(said) = said.or(definition.disk.layout.as_ref()) else {
            return PartitionTable::Gpt;
        };
        let mut known = PartitionTable::ALL.iter();
        if let Some(table) = known.find(|table| table.name() == said) {
            return *table;
        }
        let names: Vec<&str> = PartitionTable::ALL.iter().map(|t| t.name()).collect();
        let problem = Problem::error(format!("disk layout `{said}` is not one that Kiln writes"))
            .at(self.name);
        self.problems
            .push(problem.hint(format!("layouts: {}", names.join(", "))));
        PartitionTable::Gpt
    }

    fn ignored(&mut self, part: &Located<kiln_kickstart::Command>, what: &str, why: &str) {
        let message = format!("`part {what}` is not written: {why}");
        self.problems
            .push(Problem::warning(message).at(part.origin.clone()));
    }

    fn home(
        &mut self,
        part: &Located<kiln_kickstart::Command>,
        table: PartitionTable,
    ) -> Option<Partition> {
        let command = &part.item;
        let fstype = command.text("--fstype").unwrap_or("ext4");
        if fstype != "ext4" {
            let message = format!("`part /home --fstype={fstype}`: /home is written as ext4");
            self.problems.push(
                Problem::error(message)
                    .at(part.origin.clone())
                    .hint("use --fstype=ext4 or drop the option"),
            );
        }
        let label = command.text("--label").unwrap_or("home");
        if label.len() > 16
            || label.contains(|c: char| c.is_whitespace() || c.is_control() || c == '"' || c == '/')
        {
            let message = format!(
                "`part /home --label={label}`: an ext4 label has at most 16 bytes, no spaces, quotes or slashes"
            );
            self.problems
                .push(Problem::error(message).at(part.origin.clone()));
        }
        let size = match command.int("--size") {
            None if command.flag("--grow") => DEFAULT_HOME,
            None => {
                let problem = Problem::error("`part /home` without a size").at(part.origin.clone());
                self.problems
                    .push(problem.hint("give --size=MIB, --grow, or both"));
                return None;
            }
            Some(mib) => self.home_size(mib, table, part)?,
        };
        let grow = command.flag("--grow");
        Some(Partition::home(label, size, grow, part.origin.clone()))
    }

    fn home_size(
        &mut self,
        mib: i64,
        table: PartitionTable,
        part: &Located<kiln_kickstart::Command>,
    ) -> Option<u64> {
        let largest = match table {
            PartitionTable::Gpt => LARGEST_HOME,
            PartitionTable::Mbr => LARGEST_HOME_IN_MBR,
        };
        let size = u64::try_from(mib).ok().and_then(|mib| mib.checked_mul(MIB));
        if let Some(size) = size.filter(|size| (SMALLEST_HOME..=largest).contains(size)) {
            return Some(size);
        }
        let message = format!(
            "`part /home --size={mib}`: /home has {} to {} MiB in the disk layout `{}`",
            SMALLEST_HOME / MIB,
            largest / MIB,
            table.name()
        );
        let hint = "--grow lets a small /home take the rest of the stick at its first boot";
        self.problems
            .push(Problem::error(message).at(part.origin.clone()).hint(hint));
        None
    }
}
