//! Digests of a file's blocks: what a file holds, told without reading it.

use std::sync::Arc;

use super::content::{Content, ContentReader};
use crate::{Error, Result};

/// BLAKE3 of one block of a file, or [`ZEROS`].
pub type Digest = [u8; 32];

/// Stands for a block of zeros, written or a hole. No block is known whose BLAKE3 this is.
pub const ZEROS: Digest = [0; 32];

/// The digests of all blocks of one file, in order; the last block may be short.
///
/// Many files share one table, because a manifest is read as a whole.
#[derive(Clone)]
pub struct BlockDigests {
    block_size: u32,
    table: Arc<Vec<Digest>>,
    first: u32,
    count: u32,
}

impl BlockDigests {
    /// Reads a file and digests its blocks.
    ///
    /// # Errors
    /// The file cannot be read or was changed.
    pub fn of(content: &Content, block_size: u32) -> Result<Self> {
        let mut table = Vec::new();
        digest_blocks(content, block_size, &mut Vec::new(), &mut table)?;
        let count = number(table.len())?;
        Ok(BlockDigests {
            block_size,
            table: Arc::new(table),
            first: 0,
            count,
        })
    }

    /// A run of a shared table; `None` where the table is too short.
    pub(super) fn part(
        block_size: u32,
        table: &Arc<Vec<Digest>>,
        first: u32,
        count: u32,
    ) -> Option<Self> {
        let end = u64::from(first) + u64::from(count);
        (end <= table.len() as u64).then(|| BlockDigests {
            block_size,
            table: Arc::clone(table),
            first,
            count,
        })
    }

    /// Returns the bytes per block.
    pub fn block_size(&self) -> u32 {
        self.block_size
    }

    /// Returns the digests.
    pub fn blocks(&self) -> &[Digest] {
        let first = self.first as usize;
        &self.table[first..first + self.count as usize]
    }
}

impl std::fmt::Debug for BlockDigests {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "BlockDigests({} of {})", self.count, self.block_size)
    }
}

/// Appends the digests of a file's blocks to `table`.
pub(super) fn digest_blocks(
    content: &Content,
    block_size: u32,
    buffer: &mut Vec<u8>,
    table: &mut Vec<Digest>,
) -> Result<()> {
    if content.is_empty() {
        return Ok(());
    }
    let reader = content.open()?;
    let mut offset = 0;
    while offset < content.len() {
        let length = u64::from(block_size).min(content.len() - offset);
        table.push(digest_at(&reader, offset, length, buffer)?);
        offset += length;
    }
    Ok(())
}

fn digest_at(
    reader: &ContentReader,
    offset: u64,
    length: u64,
    buffer: &mut Vec<u8>,
) -> Result<Digest> {
    if reader.is_hole(offset, length) {
        return Ok(ZEROS);
    }
    buffer.resize(length as usize, 0);
    reader.read_exact_at(buffer, offset)?;
    Ok(digest(buffer))
}

/// The digest of a block's bytes.
pub(crate) fn digest(block: &[u8]) -> Digest {
    if is_zero(block) {
        ZEROS
    } else {
        *blake3::hash(block).as_bytes()
    }
}

/// Whether all bytes are zero; most blocks are told by their first bytes.
pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    let mut chunks = bytes.chunks_exact(64);
    chunks.all(|chunk| chunk.iter().fold(0, |sum, byte| sum | byte) == 0)
        && chunks.remainder().iter().all(|byte| *byte == 0)
}

pub(super) fn number(count: usize) -> Result<u32> {
    u32::try_from(count)
        .map_err(|_| Error::input("a file has too many blocks: 4,294,967,295 are possible"))
}
