//! Which jobs there are, and how far the threads may be ahead of what is written.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::codec::fingerprint;
use super::dedup::Contents;
use super::job::{Handle, Item, Job, RUN, Source, other_length};
use super::layout::Layout;
use super::numbering::File;
use super::options::Options;
use super::output::Direct;
use super::store::{BlockKey, BlockStore, Stored};
use crate::tree::{Digest, ZEROS, digest};
use crate::{Error, Result};

/// Blocks that one job has at most, holes included.
const JOB_BLOCKS: usize = 1024;
/// How far a thread may be ahead of what is written, in bytes, where that is 4 to 16 jobs: far enough that a slow block or
/// a busy writer holds nobody up, near enough that memory stays small.
const AHEAD: u64 = 4 << 20;

/// Jobs in output order, given out within a window ahead of what is written.
pub(super) struct Queue<'a> {
    pub(super) files: &'a [File<'a>],
    pub(super) contents: &'a Contents,
    pub(super) layout: &'a Layout,
    /// The block store and what identifies the encoder in its keys.
    pub(super) store: Option<(&'a dyn BlockStore, [u8; 32])>,
    what: What,
    /// Where known blocks go without a detour.
    pub(super) direct: Option<Direct>,
    window: u64,
    state: Mutex<State>,
    moved: Condvar,
    /// Buffers to be used again.
    spare: Mutex<Vec<Vec<u8>>>,
}

/// Which blocks are made.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    /// Those of an image.
    All,
    /// Blocks that are named and that the store does not have.
    Missing,
    /// Data blocks among these.
    MissingData,
}

#[derive(Default)]
struct State {
    taken: u64,
    written: u64,
    /// Where in the image the next job to be written begins.
    position: u64,
    /// Bytes in the image of the jobs that are under way, where they are known.
    under_way: VecDeque<Option<u64>>,
    stop: bool,
    done: bool,
    file: usize,
    offset: u64,
    handle: Arc<Handle>,
    group: usize,
    /// Looked at, but too much for the job before.
    pending: Option<Item>,
}

impl State {
    /// Where in the image the job begins that is taken next, if that is known.
    fn start(&self) -> Option<u64> {
        let mut sizes = self.under_way.iter();
        sizes.try_fold(self.position, |at, size| Some(at + (*size)?))
    }
}

