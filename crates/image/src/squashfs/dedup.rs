//! What is known of contents before the data pass, and whole-file duplicates.

use std::collections::HashMap;

use super::numbering::File;
use super::options::Options;
use crate::tree::{BlockDigests, Digest};
use crate::{Result, parallel};

/// Files digested by a thread at a time.
const BATCH: usize = 16;

/// By file: the digests of its blocks, where they are known or were needed.
pub(super) struct Contents {
    digests: Vec<Option<BlockDigests>>,
    /// The first file with the same bytes, which is the file itself where there is none before.
    pub(super) representatives: Vec<usize>,
}

impl Contents {
    /// Digests every file with a block store, since blocks are found by them; otherwise only files that share their length
    /// with another one are read.
    pub(super) fn new(files: &[File<'_>], options: &Options) -> Result<Self> {
        let known = |file: &File<'_>| {
            let digests = file.content.digests()?;
            let fits = digests.block_size() == options.block_size
                && digests.blocks().len() as u64
                    == file.content.len().div_ceil(u64::from(options.block_size));
            fits.then(|| digests.clone())
        };
        let mut digests: Vec<Option<BlockDigests>> = files.iter().map(known).collect();
        let mut wanted = if options.block_store.is_some() {
            (0..files.len()).collect()
        } else {
            same_length(files)
        };
        wanted.retain(|index| digests[*index].is_none());
        let batches = parallel::map(wanted.len().div_ceil(BATCH), options.threads, |batch| {
            let batch = wanted.iter().skip(batch * BATCH).take(BATCH);
            batch
                .map(|index| files[*index].content.digest(options.block_size))
                .collect::<Result<Vec<_>>>()
        })?;
        for (index, found) in wanted.iter().zip(batches.into_iter().flatten()) {
            digests[*index] = Some(found);
        }
        let representatives = representatives(files, &digests);
        Ok(Contents {
            digests,
            representatives,
        })
    }

    /// Whether the image has blocks of the file, and does not refer to those of an equal one.
    pub(super) fn is_stored(&self, file: usize) -> bool {
        self.representatives.get(file) == Some(&file)
    }

    /// The digest of one block, if it is known.
    pub(super) fn digest(&self, file: usize, block: usize) -> Option<&Digest> {
        self.digests.get(file)?.as_ref()?.blocks().get(block)
    }
}

/// Files of one length are equal when their blocks' digests are. A hole and written zeros are the same.
fn representatives(files: &[File<'_>], digests: &[Option<BlockDigests>]) -> Vec<usize> {
    let mut first: HashMap<(u64, &[Digest]), usize> = HashMap::with_capacity(files.len());
    files
        .iter()
        .zip(digests)
        .enumerate()
        .map(|(index, (file, digests))| match digests {
            Some(digests) if !file.content.is_empty() => {
                let key = (file.content.len(), digests.blocks());
                *first.entry(key).or_insert(index)
            }
            _ => index,
        })
        .collect()
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
