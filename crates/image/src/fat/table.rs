//! The boot sector, FSInfo and the two FATs.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::geometry::Geometry;
use super::{CLUSTER_MASK, END_OF_CHAIN, ROOT_CLUSTER, SECTOR};

/// Sector of FSInfo, and of the boot sector's backup.
const FSINFO: u16 = 1;
const BACKUP: u16 = 6;
/// Fixed disk.
const MEDIA: u8 = 0xf8;
/// The first two entries: media byte; clean and without errors.
const RESERVED_ENTRIES: [u32; 2] = [CLUSTER_MASK & !0xff | MEDIA as u32, END_OF_CHAIN];
/// Bytes of the FAT that are gathered before they are written.
const FLUSH: usize = 1 << 20;

/// What the boot sector tells beside the geometry.
pub(super) struct Identity {
    pub(super) volume_id: u32,
    pub(super) label: [u8; 11],
    /// Sectors of the disk before the volume.
    pub(super) hidden: u32,
}

/// What is not used.
pub(super) struct Free {
    pub(super) clusters: u64,
    /// Where to look for free clusters first.
    pub(super) next: u32,
}

/// A run of clusters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Chain {
    pub(super) first: u32,
    pub(super) length: u32,
}

impl Chain {
    /// The first cluster behind it.
    pub(super) fn end(self) -> u32 {
        self.first + self.length
    }
}

/// Writes the boot sector, FSInfo, the third boot sector and their backups to the volume at byte `at`.
pub(super) fn write_boot(
    file: &File,
    at: u64,
    geometry: &Geometry,
    identity: &Identity,
    free: &Free,
) -> io::Result<()> {
    let mut sectors = boot_sector(geometry, identity);
    sectors.extend(fsinfo(free));
    sectors.extend(signed(Vec::new()));
    file.write_all_at(&sectors, at)?;
    file.write_all_at(&sectors, at + u64::from(BACKUP) * SECTOR)
}

/// fatgen103, "Boot Sector and BPB Structure", with the FAT32 fields from offset 36.
fn boot_sector(geometry: &Geometry, identity: &Identity) -> Vec<u8> {
    let mut out = vec![0xeb, 0x58, 0x90]; // 0: jump to 0x5a
    out.extend(b"MSWIN4.1"); // 3: the name that most implementations expect
    out.extend((SECTOR as u16).to_le_bytes()); // 11
    out.push(geometry.per_cluster as u8); // 13
    out.extend((geometry.reserved as u16).to_le_bytes()); // 14
    out.push(2); // 16: FATs
    out.extend([0; 4]); // 17: root entries, 16-bit size
    out.push(MEDIA); // 21
    out.extend([0; 2]); // 22: 16-bit FAT size
    out.extend(63u16.to_le_bytes()); // 24: sectors per track
    out.extend(255u16.to_le_bytes()); // 26: heads
    out.extend(identity.hidden.to_le_bytes()); // 28
    out.extend(geometry.total.to_le_bytes()); // 32
    out.extend((geometry.fat as u32).to_le_bytes()); // 36
    out.extend([0; 4]); // 40: both FATs active, version 0.0
    out.extend(ROOT_CLUSTER.to_le_bytes()); // 44
    out.extend(FSINFO.to_le_bytes()); // 48
    out.extend(BACKUP.to_le_bytes()); // 50
    out.extend([0; 12]); // 52
    out.extend([0x80, 0, 0x29]); // 64: drive, zero, extended signature
    out.extend(identity.volume_id.to_le_bytes()); // 67
    out.extend(identity.label); // 71
    out.extend(b"FAT32   "); // 82
    out.extend([0xcd, 0x18, 0xf4, 0xeb, 0xfd]); // 90: int 18h (next boot device), then halt
    signed(out)
}

/// fatgen103, "FAT32 FSInfo Sector Structure".
fn fsinfo(free: &Free) -> Vec<u8> {
    let Free { clusters, next } = *free;
    let mut out = b"RRaA".to_vec();
    out.resize(484, 0);
    out.extend(b"rrAa");
    out.extend((clusters as u32).to_le_bytes());
    let hint = if clusters == 0 { u32::MAX } else { next };
    out.extend(hint.to_le_bytes());
    signed(out)
}

fn signed(mut sector: Vec<u8>) -> Vec<u8> {
    sector.resize(SECTOR as usize - 2, 0);
    sector.extend([0x55, 0xaa]);
    sector
}

/// Writes chains, in the order of their places, to both FATs. What is between them gets zeros, which mean free; what is behind the
/// last one stays as it is.
pub(super) fn write_fats(
    file: &File,
    at: u64,
    geometry: &Geometry,
    chains: &[Chain],
) -> io::Result<()> {
    let mut out = Fats {
        file,
        first: at + geometry.reserved * SECTOR,
        second: at + (geometry.reserved + geometry.fat) * SECTOR,
        written: 0,
        pending: Vec::with_capacity(FLUSH + 8),
    };
    let mut cluster = ROOT_CLUSTER;
    for entry in RESERVED_ENTRIES {
        out.push(entry)?;
    }
    for chain in chains {
        while cluster < chain.first {
            cluster += 1;
            out.push(0)?;
        }
        let end = chain.end();
        while cluster < end {
            cluster += 1;
            out.push(if cluster == end {
                END_OF_CHAIN
            } else {
                cluster
            })?;
        }
    }
    out.flush()
}

struct Fats<'a> {
    file: &'a File,
    first: u64,
    second: u64,
    written: u64,
    pending: Vec<u8>,
}

impl Fats<'_> {
    fn push(&mut self, entry: u32) -> io::Result<()> {
        self.pending.extend(entry.to_le_bytes());
        if self.pending.len() >= FLUSH {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        for start in [self.first, self.second] {
            self.file
                .write_all_at(&self.pending, start + self.written)?;
        }
        self.written += self.pending.len() as u64;
        self.pending.clear();
        Ok(())
    }
}
