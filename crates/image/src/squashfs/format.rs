//! Constants and fixed structures of SquashFS 4.0, after the kernel's `fs/squashfs/squashfs_fs.h`.

use super::options::{Codec, Options};

/// Uncompressed bytes of a metadata block.
pub(super) const METADATA_BLOCK: usize = 8192;
/// Bytes of the superblock.
pub(super) const SUPERBLOCK: usize = 96;
/// An image is padded to a multiple of this, so that a block device of 4 KiB sectors can hold it.
pub(super) const PADDING: u64 = 4096;
/// "There is none": no fragment, no extended attributes.
pub(super) const NONE: u32 = u32::MAX;
/// "There is none" for a table.
pub(super) const NO_TABLE: u64 = u64::MAX;
/// Set in the size of a data or fragment block that is stored as it is.
pub(super) const BLOCK_RAW: u32 = 1 << 24;
/// Set in the size of a metadata block that is stored as it is.
pub(super) const METADATA_RAW: u16 = 1 << 15;
/// The number of entries that one directory header stands for.
pub(super) const HEADER_ENTRIES: usize = 256;

const MAGIC: u32 = 0x7371_7368;
const FLAG_NO_FRAGMENTS: u16 = 1 << 4;
const FLAG_ALWAYS_FRAGMENTS: u16 = 1 << 5;
const FLAG_DUPLICATES: u16 = 1 << 6;
const FLAG_EXPORTABLE: u16 = 1 << 7;
const FLAG_NO_XATTRS: u16 = 1 << 9;
const FLAG_COMPRESSOR_OPTIONS: u16 = 1 << 10;

/// Inode types; the extended form of each is 7 more.
pub(super) mod inode_type {
    pub(in super::super) const DIRECTORY: u16 = 1;
    pub(in super::super) const FILE: u16 = 2;
    pub(in super::super) const SYMLINK: u16 = 3;
    pub(in super::super) const BLOCK_DEVICE: u16 = 4;
    pub(in super::super) const CHAR_DEVICE: u16 = 5;
    pub(in super::super) const FIFO: u16 = 6;
    pub(in super::super) const SOCKET: u16 = 7;
    pub(in super::super) const EXTENDED: u16 = 7;
}

/// Appends little-endian numbers.
pub(super) trait Put {
    fn put16(&mut self, value: u16);
    fn put32(&mut self, value: u32);
    fn put64(&mut self, value: u64);
}

impl Put for Vec<u8> {
    fn put16(&mut self, value: u16) {
        self.extend_from_slice(&value.to_le_bytes());
    }
    fn put32(&mut self, value: u32) {
        self.extend_from_slice(&value.to_le_bytes());
    }
    fn put64(&mut self, value: u64) {
        self.extend_from_slice(&value.to_le_bytes());
    }
}

/// A place in a table of metadata blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Reference {
    /// Where the compressed block starts, from the start of the table.
    pub(super) block: u32,
    /// Where it is in the uncompressed block.
    pub(super) offset: u16,
}

impl Reference {
    /// The form in which inodes are referred to: block above, offset in the lower 16 bits.
    pub(super) fn packed(self) -> u64 {
        u64::from(self.block) << 16 | u64::from(self.offset)
    }
}

/// Where everything is; see the drawing in the parent module.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Superblock {
    pub(super) inodes: u32,
    pub(super) mtime: u32,
    pub(super) fragments: u32,
    pub(super) ids: u16,
    pub(super) has_xattrs: bool,
    pub(super) root: Reference,
    pub(super) bytes: u64,
    pub(super) id_table: u64,
    pub(super) xattr_table: u64,
    pub(super) inode_table: u64,
    pub(super) directory_table: u64,
    pub(super) fragment_table: u64,
    pub(super) export_table: u64,
}

impl Superblock {
    pub(super) fn encode(&self, options: &Options) -> Vec<u8> {
        let mut out = Vec::with_capacity(SUPERBLOCK);
        out.put32(MAGIC);
        out.put32(self.inodes);
        out.put32(self.mtime);
        out.put32(options.block_size);
        out.put32(self.fragments);
        out.put16(codec_id(options.codec));
        out.put16(options.block_size.trailing_zeros() as u16);
        out.put16(self.flags(options));
        out.put16(self.ids);
        out.put16(4); // version 4.0
        out.put16(0);
        out.put64(self.root.packed());
        out.put64(self.bytes);
        out.put64(self.id_table);
        out.put64(self.xattr_table);
        out.put64(self.inode_table);
        out.put64(self.directory_table);
        out.put64(self.fragment_table);
        out.put64(self.export_table);
        out
    }

    fn flags(&self, options: &Options) -> u16 {
        let mut flags = FLAG_DUPLICATES | FLAG_EXPORTABLE;
        if self.fragments == 0 {
            flags |= FLAG_NO_FRAGMENTS;
        } else if options.tail_ends {
            flags |= FLAG_ALWAYS_FRAGMENTS;
        }
        if !self.has_xattrs {
            flags |= FLAG_NO_XATTRS;
        }
        if !compressor_options(options).is_empty() {
            flags |= FLAG_COMPRESSOR_OPTIONS;
        }
        flags
    }
}

fn codec_id(codec: Codec) -> u16 {
    match codec {
        Codec::Gzip => 1,
        Codec::Xz => 4,
        Codec::Lz4 => 5,
        Codec::Zstd => 6,
    }
}

/// The compressor's own structure after the superblock; empty where a reader may assume the defaults.
///
/// xz never needs one: the dictionary is one block and no branch filter is used.
pub(super) fn compressor_options(options: &Options) -> Vec<u8> {
    let mut out = Vec::new();
    match options.codec {
        // Readers know zlib's levels only; 10 to 12 are libdeflate's.
        Codec::Gzip if options.level < 9 => {
            out.put32(options.level as u32);
            out.put16(15); // window of 32 KiB
            out.put16(0); // default strategy
        }
        Codec::Lz4 => {
            out.put32(1); // legacy block format
            out.put32(1); // high compression
        }
        Codec::Zstd if options.level != Codec::Zstd.default_level() => {
            out.put32(options.level as u32);
        }
        _ => {}
    }
    out
}
