//! Finished packs.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::renameat;

use super::directory::{create, list, open_file};
use super::format::{ENTRY, Entry, FOOTER, MAGIC, decode_footer, decode_index};

pub(super) const PACK: &str = ".pack";
pub(super) const USED: &str = ".used";

/// A pack with its index in memory.
pub(super) struct Pack {
    /// Without the suffix.
    pub(super) name: String,
    pub(super) file: File,
    pub(super) entries: Vec<Entry>,
    /// Whether each block was read since the pack was opened.
    used: Mutex<Vec<bool>>,
    damaged: AtomicU64,
}

impl Pack {
    /// `None` where it is not whole.
    pub(super) fn open(directory: &OwnedFd, name: &str) -> Option<Self> {
        let file = open_file(directory, &format!("{name}{PACK}")).ok()?;
        let entries = entries(&file)?;
        Some(Pack {
            name: name.to_owned(),
            file,
            used: Mutex::new(vec![false; entries.len()]),
            entries,
            damaged: AtomicU64::new(0),
        })
    }

    /// Reads blocks that lie one behind the other, and says of each whether it is sound.
    pub(super) fn read(&self, first: usize, count: usize, bytes: &mut [u8], sound: &mut Vec<bool>) {
        // Blocks that the pack does not have are not sound.
        let entries = self.entries.get(first..first + count).unwrap_or_default();
        let offset = entries.first().map_or(0, |entry| entry.offset);
        let read = self.file.read_exact_at(bytes, offset).is_ok();
        let mut at = 0;
        let before = sound.len();
        for entry in entries {
            let end = at + entry.length as usize;
            let fine = bytes
                .get(at..end)
                .is_some_and(|bytes| read && entry.is_sound(bytes));
            sound.push(fine);
            at = end;
        }
        sound.resize(before + count, false);
        let found = &sound[before..];
        let bad = found.iter().filter(|fine| !**fine).count();
        self.damaged.fetch_add(bad as u64, Ordering::Relaxed);
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        for (place, fine) in used.iter_mut().skip(first).zip(found) {
            *place |= fine;
        }
    }

    /// Whether any block was read and sound.
    pub(super) fn is_used(&self) -> bool {
        let used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        used.contains(&true)
    }

    /// Blocks that were read and not sound.
    pub(super) fn damaged(&self) -> u64 {
        self.damaged.load(Ordering::Relaxed)
    }

    /// For each block the day on which it was last used.
    pub(super) fn days(&self, directory: &OwnedFd) -> Vec<u32> {
        let noted = read_days(directory, &self.name, self.entries.len());
        noted.unwrap_or_else(|| {
            let made = self.file.metadata().and_then(|m| m.modified()).ok();
            vec![made.map_or(0, day); self.entries.len()]
        })
    }

    /// Writes down what was used, if that is news.
    pub(super) fn note_use(&self, directory: &OwnedFd) -> io::Result<()> {
        let used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        let today = day(SystemTime::now());
        let mut days = self.days(directory);
        let mut news = false;
        for (noted, used) in days.iter_mut().zip(used.iter()) {
            if *used && *noted < today {
                *noted = today;
                news = true;
            }
        }
        if news {
            write_days(directory, &self.name, &days)?;
        }
        Ok(())
    }
}

/// What a pack says that it holds; `None` where it is not whole.
pub(super) fn entries(file: &File) -> Option<Vec<Entry>> {
    let size = file.metadata().ok()?.len();
    let mut magic = [0; 8];
    file.read_exact_at(&mut magic, 0).ok()?;
    let mut footer = [0; FOOTER];
    file.read_exact_at(&mut footer, size.checked_sub(FOOTER as u64)?)
        .ok()?;
    let (offset, count) = decode_footer(&footer, size)?;
    if magic != *MAGIC {
        return None;
    }
    let mut index = vec![0; count.checked_mul(ENTRY)?];
    file.read_exact_at(&mut index, offset).ok()?;
    decode_index(&index, &footer)
}

/// Days since 1970.
pub(super) fn day(time: SystemTime) -> u32 {
    let seconds = time.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    u32::try_from(seconds / 86_400).unwrap_or(u32::MAX)
}

fn read_days(directory: &OwnedFd, name: &str, count: usize) -> Option<Vec<u32>> {
    let file = open_file(directory, &format!("{name}{USED}")).ok()?;
    let mut bytes = vec![0; count.checked_mul(4)?];
    if file.metadata().ok()?.len() != bytes.len() as u64 {
        return None;
    }
    file.read_exact_at(&mut bytes, 0).ok()?;
    let (days, _) = bytes.as_chunks();
    Some(days.iter().map(|day| u32::from_le_bytes(*day)).collect())
}

pub(super) fn write_days(directory: &OwnedFd, name: &str, days: &[u32]) -> io::Result<()> {
    let (private, mut file) = create(directory)?;
    let bytes: Vec<u8> = days.iter().flat_map(|day| day.to_le_bytes()).collect();
    file.write_all(&bytes)?;
    renameat(directory, &*private, directory, format!("{name}{USED}"))?;
    Ok(())
}

/// The names of all packs, without the suffix.
pub(super) fn names(directory: &OwnedFd) -> io::Result<Vec<String>> {
    let names = list(directory)?;
    let packs = names
        .iter()
        .filter_map(|name| Some(name.strip_suffix(PACK)?.to_owned()));
    Ok(packs.collect())
}
