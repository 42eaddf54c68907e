//! What the caller chooses and what it gets told.

use std::fmt;
use std::sync::Arc;

use super::store::BlockStore;
use crate::{Error, Result};

/// The smallest block size.
pub(super) const BLOCK_MIN: u32 = 4 << 10;
/// The largest block size.
pub(super) const BLOCK_MAX: u32 = 1 << 20;

/// A compression method that the kernel reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Codec {
    /// zlib streams, levels 1–12 (libdeflate).
    Gzip,
    /// Levels 0–9 of liblzma, with a dictionary of one block.
    Xz,
    /// The high-compression encoder of LZ4, levels 1–12.
    Lz4,
    /// Levels 1–22.
    Zstd,
}

impl Codec {
    /// Returns the lowest and the highest level.
    pub fn levels(self) -> (i32, i32) {
        match self {
            Codec::Gzip | Codec::Lz4 => (1, 12),
            Codec::Xz => (0, 9),
            Codec::Zstd => (1, 22),
        }
    }

    /// Returns the level that `mksquashfs` takes by default.
    pub fn default_level(self) -> i32 {
        match self {
            Codec::Gzip => 9,
            Codec::Xz => 6,
            Codec::Lz4 => 12,
            Codec::Zstd => 15,
        }
    }
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Codec::Gzip => "gzip",
            Codec::Xz => "xz",
            Codec::Lz4 => "lz4",
            Codec::Zstd => "zstd",
        })
    }
}

/// How a SquashFS is written.
#[derive(Clone)]
pub struct Options {
    /// The compression method.
    pub codec: Codec,
    /// Its level, within [`Codec::levels`].
    pub level: i32,
    /// Bytes per block: a power of two from 4 KiB to 1 MiB.
    pub block_size: u32,
    /// Threads that read and compress, at least one; the image does not depend on it.
    pub threads: usize,
    /// The time of creation in the superblock, in seconds since 1970.
    pub mtime: i64,
    /// Puts the last, short block of files of several blocks into fragments too. Off, as in `mksquashfs`: it gains nothing
    /// measurable at 128 KiB and costs a lookup per file.
    pub tail_ends: bool,
    /// Where compressed blocks of earlier images may be found and this one's are left.
    pub block_store: Option<Arc<dyn BlockStore>>,
    /// Bytes of content: where no more than this is new to the block store, it is compressed, and kept in memory, before anything is copied, so
    /// that the length is known before the image is complete. The image does not depend on it.
    pub new_first: u64,
}

/// Compressed within a second at most levels, and half of it in memory is no burden.
const NEW_FIRST: u64 = 32 << 20;

impl Options {
    /// Returns options for the codec at its default level, 128 KiB blocks, one thread, time 0.
    pub fn new(codec: Codec) -> Self {
        Options {
            codec,
            level: codec.default_level(),
            block_size: 128 << 10,
            threads: 1,
            mtime: 0,
            tail_ends: false,
            block_store: None,
            new_first: NEW_FIRST,
        }
    }

    pub(super) fn check(&self) -> Result<()> {
        let size = self.block_size;
        if !size.is_power_of_two() || !(BLOCK_MIN..=BLOCK_MAX).contains(&size) {
            return Err(
                Error::input(format!("a SquashFS cannot have blocks of {size} bytes"))
                    .with_hint("choose a power of two from 4096 to 1048576"),
            );
        }
        let (low, high) = self.codec.levels();
        if !(low..=high).contains(&self.level) {
            return Err(Error::input(format!(
                "{} has no compression level {}",
                self.codec, self.level
            ))
            .with_hint(format!("choose a level from {low} to {high}")));
        }
        Ok(())
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("codec", &self.codec)
            .field("level", &self.level)
            .field("block_size", &self.block_size)
            .field("threads", &self.threads)
            .field("mtime", &self.mtime)
            .field("tail_ends", &self.tail_ends)
            .field("block_store", &self.block_store.is_some())
            .field("new_first", &self.new_first)
            .finish()
    }
}

/// What was written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// The length of the file system in bytes, as its superblock says.
    pub bytes: u64,
    /// The length with the padding to 4 KiB.
    pub padded_bytes: u64,
    /// Inodes; a hard link is one with several names.
    pub inodes: u32,
    /// Bytes of regular files, every inode once, duplicates and holes included.
    pub content_bytes: u64,
    /// Regular files that share the blocks of an equal one.
    pub duplicates: u32,
    /// Data blocks that were written.
    pub blocks: u64,
    /// Fragment blocks.
    pub fragments: u32,
    /// Blocks, of data or fragments, that came from the block store.
    pub reused_blocks: u64,
    /// Different owners and groups.
    pub ids: u32,
    /// Different sets of extended attributes.
    pub xattr_sets: u32,
}
