//! Digests of a file's blocks: what a file holds, told without reading it.

use std::sync::Arc;

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
    /// Makes them of digests that were taken in order.
    pub(super) fn new(block_size: u32, blocks: Vec<Digest>) -> Result<Self> {
        let count = number(blocks.len())?;
        Ok(BlockDigests {
            block_size,
            table: Arc::new(blocks),
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
