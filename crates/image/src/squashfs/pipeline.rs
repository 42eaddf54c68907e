//! Copies what is known, reads and compresses the rest on all threads, and hands everything over in order.

use std::collections::{BTreeMap, VecDeque};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};

use super::codec::{Compressor, Packed, compressor, fingerprint};
use super::dedup::Contents;
use super::format::BLOCK_RAW;
use super::layout::Layout;
use super::numbering::File;
use super::options::Options;
use super::output::Direct;
use super::store::{BlockKey, BlockStore, Stored};
use super::straight::other_length;
use crate::tree::{ContentReader, Digest, ZEROS, digest, is_zero};
use crate::{Error, ErrorKind, Result};

/// Content that one job compresses, in bytes; one block may be more.
const RUN: u64 = 128 << 10;
/// Bytes that one job copies from the block store.
const COPY: u64 = 1 << 20;
/// Blocks that one job has at most, holes included.
const JOB_BLOCKS: usize = 1024;
/// How far a thread may be ahead of what is written, in bytes, where that is 4 to 16 jobs: far enough that a slow block or
/// a busy writer holds nobody up, near enough that memory stays small.
const AHEAD: u64 = 4 << 20;

/// What a block is a part of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// Of a file, by its index: some block of it, in order.
    Data { file: usize },
    /// A fragment block, by its index.
    Fragment,
}

/// A finished block.
pub(super) struct Block {
    pub(super) part: Part,
    /// Its length with [`BLOCK_RAW`], as tables hold it; 0 for a hole.
    pub(super) size: u32,
    /// The uncompressed length.
    pub(super) length: u32,
    /// Whether it came from the block store.
    pub(super) reused: bool,
    /// Its name in the block store, where it has to be put there.
    pub(super) new: Option<BlockKey>,
}

impl Block {
    /// Its bytes in the image.
    pub(super) fn stored(&self) -> usize {
        (self.size & !BLOCK_RAW) as usize
    }
}

/// Finished blocks, in this order: the data blocks of each file, then the fragment blocks.
#[derive(Default)]
pub(super) struct Finished {
    /// What goes to the image, and maybe more.
    pub(super) buffer: Vec<u8>,
    /// What it is.
    pub(super) blocks: Vec<Block>,
    /// It is in the image already, and not here.
    pub(super) written: bool,
}

impl Finished {
    /// What goes to the image.
    pub(super) fn bytes(&self) -> &[u8] {
        let length: usize = self.blocks.iter().map(Block::stored).sum();
        self.buffer.get(..length).unwrap_or(&self.buffer)
    }
}

