//! Inodes in their basic and extended forms.

use std::collections::HashMap;

use super::format::{NONE, Put, inode_type};
use super::layout::Tail;
use crate::tree::{Device, Kind, Meta};
use crate::{Error, Result};

/// The largest major number and the largest minor number of the kernel's 32-bit device encoding.
const MAJOR_MAX: u32 = 0xfff;
const MINOR_MAX: u32 = 0xf_ffff;

/// Where a file's blocks ended up.
#[derive(Clone, Debug, Default)]
pub(super) struct Stored {
    /// The first block, from the start of the image.
    pub(super) start: u64,
    /// Sizes as tables hold them.
    pub(super) sizes: Vec<u32>,
    /// Bytes in holes.
    pub(super) sparse: u64,
}

/// Different user and group ids, in the order in which they were met.
#[derive(Default)]
pub(super) struct Ids {
    places: HashMap<u32, u16>,
    pub(super) list: Vec<u32>,
}

impl Ids {
    fn place(&mut self, id: u32) -> Result<u16> {
        if let Some(place) = self.places.get(&id) {
            return Ok(*place);
        }
        // The superblock counts them in 16 bits.
        if self.list.len() >= usize::from(u16::MAX) {
            return Err(
                Error::input("the tree has more than 65,535 different owners and groups")
                    .with_hint("a SquashFS cannot hold more: change the owners of some files"),
            );
        }
        let place = self.list.len() as u16;
        self.places.insert(id, place);
        self.list.push(id);
        Ok(place)
    }
}

/// What all inodes have.
pub(super) struct Header<'a> {
    pub(super) meta: &'a Meta,
    pub(super) number: u32,
    /// How many names lead to it.
    pub(super) links: u32,
    /// The set of extended attributes, or [`NONE`].
    pub(super) xattrs: u32,
}

impl Header<'_> {
    fn put(&self, kind: u16, ids: &mut Ids, out: &mut Vec<u8>) -> Result<()> {
        out.put16(kind);
        out.put16(self.meta.mode & 0o7777);
        out.put16(ids.place(self.meta.uid)?);
        out.put16(ids.place(self.meta.gid)?);
        out.put32(time(self.meta.mtime));
        out.put32(self.number);
        Ok(())
    }

    /// A type, extended when there are attributes, and the link count: the start of everything but files and directories.
    fn put_simple(&self, kind: u16, ids: &mut Ids, out: &mut Vec<u8>) -> Result<()> {
        let extended = if self.xattrs == NONE {
            0
        } else {
            inode_type::EXTENDED
        };
        self.put(kind + extended, ids, out)?;
        out.put32(self.links);
        Ok(())
    }

    fn put_xattrs(&self, out: &mut Vec<u8>) {
        if self.xattrs != NONE {
            out.put32(self.xattrs);
        }
    }
}

/// Times before 1970 become 0 and those after 2106 the last one: 32 bits without sign.
pub(super) fn time(mtime: i64) -> u32 {
    u32::try_from(mtime.max(0)).unwrap_or(u32::MAX)
}

/// The type as directory entries hold it.
pub(super) fn basic_type(kind: &Kind) -> u16 {
    match kind {
        Kind::Directory(_) => inode_type::DIRECTORY,
        Kind::File(_) => inode_type::FILE,
        Kind::Symlink(_) => inode_type::SYMLINK,
        Kind::CharDevice(_) => inode_type::CHAR_DEVICE,
        Kind::BlockDevice(_) => inode_type::BLOCK_DEVICE,
        Kind::Fifo => inode_type::FIFO,
        Kind::Socket => inode_type::SOCKET,
    }
}

/// A regular file.
pub(super) fn put_file(
    header: &Header<'_>,
    length: u64,
    stored: &Stored,
    tail: Option<Tail>,
    ids: &mut Ids,
    out: &mut Vec<u8>,
) -> Result<()> {
    let (fragment, offset) = tail.map_or((NONE, 0), |tail| (tail.group, tail.offset));
    let small = u32::try_from(length)
        .ok()
        .zip(u32::try_from(stored.start).ok());
    let plain = header.links == 1 && header.xattrs == NONE && stored.sparse == 0;
    match small.filter(|_| plain) {
        Some((length, start)) => {
            header.put(inode_type::FILE, ids, out)?;
            out.put32(start);
            out.put32(fragment);
            out.put32(offset);
            out.put32(length);
        }
        None => {
            header.put(inode_type::FILE + inode_type::EXTENDED, ids, out)?;
            out.put64(stored.start);
            out.put64(length);
            // The kernel takes it off the length to tell the blocks in use: at least one byte must stay.
            out.put64(stored.sparse.min(length.saturating_sub(1)));
            out.put32(header.links);
            out.put32(fragment);
            out.put32(offset);
            out.put32(header.xattrs);
        }
    }
    stored.sizes.iter().for_each(|size| out.put32(*size));
    Ok(())
}

