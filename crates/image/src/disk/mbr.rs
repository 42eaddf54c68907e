//! The master boot record: a table of its own, or the protective one of GPT (UEFI 2.10, section 5.2).
//!
//! ```text
//! 0x000 boot code (440 bytes, kept)   0x1b8 disk signature   0x1bc zero
//! 0x1be four entries of 16 bytes: 0 active (0x80)  1 first CHS  4 type  5 last CHS  8 first LBA  12 sectors
//! 0x1fe 55 aa
//! ```

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::partition::{Attributes, Partition, PartitionSpec};
use super::units::{Extent, Lba, Sectors};
use crate::error::{Error, Result};

const TABLE: u64 = 0x1b8;
const SLOTS: u32 = 4;
const PROTECTIVE: u8 = 0xee;
/// The geometry that BIOSes pretend for LBA disks.
const HEADS: u64 = 255;
const SECTORS_PER_TRACK: u64 = 63;

pub(super) fn check(spec: &PartitionSpec, number: u32, extent: Extent) -> Result<()> {
    let name = &spec.name;
    if number > SLOTS {
        return Err(Error::input(format!(
            "an MBR disk holds {SLOTS} partitions, `{name}` would be number {number}"
        ))
        .with_hint("use the GPT layout"));
    }
    if spec.kind.mbr == 0 {
        return Err(Error::input(format!(
            "the partition `{name}` has a type that an MBR disk cannot name"
        )));
    }
    if extent.end().0 > u64::from(u32::MAX) {
        return Err(Error::input(format!(
            "the partition `{name}` ends behind 2 TiB, where an MBR disk ends"
        ))
        .with_hint("use the GPT layout"));
    }
    Ok(())
}

pub(super) fn write(file: &File, signature: u32, partitions: &[Partition]) -> io::Result<()> {
    let slots: Vec<Slot> = partitions
        .iter()
        .map(|p| Slot {
            active: p.spec.attributes.has(Attributes::LEGACY_BOOT),
            kind: p.spec.kind.mbr,
            extent: p.extent,
        })
        .collect();
    write_table(file, signature, &slots)
}

/// One entry that covers the disk, for tools that know no GPT.
pub(super) fn write_protective(file: &File, disk: Sectors) -> io::Result<()> {
    let slot = Slot {
        active: false,
        kind: PROTECTIVE,
        extent: Extent {
            start: Lba(1),
            sectors: Sectors((disk.0 - 1).min(u64::from(u32::MAX))),
        },
    };
    write_table(file, 0, &[slot])
}

struct Slot {
    active: bool,
    kind: u8,
    extent: Extent,
}

fn write_table(file: &File, signature: u32, slots: &[Slot]) -> io::Result<()> {
    let mut out = Vec::with_capacity(72);
    out.extend(signature.to_le_bytes());
    out.extend([0; 2]);
    for slot in slots {
        out.push(if slot.active { 0x80 } else { 0 });
        out.extend(chs(slot.extent.start));
        out.push(slot.kind);
        out.extend(chs(slot.extent.last()));
        out.extend(clamp(slot.extent.start.0).to_le_bytes());
        out.extend(clamp(slot.extent.sectors.0).to_le_bytes());
    }
    out.resize(70, 0);
    out.extend([0x55, 0xaa]);
    file.write_all_at(&out, TABLE)
}

fn clamp(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

/// Cylinder, head and sector of an address, or the largest where it does not fit: 0xfeffff, and for the protective
/// entry of a disk that does not fit 0xffffff (UEFI 2.10, table 5.4) — tools take either.
fn chs(lba: Lba) -> [u8; 3] {
    let cylinder = lba.0 / (HEADS * SECTORS_PER_TRACK);
    if cylinder > 1023 {
        return [0xfe, 0xff, 0xff];
    }
    let head = lba.0 / SECTORS_PER_TRACK % HEADS;
    let sector = lba.0 % SECTORS_PER_TRACK + 1;
    [
        head as u8,
        sector as u8 | (cylinder >> 2) as u8 & 0xc0,
        cylinder as u8,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chs_as_tools_write_it() {
        assert_eq!(chs(Lba(1)), [0, 2, 0]);
        assert_eq!(chs(Lba(2048)), [0x20, 0x21, 0]);
        assert_eq!(chs(Lba(1023 * 255 * 63)), [0, 0xc1, 0xff]);
        assert_eq!(chs(Lba(1024 * 255 * 63)), [0xfe, 0xff, 0xff]);
    }
}
