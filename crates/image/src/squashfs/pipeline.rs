//! Reads, compresses on all threads, and hands the blocks over in order.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};

use super::codec::Packer;
use super::dedup::is_zero;
use super::format::BLOCK_RAW;
use super::layout::Layout;
use super::numbering::File;
use super::options::Options;
use super::store::Packed;
use crate::tree::ContentReader;
use crate::{Error, ErrorKind, Result};

/// Blocks that are smaller than this are handled several at a time.
const RUN: u64 = 128 << 10;
/// How far a thread may be ahead of what is written, in bytes, where that is 4 to 16 jobs: far enough that a slow block or
/// a busy writer holds nobody up, near enough that memory stays small.
const AHEAD: u64 = 4 << 20;

/// A finished block.
pub(super) struct Block {
    /// What goes to the image; nothing for a hole.
    pub(super) bytes: Vec<u8>,
    /// Its length with [`BLOCK_RAW`], as tables hold it; 0 for a hole.
    pub(super) size: u32,
    /// The uncompressed length.
    pub(super) length: u32,
    /// Whether it came from the block store.
    pub(super) reused: bool,
}

/// Finished work, in this order: the data blocks of each file, then the fragment blocks.
pub(super) enum Finished {
    /// Some blocks of a file, in order.
    Data { file: usize, blocks: Vec<Block> },
    /// One fragment block.
    Fragment(Block),
}

/// Compresses everything that the layout plans and gives it to `take` in order, on the calling thread.
pub(super) fn run(
    files: &[File<'_>],
    layout: &Layout,
    options: &Options,
    mut take: impl FnMut(Finished) -> Result<()>,
) -> Result<()> {
    let queue = Queue::new(files, layout, options);
    let (sender, receiver) = channel();
    std::thread::scope(|scope| {
        for _ in 0..options.threads.max(1) {
            let (queue, sender) = (&queue, sender.clone());
            scope.spawn(move || work(queue, options, &sender));
        }
        drop(sender);
        // Also when `take` fails or panics, the workers must not wait for the window to move.
        let _stop = StopOnDrop(&queue);
        deliver(&queue, &receiver, &mut take)
    })
}

fn deliver(
    queue: &Queue<'_>,
    receiver: &Receiver<(u64, Result<Finished>)>,
    take: &mut impl FnMut(Finished) -> Result<()>,
) -> Result<()> {
    let mut early = BTreeMap::new();
    let mut next = 0;
    for (sequence, finished) in receiver {
        early.insert(sequence, finished?);
        while let Some(finished) = early.remove(&next) {
            take(finished)?;
            next += 1;
            queue.written(next);
        }
    }
    if queue.is_done(next) {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Internal,
        "the threads of the SquashFS writer ended early",
    ))
}

fn work(queue: &Queue<'_>, options: &Options, sender: &Sender<(u64, Result<Finished>)>) {
    let _stop = StopOnPanic(queue);
    let mut worker = match Packer::new(options) {
        Ok(packer) => Worker {
            packer,
            queue,
            buffer: Vec::new(),
        },
        Err(e) => {
            // The receiver is gone only when it failed itself.
            let _ = sender.send((0, Err(e)));
            return;
        }
    };
    while let Some((sequence, job)) = queue.next() {
        if sender.send((sequence, worker.finish(&job))).is_err() {
            return;
        }
    }
}

/// One thread's state.
struct Worker<'q, 'a> {
    packer: Packer<'a>,
    queue: &'q Queue<'a>,
    buffer: Vec<u8>,
}

impl Worker<'_, '_> {
    fn finish(&mut self, job: &Job) -> Result<Finished> {
        match job {
            Job::Data {
                file,
                handle,
                offset,
                length,
            } => {
                let file = *file;
                let reader = handle.get(self.queue.files, file)?;
                let blocks = self.data(reader, *offset, *length)?;
                Ok(Finished::Data { file, blocks })
            }
            Job::Fragment(group) => Ok(Finished::Fragment(self.fragment(*group)?)),
        }
    }

    fn data(&mut self, reader: &ContentReader, offset: u64, length: u64) -> Result<Vec<Block>> {
        let step = u64::from(self.queue.layout.block_size);
        let end = offset + length;
        let mut blocks = Vec::with_capacity(length.div_ceil(step) as usize);
        let mut at = offset;
        while at < end {
            let length = step.min(end - at) as u32;
            blocks.push(self.block(reader, at, length)?);
            at += u64::from(length);
        }
        Ok(blocks)
    }

