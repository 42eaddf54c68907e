//! Where compressed blocks of earlier images can be found again.

use std::fmt;

use crate::tree::Digest;

/// Names the stored form of one block: equal keys, equal bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct BlockKey([u8; 32]);

impl BlockKey {
    /// BLAKE3, keyed with the encoder, of the digests and lengths of what the block is made of: one piece of a file, or the
    /// tails of several. So a block whose files are known is named without reading them.
    ///
    /// The encoder (its library's version, level and dictionary size) belongs to it because a warm image must equal a cold
    /// one byte for byte, also after the library changed.
    pub(super) fn new<'d>(
        encoder: &[u8; 32],
        pieces: impl Iterator<Item = (&'d Digest, u32)>,
    ) -> Self {
        let mut hasher = blake3::Hasher::new_keyed(encoder);
        for (digest, length) in pieces {
            hasher.update(digest).update(&length.to_le_bytes());
        }
        BlockKey(*hasher.finalize().as_bytes())
    }

    /// Makes a key as a store wrote it down.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        BlockKey(bytes)
    }

    /// Returns the 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

// The bytes are a digest: a few of them are as good as a hash of all.
impl std::hash::Hash for BlockKey {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        state.write_u64(u64::from_le_bytes([a, b, c, d, e, f, g, h]));
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

/// A block that a store says it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Its name.
    pub key: BlockKey,
    /// Where; the store's own business.
    pub place: u64,
    /// Its bytes in the store and in an image.
    pub length: u32,
    /// Whether it is stored as it is because it does not get shorter.
    pub raw: bool,
}

/// Keeps blocks, as images hold them, between images. Called from several threads at once.
///
/// A store answers for what it gives: a damaged entry is a miss, never other bytes than were put. Losing an entry costs
/// time only.
pub trait BlockStore: Send + Sync {
    /// Whether the block is there. This must be quick: it is asked for every block of an image.
    fn find(&self, key: &BlockKey) -> Option<Stored>;
    /// Reads the blocks, one behind the other, to the start of `out`, which has room for all, and says of each whether it is
    /// what was put. Those that are not leave any bytes.
    fn read(&self, blocks: &[Stored], out: &mut [u8]) -> Vec<bool>;
    /// Takes note of a block. Failing to is not an error of the image.
    fn put(&self, key: &BlockKey, raw: bool, bytes: &[u8]);
}
