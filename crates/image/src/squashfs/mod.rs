//! A parallel, deterministic SquashFS 4.0 writer.
//!
//! ```text
//! ┌──────────────────────┐ 0            all numbers little-endian, all places relative to the start of the image
//! │ superblock           │ 96 bytes
//! │ compressor options   │ one metadata block, where the codec needs it
//! │ data blocks          │ whole files in tree order
//! │ fragment blocks      │ tails of files, grouped
//! │ inode table          │ metadata blocks: files first, then directories from the deepest on
//! │ directory table      │ metadata blocks
//! │ fragment table       │ metadata blocks, then their places
//! │ export table         │ metadata blocks, then their places
//! │ id table             │ metadata blocks, then their places
//! │ xattr table          │ metadata blocks (values, then ids), then their places
//! └──────────────────────┘ padded with zeros to 4 KiB
//! ```
//!
//! Written in passes, so that the result depends on the tree and the options only, never on threads or time:
//!
//! 1. [`dedup`] digests the blocks of files that share a length, and with a block store those of all files, as far as they are
//!    not known already, and finds whole-file duplicates.
//! 2. [`layout`] decides from names and lengths which tails share a fragment block. The groups are content-defined: an edit changes
//!    the group of the edited file and seldom a neighbour, so the blocks of two similar trees are mostly the same.
//! 3. [`plan`] lists all blocks with what the store has of them. [`pipeline`] copies these ([`straight`] where it can), reads and
//!    compresses the others on all threads, and writes in order, within a bounded window.
//! 4. [`inodes`], [`directories`] and [`tables`] write the metadata.
//!
//! Where the store has nearly all blocks, the others are made first ([`ahead`]). Then all lengths are known: the metadata and the superblock
//! are written before the blocks, and the caller can read the image from its start while it is copied.
//!
//! Specification: the kernel's `fs/squashfs/squashfs_fs.h` and <https://dr-emann.github.io/squashfs/>.
//!
//! What is absent: reading SquashFS, appending, and NFS-unfriendly variants without an export table.

mod ahead;
mod codec;
mod dedup;
mod directories;
mod format;
mod inodes;
mod job;
mod layout;
mod metadata;
mod numbering;
mod options;
mod output;
mod pipeline;
mod plan;
mod queue;
mod store;
mod straight;
mod tables;
mod worker;
mod writer;
mod xattrs;

pub use options::{Codec, Options, Summary};
pub use output::Target;
pub use store::{BlockKey, BlockStore, Stored};
pub use writer::{Told, missing, prepare, stored, write, write_told};
