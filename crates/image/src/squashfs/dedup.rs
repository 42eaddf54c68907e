//! Whole-file duplicates.

use std::collections::HashMap;

use super::numbering::File;
use super::parallel;
use crate::Result;
use crate::tree::ContentReader;

/// Files are read in pieces of this size, which is also the grain in which zeros are skipped.
const PIECE: u64 = 128 << 10;

/// For each file the index of the first file with the same bytes, which is its own where there is none before.
///
/// Only files that share their length with another one are read.
pub(super) fn representatives(files: &[File<'_>], threads: usize) -> Result<Vec<usize>> {
    let candidates = same_length(files);
    let digests = parallel::map(candidates.len(), threads, |i| {
        let content = files[candidates[i]].content;
        digest(&content.open()?, content.len())
    })?;
    let mut result: Vec<usize> = (0..files.len()).collect();
    let mut first = HashMap::with_capacity(candidates.len());
    for (index, digest) in candidates.into_iter().zip(digests) {
        result[index] = *first.entry(digest).or_insert(index);
    }
    Ok(result)
}

fn same_length(files: &[File<'_>]) -> Vec<usize> {
    let mut lengths: HashMap<u64, u32> = HashMap::with_capacity(files.len());
    for file in files {
        *lengths.entry(file.content.len()).or_default() += 1;
    }
    let shared = |file: &File<'_>| {
        let length = file.content.len();
        length > 0 && lengths.get(&length).is_some_and(|count| *count > 1)
    };
    (0..files.len()).filter(|i| shared(&files[*i])).collect()
}

/// A collision-resistant digest of length and bytes. A piece of zeros counts as one byte, so that the holes of large sparse
/// files cost nothing; a hole and written zeros are the same.
fn digest(reader: &ContentReader, length: u64) -> Result<[u8; 32]> {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&length.to_le_bytes());
    let mut buffer = vec![0; PIECE.min(length) as usize];
    let mut offset = 0;
    while offset < length {
        let piece = PIECE.min(length - offset);
        let bytes = &mut buffer[..piece as usize];
        if reader.is_hole(offset, piece) {
            hasher.update(&[0]);
        } else {
            reader.read_exact_at(bytes, offset)?;
            if is_zero(bytes) {
                hasher.update(&[0]);
            } else {
                hasher.update(&[1]).update(bytes);
            }
        }
        offset += piece;
    }
    Ok(*hasher.finalize().as_bytes())
}

/// Whether all bytes are zero; most blocks are told by their first bytes.
pub(super) fn is_zero(bytes: &[u8]) -> bool {
    let mut chunks = bytes.chunks_exact(64);
    chunks.all(|chunk| chunk.iter().fold(0, |sum, byte| sum | byte) == 0)
        && chunks.remainder().iter().all(|byte| *byte == 0)
}
