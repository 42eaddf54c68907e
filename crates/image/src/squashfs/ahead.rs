//! An image whose length is known before its blocks are copied.
//!
//! A warm image consists of stored blocks and a few new ones. When these few are made first and kept in memory, every block's length is
//! known, and with the lengths all places, the metadata and the superblock. So whoever digests the image can begin
//! at its start while the blocks are still on their way.

use std::collections::HashMap;

use super::format::BLOCK_RAW;
use super::job::{Block, Finished, Planned, other_length};
use super::store::{BlockKey, BlockStore, Stored};
use crate::{Error, Result};

/// A block store with the blocks that this image adds to it.
pub(super) struct Ahead<'s> {
    store: &'s dyn BlockStore,
    made: New,
}

/// New blocks by their names.
#[derive(Default)]
pub(super) struct New(HashMap<BlockKey, Made>);

struct Made {
    raw: bool,
    bytes: Vec<u8>,
}

/// Whether no more bytes of content than `most` have to be compressed.
pub(super) fn is_little(planned: &[Planned], most: u64) -> bool {
    let mut unknown = planned.iter().filter(|block| block.size().is_none());
    let left = unknown.try_fold(0, |sum, block| {
        // What has no name is found in no store.
        block.key.map(|_| sum + u64::from(block.length))
    });
    left.is_some_and(|bytes| bytes <= most)
}

impl New {
    /// Takes blocks and puts them into the store.
    pub(super) fn add(&mut self, finished: &Finished, store: &dyn BlockStore) {
        let mut rest = finished.bytes();
        for block in &finished.blocks {
            let (bytes, behind) = rest.split_at(block.stored().min(rest.len()));
            if let Some(key) = block.new {
                let raw = block.size & BLOCK_RAW != 0;
                store.put(&key, raw, bytes);
                let bytes = bytes.to_vec();
                self.0.insert(key, Made { raw, bytes });
            }
            rest = behind;
        }
    }

    fn find(&self, key: &BlockKey) -> Option<Stored> {
        let block = self.0.get(key)?;
        Some(Stored {
            key: *key,
            // Nobody looks for it by its place.
            place: 0,
            length: u32::try_from(block.bytes.len()).ok()?,
            raw: block.raw,
        })
    }

    /// Copies blocks, one behind the other, and says of each whether it is there.
    fn read(&self, blocks: &[Stored], out: &mut [u8]) -> Vec<bool> {
        let mut rest = out;
        let mut sound = Vec::with_capacity(blocks.len());
        for block in blocks {
            let (place, behind) = rest.split_at_mut((block.length as usize).min(rest.len()));
            let found = self.0.get(&block.key);
            let found = found.filter(|made| made.bytes.len() == place.len());
            if let Some(made) = found {
                place.copy_from_slice(&made.bytes);
            }
            sound.push(found.is_some());
            rest = behind;
        }
        sound
    }
}

impl<'s> Ahead<'s> {
    pub(super) fn new(store: &'s dyn BlockStore, made: New) -> Self {
        Ahead { store, made }
    }

    /// The same blocks with those that were made.
    ///
    /// # Errors
    /// One of them has no length yet.
    pub(super) fn complete(&self, planned: &[Planned]) -> Result<Vec<Planned>> {
        let complete = |block: &Planned| {
            let known = match (block.known, &block.key) {
                (None, Some(key)) => self.made.find(key),
                (known, _) => known,
            };
            let block = Planned { known, ..*block };
            block.size().map(|_| block)
        };
        let all: Option<Vec<Planned>> = planned.iter().map(complete).collect();
        all.ok_or_else(|| Error::internal("a block that was made is not found again"))
    }
}

impl BlockStore for Ahead<'_> {
    fn find(&self, key: &BlockKey) -> Option<Stored> {
        self.store.find(key).or_else(|| self.made.find(key))
    }

    fn read(&self, blocks: &[Stored], out: &mut [u8]) -> Vec<bool> {
        let is_made = |block: &Stored| self.made.0.contains_key(&block.key);
        let mut sound = Vec::with_capacity(blocks.len());
        let mut out = out;
        for run in blocks.chunk_by(|a, b| is_made(a) == is_made(b)) {
            let length: usize = run.iter().map(|block| block.length as usize).sum();
            let (bytes, behind) = out.split_at_mut(length.min(out.len()));
            if run.first().is_some_and(is_made) {
                sound.extend(self.made.read(run, bytes));
            } else {
                sound.extend(self.store.read(run, bytes));
            }
            out = behind;
        }
        sound
    }

    fn put(&self, key: &BlockKey, raw: bool, bytes: &[u8]) {
        self.store.put(key, raw, bytes);
    }
}

/// Whether finished blocks are as they were planned.
///
/// # Errors
/// One is not.
pub(super) fn check<'p>(
    mut planned: impl Iterator<Item = &'p Planned>,
    blocks: &[Block],
) -> Result<()> {
    let mut blocks = blocks.iter();
    let same = blocks.all(|block| {
        let planned = planned.next();
        planned.is_some_and(|planned| planned.reused().size == block.size)
    });
    same.then_some(()).ok_or_else(other_length)
}
