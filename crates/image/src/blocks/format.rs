//! The bytes of a pack.

use crate::squashfs::BlockKey;

pub(super) const MAGIC: &[u8; 8] = b"kilnpak1";
pub(super) const ENTRY: usize = 64;
pub(super) const FOOTER: usize = 32;
const RAW: u32 = 1;

/// A check, [`check`] or [`sum`].
pub(super) type Check = [u8; 16];

/// One block of a pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) key: BlockKey,
    pub(super) check: Check,
    pub(super) offset: u64,
    pub(super) length: u32,
    pub(super) flags: u32,
}

impl Entry {
    pub(super) fn new(key: &BlockKey, raw: bool, offset: u64, bytes: &[u8]) -> Self {
        let flags = if raw { RAW } else { 0 };
        Entry {
            key: *key,
            check: check(key, flags, bytes),
            offset,
            length: bytes.len() as u32,
            flags,
        }
    }

    pub(super) fn is_raw(&self) -> bool {
        self.flags & RAW != 0
    }

    /// Where the next block may begin.
    pub(super) fn end(&self) -> u64 {
        self.offset.saturating_add(u64::from(self.length))
    }

    pub(super) fn is_sound(&self, bytes: &[u8]) -> bool {
        check(&self.key, self.flags, bytes) == self.check
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.key.as_bytes());
        out.extend_from_slice(&self.check);
        out.extend_from_slice(&self.offset.to_le_bytes());
        out.extend_from_slice(&self.length.to_le_bytes());
        out.extend_from_slice(&self.flags.to_le_bytes());
    }

    fn decode(bytes: &[u8; ENTRY]) -> Option<Self> {
        let (key, rest) = bytes.split_first_chunk()?;
        let (check, rest) = rest.split_first_chunk()?;
        let (offset, rest) = rest.split_first_chunk()?;
        let (length, flags) = rest.split_first_chunk()?;
        Some(Entry {
            key: BlockKey::from_bytes(*key),
            check: *check,
            offset: u64::from_le_bytes(*offset),
            length: u32::from_le_bytes(*length),
            flags: u32::from_le_bytes(flags.try_into().ok()?),
        })
    }
}

fn check(key: &BlockKey, flags: u32, bytes: &[u8]) -> Check {
    let mut hasher = blake3::Hasher::new_keyed(key.as_bytes());
    hasher.update(bytes).update(&flags.to_le_bytes());
    cut(&hasher.finalize())
}

/// The check of an index and of what stands before it in the footer.
pub(super) fn sum(index: &[u8], footer: &[u8]) -> Check {
    cut(&blake3::Hasher::new()
        .update(index)
        .update(footer)
        .finalize())
}

fn cut(hash: &blake3::Hash) -> Check {
    let mut check = Check::default();
    check.copy_from_slice(&hash.as_bytes()[..16]);
    check
}

/// Index and footer.
pub(super) fn encode_index(entries: &[Entry], offset: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(entries.len() * ENTRY + FOOTER);
    entries.iter().for_each(|entry| entry.encode(&mut out));
    let mut footer = Vec::with_capacity(FOOTER);
    footer.extend_from_slice(&offset.to_le_bytes());
    footer.extend_from_slice(&(entries.len() as u64).to_le_bytes());
    let sum = sum(&out, &footer);
    out.extend_from_slice(&footer);
    out.extend_from_slice(&sum);
    out
}

/// Where an index begins, and how many entries it has, if a file of `size` bytes can have that.
pub(super) fn decode_footer(footer: &[u8; FOOTER], size: u64) -> Option<(u64, usize)> {
    let (offset, rest) = footer.split_first_chunk()?;
    let (count, _) = rest.split_first_chunk()?;
    let (offset, count) = (u64::from_le_bytes(*offset), u64::from_le_bytes(*count));
    let end = count
        .checked_mul(ENTRY as u64)?
        .checked_add(offset)?
        .checked_add(FOOTER as u64)?;
    (end == size && count <= u64::from(u32::MAX)).then_some((offset, count as usize))
}

/// The entries of an index, if its check is right.
pub(super) fn decode_index(index: &[u8], footer: &[u8; FOOTER]) -> Option<Vec<Entry>> {
    let (facts, check) = footer.split_last_chunk::<16>()?;
    if sum(index, facts) != *check {
        return None;
    }
    let (entries, _) = index.as_chunks::<ENTRY>();
    entries.iter().map(Entry::decode).collect()
}
