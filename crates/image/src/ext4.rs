//! The times in an ext4 file system that mke2fs(8) has just filled.
//!
//! It takes over when each file was last changed and looked at on the machine that builds, which nobody can choose and which is
//! another time for every build: only its versions from 1.47.1 on can do without. So what is in the inodes is put right afterwards.
//!
//! Specification: the kernel's `Documentation/filesystems/ext4`.

use std::fs::File;
use std::os::unix::fs::FileExt;

use crc_fast::{CrcAlgorithm, Digest};

use crate::{Error, ErrorKind, Result};

/// Where the superblock is, whatever the block size.
const SUPERBLOCK: u64 = 1024;
const MAGIC: u16 = 0xef53;
const META_BG: u32 = 0x10;
const WIDE: u32 = 0x80;
const CHECKSUM_SEED: u32 = 0x2000;
const CHECKSUMS: u32 = 0x400;
/// Of a group: its inodes are not initialised.
const NO_INODES: u16 = 1;
/// The length of an inode without extra fields.
const OLD_INODE: usize = 128;
/// Inodes that are read at once.
const AT_ONCE: usize = 4096;

/// Each time of an inode: where its seconds are, and where what the later fields add to them.
const ACCESSED: (usize, usize) = (0x8, 0x8c);
const CHANGED: (usize, usize) = (0xc, 0x84);
const MODIFIED: (usize, usize) = (0x10, 0x88);
const CREATED: (usize, usize) = (0x90, 0x94);

/// Sets when each file was changed, looked at and made to `epoch`, seconds since 1970, and when it was modified to `epoch` if that is later.
/// Fractions of seconds go.
///
/// # Errors
/// The file is no ext4 file system as mke2fs makes them, or cannot be read or written.
pub fn settle_times(file: &File, epoch: i64) -> Result<()> {
    let system = System::read(file)?;
    for group in 0..system.groups() {
        let Some((table, count)) = system.inodes_of(group)? else {
            continue;
        };
        let first = group * system.inodes_per_group;
        for from in (0..count).step_by(AT_ONCE) {
            let place = table + (from * system.inode_size) as u64;
            let mut inodes = vec![0; AT_ONCE.min(count - from) * system.inode_size];
            read(file, &mut inodes, place)?;
            let mut any = false;
            let numbers = first + 1 + from as u64..;
            for (number, inode) in numbers.zip(inodes.chunks_exact_mut(system.inode_size)) {
                // What has no name is not in use.
                if get16(inode, 0x1a) != 0 {
                    settle(inode, epoch);
                    system.sum(number as u32, inode);
                    any = true;
                }
            }
            if any {
                let written = file.write_all_at(&inodes, place);
                written.map_err(|e| Error::io("setting the times in an ext4 file system", e))?;
            }
        }
    }
    Ok(())
}

/// What its superblock says of a file system.
struct System<'f> {
    file: &'f File,
    /// Bytes.
    length: u64,
    block_size: u64,
    /// The first block that belongs to a group.
    first_block: u64,
    blocks: u64,
    blocks_per_group: u64,
    inodes: u64,
    inodes_per_group: u64,
    inode_size: usize,
    descriptor_size: usize,
    /// Where checksums begin, if inodes have them.
    seed: Option<u32>,
}

impl<'f> System<'f> {
    fn read(file: &'f File) -> Result<Self> {
        let doing = "looking at an ext4 file system";
        let length = file.metadata().map_err(|e| Error::io(doing, e))?.len();
        let mut found = [0; 1024];
        read(file, &mut found, SUPERBLOCK)?;
        let (incompatible, read_only) = (get32(&found, 0x60), get32(&found, 0x64));
        let is_wide = incompatible & WIDE != 0;
        let seed = match incompatible & CHECKSUM_SEED {
            0 => crc32c(!0, &found[0x68..0x78]),
            _ => get32(&found, 0x270),
        };
        let high = if is_wide { get32(&found, 0x150) } else { 0 };
        let shift = get32(&found, 0x18);
        let system = System {
            file,
            length,
            block_size: 1024_u64.checked_shl(shift).unwrap_or(0),
            first_block: u64::from(get32(&found, 0x14)),
            blocks: u64::from(high) << 32 | u64::from(get32(&found, 0x4)),
            blocks_per_group: u64::from(get32(&found, 0x20)),
            inodes: u64::from(get32(&found, 0)),
            inodes_per_group: u64::from(get32(&found, 0x28)),
            inode_size: usize::from(get16(&found, 0x58)),
            descriptor_size: match is_wide {
                true => usize::from(get16(&found, 0xfe)),
                false => 32,
            },
            seed: (read_only & CHECKSUMS != 0).then_some(seed),
        };
        let is_right = get16(&found, 0x38) == MAGIC
            && incompatible & META_BG == 0
            && shift <= 6
            && (32..=1024).contains(&system.descriptor_size)
            && (OLD_INODE..=4096).contains(&system.inode_size)
            && system.inode_size.is_power_of_two()
            && system.blocks_per_group > 0
            && system.blocks.saturating_mul(system.block_size) <= length
            // So the tables of all groups together are no longer than the file.
            && system.groups().saturating_mul(system.inodes_per_group) == system.inodes
            && system.inodes.saturating_mul(system.inode_size as u64) <= length;
        is_right.then_some(system).ok_or_else(unknown)
    }

