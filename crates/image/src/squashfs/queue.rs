//! Which jobs there are, and how far the threads may be ahead of what is written.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::dedup::Contents;
use super::job::{Handle, Item, Job, Planned, RUN, Source, other_length};
use super::layout::Layout;
use super::numbering::File;
use super::output::Direct;
use super::plan::Material;
use super::store::BlockStore;
use crate::tree::{Digest, digest};
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
    pub(super) store: Option<&'a dyn BlockStore>,
    /// What is made, in this order.
    planned: &'a [Planned],
    /// Where known blocks go without a detour.
    pub(super) direct: Option<Direct>,
    window: u64,
    state: Mutex<State>,
    moved: Condvar,
    /// Buffers to be used again.
    spare: Mutex<Vec<Vec<u8>>>,
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
    /// How many blocks are in jobs.
    planned: usize,
    /// The file of the last of them.
    file: usize,
    handle: Arc<Handle>,
}

impl State {
    /// Where in the image the job begins that is taken next, if that is known.
    fn start(&self) -> Option<u64> {
        let mut sizes = self.under_way.iter();
        sizes.try_fold(self.position, |at, size| Some(at + (*size)?))
    }

    /// The blocks of one file share one.
    fn handle(&mut self, source: Source) -> Arc<Handle> {
        match source {
            Source::Fragment(_) => Arc::default(),
            Source::Data { file, .. } => {
                if std::mem::replace(&mut self.file, file) != file {
                    self.handle = Arc::default();
                }
                Arc::clone(&self.handle)
            }
        }
    }
}

impl<'a> Queue<'a> {
    /// What makes blocks of an image that has got to `start`.
    pub(super) fn new(image: &Material<'a>, planned: &'a [Planned], start: u64) -> Self {
        let run = RUN.max(u64::from(image.layout.block_size));
        Queue {
            files: image.files,
            contents: image.contents,
            layout: image.layout,
            store: image.store,
            planned,
            direct: None,
            window: (AHEAD / run).clamp(4, 16) * image.options.threads.max(1) as u64,
            state: Mutex::new(State {
                position: start,
                ..State::default()
            }),
            moved: Condvar::new(),
            spare: Mutex::default(),
        }
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
            .try_fold(0, |sum, item| Some(sum + item.planned.size()?));
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
        for planned in self.planned.iter().skip(state.planned).take(JOB_BLOCKS) {
            weight += planned.weight();
            if weight > 1.0 && !job.is_empty() {
                break;
            }
            job.push(Item {
                planned: *planned,
                handle: state.handle(planned.source),
            });
        }
        state.planned += job.len();
        job
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
}
