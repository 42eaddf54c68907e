//! Packs in the making.

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::time::SystemTime;

use rustix::fs::{AtFlags, fstatvfs, renameat, unlinkat};

use super::Outcome;
use super::directory::create;
use super::format::{Entry, MAGIC, encode_index};
use super::pack::{PACK, day, write_days};
use crate::squashfs::BlockKey;

/// A pack is closed when its blocks are this long: what a kill loses.
const PACK_BYTES: u64 = 64 << 20;
/// Written at once.
const BUFFER: usize = 1 << 20;
/// Left free on the disk: the image needs it more.
const RESERVE: u64 = 1 << 30;

/// Receives blocks.
pub(super) struct Writer {
    directory: OwnedFd,
    open: Option<Open>,
    /// What was put already: an image can have a block twice.
    seen: HashSet<BlockKey>,
    outcome: Outcome,
    /// Names of the packs that were closed.
    made: Vec<String>,
    /// Bytes that stay free on the disk.
    reserve: u64,
}

/// A pack under way.
struct Open {
    name: String,
    file: File,
    entries: Vec<Entry>,
    /// When each block was used, where that is not today.
    days: Vec<u32>,
    buffer: Vec<u8>,
    /// Written, without the buffer.
    length: u64,
}

impl Writer {
    /// A writer for an image.
    pub(super) fn new(directory: OwnedFd) -> Self {
        Writer {
            directory,
            open: None,
            seen: HashSet::new(),
            outcome: Outcome::default(),
            made: Vec::new(),
            reserve: RESERVE,
        }
    }

    /// A writer for blocks that are in the store already: in the end they take less.
    pub(super) fn for_old_blocks(directory: OwnedFd) -> Self {
        let mut writer = Writer::new(directory);
        writer.set_reserve(0);
        writer
    }

    pub(super) fn set_reserve(&mut self, bytes: u64) {
        self.reserve = bytes;
    }

    /// The names of the packs that were closed.
    pub(super) fn made(&self) -> &[String] {
        &self.made
    }

    pub(super) fn directory(&self) -> &OwnedFd {
        &self.directory
    }

    pub(super) fn put(&mut self, key: &BlockKey, raw: bool, bytes: &[u8]) {
        self.put_used(key, raw, bytes, day(SystemTime::now()));
    }

    /// Puts a block that was used on some day last.
    pub(super) fn put_used(&mut self, key: &BlockKey, raw: bool, bytes: &[u8], day: u32) {
        if self.outcome.trouble.is_some() || !self.seen.insert(*key) {
            return;
        }
        if let Err(error) = self.try_put(key, raw, bytes, day) {
            self.give_up(&error);
        }
    }

    /// Closes the pack and says what came of it all.
    pub(super) fn finish(&mut self) -> Outcome {
        if let Err(error) = self.close() {
            self.give_up(&error);
        }
        std::mem::take(&mut self.outcome)
    }

    fn try_put(&mut self, key: &BlockKey, raw: bool, bytes: &[u8], day: u32) -> io::Result<()> {
        let open = match &mut self.open {
            Some(open) => open,
            None => self.open.insert(Open::new(&self.directory, self.reserve)?),
        };
        open.put(key, raw, bytes)?;
        open.days.push(day);
        if open.length >= PACK_BYTES {
            self.close()?;
        }
        Ok(())
    }

    fn close(&mut self) -> io::Result<()> {
        let Some(mut open) = self.open.take() else {
            return Ok(());
        };
        let done = open.seal(&self.directory);
        match done {
            Ok(name) => {
                self.outcome.added += open.entries.len() as u64;
                self.made.push(name);
                Ok(())
            }
            Err(error) => {
                open.remove(&self.directory);
                Err(error)
            }
        }
    }

    fn give_up(&mut self, error: &io::Error) {
        if let Some(open) = self.open.take() {
            open.remove(&self.directory);
        }
        self.outcome.trouble = Some(error.to_string());
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if let Some(open) = self.open.take() {
            open.remove(&self.directory);
        }
    }
}

impl Open {
    fn new(directory: &OwnedFd, reserve: u64) -> io::Result<Self> {
        let disk = fstatvfs(directory)?;
        let needed = reserve + PACK_BYTES;
        if disk.f_bavail.saturating_mul(disk.f_frsize) < needed {
            let message = format!(
                "less than {} MiB are free on the disk that holds the cache",
                needed >> 20
            );
            return Err(io::Error::new(io::ErrorKind::StorageFull, message));
        }
        let (name, file) = create(directory)?;
        Ok(Open {
            name,
            file,
            entries: Vec::new(),
            days: Vec::new(),
            buffer: MAGIC.to_vec(),
            length: 0,
        })
    }

    fn put(&mut self, key: &BlockKey, raw: bool, bytes: &[u8]) -> io::Result<()> {
        let offset = self.length + self.buffer.len() as u64;
        self.entries.push(Entry::new(key, raw, offset, bytes));
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= BUFFER {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.write_all_at(&self.buffer, self.length)?;
        self.length += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    /// Writes the index and gives the pack its name: that of its index, so that two builds of the same make one.
    fn seal(&mut self, directory: &OwnedFd) -> io::Result<String> {
        let offset = self.length + self.buffer.len() as u64;
        let index = encode_index(&self.entries, offset);
        let name = hex::encode(&blake3::hash(&index).as_bytes()[..16]);
        self.buffer.extend_from_slice(&index);
        self.flush()?;
        renameat(directory, &*self.name, directory, format!("{name}{PACK}"))?;
        let today = day(SystemTime::now());
        if self.days.iter().any(|day| *day != today) {
            // Without the note the blocks count as used when the pack was made.
            let _ = write_days(directory, &name, &self.days);
        }
        Ok(name)
    }

    fn remove(&self, directory: &OwnedFd) {
        // A later command reclaims what cannot be removed now.
        let _ = unlinkat(directory, &*self.name, AtFlags::empty());
    }
}
