//! What the threads of the writer hand on: jobs, the blocks that they are made of, and what becomes of them.

use std::sync::{Arc, OnceLock};

use super::format::BLOCK_RAW;
use super::numbering::File;
use super::store::{BlockKey, Stored};
use crate::tree::ContentReader;
use crate::{Error, ErrorKind, Result};

/// Content that one job compresses, in bytes; one block may be more.
pub(super) const RUN: u64 = 128 << 10;
/// Bytes that one job copies from the block store.
pub(super) const COPY: u64 = 1 << 20;

/// What a block is a part of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// Of a file, by its index: some block of it, in order.
    Data { file: usize },
    /// A fragment block, by its index.
    Fragment,
}

/// A finished block.
pub(super) struct Block {
    pub(super) part: Part,
    /// Its length with [`BLOCK_RAW`], as tables hold it; 0 for a hole.
    pub(super) size: u32,
    /// The uncompressed length.
    pub(super) length: u32,
    /// Whether it came from the block store.
    pub(super) reused: bool,
    /// Its name in the block store, where it has to be put there.
    pub(super) new: Option<BlockKey>,
}

impl Block {
    /// Its bytes in the image.
    pub(super) fn stored(&self) -> usize {
        (self.size & !BLOCK_RAW) as usize
    }
}

/// Finished blocks, in this order: the data blocks of each file, then the fragment blocks.
#[derive(Default)]
pub(super) struct Finished {
    /// What goes to the image, and maybe more.
    pub(super) buffer: Vec<u8>,
    /// What it is.
    pub(super) blocks: Vec<Block>,
    /// It is in the image already, and not here.
    pub(super) written: bool,
}

impl Finished {
    /// What goes to the image.
    pub(super) fn bytes(&self) -> &[u8] {
        let length: usize = self.blocks.iter().map(Block::stored).sum();
        self.buffer.get(..length).unwrap_or(&self.buffer)
    }
}

/// Some blocks that follow one another.
pub(super) struct Job {
    pub(super) sequence: u64,
    pub(super) items: Vec<Item>,
    /// Where in the image they begin, where that is known and they are all known.
    pub(super) start: Option<u64>,
}

/// One block to be.
#[derive(Clone, Copy)]
pub(super) struct Planned {
    pub(super) source: Source,
    /// Uncompressed bytes.
    pub(super) length: u32,
    /// Known to be zeros.
    pub(super) hole: bool,
    /// Its name in the block store, where there is one.
    pub(super) key: Option<BlockKey>,
    /// What the store has of it.
    pub(super) known: Option<Stored>,
}

/// Where the content of a block is.
#[derive(Clone, Copy)]
pub(super) enum Source {
    Data { file: usize, offset: u64 },
    Fragment(usize),
}

impl Source {
    fn part(self) -> Part {
        match self {
            Source::Data { file, .. } => Part::Data { file },
            Source::Fragment(_) => Part::Fragment,
        }
    }
}

impl Planned {
    /// The block as the store has it, or a hole.
    pub(super) fn reused(&self) -> Block {
        let size = |known: &Stored| known.length | if known.raw { BLOCK_RAW } else { 0 };
        let known = self.known.as_ref();
        Block {
            size: known.map_or(0, size),
            reused: known.is_some(),
            ..self.zeros()
        }
    }

    /// The block as it is where its bytes turn out to be zeros.
    pub(super) fn zeros(&self) -> Block {
        Block {
            part: self.source.part(),
            size: 0,
            length: self.length,
            reused: false,
            new: None,
        }
    }

    /// Its bytes in the image, if they are known before it is made.
    pub(super) fn size(&self) -> Option<u64> {
        match (&self.known, self.hole) {
            (_, true) => Some(0),
            (known, _) => known.as_ref().map(|known| u64::from(known.length)),
        }
    }

    /// What it adds to its job, as a part of what a job can have.
    pub(super) fn weight(&self) -> f64 {
        match (&self.known, self.hole) {
            (_, true) => 0.0,
            (Some(known), _) => f64::from(known.length) / COPY as f64,
            (None, _) => f64::from(self.length) / RUN as f64,
        }
    }

    /// Whether it has to be compressed and can be put into the store.
    pub(super) fn is_missing(&self) -> bool {
        self.key.is_some() && self.known.is_none()
    }
}

/// One block to be made, and its file.
pub(super) struct Item {
    pub(super) planned: Planned,
    pub(super) handle: Arc<Handle>,
}

/// A file that the first job opens and the last one closes.
#[derive(Default)]
pub(super) struct Handle(OnceLock<ContentReader>);

impl Handle {
    pub(super) fn get(&self, files: &[File<'_>], file: usize) -> Result<&ContentReader> {
        if let Some(reader) = self.0.get() {
            return Ok(reader);
        }
        // Two threads may open it at once; one of the two readers is dropped.
        let reader = files[file].content.open()?;
        Ok(self.0.get_or_init(|| reader))
    }
}

/// A block that is made anew is not as long as the stored one. The encoder is part of a block's name, so this must be another than
/// the one that made it.
pub(super) fn other_length() -> Error {
    let message = "a stored block is not as long as the same block made anew";
    Error::new(ErrorKind::Step, message)
        .with_hint("remove the directory `blocks` of the cache, and start again")
}
