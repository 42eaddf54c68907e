//! Reading FAT32 back: where a file lies in a disk image, and what is in a directory.
//!
//! The volume may come from anywhere: every number is checked, chains that run in circles end in an error.

use std::fs::File;
use std::os::unix::fs::FileExt;

use super::name::{self, Short};
use super::{CLUSTER_MASK, ENTRY, MAX_DIR_ENTRIES, ROOT_CLUSTER, SECTOR, attribute};
use crate::disk::Bytes;
use crate::error::{Error, IoContext, Result};

/// An opened volume.
#[derive(Debug)]
pub struct FatVolume<'a> {
    file: &'a File,
    at: u64,
    fat: u64,
    data: u64,
    cluster: u64,
    clusters: u32,
    root: u32,
    volume_id: u32,
}

/// What a directory holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FatEntry {
    /// The long name, or the short one where there is none.
    pub name: String,
    /// Whether it is a directory.
    pub directory: bool,
    /// Size in bytes; 0 for directories.
    pub size: u32,
    first: u32,
}

/// Where a file's bytes lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FatFile {
    /// Size in bytes.
    pub size: u32,
    /// Byte offsets in the disk image and lengths, in order; they add up to `size`.
    pub extents: Vec<(Bytes, Bytes)>,
}

impl<'a> FatVolume<'a> {
    /// Opens the volume at byte `at` of `file`.
    ///
    /// # Errors
    /// It is no FAT32 volume with 512-byte sectors, or cannot be read.
    pub fn open(file: &'a File, at: Bytes) -> Result<Self> {
        let mut boot = [0u8; SECTOR as usize];
        file.read_exact_at(&mut boot, at.0)
            .doing(|| format!("reading the FAT boot sector at byte {}", at.0))?;
        let [per_cluster, fats] = [boot[13], boot[16]].map(u64::from);
        let [bytes, reserved] = [u16_at(&boot, 11), u16_at(&boot, 14)].map(u64::from);
        let [total, fat] = [u32_at(&boot, 32), u32_at(&boot, 36)].map(u64::from);
        let signed =
            u16_at(&boot, 510) == 0xaa55 && u16_at(&boot, 22) == 0 && u16_at(&boot, 17) == 0;
        let start = reserved + fats * fat;
        if !signed
            || bytes != SECTOR
            || !per_cluster.is_power_of_two()
            || reserved == 0
            || start >= total
        {
            return Err(Error::input(format!(
                "there is no FAT32 volume with 512-byte sectors at byte {} of the disk image",
                at.0
            )));
        }
        let clusters = ((total - start) / per_cluster).min(fat * SECTOR / 4);
        Ok(FatVolume {
            file,
            at: at.0,
            fat: reserved * SECTOR,
            data: start * SECTOR,
            cluster: per_cluster * SECTOR,
            clusters: u32::try_from(clusters)
                .unwrap_or(CLUSTER_MASK)
                .min(CLUSTER_MASK - 16),
            root: u32_at(&boot, 44),
            volume_id: u32_at(&boot, 67),
        })
    }

    /// The volume's serial number.
    pub fn volume_id(&self) -> u32 {
        self.volume_id
    }

    /// The entries of a directory; `""` or `/` is the root.
    ///
    /// # Errors
    /// No such directory, or a damaged volume.
    pub fn list(&self, path: &str) -> Result<Vec<FatEntry>> {
        let mut first = self.root;
        for part in path.split('/').filter(|p| !p.is_empty()) {
            let entry = self.lookup(first, part)?;
            match entry {
                Some(entry) if entry.directory => first = entry.first.max(ROOT_CLUSTER),
                _ => {
                    return Err(Error::input(format!(
                        "there is no directory `{path}` on the FAT volume"
                    )));
                }
            }
        }
        self.entries(first)
    }

    /// Where a file lies; `None` if there is none. Names are compared without case.
    ///
    /// # Errors
    /// A damaged volume.
    pub fn find(&self, path: &str) -> Result<Option<FatFile>> {
        let path = path.trim_matches('/');
        let (parent, last) = path.rsplit_once('/').unwrap_or(("", path));
        let key = name::key(last);
        let found = self
            .list(parent)?
            .into_iter()
            .find(|e| !e.directory && name::key(&e.name) == key);
        found.map(|entry| self.locate(path, &entry)).transpose()
    }

    /// The bytes of a file, up to `limit`.
    ///
    /// # Errors
    /// No such file, one that is larger than `limit`, or a damaged volume.
    pub fn read(&self, path: &str, limit: Bytes) -> Result<Vec<u8>> {
        let Some(found) = self.find(path)? else {
            return Err(Error::input(format!(
                "there is no file `{path}` on the FAT volume"
            )));
        };
        if u64::from(found.size) > limit.0 {
            return Err(Error::input(format!(
                "`{path}` has {} bytes, over {limit}",
                found.size
            )));
        }
        let mut out = Vec::with_capacity(found.size as usize);
        for (offset, len) in found.extents {
            let start = out.len();
            out.resize(start + len.0 as usize, 0);
            let into = out.get_mut(start..).unwrap_or_default();
            self.file
                .read_exact_at(into, offset.0)
                .doing(|| format!("reading {path} from the FAT volume"))?;
        }
        Ok(out)
    }

    fn lookup(&self, directory: u32, wanted: &str) -> Result<Option<FatEntry>> {
        let key = name::key(wanted);
        let entries = self.entries(directory)?;
        Ok(entries.into_iter().find(|e| name::key(&e.name) == key))
    }