/// Makes what is wanted of all that the layout plans, and gives it to `take` in order, on the calling thread. `take` gives where in the
/// image it stands afterwards; before, it stands at `start`. What is copied goes straight to its place in `direct`, as soon as that is known.
pub(super) fn run(
    files: &[File<'_>],
    contents: &Contents,
    layout: &Layout,
    (options, what, (start, direct)): (&Options, What, (u64, Option<Direct>)),
    mut take: impl FnMut(&Finished) -> Result<u64>,
) -> Result<()> {
    let mut queue = Queue::new(files, contents, layout, options, what)?;
    queue.lock().position = start;
    queue.direct = direct;
    let queue = &queue;
    let (sender, receiver) = channel();
    std::thread::scope(|scope| {
        for _ in 0..options.threads.max(1) {
            let sender = sender.clone();
            scope.spawn(move || work(queue, options, &sender));
        }
        drop(sender);
        // Also when `take` fails or panics, the workers must not wait for the window to move.
        let _stop = StopOnDrop(queue);
        deliver(queue, &receiver, &mut take)
    })
}

fn deliver(
    queue: &Queue<'_>,
    receiver: &Receiver<(u64, Result<Finished>)>,
    take: &mut impl FnMut(&Finished) -> Result<u64>,
) -> Result<()> {
    let mut early = BTreeMap::new();
    let mut next = 0;
    for (sequence, finished) in receiver {
        early.insert(sequence, finished?);
        while let Some(finished) = early.remove(&next) {
            let position = take(&finished)?;
            next += 1;
            queue.written(next, finished.buffer, position)?;
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
    let mut worker = match compressor(options) {
        Ok(compressor) => Worker {
            compressor,
            queue,
            buffer: Vec::new(),
            hot: Vec::new(),
        },
        Err(e) => {
            // The receiver is gone only when it failed itself.
            let _ = sender.send((0, Err(e)));
            return;
        }
    };
    while let Some(Job {
        sequence,
        items,
        start,
    }) = queue.next()
    {
        let finished = match (&queue.direct, start) {
            (Some(direct), Some(start)) => worker.straight(&items, direct, start),
            _ => worker.finish(&items),
        };
        if sender.send((sequence, finished)).is_err() {
            return;
        }
    }
}

/// One thread's state.
pub(super) struct Worker<'q, 'a> {
    compressor: Box<dyn Compressor>,
    pub(super) queue: &'q Queue<'a>,
    buffer: Vec<u8>,
    /// What is copied straight.
    pub(super) hot: Vec<u8>,
}

impl Worker<'_, '_> {
    fn finish(&mut self, job: &[Item]) -> Result<Finished> {
        let (copied, sound) = self.copy(job);
        let mut copies = sound.iter();
        let nothing_else = job
            .iter()
            .all(|item| item.hole || (item.known.is_some() && copies.next() == Some(&true)));
        if nothing_else {
            let blocks = job.iter().map(Item::reused).collect();
            return Ok(Finished {
                buffer: copied,
                blocks,
                written: false,
            });
        }
        let (mut copies, mut at) = (sound.into_iter(), 0);
        let mut finished = Finished {
            buffer: self.queue.buffer(),
            blocks: Vec::with_capacity(job.len()),
            written: false,
        };
        finished.buffer.clear();
        for item in job {
            if item.hole {
                finished.blocks.push(item.reused());
                continue;
            }
            if let Some(known) = &item.known {
                let bytes = copied.get(at..at + known.length as usize);
                at += known.length as usize;
                if let (Some(true), Some(bytes)) = (copies.next(), bytes) {
                    finished.buffer.extend_from_slice(bytes);
                    finished.blocks.push(item.reused());
                    continue;
                }
            }
            self.make(item, &mut finished)?;
        }
        self.queue.give_back(copied);
        Ok(finished)
    }

    /// The bytes of all blocks that the store has, and which of them are sound.
    fn copy(&self, job: &[Item]) -> (Vec<u8>, Vec<bool>) {
        let wanted: Vec<Stored> = job.iter().filter_map(|item| item.known).collect();
        let Some((store, _)) = self.queue.store.as_ref().filter(|_| !wanted.is_empty()) else {
            return (Vec::new(), Vec::new());
        };
        let length: usize = wanted.iter().map(|known| known.length as usize).sum();
        let mut buffer = self.queue.buffer();
        if buffer.len() < length {
            // All at once, so that a buffer is filled with zeros once and not for every job.
            buffer.resize(length.max(COPY as usize), 0);
        }
        let sound = store.read(&wanted, buffer.get_mut(..length).unwrap_or_default());
        (buffer, sound)
    }

    /// Reads and compresses a block.
    pub(super) fn make(&mut self, item: &Item, finished: &mut Finished) -> Result<()> {
        match item.place {
            Place::Data { file, offset } => {
                let reader = item.handle.get(self.queue.files, file)?;
                if !self.read(reader, file, offset, item.length)? {
                    finished.blocks.push(item.zeros());
                    return Ok(());
                }
            }
            Place::Fragment(group) => self.fragment(group)?,
        }
        let size = self.pack(&mut finished.buffer)?;
        finished.blocks.push(Block {
            part: item.place.part(),
            size,
            length: item.length,
            reused: false,
            new: item.key,
        });
        Ok(())
    }

    /// Fills the buffer, and returns `false` for a hole or zeros.
    fn read(
        &mut self,
        reader: &ContentReader,
        file: usize,
        offset: u64,
        length: u32,
    ) -> Result<bool> {
        let block = (offset / u64::from(self.queue.layout.block_size)) as usize;
        let known = self.queue.contents.digest(file, block);
        if known.is_none() && reader.is_hole(offset, u64::from(length)) {
            return Ok(false);
        }
        self.buffer.resize(length as usize, 0);
        reader.read_exact_at(&mut self.buffer, offset)?;
        self.queue.check(file, known, &self.buffer)?;
        Ok(!is_zero(&self.buffer))
    }

    fn fragment(&mut self, group: usize) -> Result<()> {
        let layout = self.queue.layout;
        let mut filled = 0;
        self.buffer.resize(layout.groups[group].length as usize, 0);
        for &file in &layout.groups[group].members {
            let content = self.queue.files[file].content;
            let length = layout.tail_length(content.len());
            let end = filled + length as usize;
            let place = &mut self.buffer[filled..end];
            let offset = content.len() - u64::from(length);
            content.open()?.read_exact_at(place, offset)?;
            let block = (offset / u64::from(layout.block_size)) as usize;
            let known = self.queue.contents.digest(file, block);
            self.queue.check(file, known, place)?;
            filled = end;
        }
        Ok(())
    }

    /// Compresses the buffer to the end of `out`, and returns the size as tables hold it.
    fn pack(&mut self, out: &mut Vec<u8>) -> Result<u32> {
        match self.compressor.pack(&self.buffer)? {
            Packed::Compressed(bytes) => {
                out.extend_from_slice(&bytes);
                Ok(bytes.len() as u32)
            }
            Packed::Raw => {
                out.extend_from_slice(&self.buffer);
                Ok(self.buffer.len() as u32 | BLOCK_RAW)
            }
        }
    }
}

/// Some blocks that follow one another.
struct Job {
    sequence: u64,
    items: Vec<Item>,
    /// Where in the image they begin, where that is known and they are all known.
    start: Option<u64>,
}

/// One block to be made.
pub(super) struct Item {
    place: Place,
    /// Uncompressed bytes.
    length: u32,
    /// Known to be zeros.
    hole: bool,
    /// Its name in the block store, where there is one.
    key: Option<BlockKey>,
    /// What the store has of it.
    pub(super) known: Option<Stored>,
    handle: Arc<Handle>,
}

#[derive(Clone, Copy)]
enum Place {
    Data { file: usize, offset: u64 },
    Fragment(usize),
}

impl Place {
    fn part(self) -> Part {
        match self {
            Place::Data { file, .. } => Part::Data { file },
            Place::Fragment(_) => Part::Fragment,
        }
    }
}

impl Item {
    /// The block as the store has it, or a hole.
    pub(super) fn reused(&self) -> Block {
        let size = |known: &Stored| known.length | if known.raw { BLOCK_RAW } else { 0 };
        let known = self.known.as_ref();
        Block {
            part: self.place.part(),
            size: known.map_or(0, size),
            length: self.length,
            reused: known.is_some(),
            new: None,
        }
    }

    /// The block as it is where its bytes turn out to be zeros.
    fn zeros(&self) -> Block {
        Block {
            part: self.place.part(),
            size: 0,
            length: self.length,
            reused: false,
            new: None,
        }
    }

    /// Its bytes in the image, if they are known before it is made.
    fn size(&self) -> Option<u64> {
        match (&self.known, self.hole) {
            (_, true) => Some(0),
            (known, _) => known.as_ref().map(|known| u64::from(known.length)),
        }
    }

    /// What it adds to its job, as a part of what a job can have.
    fn weight(&self) -> f64 {
        match (&self.known, self.hole) {
            (_, true) => 0.0,
            (Some(known), _) => f64::from(known.length) / COPY as f64,
            (None, _) => f64::from(self.length) / RUN as f64,
        }
    }
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
pub(super) struct Queue<'a> {
    files: &'a [File<'a>],
    contents: &'a Contents,
    layout: &'a Layout,
    /// The block store and what identifies the encoder in its keys.
    pub(super) store: Option<(&'a dyn BlockStore, [u8; 32])>,
    what: What,
    direct: Option<Direct>,
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
    /// Data blocks that are named and that the store does not have.
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
    fn new(
        files: &'a [File<'a>],
        contents: &'a Contents,
        layout: &'a Layout,
        options: &'a Options,
        what: What,
    ) -> Result<Self> {
        let store = match options.block_store.as_deref() {
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
            state: Mutex::default(),
            moved: Condvar::new(),
            spare: Mutex::default(),
        })
    }

    fn next(&self) -> Option<Job> {
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
        let data = |item: &Item| matches!(item.place, Place::Data { .. });
        let items = std::iter::from_fn(|| self.advance(state)).take_while(data);
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
            place: Place::Data { file, offset },
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
            place: Place::Fragment(group),
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
    fn check(&self, file: usize, known: Option<&Digest>, bytes: &[u8]) -> Result<()> {
        match known {
            Some(known) if *known != digest(bytes) => Err(Error::damaged(&self.files[file].path)),
            _ => Ok(()),
        }
    }

    /// Takes note that a job is in the image, which goes on at `position`.
    fn written(&self, count: u64, buffer: Vec<u8>, position: u64) -> Result<()> {
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

    /// A buffer of any length.
    fn buffer(&self) -> Vec<u8> {
        let mut spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner);
        spare.pop().unwrap_or_default()
    }

    fn give_back(&self, buffer: Vec<u8>) {
        let mut spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner);
        // One for every job that can be under way; an empty one saves nothing.
        if buffer.capacity() > 0 && (spare.len() as u64) < self.window {
            spare.push(buffer);
        }
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

/// Names of the blocks that an image consists of and its store does not have, as far as they are known without reading files.
pub(super) fn missing(
    files: &[File<'_>],
    contents: &Contents,
    layout: &Layout,
    options: &Options,
) -> Result<Vec<BlockKey>> {
    let queue = Queue::new(files, contents, layout, options, What::All)?;
    let mut state = State::default();
    let items = std::iter::from_fn(|| queue.advance(&mut state));
    let unknown = items.filter(|item| item.known.is_none());
    Ok(unknown.filter_map(|item| item.key).collect())
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
