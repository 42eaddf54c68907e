//! GRUB's BIOS sectors, as `grub-bios-setup --no-rs-codes` writes them.
//!
//! ```text
//! boot.img, sector 0   0x03–0x59 BPB (kept)   0x5c u64 LBA of core.img   0x64 u8 boot drive, 0xff: as the BIOS says
//!                      0x66 90 90: no drive check   0x1b8–0x1fd signature and partition table (kept)   0x1fe 55 aa
//! core.img, sector 0   0x1f4 {u64 LBA, u16 sectors, u16 segment}: where the rest is; records grow downwards, one of
//!                      length 0 ends them
//! ```
//!
//! Source: GRUB 2.06, `include/grub/i386/pc/boot.h`, `util/setup.c`.

use std::fs::File;
use std::os::unix::fs::FileExt;

use crate::disk::{DiskLayout, Extent, Lba, PartitionType, SECTOR, Sectors, Table};
use crate::error::{Error, IoContext, Result};

const SECTOR_LEN: usize = SECTOR as usize;
const BPB: std::ops::Range<usize> = 0x03..0x5a;
const KERNEL_LBA: usize = 0x5c;
const BOOT_DRIVE: usize = 0x64;
const DRIVE_CHECK: usize = 0x66;
const TABLE: std::ops::Range<usize> = 0x1b8..0x1fe;
const FIRST_RECORD: usize = 0x1f4;
const SECOND_RECORD: usize = FIRST_RECORD - 12;
/// Real-mode segment of core.img's second sector: 0x8200.
const SEGMENT: u16 = 0x0820;
/// Largest core.img that diskboot.img loads below the EBDA, in bytes (`GRUB_MEMORY_MACHINE_…`, util/mkimage.c).
const MAX_CORE: usize = 0x78000;

/// Returns where core.img goes: the BIOS boot partition, or on an MBR disk the gap between the table and the first partition.
///
/// # Errors
/// A GPT disk without a BIOS boot partition.
pub fn core_extent(layout: &DiskLayout) -> Result<Extent> {
    let found = match layout.table() {
        Table::Gpt { .. } => layout
            .partitions()
            .iter()
            .find(|p| p.spec.kind == PartitionType::BIOS_BOOT)
            .map(|p| p.extent),
        Table::Mbr { .. } => layout.partitions().first().map(|p| Extent {
            start: Lba(1),
            sectors: Sectors(p.extent.start.0 - 1),
        }),
    };
    found.ok_or_else(|| {
        Error::input("the disk has no place for GRUB's BIOS boot code")
            .with_hint("a GPT disk needs a BIOS boot partition of 1 MiB")
    })
}

/// Writes `boot_img` (512 bytes) to sector 0 and `core_img` to the start of `place`. The partition table in sector 0 stays, so it
/// does not matter which is written first.
///
/// # Errors
/// Images that are not GRUB's, a core image that is larger than its place, or a failed read or write.
pub fn write_bios_boot(file: &File, place: Extent, boot_img: &[u8], core_img: &[u8]) -> Result<()> {
    let mut old = [0; SECTOR_LEN];
    read_start(file, &mut old)?;
    let boot = boot_sector(boot_img, &old, place.start)?;
    let core = core_sectors(core_img, place)?;
    file.write_all_at(&core, place.offset().0)
        .and_then(|()| file.write_all_at(&boot, 0))
        .doing(|| "writing GRUB's boot sectors".into())
}

/// Sector 0, or zeros where the file is still shorter.
fn read_start(file: &File, into: &mut [u8]) -> Result<()> {
    match file.read_exact_at(into, 0) {
        Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => Ok(()),
        other => other.doing(|| "reading the disk image's first sector".into()),
    }
}

fn boot_sector(boot_img: &[u8], old: &[u8; SECTOR_LEN], core: Lba) -> Result<[u8; SECTOR_LEN]> {
    let mut sector: [u8; SECTOR_LEN] = boot_img
        .try_into()
        .ok()
        .filter(|s: &[u8; SECTOR_LEN]| s.ends_with(&[0x55, 0xaa]))
        .ok_or_else(|| not_grub("boot.img", "512 bytes that end in 55 aa"))?;
    for kept in [BPB, TABLE] {
        sector[kept.clone()].copy_from_slice(&old[kept]);
    }
    sector[KERNEL_LBA..KERNEL_LBA + 8].copy_from_slice(&core.0.to_le_bytes());
    sector[BOOT_DRIVE] = 0xff;
    sector[DRIVE_CHECK..DRIVE_CHECK + 2].copy_from_slice(&[0x90, 0x90]);
    Ok(sector)
}

fn core_sectors(core_img: &[u8], place: Extent) -> Result<Vec<u8>> {
    let len = core_img.len();
    if len <= 2 * SECTOR_LEN || len > MAX_CORE {
        return Err(not_grub(
            "core.img",
            &format!("1,025 to {MAX_CORE} bytes, not {len}"),
        ));
    }
    let sectors = len.div_ceil(SECTOR_LEN);
    if sectors as u64 > place.sectors.0 {
        return Err(Error::input(format!(
            "GRUB's core image needs {sectors} sectors, its place at sector {} has {}",
            place.start.0, place.sectors.0
        )));
    }
    let mut core = core_img.to_vec();
    core.resize(sectors * SECTOR_LEN, 0);
    core[SECOND_RECORD..FIRST_RECORD].fill(0);
    let mut record = (place.start.0 + 1).to_le_bytes().to_vec();
    record.extend((sectors as u16 - 1).to_le_bytes());
    record.extend(SEGMENT.to_le_bytes());
    core[FIRST_RECORD..SECTOR_LEN].copy_from_slice(&record);
    Ok(core)
}

fn not_grub(name: &str, wanted: &str) -> Error {
    Error::input(format!(
        "GRUB's {name} is not as it should be: expected {wanted}"
    ))
    .with_hint("take it from the distribution's package of GRUB for BIOS (i386-pc)")
}