    fn locate(&self, path: &str, entry: &FatEntry) -> Result<FatFile> {
        let mut left = u64::from(entry.size);
        let mut extents: Vec<(Bytes, Bytes)> = Vec::new();
        if left > 0 {
            for cluster in self.chain(entry.first, left.div_ceil(self.cluster))? {
                let (offset, len) = (self.offset(cluster), left.min(self.cluster));
                left -= len;
                match extents.last_mut() {
                    Some((start, so_far)) if start.0 + so_far.0 == offset => so_far.0 += len,
                    _ => extents.push((Bytes(offset), Bytes(len))),
                }
            }
        }
        if left > 0 {
            return Err(damaged(&format!("`{path}` is shorter than its size")));
        }
        Ok(FatFile {
            size: entry.size,
            extents,
        })
    }

    fn offset(&self, cluster: u32) -> u64 {
        self.at + self.data + u64::from(cluster - ROOT_CLUSTER) * self.cluster
    }

    /// Up to `most` clusters of a chain.
    fn chain(&self, first: u32, most: u64) -> Result<Vec<u32>> {
        let mut out = Vec::new();
        let mut cluster = first;
        while (out.len() as u64) < most.min(u64::from(self.clusters)) {
            if cluster > CLUSTER_MASK - 8 {
                break;
            }
            if !(ROOT_CLUSTER..self.clusters + ROOT_CLUSTER).contains(&cluster) {
                return Err(damaged(&format!("a chain leads to cluster {cluster}")));
            }
            out.push(cluster);
            let mut next = [0; 4];
            self.file
                .read_exact_at(&mut next, self.at + self.fat + u64::from(cluster) * 4)
                .doing(|| "reading the FAT".into())?;
            cluster = u32::from_le_bytes(next) & CLUSTER_MASK;
        }
        Ok(out)
    }

    fn entries(&self, first: u32) -> Result<Vec<FatEntry>> {
        let most = ((MAX_DIR_ENTRIES * ENTRY) as u64).div_ceil(self.cluster);
        let mut parser = Parser::default();
        let mut buffer = vec![0; self.cluster as usize];
        for cluster in self.chain(first, most)? {
            self.file
                .read_exact_at(&mut buffer, self.offset(cluster))
                .doing(|| "reading a FAT directory".into())?;
            for raw in buffer.as_chunks::<ENTRY>().0 {
                if raw[0] == 0 {
                    return Ok(parser.found);
                }
                parser.take(raw);
            }
        }
        Ok(parser.found)
    }
}

/// Puts long names and entries together.
#[derive(Default)]
struct Parser {
    found: Vec<FatEntry>,
    /// Pieces of the long name so far, last first.
    pieces: Vec<Vec<u16>>,
    sum: u8,
}

impl Parser {
    fn take(&mut self, raw: &[u8; ENTRY]) {
        const DELETED: u8 = 0xe5;
        let attribute = raw[11];
        if raw[0] == DELETED {
            self.pieces.clear();
        } else if attribute & 0x3f == attribute::LONG_NAME {
            self.piece(raw);
        } else {
            if attribute & attribute::VOLUME_LABEL == 0 && raw[0] != b'.' {
                self.entry(raw);
            }
            self.pieces.clear();
        }
    }

    fn piece(&mut self, raw: &[u8; ENTRY]) {
        if raw[0] & 0x40 != 0 {
            self.pieces.clear();
        }
        self.sum = raw[13];
        let units = [&raw[1..11], &raw[14..26], &raw[28..32]].concat();
        let units = units
            .as_chunks::<2>()
            .0
            .iter()
            .map(|u| u16::from_le_bytes(*u));
        self.pieces.push(units.take_while(|u| *u != 0).collect());
    }

    fn entry(&mut self, raw: &[u8; ENTRY]) {
        let mut short: Short = [0; 11];
        short.copy_from_slice(&raw[..11]);
        let whole = !self.pieces.is_empty() && self.sum == name::checksum(&short);
        let name = if whole {
            let units: Vec<u16> = self.pieces.iter().rev().flatten().copied().collect();
            String::from_utf16_lossy(&units)
        } else {
            short_name(&short)
        };
        self.found.push(FatEntry {
            name,
            directory: raw[11] & attribute::DIRECTORY != 0,
            size: u32_at(raw, 28),
            first: u32::from(u16_at(raw, 20)) << 16 | u32::from(u16_at(raw, 26)),
        });
    }
}

fn short_name(short: &Short) -> String {
    let (base, extension) = short.split_at(8);
    let text = |part: &[u8]| String::from_utf8_lossy(part).trim_end().to_owned();
    match text(extension) {
        none if none.is_empty() => text(base),
        extension => format!("{}.{extension}", text(base)),
    }
}

fn damaged(what: &str) -> Error {
    Error::input(format!("the FAT volume is damaged: {what}"))
}

/// Little-endian numbers at offsets that the caller knows to be inside.
fn u16_at(bytes: &[u8], at: usize) -> u16 {
    let part = bytes.get(at..at + 2).and_then(|b| b.try_into().ok());
    u16::from_le_bytes(part.unwrap_or_default())
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let part = bytes.get(at..at + 4).and_then(|b| b.try_into().ok());
    u32::from_le_bytes(part.unwrap_or_default())
}