impl<'a> Queue<'a> {
    /// Where the image has got to is `start`.
    pub(super) fn new(
        files: &'a [File<'a>],
        contents: &'a Contents,
        layout: &'a Layout,
        options: &Options,
        store: Option<&'a dyn BlockStore>,
        (what, start): (What, u64),
    ) -> Result<Self> {
        let store = match store {
            Some(store) => Some((store, fingerprint(options)?)),
            None => None,
        };
        let run = RUN.max(u64::from(layout.block_size));
        Ok(Queue {
            files,
            contents,
            layout,
            store,
            what,
            direct: None,
            window: (AHEAD / run).clamp(4, 16) * options.threads.max(1) as u64,
            state: Mutex::new(State {
                position: start,
                ..State::default()
            }),
            moved: Condvar::new(),
            spare: Mutex::default(),
        })
    }

    /// The next job, as soon as it is within the window; `None` at the end.
    pub(super) fn next(&self) -> Option<Job> {
        let mut state = self.lock();
        while !state.stop && state.taken - state.written >= self.window {
            state = self
                .moved
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        if state.stop {
            return None;
        }
        let items = self.job(&mut state);
        if items.is_empty() {
            state.done = true;
            return None;
        }
        let sequence = state.taken;
        state.taken += 1;
        let size = items
            .iter()
            .try_fold(0, |sum, item| Some(sum + item.size()?));
        let start = size.and_then(|_| state.start());
        state.under_way.push_back(size);
        Some(Job {
            sequence,
            items,
            start,
        })
    }

    fn job(&self, state: &mut State) -> Vec<Item> {
        let mut job = Vec::new();
        let mut weight = 0.0;
        while job.len() < JOB_BLOCKS {
            let Some(item) = state.pending.take().or_else(|| self.wanted(state)) else {
                break;
            };
            weight += item.weight();
            if weight > 1.0 && !job.is_empty() {
                state.pending = Some(item);
                break;
            }
            job.push(item);
        }
        job
    }

    fn wanted(&self, state: &mut State) -> Option<Item> {
        if self.what == What::All {
            return self.advance(state);
        }
        let wanted =
            |item: &Item| self.what == What::Missing || matches!(item.source, Source::Data { .. });
        let items = std::iter::from_fn(|| self.advance(state)).take_while(wanted);
        let mut missing = items.filter(|item| item.key.is_some() && item.known.is_none());
        missing.next()
    }

    fn advance(&self, state: &mut State) -> Option<Item> {
        let block_size = u64::from(self.layout.block_size);
        while let Some(placement) = self.layout.placements.get(state.file) {
            let length = self.files[state.file].content.len();
            let end = length.min(placement.blocks * block_size);
            if state.offset < end {
                let (file, offset) = (state.file, state.offset);
                state.offset += block_size;
                let length = block_size.min(end - offset) as u32;
                let handle = Arc::clone(&state.handle);
                return Some(self.data(file, offset, length, handle));
            }
            state.file += 1;
            state.offset = 0;
            state.handle = Arc::default();
        }
        let group = state.group;
        state.group += 1;
        (group < self.layout.groups.len()).then(|| self.fragment(group))
    }

    fn data(&self, file: usize, offset: u64, length: u32, handle: Arc<Handle>) -> Item {
        let block = (offset / u64::from(self.layout.block_size)) as usize;
        let digest = self.contents.digest(file, block);
        let hole = digest == Some(&ZEROS);
        let key = digest.filter(|_| !hole).and_then(|digest| {
            let (_, encoder) = self.store.as_ref()?;
            Some(BlockKey::new(encoder, std::iter::once((digest, length))))
        });
        Item {
            source: Source::Data { file, offset },
            length,
            hole,
            key,
            known: self.find(key, length),
            handle,
        }
    }

    fn fragment(&self, group: usize) -> Item {
        let length = self.layout.groups[group].length;
        let key = self.fragment_key(group);
        Item {
            source: Source::Fragment(group),
            length,
            hole: false,
            key,
            known: self.find(key, length),
            handle: Arc::default(),
        }
    }

    fn fragment_key(&self, group: usize) -> Option<BlockKey> {
        let (_, encoder) = self.store.as_ref()?;
        let members = &self.layout.groups[group].members;
        let pieces: Option<Vec<(&Digest, u32)>> = members
            .iter()
            .map(|&file| {
                let length = self.files[file].content.len();
                let block = (length / u64::from(self.layout.block_size)) as usize;
                let digest = self.contents.digest(file, block)?;
                Some((digest, self.layout.tail_length(length)))
            })
            .collect();
        Some(BlockKey::new(encoder, pieces?.into_iter()))
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

    /// Bytes that are not what they are known to be must not get into an image.
    pub(super) fn check(&self, file: usize, known: Option<&Digest>, bytes: &[u8]) -> Result<()> {
        match known {
            Some(known) if *known != digest(bytes) => Err(Error::damaged(&self.files[file].path)),
            _ => Ok(()),
        }
    }

    /// Takes note that a job is in the image, which goes on at `position`.
    pub(super) fn written(&self, count: u64, buffer: Vec<u8>, position: u64) -> Result<()> {
        self.give_back(buffer);
        let mut state = self.lock();
        let size = state.under_way.pop_front().flatten();
        // Others may have been put behind it by then.
        if size.is_some_and(|size| state.position + size != position) {
            return Err(other_length());
        }
        state.written = count;
        state.position = position;
        drop(state);
        self.moved.notify_all();
        Ok(())
    }

    /// A buffer of any length: one that was given back, or a new one.
    pub(super) fn buffer(&self) -> Vec<u8> {
        let mut spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner);
        spare.pop().unwrap_or_default()
    }

    /// Takes a buffer that is no longer needed.
    pub(super) fn give_back(&self, buffer: Vec<u8>) {
        let mut spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner);
        // One for every job that can be under way; an empty one saves nothing.
        if buffer.capacity() > 0 && (spare.len() as u64) < self.window {
            spare.push(buffer);
        }
    }

    /// Whether so many jobs are all.
    pub(super) fn is_done(&self, written: u64) -> bool {
        let state = self.lock();
        state.done && state.taken == written
    }

    /// Lets nobody take or wait for a further job.
    pub(super) fn stop(&self) {
        self.lock().stop = true;
        self.moved.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All blocks of the image, in order.
    pub(super) fn items(&self) -> impl Iterator<Item = Item> {
        let mut state = State::default();
        std::iter::from_fn(move || self.advance(&mut state))
    }

    /// Names of all blocks that the store does not have, as far as they are known without reading files.
    pub(super) fn missing(&self) -> Vec<BlockKey> {
        let unknown = self.items().filter(|item| item.known.is_none());
        unknown.filter_map(|item| item.key).collect()
    }
}