    fn groups(&self) -> u64 {
        let blocks = self.blocks.saturating_sub(self.first_block);
        blocks.div_ceil(self.blocks_per_group)
    }

    /// Where the inodes of a group are in the file, and how many of them there may be; none where no inode is used.
    fn inodes_of(&self, group: u64) -> Result<Option<(u64, usize)>> {
        let mut found = vec![0; self.descriptor_size];
        let descriptors = (self.first_block + 1) * self.block_size;
        read(
            self.file,
            &mut found,
            descriptors + group * self.descriptor_size as u64,
        )?;
        let (mut table, mut unused) = (
            u64::from(get32(&found, 0x8)),
            u64::from(get16(&found, 0x1c)),
        );
        if self.descriptor_size >= 64 {
            table |= u64::from(get32(&found, 0x28)) << 32;
            unused |= u64::from(get16(&found, 0x32)) << 16;
        }
        // Without checksums nobody says what is not used.
        let (flags, unused) = match self.seed {
            Some(_) => (get16(&found, 0x12), unused),
            None => (0, 0),
        };
        let count = self
            .inodes_per_group
            .checked_sub(unused)
            .ok_or_else(unknown)?;
        if flags & NO_INODES != 0 || count == 0 {
            return Ok(None);
        }
        let table = table.checked_mul(self.block_size).ok_or_else(unknown)?;
        let end = table.saturating_add(count * self.inode_size as u64);
        let count = usize::try_from(count).map_err(|_| unknown())?;
        (end <= self.length)
            .then_some(Some((table, count)))
            .ok_or_else(unknown)
    }

    /// Puts an inode's checksum right.
    fn sum(&self, number: u32, inode: &mut [u8]) {
        let Some(seed) = self.seed else { return };
        let has_high = has(inode, 0x82, 2);
        put(inode, 0x7c, &[0; 2]);
        if has_high {
            put(inode, 0x82, &[0; 2]);
        }
        let sum = crc32c(seed, &number.to_le_bytes());
        let sum = crc32c(sum, &inode[0x64..0x68]);
        let [a, b, c, d] = crc32c(sum, inode).to_le_bytes();
        put(inode, 0x7c, &[a, b]);
        if has_high {
            put(inode, 0x82, &[c, d]);
        }
    }
}

fn settle(inode: &mut [u8], epoch: i64) {
    let modified = time(inode, MODIFIED).min(epoch);
    for (place, seconds) in [
        (ACCESSED, epoch),
        (CHANGED, epoch),
        (MODIFIED, modified),
        (CREATED, epoch),
    ] {
        let (at, more) = place;
        if at < OLD_INODE || has(inode, at, 4) {
            put(inode, at, &(seconds as u32).to_le_bytes());
        }
        if has(inode, more, 4) {
            put(inode, more, &later(seconds).to_le_bytes());
        }
    }
}

fn time(inode: &[u8], (at, more): (usize, usize)) -> i64 {
    let seconds = i64::from(get32(inode, at).cast_signed());
    match has(inode, more, 4) {
        true => seconds + (i64::from(get32(inode, more) & 3) << 32),
        false => seconds,
    }
}

/// The two bits that let seconds go beyond 2038.
fn later(seconds: i64) -> u32 {
    let low = i64::from((seconds as u32).cast_signed());
    ((seconds - low) >> 32) as u32 & 3
}

/// Whether an inode has a field among those that came later.
fn has(inode: &[u8], at: usize, length: usize) -> bool {
    inode.len() > OLD_INODE
        && OLD_INODE + usize::from(get16(inode, OLD_INODE)) >= at + length
        && at + length <= inode.len()
}

/// As the kernel has it: what is given is the state, and it is not turned over at the end.
fn crc32c(state: u32, bytes: &[u8]) -> u32 {
    let mut digest = Digest::new_with_init_state(CrcAlgorithm::Crc32Iscsi, u64::from(state));
    digest.update(bytes);
    !(digest.finalize() as u32)
}

fn read(file: &File, bytes: &mut [u8], at: u64) -> Result<()> {
    let done = file.read_exact_at(bytes, at);
    done.map_err(|error| match error.kind() {
        std::io::ErrorKind::UnexpectedEof => unknown(),
        _ => Error::io("reading an ext4 file system", error),
    })
}

fn unknown() -> Error {
    Error::new(
        ErrorKind::Step,
        "what mke2fs has made is no ext4 file system as its versions 1.45 to 1.47 make them",
    )
    .with_hint("leave mke2fs and /etc/mke2fs.conf of the root as the distribution has them")
}

fn get16(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn get32(bytes: &[u8], at: usize) -> u32 {
    u32::from(get16(bytes, at)) | u32::from(get16(bytes, at + 2)) << 16
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}
