//! Compressed blocks on disk, so that the next image only compresses what is new.
//!
//! ```text
//! <directory>/
//!   <32 hex digits>.pack     blocks and their index; made by one rename, never changed afterwards
//!   <32 hex digits>.used     for each block of the pack the day on which an image last used it; may be missing
//!   new-<name>               a pack in the making, flock'ed by the process that writes it
//!
//! pack   "kilnpak1"
//!        blocks, in the order in which the image has them
//!        index: 64 bytes for each block   32 key   16 check   8 offset   4 length   4 flags (1: stored as it is)
//!        footer:  8 offset of the index   8 number of blocks   16 check of index and footer        all little-endian
//! ```
//!
//! A block's check is BLAKE3, cut to 16 bytes, of key, flags and bytes. It is verified whenever a block is used; so a
//! flipped bit, in the block or in the index, makes a miss. A key is a digest of content and encoder (see
//! [`BlockKey`]), so equal keys are equal bytes whoever wrote them: two builds may write at once, and a pack that
//! vanishes under a reader costs time only. A `new-` file whose lock can be taken belongs to nobody and is removed.
//! Nothing is fsynced: what a crash of the machine tears has wrong checks.
//!
//! A full disk, or any other trouble, ends the storing and not the image; see [`PackStore::finish`].

mod carry;
mod collect;
mod directory;
mod format;
mod pack;
mod write;

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::os::fd::OwnedFd;
use std::sync::{Mutex, PoisonError};

use crate::Result;
use crate::error::IoContext;
use crate::squashfs::{BlockKey, BlockStore, Stored};

pub use carry::{adopt, index, places};
pub use collect::{Collected, Limits, Usage, collect, reclaim, usage};
use pack::Pack;
use write::Writer;

/// An opened store.
pub struct PackStore {
    packs: Vec<Pack>,
    index: HashMap<BlockKey, u64, BuildHasherDefault<FirstBytes>>,
    writer: Mutex<Writer>,
}

/// What a store has to say at the end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Blocks that were put and are there for the next image.
    pub added: u64,
    /// Blocks that were not what they should be, and were made again.
    pub damaged: u64,
    /// Packs that were there and packs that were made.
    pub packs: usize,
    /// Names of the packs whose blocks were used or put, without their suffix.
    pub used: Vec<String>,
    /// Why not everything was stored.
    pub trouble: Option<String>,
}

impl PackStore {
    /// Opens the store in a directory. Packs that cannot be read are as good as missing.
    ///
    /// # Errors
    /// The directory cannot be listed.
    pub fn open(directory: OwnedFd) -> Result<Self> {
        let doing = || "reading the block store".to_owned();
        let mut names = pack::names(&directory).doing(doing)?;
        names.sort();
        let mut packs = Vec::new();
        let mut index: HashMap<_, _, BuildHasherDefault<FirstBytes>> = HashMap::default();
        for name in names {
            let Some(pack) = Pack::open(&directory, &name) else {
                continue;
            };
            index.reserve(pack.entries.len());
            let number = (packs.len() as u64) << 32;
            for (entry, place) in pack.entries.iter().zip(number..) {
                index.entry(entry.key).or_insert(place);
            }
            packs.push(pack);
        }
        Ok(PackStore {
            packs,
            index,
            writer: Mutex::new(Writer::new(directory)),
        })
    }

    /// Leaves this much free on the disk instead of 1 GiB, in bytes. What is left is the image's.
    #[must_use]
    pub fn with_reserve(self, bytes: u64) -> Self {
        self.writer().set_reserve(bytes);
        self
    }

    /// Returns the number of blocks that can be found.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Returns whether there is no block.
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// Returns in which pack a block lies, by its name without the suffix, and where in that file; `None` for a block of another store.
    pub fn place(&self, block: &Stored) -> Option<(&str, u64)> {
        let (pack, index) = self.pack(block.place)?;
        let entry = pack.entries.get(index)?;
        (entry.key == block.key).then_some((&*pack.name, entry.offset))
    }

    /// Makes what was put findable for others, and notes what was used. Without it what was put since the last full pack is lost.
    pub fn finish(&self) -> Outcome {
        let mut writer = self.writer();
        let mut outcome = writer.finish();
        outcome.packs = self.packs.len() + writer.made().len();
        outcome.used = writer.made().to_vec();
        for pack in &self.packs {
            if pack.is_used() {
                outcome.used.push(pack.name.clone());
            }
            outcome.damaged += pack.damaged();
            // A lost note means that blocks are collected earlier than need be.
            let _ = pack.note_use(writer.directory());
        }
        outcome
    }

    fn writer(&self) -> std::sync::MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pack(&self, place: u64) -> Option<(&Pack, usize)> {
        let pack = self.packs.get((place >> 32) as usize)?;
        Some((pack, (place & u64::from(u32::MAX)) as usize))
    }

    /// How many of the blocks lie one behind the other in one pack.
    fn run(&self, blocks: &[Stored]) -> usize {
        let entry = |block: &Stored| {
            let (pack, index) = self.pack(block.place)?;
            Some((block.place >> 32, *pack.entries.get(index)?))
        };
        let Some((pack, mut last)) = blocks.first().and_then(entry) else {
            return blocks.len().min(1);
        };
        let follows = |block: &&Stored| match entry(block) {
            Some((other, next)) if other == pack && next.offset == last.end() => {
                last = next;
                true
            }
            _ => false,
        };
        1 + blocks.iter().skip(1).take_while(follows).count()
    }
}

impl BlockStore for PackStore {
    fn find(&self, key: &BlockKey) -> Option<Stored> {
        let place = *self.index.get(key)?;
        let (pack, index) = self.pack(place)?;
        let entry = pack.entries.get(index)?;
        Some(Stored {
            key: *key,
            place,
            length: entry.length,
            raw: entry.is_raw(),
        })
    }

    fn read(&self, blocks: &[Stored], out: &mut [u8]) -> Vec<bool> {
        let mut sound = Vec::with_capacity(blocks.len());
        let (mut rest, mut out) = (blocks, out);
        while !rest.is_empty() {
            let (run, later) = rest.split_at(self.run(rest).max(1));
            let length: usize = run.iter().map(|block| block.length as usize).sum();
            let (bytes, behind) = out.split_at_mut(length.min(out.len()));
            match run.first().and_then(|block| self.pack(block.place)) {
                Some((pack, first)) => pack.read(first, run.len(), bytes, &mut sound),
                None => sound.extend(run.iter().map(|_| false)),
            }
            (rest, out) = (later, behind);
        }
        sound
    }

    fn put(&self, key: &BlockKey, raw: bool, bytes: &[u8]) {
        self.writer().put(key, raw, bytes);
    }
}

/// Takes the eight bytes that a key gives, which are a digest's, as they are.
#[derive(Default)]
struct FirstBytes(u64);

impl Hasher for FirstBytes {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }
    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }
    fn finish(&self) -> u64 {
        self.0
    }
}
