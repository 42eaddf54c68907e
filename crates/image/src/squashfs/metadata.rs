//! Tables made of compressed metadata blocks.

use super::codec::{Compressor, Packed, compressor};
use super::format::{METADATA_BLOCK, METADATA_RAW, Put, Reference};
use super::options::Options;
use crate::parallel::panicked;
use crate::{Error, ErrorKind, Result};

/// A table under way. Every block but the last holds 8 KiB; a place is known as soon as the blocks before it are packed.
pub(super) struct Table {
    compressor: Box<dyn Compressor>,
    /// Not yet packed.
    open: Vec<u8>,
    packed: Vec<u8>,
    /// Where each block starts in `packed`; the last one is the open block's.
    starts: Vec<u64>,
}

impl Table {
    pub(super) fn new(options: &Options) -> Result<Self> {
        Ok(Table {
            compressor: compressor(options)?,
            open: Vec::with_capacity(METADATA_BLOCK),
            packed: Vec::new(),
            starts: vec![0],
        })
    }

    /// Uncompressed bytes so far.
    pub(super) fn position(&self) -> u64 {
        ((self.starts.len() - 1) * METADATA_BLOCK + self.open.len()) as u64
    }

    /// The place of an uncompressed position that is not behind [`Table::position`].
    pub(super) fn reference(&self, position: u64) -> Result<Reference> {
        let index = usize::try_from(position / METADATA_BLOCK as u64).unwrap_or(usize::MAX);
        let start = self.starts.get(index).copied().ok_or_else(|| {
            Error::new(
                ErrorKind::Internal,
                "a place behind the end of a metadata table",
            )
        })?;
        let block = u32::try_from(start).map_err(|_| {
            Error::input("the tree has too many files: a SquashFS table would pass 4 GiB")
        })?;
        Ok(Reference {
            block,
            offset: (position % METADATA_BLOCK as u64) as u16,
        })
    }

    /// Appends bytes; they may run over several blocks.
    pub(super) fn write(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let room = METADATA_BLOCK - self.open.len();
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.open.extend_from_slice(now);
            bytes = later;
            if self.open.len() == METADATA_BLOCK {
                self.close_block()?;
            }
        }
        Ok(())
    }

    /// Appends to an empty table, packing the full blocks on several threads.
    pub(super) fn write_parallel(&mut self, bytes: &[u8], options: &Options) -> Result<()> {
        let full = bytes.len() / METADATA_BLOCK;
        let share = full.div_ceil(options.threads.max(1)).max(1) * METADATA_BLOCK;
        let (whole, rest) = bytes.split_at(full * METADATA_BLOCK);
        let parts = std::thread::scope(|scope| {
            let jobs: Vec<_> = whole
                .chunks(share)
                .map(|part| scope.spawn(move || pack_blocks(part, options)))
                .collect();
            jobs.into_iter()
                .map(|job| job.join().unwrap_or_else(|_| Err(panicked())))
                .collect::<Result<Vec<_>>>()
        })?;
        for block in parts.into_iter().flatten() {
            self.packed.extend_from_slice(&block);
            self.starts.push(self.packed.len() as u64);
        }
        self.write(rest)
    }

    /// The packed table and where its blocks start.
    pub(super) fn finish(mut self) -> Result<(Vec<u8>, Vec<u64>)> {
        if self.open.is_empty() {
            self.starts.pop();
        } else {
            self.close_block()?;
            self.starts.pop();
        }
        Ok((self.packed, self.starts))
    }

    fn close_block(&mut self) -> Result<()> {
        let block = pack_block(self.compressor.as_mut(), &self.open)?;
        self.packed.extend_from_slice(&block);
        self.starts.push(self.packed.len() as u64);
        self.open.clear();
        Ok(())
    }
}

/// A metadata block with its header.
pub(super) fn pack_block(compressor: &mut dyn Compressor, block: &[u8]) -> Result<Vec<u8>> {
    let mut out = Vec::with_capacity(block.len() + 2);
    match compressor.pack(block)? {
        Packed::Compressed(bytes) => {
            out.put16(bytes.len() as u16);
            out.extend_from_slice(&bytes);
        }
        Packed::Raw => {
            out.put16(block.len() as u16 | METADATA_RAW);
            out.extend_from_slice(block);
        }
    }
    Ok(out)
}

fn pack_blocks(bytes: &[u8], options: &Options) -> Result<Vec<Vec<u8>>> {
    let mut compressor = compressor(options)?;
    bytes
        .chunks(METADATA_BLOCK)
        .map(|block| pack_block(compressor.as_mut(), block))
        .collect()
}
