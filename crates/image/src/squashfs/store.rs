//! Where compressed blocks of earlier images can be found again.

use std::fmt;

/// Names the compressed form of one block: equal keys, equal bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BlockKey([u8; 32]);

impl BlockKey {
    /// BLAKE3, keyed with the encoder (its library's version, level and dictionary size), of the uncompressed block.
    ///
    /// The encoder belongs to it because a warm image must equal a cold one byte for byte, also after the library changed.
    pub(super) fn new(encoder: &[u8; 32], block: &[u8]) -> Self {
        BlockKey(*blake3::keyed_hash(encoder, block).as_bytes())
    }

    /// The 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for BlockKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for BlockKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BlockKey({self})")
    }
}

/// What a block became.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Packed {
    /// Shorter than the block, to be stored in its place.
    Compressed(Vec<u8>),
    /// The block does not get shorter: store it as it is.
    Raw,
}

/// Keeps compressed blocks between images. Called from several threads at once.
///
/// A store answers for what it gives: a damaged entry is a miss, never other bytes than were put. Losing an entry costs
/// time only.
pub trait BlockStore: Send + Sync {
    /// The compressed form, if it is known.
    fn get(&self, key: &BlockKey) -> Option<Packed>;
    /// Takes note of a compressed form. Failing to is not an error of the image.
    fn put(&self, key: &BlockKey, block: &Packed);
}
