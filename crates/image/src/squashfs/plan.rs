//! All blocks of an image, in its order, with what the store has of them. It is found out once and on all threads, before anything is made.

use super::codec::fingerprint;
use super::dedup::Contents;
use super::job::{Planned, Source};
use super::layout::Layout;
use super::numbering::File;
use super::options::Options;
use super::store::{BlockKey, BlockStore, Stored};
use crate::tree::{Digest, ZEROS};
use crate::{Result, parallel};

/// Files, or fragment blocks, looked at by a thread at a time.
const BATCH: usize = 4096;

/// What an image is made of.
#[derive(Clone, Copy)]
pub(super) struct Material<'a> {
    pub(super) files: &'a [File<'a>],
    pub(super) contents: &'a Contents,
    pub(super) layout: &'a Layout,
    pub(super) options: &'a Options,
    /// Where compressed blocks may be found.
    pub(super) store: Option<&'a dyn BlockStore>,
}

/// The data blocks of each file, then the fragment blocks.
///
/// # Errors
/// The encoder cannot be set up.
pub(super) fn plan(image: &Material<'_>) -> Result<Vec<Planned>> {
    let store = match image.store {
        Some(store) => Some((store, fingerprint(image.options)?)),
        None => None,
    };
    let planner = Planner {
        files: image.files,
        contents: image.contents,
        layout: image.layout,
        store,
    };
    let (files, groups) = (image.files.len(), image.layout.groups.len());
    let of_files = files.div_ceil(BATCH);
    let batches = of_files + groups.div_ceil(BATCH);
    let planned = parallel::map(batches, image.options.threads, |batch| {
        let range = |batch: usize, end: usize| batch * BATCH..end.min((batch + 1) * BATCH);
        Ok(match batch.checked_sub(of_files) {
            None => range(batch, files)
                .flat_map(|file| planner.file(file))
                .collect(),
            Some(batch) => range(batch, groups)
                .map(|group| planner.fragment(group))
                .collect(),
        })
    })?;
    let planned: Vec<Vec<Planned>> = planned;
    Ok(planned.concat())
}

struct Planner<'a> {
    files: &'a [File<'a>],
    contents: &'a Contents,
    layout: &'a Layout,
    /// The block store and what identifies the encoder in its keys.
    store: Option<(&'a dyn BlockStore, [u8; 32])>,
}

impl Planner<'_> {
    fn file(&self, file: usize) -> impl Iterator<Item = Planned> {
        let block_size = u64::from(self.layout.block_size);
        let content = self.files[file].content.len();
        (0..self.layout.placements[file].blocks).map(move |block| {
            let offset = block * block_size;
            let length = block_size.min(content - offset) as u32;
            let digest = self.contents.digest(file, block as usize);
            let hole = digest == Some(&ZEROS);
            let digest = digest.filter(|_| !hole);
            let key = digest.and_then(|digest| self.key(std::iter::once((digest, length))));
            self.planned(Source::Data { file, offset }, length, hole, key)
        })
    }

    fn fragment(&self, group: usize) -> Planned {
        let source = Source::Fragment(group);
        let group = &self.layout.groups[group];
        let pieces: Option<Vec<(&Digest, u32)>> = group
            .members
            .iter()
            .map(|&file| {
                let length = self.files[file].content.len();
                let block = (length / u64::from(self.layout.block_size)) as usize;
                let digest = self.contents.digest(file, block)?;
                Some((digest, self.layout.tail_length(length)))
            })
            .collect();
        let key = pieces.and_then(|pieces| self.key(pieces.into_iter()));
        self.planned(source, group.length, false, key)
    }

    fn planned(&self, source: Source, length: u32, hole: bool, key: Option<BlockKey>) -> Planned {
        Planned {
            source,
            length,
            hole,
            key,
            known: self.find(key, length),
        }
    }

    fn key<'d>(&self, pieces: impl Iterator<Item = (&'d Digest, u32)>) -> Option<BlockKey> {
        let (_, encoder) = self.store.as_ref()?;
        Some(BlockKey::new(encoder, pieces))
    }

    /// What the store has, where that can be: no block gets longer.
    fn find(&self, key: Option<BlockKey>, length: u32) -> Option<Stored> {
        let (store, _) = self.store.as_ref()?;
        let found = store.find(&key?)?;
        let possible = if found.raw {
            found.length == length
        } else {
            found.length > 0 && found.length < length
        };
        possible.then_some(found)
    }
}
