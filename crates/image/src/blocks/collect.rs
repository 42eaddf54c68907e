//! What a store takes, and making it smaller.

use std::collections::HashSet;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::time::{Duration, SystemTime};

use rustix::fs::{AtFlags, unlinkat};

use super::directory::{self, list};
use super::format::Entry;
use super::pack::{PACK, Pack, USED, day, names};
use super::write::Writer;
use crate::Result;
use crate::error::IoContext;
use crate::squashfs::BlockKey;

/// A pack whose blocks are used to less than this, in percent, is written anew without the others.
const WORTH_KEEPING: u64 = 70;
/// Packs below this size are put together, in bytes…
const SMALL: u64 = 8 << 20;
/// …when there are more of them than this.
const MANY: usize = 16;

/// What may stay.
#[derive(Clone, Copy, Debug, Default)]
pub struct Limits {
    /// Blocks that were not used for this long go.
    pub age: Option<Duration>,
    /// Of the blocks in all this many bytes stay, those that were used last.
    pub bytes: Option<u64>,
    /// Nothing is changed; the answer says what would be.
    pub dry_run: bool,
}

/// What a collection did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Blocks that went.
    pub blocks: u64,
    /// Bytes that they took.
    pub bytes: u64,
}

/// What a store holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Packs.
    pub packs: u64,
    /// Blocks.
    pub blocks: u64,
    /// Bytes of the packs' files.
    pub bytes: u64,
}

/// Returns what the store in a directory holds.
///
/// # Errors
/// The directory cannot be listed.
pub fn usage(directory: &OwnedFd) -> Result<Usage> {
    let mut usage = Usage::default();
    for name in names(directory).doing(doing)? {
        if let Some(pack) = Pack::open(directory, &name) {
            usage.packs += 1;
            usage.blocks += pack.entries.len() as u64;
            usage.bytes += pack.file.metadata().map_or(0, |m| m.len());
        }
    }
    Ok(usage)
}

/// Removes what killed processes left.
///
/// # Errors
/// The directory cannot be listed.
pub fn reclaim(directory: &OwnedFd) -> Result<()> {
    directory::reclaim(directory).doing(doing)
}

/// Removes what killed processes left, what is damaged, and what the limits do not allow. Builds that use the store meanwhile go on: they
/// have their packs open, and where not, a missing block is made again.
///
/// # Errors
/// The directory cannot be listed, or a file cannot be written or removed.
pub fn collect(directory: &OwnedFd, limits: &Limits) -> Result<Collected> {
    if !limits.dry_run {
        reclaim(directory)?;
    }
    let mut packs = Vec::new();
    let mut gone = Collected::default();
    for name in names(directory).doing(doing)? {
        match Pack::open(directory, &name) {
            Some(pack) => packs.push(Judged::new(pack, directory)),
            None if limits.dry_run => {}
            None => remove(directory, &name).doing(doing)?,
        }
    }
    judge(&mut packs, limits);
    for judged in &packs {
        gone.blocks += judged.dead().map(|_| 1).sum::<u64>();
        gone.bytes += judged.dead().map(|e| u64::from(e.length)).sum::<u64>();
    }
    if !limits.dry_run {
        rewrite(directory, &packs).doing(doing)?;
        remove_orphans(directory).doing(doing)?;
    }
    Ok(gone)
}

fn doing() -> String {
    "cleaning the block store".to_owned()
}

/// A pack, and which of its blocks stay.
struct Judged {
    pack: Pack,
    days: Vec<u32>,
    stays: Vec<bool>,
}

impl Judged {
    fn new(pack: Pack, directory: &OwnedFd) -> Self {
        Judged {
            days: pack.days(directory),
            stays: vec![true; pack.entries.len()],
            pack,
        }
    }

    fn dead(&self) -> impl Iterator<Item = &Entry> {
        let blocks = self.pack.entries.iter().zip(&self.stays);
        blocks.filter(|(_, stays)| !**stays).map(|(entry, _)| entry)
    }

