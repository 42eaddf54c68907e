//! Directory listings: runs of entries under headers.

use super::format::{HEADER_ENTRIES, METADATA_BLOCK, Put, Reference};
use super::inodes::IndexEntry;
use super::metadata::Table;
use crate::{Error, Result};

/// One name.
pub(super) struct Entry<'a> {
    pub(super) name: &'a [u8],
    pub(super) number: u32,
    pub(super) inode: Reference,
    /// The basic type.
    pub(super) kind: u16,
}

/// A listing that was written.
pub(super) struct Listing {
    pub(super) start: Reference,
    pub(super) length: u32,
    pub(super) index: Vec<IndexEntry>,
}

/// Appends the listing of one directory, whose entries are sorted by name.
pub(super) fn write(table: &mut Table, entries: &[Entry<'_>]) -> Result<Listing> {
    let first = table.position();
    if entries.is_empty() {
        return Ok(Listing {
            start: Reference::default(),
            length: 0,
            index: Vec::new(),
        });
    }
    let start = table.reference(first)?;
    let mut index = Vec::new();
    let mut indexed_block = first / METADATA_BLOCK as u64;
    let mut rest = entries;
    while let Some(head) = rest.first() {
        let at = table.position();
        if at / METADATA_BLOCK as u64 > indexed_block && index.len() < usize::from(u16::MAX) {
            indexed_block = at / METADATA_BLOCK as u64;
            index.push(IndexEntry {
                position: span(first, at)?,
                block: table.reference(at)?.block,
                name: head.name.to_vec(),
            });
        }
        let (run, later) = rest.split_at(run_length(head, rest));
        table.write(&encode_run(head, run)?)?;
        rest = later;
    }
    Ok(Listing {
        start,
        length: span(first, table.position())?,
        index,
    })
}

/// How many entries can share a header: the same inode block, numbers within 16 bits of the first, 256 at most.
fn run_length(head: &Entry<'_>, entries: &[Entry<'_>]) -> usize {
    entries
        .iter()
        .take(HEADER_ENTRIES)
        .take_while(|entry| entry.inode.block == head.inode.block && delta(head, entry).is_some())
        .count()
        .max(1)
}

fn delta(head: &Entry<'_>, entry: &Entry<'_>) -> Option<i16> {
    i16::try_from(i64::from(entry.number) - i64::from(head.number)).ok()
}

fn encode_run(head: &Entry<'_>, run: &[Entry<'_>]) -> Result<Vec<u8>> {
    let mut out = Vec::with_capacity(12 + run.len() * 24);
    out.put32(run.len() as u32 - 1);
    out.put32(head.inode.block);
    out.put32(head.number);
    for entry in run {
        let Some(delta) = delta(head, entry) else {
            return Err(Error::internal(
                "inodes with numbers far apart are under one header of a directory",
            ));
        };
        out.put16(entry.inode.offset);
        out.put16(delta as u16);
        out.put16(entry.kind);
        out.put16(entry.name.len() as u16 - 1);
        out.extend_from_slice(entry.name);
    }
    Ok(out)
}

fn span(from: u64, to: u64) -> Result<u32> {
    u32::try_from(to - from)
        .map_err(|_| Error::input("a directory has too many names: its listing would pass 4 GiB"))
}