/// Everything but files and directories.
pub(super) fn put_special(
    header: &Header<'_>,
    kind: &Kind,
    ids: &mut Ids,
    out: &mut Vec<u8>,
) -> Result<()> {
    header.put_simple(basic_type(kind), ids, out)?;
    match kind {
        Kind::Symlink(target) => {
            out.put32(target.len() as u32);
            out.extend_from_slice(target);
        }
        Kind::CharDevice(device) | Kind::BlockDevice(device) => out.put32(encode(*device)?),
        _ => {}
    }
    header.put_xattrs(out);
    Ok(())
}

/// The kernel's `new_encode_dev`: 12 bits of major number, 20 of minor.
fn encode(device: Device) -> Result<u32> {
    let Device { major, minor } = device;
    if major > MAJOR_MAX || minor > MINOR_MAX {
        return Err(Error::input(format!(
            "the device {major}:{minor} does not fit into a SquashFS"
        ))
        .with_hint("major numbers go to 4095, minor numbers to 1048575"));
    }
    Ok(minor & 0xff | major << 8 | (minor & !0xff) << 12)
}

/// A directory's listing, as its inode refers to it.
pub(super) struct DirectoryFacts {
    /// Where the listing starts: block and offset in the directory table.
    pub(super) start: super::format::Reference,
    /// Its length in bytes.
    pub(super) length: u32,
    pub(super) parent: u32,
    pub(super) subdirectories: u32,
    pub(super) index: Vec<IndexEntry>,
}

/// Where a header of a long listing is, so that a name is found without reading all of it.
pub(super) struct IndexEntry {
    /// From the start of the listing.
    pub(super) position: u32,
    /// The metadata block, from the start of the directory table.
    pub(super) block: u32,
    /// The first name below the header.
    pub(super) name: Vec<u8>,
}

/// A directory.
pub(super) fn put_directory(
    header: &Header<'_>,
    facts: &DirectoryFacts,
    ids: &mut Ids,
    out: &mut Vec<u8>,
) -> Result<()> {
    // The three bytes stand for the entries "." and "..", which are not stored.
    let length = facts.length.checked_add(3).ok_or_else(|| {
        Error::input("a directory has too many names: its listing would pass 4 GiB")
    })?;
    let links = facts.subdirectories.saturating_add(2);
    let basic = u16::try_from(length)
        .ok()
        .filter(|_| facts.index.is_empty() && header.xattrs == NONE);
    match basic {
        Some(length) => {
            header.put(inode_type::DIRECTORY, ids, out)?;
            out.put32(facts.start.block);
            out.put32(links);
            out.put16(length);
            out.put16(facts.start.offset);
            out.put32(facts.parent);
        }
        None => {
            header.put(inode_type::DIRECTORY + inode_type::EXTENDED, ids, out)?;
            out.put32(links);
            out.put32(length);
            out.put32(facts.start.block);
            out.put32(facts.parent);
            out.put16(facts.index.len() as u16);
            out.put16(facts.start.offset);
            out.put32(header.xattrs);
            for entry in &facts.index {
                out.put32(entry.position);
                out.put32(entry.block);
                out.put32(entry.name.len() as u32 - 1);
                out.extend_from_slice(&entry.name);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encode(length: u64, start: u64) -> Vec<u8> {
        let header = Header {
            meta: &Meta::root_owned(0o644, 1),
            number: 7,
            links: 1,
            xattrs: NONE,
        };
        let stored = Stored {
            start,
            sizes: vec![5, 6],
            sparse: 0,
        };
        let mut out = Vec::new();
        put_file(
            &header,
            length,
            &stored,
            None,
            &mut Ids::default(),
            &mut out,
        )
        .unwrap();
        out
    }

    /// The basic form has 32 bits for both; a test with an outsider would have to write more than 4 GiB.
    #[test]
    fn places_and_lengths_from_4_gib_on_take_the_extended_form() {
        let limit = u64::from(u32::MAX);
        assert_eq!(encode(limit, limit).len(), 32 + 8);
        for (length, start) in [(limit + 1, 0), (0, limit + 1)] {
            let bytes = encode(length, start);
            assert_eq!(bytes.len(), 56 + 8);
            assert_eq!(bytes[..2], 9u16.to_le_bytes());
            assert_eq!(bytes[16..24], start.to_le_bytes());
            assert_eq!(bytes[24..32], length.to_le_bytes());
        }
    }

    #[test]
    fn times_are_unsigned_32_bits() {
        let times = [-5, 0, 1 << 31, i64::from(u32::MAX), 1 << 40];
        assert_eq!(times.map(time), [0, 0, 1 << 31, u32::MAX, u32::MAX]);
    }
}