    fn block(&mut self, reader: &ContentReader, offset: u64, length: u32) -> Result<Block> {
        if reader.is_hole(offset, u64::from(length)) {
            return Ok(Block::hole(length));
        }
        self.buffer.resize(length as usize, 0);
        reader.read_exact_at(&mut self.buffer, offset)?;
        if is_zero(&self.buffer) {
            return Ok(Block::hole(length));
        }
        self.pack()
    }

    fn fragment(&mut self, group: usize) -> Result<Block> {
        let layout = self.queue.layout;
        let mut filled = 0;
        self.buffer.resize(layout.groups[group].length as usize, 0);
        for &file in &layout.groups[group].members {
            let content = self.queue.files[file].content;
            let length = layout.tail_length(content.len());
            let end = filled + length as usize;
            let place = &mut self.buffer[filled..end];
            content
                .open()?
                .read_exact_at(place, content.len() - u64::from(length))?;
            filled = end;
        }
        self.pack()
    }

    fn pack(&mut self) -> Result<Block> {
        let length = self.buffer.len() as u32;
        let (packed, reused) = self.packer.pack(&self.buffer)?;
        let (bytes, flag) = match packed {
            Packed::Compressed(bytes) => (bytes, 0),
            Packed::Raw => (self.buffer.clone(), BLOCK_RAW),
        };
        Ok(Block {
            size: bytes.len() as u32 | flag,
            bytes,
            length,
            reused,
        })
    }
}

impl Block {
    fn hole(length: u32) -> Self {
        Block {
            bytes: Vec::new(),
            size: 0,
            length,
            reused: false,
        }
    }
}

enum Job {
    Data {
        file: usize,
        handle: Arc<Handle>,
        offset: u64,
        length: u64,
    },
    Fragment(usize),
}

/// A file that the first job opens and the last one closes.
#[derive(Default)]
struct Handle(OnceLock<ContentReader>);

impl Handle {
    fn get(&self, files: &[File<'_>], file: usize) -> Result<&ContentReader> {
        if let Some(reader) = self.0.get() {
            return Ok(reader);
        }
        // Two threads may open it at once; one of the two readers is dropped.
        let reader = files[file].content.open()?;
        Ok(self.0.get_or_init(|| reader))
    }
}

/// Jobs in output order, given out within a window ahead of what is written.
struct Queue<'a> {
    files: &'a [File<'a>],
    layout: &'a Layout,
    run: u64,
    window: u64,
    state: Mutex<State>,
    moved: Condvar,
}

#[derive(Default)]
struct State {
    taken: u64,
    written: u64,
    stop: bool,
    done: bool,
    file: usize,
    offset: u64,
    handle: Arc<Handle>,
    group: usize,
}

impl<'a> Queue<'a> {
    fn new(files: &'a [File<'a>], layout: &'a Layout, options: &Options) -> Self {
        let run = RUN.max(u64::from(layout.block_size));
        Queue {
            files,
            layout,
            run,
            window: (AHEAD / run).clamp(4, 16) * options.threads.max(1) as u64,
            state: Mutex::default(),
            moved: Condvar::new(),
        }
    }

    fn next(&self) -> Option<(u64, Job)> {
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
        let Some(job) = self.advance(&mut state) else {
            state.done = true;
            return None;
        };
        let sequence = state.taken;
        state.taken += 1;
        Some((sequence, job))
    }

    fn advance(&self, state: &mut State) -> Option<Job> {
        while let Some(placement) = self.layout.placements.get(state.file) {
            let length = self.files[state.file].content.len();
            let end = length.min(placement.blocks * u64::from(self.layout.block_size));
            if state.offset < end {
                let job = Job::Data {
                    file: state.file,
                    handle: Arc::clone(&state.handle),
                    offset: state.offset,
                    length: self.run.min(end - state.offset),
                };
                state.offset += self.run;
                return Some(job);
            }
            state.file += 1;
            state.offset = 0;
            state.handle = Arc::default();
        }
        let group = state.group;
        state.group += 1;
        (group < self.layout.groups.len()).then_some(Job::Fragment(group))
    }

    fn written(&self, count: u64) {
        self.lock().written = count;
        self.moved.notify_all();
    }

    fn is_done(&self, written: u64) -> bool {
        let state = self.lock();
        state.done && state.taken == written
    }

    fn stop(&self) {
        self.lock().stop = true;
        self.moved.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct StopOnDrop<'q, 'a>(&'q Queue<'a>);

impl Drop for StopOnDrop<'_, '_> {
    fn drop(&mut self) {
        self.0.stop();
    }
}

struct StopOnPanic<'q, 'a>(&'q Queue<'a>);

impl Drop for StopOnPanic<'_, '_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.stop();
        }
    }
}
