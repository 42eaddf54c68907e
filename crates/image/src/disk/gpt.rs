//! The GUID partition table (UEFI 2.10, section 5.3).
//!
//! ```text
//! header, 92 bytes:  0 "EFI PART"  8 revision  12 header size  16 CRC32 of the header (this field 0)  20 zero
//!                   24 own LBA  32 other header's LBA  40 first usable LBA  48 last usable LBA  56 disk GUID
//!                   72 entries' LBA  80 number of entries  84 size of an entry  88 CRC32 of the entries
//! entry, 128 bytes:  0 type GUID  16 own GUID  32 first LBA  40 last LBA  48 attributes  56 name, 36 UTF-16 units
//! ```
//!
//! GUIDs have their first three groups little endian, the rest as it is written (appendix A).

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use uuid::Uuid;

use super::mbr;
use super::partition::Partition;
use super::units::{Bytes, Lba, SECTOR, Sectors};
use crate::error::{Error, Result};

const ENTRIES: u32 = 128;
const ENTRY_SIZE: u32 = 128;
const HEADER_SIZE: u32 = 92;
const REVISION: u32 = 0x0001_0000;
/// Sectors of the entries.
const ENTRY_SECTORS: u64 = (ENTRIES * ENTRY_SIZE) as u64 / SECTOR;
/// Sectors at the disk's end: entries and header.
pub(super) const BACKUP: Sectors = Sectors(ENTRY_SECTORS + 1);
const PRIMARY_HEADER: Lba = Lba(1);
const PRIMARY_ENTRIES: Lba = Lba(2);

pub(super) fn check(number: u32) -> Result<()> {
    if number > ENTRIES {
        return Err(Error::input(format!(
            "a GPT disk holds {ENTRIES} partitions, this would be number {number}"
        )));
    }
    Ok(())
}

pub(super) fn write(
    file: &File,
    disk: Uuid,
    partitions: &[Partition],
    total: Bytes,
) -> io::Result<()> {
    let end = total.0 / SECTOR;
    let backup = Lba(end - 1);
    let entries = entries(partitions);
    let header = |own, other, table| {
        header(&Header {
            own,
            other,
            table,
            first_usable: Lba(PRIMARY_ENTRIES.0 + ENTRY_SECTORS),
            last_usable: Lba(end - BACKUP.0 - 1),
            disk,
            entries_crc: crc32fast::hash(&entries),
        })
    };
    let backup_entries = Lba(end - BACKUP.0);
    file.write_all_at(&entries, PRIMARY_ENTRIES.bytes().0)?;
    file.write_all_at(&entries, backup_entries.bytes().0)?;
    file.write_all_at(
        &header(backup, PRIMARY_HEADER, backup_entries),
        backup.bytes().0,
    )?;
    file.write_all_at(
        &header(PRIMARY_HEADER, backup, PRIMARY_ENTRIES),
        PRIMARY_HEADER.bytes().0,
    )?;
    mbr::write_protective(file, Sectors(end))
}

struct Header {
    own: Lba,
    other: Lba,
    table: Lba,
    first_usable: Lba,
    last_usable: Lba,
    disk: Uuid,
    entries_crc: u32,
}

fn header(h: &Header) -> Vec<u8> {
    let mut out = Vec::with_capacity(SECTOR as usize);
    out.extend(b"EFI PART");
    for word in [REVISION, HEADER_SIZE, 0, 0] {
        out.extend(word.to_le_bytes());
    }
    for lba in [h.own, h.other, h.first_usable, h.last_usable] {
        out.extend(lba.0.to_le_bytes());
    }
    out.extend(h.disk.to_bytes_le());
    out.extend(h.table.0.to_le_bytes());
    for word in [ENTRIES, ENTRY_SIZE, h.entries_crc] {
        out.extend(word.to_le_bytes());
    }
    let crc = crc32fast::hash(&out);
    out[16..20].copy_from_slice(&crc.to_le_bytes());
    out.resize(SECTOR as usize, 0);
    out
}

fn entries(partitions: &[Partition]) -> Vec<u8> {
    let mut out = Vec::with_capacity((ENTRIES * ENTRY_SIZE) as usize);
    for partition in partitions {
        entry(partition, &mut out);
    }
    out.resize((ENTRIES * ENTRY_SIZE) as usize, 0);
    out
}

fn entry(partition: &Partition, out: &mut Vec<u8>) {
    let end = out.len() + ENTRY_SIZE as usize;
    let spec = &partition.spec;
    out.extend(spec.kind.gpt.to_bytes_le());
    out.extend(spec.guid.to_bytes_le());
    out.extend(partition.extent.start.0.to_le_bytes());
    out.extend(partition.extent.last().0.to_le_bytes());
    out.extend(spec.attributes.0.to_le_bytes());
    out.extend(spec.name.encode_utf16().flat_map(u16::to_le_bytes));
    out.resize(end, 0);
}