    fn bytes(&self) -> u64 {
        self.pack.entries.iter().map(|e| u64::from(e.length)).sum()
    }

    /// Whether it is better written anew, or removed.
    fn is_wasteful(&self) -> bool {
        let dead: u64 = self.dead().map(|e| u64::from(e.length)).sum();
        (self.bytes() - dead) * 100 < self.bytes() * WORTH_KEEPING || self.bytes() == 0
    }
}

fn judge(packs: &mut [Judged], limits: &Limits) {
    let oldest = limits.age.map(|age| {
        let then = SystemTime::now().checked_sub(age);
        // With an age of nothing even what was used today goes.
        then.map_or(0, day) + u32::from(age.is_zero())
    });
    let mut order: Vec<(u32, usize, usize)> = Vec::new();
    for (number, judged) in packs.iter().enumerate() {
        order.extend(judged.days.iter().zip(0..).map(|(d, i)| (*d, number, i)));
    }
    // The youngest first; of equal keys the one that was used last stays.
    order.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(&b.1)).then(a.2.cmp(&b.2)));
    let mut seen: HashSet<BlockKey> = HashSet::new();
    let mut bytes = 0;
    for (used, number, index) in order {
        let Some(judged) = packs.get_mut(number) else {
            continue;
        };
        let Some(entry) = judged.pack.entries.get(index) else {
            continue;
        };
        let young = oldest.is_none_or(|oldest| used >= oldest);
        let fits = limits
            .bytes
            .is_none_or(|limit| bytes + u64::from(entry.length) <= limit);
        let stays = young && fits && seen.insert(entry.key);
        if stays {
            bytes += u64::from(entry.length);
        }
        if let Some(place) = judged.stays.get_mut(index) {
            *place = stays;
        }
    }
}

/// Writes what stays of wasteful and of many small packs into new ones, then removes the old.
fn rewrite(directory: &OwnedFd, packs: &[Judged]) -> io::Result<()> {
    let small = |judged: &Judged| judged.bytes() < SMALL;
    let many = packs.iter().filter(|judged| small(judged)).count() > MANY;
    let old: Vec<&Judged> = packs
        .iter()
        .filter(|judged| judged.is_wasteful() || (many && small(judged)))
        .collect();
    let mut writer = Writer::for_old_blocks(directory.try_clone()?);
    let mut bytes = Vec::new();
    for judged in &old {
        for ((entry, stays), used) in judged
            .pack
            .entries
            .iter()
            .zip(&judged.stays)
            .zip(&judged.days)
        {
            if !stays {
                continue;
            }
            bytes.resize(entry.length as usize, 0);
            let read = judged.pack.file.read_exact_at(&mut bytes, entry.offset);
            if read.is_ok() && entry.is_sound(&bytes) {
                writer.put_used(&entry.key, entry.is_raw(), &bytes, *used);
            }
        }
    }
    if let Some(trouble) = writer.finish().trouble {
        return Err(io::Error::other(trouble));
    }
    let kept = writer.made();
    for judged in old {
        // What was written anew may have come out as it was.
        if !kept.contains(&judged.pack.name) {
            remove(directory, &judged.pack.name)?;
        }
    }
    Ok(())
}

fn remove(directory: &OwnedFd, name: &str) -> io::Result<()> {
    for suffix in [PACK, USED] {
        match unlinkat(directory, format!("{name}{suffix}"), AtFlags::empty()) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Notes of use without their pack.
fn remove_orphans(directory: &OwnedFd) -> io::Result<()> {
    let names = list(directory)?;
    let packs: HashSet<&str> = names.iter().filter_map(|n| n.strip_suffix(PACK)).collect();
    for name in names.iter().filter_map(|n| n.strip_suffix(USED)) {
        if !packs.contains(name) {
            remove(directory, name)?;
        }
    }
    Ok(())
}
