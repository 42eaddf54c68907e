//! Packs of another machine.

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

use super::format::{ENTRY, FOOTER, MAGIC, decode_footer, decode_index};
use super::{PackStore, Writer};
use crate::Result;
use crate::squashfs::{BlockKey, BlockStore};

/// Returns a pack's index and footer: what has to be known to see which of its blocks are worth getting.
///
/// # Errors
/// The file cannot be read, or is no pack.
pub fn index(pack: &File) -> io::Result<Vec<u8>> {
    let size = pack.metadata()?.len();
    let damaged = || io::Error::from(io::ErrorKind::InvalidData);
    let mut footer = [0; FOOTER];
    let at = size.checked_sub(FOOTER as u64).ok_or_else(damaged)?;
    pack.read_exact_at(&mut footer, at)?;
    let (offset, count) = decode_footer(&footer, size).ok_or_else(damaged)?;
    let mut index = vec![0; count.checked_mul(ENTRY).ok_or_else(damaged)?];
    pack.read_exact_at(&mut index, offset)?;
    index.extend_from_slice(&footer);
    Ok(index)
}

/// Offset and length of each wanted block in a pack of `size` bytes with this [`index()`]. `None` where the index is damaged.
pub fn places(index: &[u8], size: u64, wanted: &HashSet<BlockKey>) -> Option<Vec<(u64, u64)>> {
    let (entries, footer) = index.split_last_chunk::<FOOTER>()?;
    let (offset, count) = decode_footer(footer, size)?;
    if count.checked_mul(ENTRY)? != entries.len() {
        return None;
    }
    let entries = decode_index(entries, footer)?;
    let mut places = Vec::new();
    for entry in entries.iter().filter(|entry| wanted.contains(&entry.key)) {
        if entry.offset < MAGIC.len() as u64 || entry.end() > offset {
            return None;
        }
        places.push((entry.offset, u64::from(entry.length)));
    }
    Some(places)
}

/// Takes the blocks of a pack into the store in a directory, as far as they are sound and new, and returns their number. The pack may
/// have gaps: what lies there is not sound.
///
/// # Errors
/// The directory cannot be read.
pub fn adopt(directory: OwnedFd, pack: &File) -> Result<u64> {
    let Some(entries) = super::pack::entries(pack) else {
        return Ok(0);
    };
    let doing = "taking blocks from the shared cache";
    let copy = directory
        .try_clone()
        .map_err(|error| crate::Error::io(doing, error))?;
    let known = PackStore::open(directory)?;
    let mut writer = Writer::new(copy);
    let mut bytes = Vec::new();
    for entry in entries.iter().filter(|e| known.find(&e.key).is_none()) {
        bytes.resize(entry.length as usize, 0);
        let read = pack.read_exact_at(&mut bytes, entry.offset);
        if read.is_ok() && entry.is_sound(&bytes) {
            writer.put(&entry.key, entry.is_raw(), &bytes);
        }
    }
    Ok(writer.finish().added)
}
