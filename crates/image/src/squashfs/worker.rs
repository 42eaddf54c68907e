//! One thread of the writer: reads and compresses blocks, and copies those that the block store has.

use super::codec::{Compressor, Packed, compressor};
use super::format::BLOCK_RAW;
use super::job::{Block, COPY, Finished, Item, Source};
use super::options::Options;
use super::queue::Queue;
use super::store::Stored;
use crate::Result;
use crate::tree::{ContentReader, is_zero};

/// One thread's state.
pub(super) struct Worker<'q, 'a> {
    compressor: Box<dyn Compressor>,
    pub(super) queue: &'q Queue<'a>,
    buffer: Vec<u8>,
    /// What is copied straight.
    pub(super) hot: Vec<u8>,
}

impl<'q, 'a> Worker<'q, 'a> {
    pub(super) fn new(queue: &'q Queue<'a>, options: &Options) -> Result<Self> {
        Ok(Worker {
            compressor: compressor(options)?,
            queue,
            buffer: Vec::new(),
            hot: Vec::new(),
        })
    }

    /// Makes the blocks of a job.
    pub(super) fn finish(&mut self, job: &[Item]) -> Result<Finished> {
        let (copied, sound) = self.copy(job);
        let mut copies = sound.iter();
        let nothing_else = job.iter().all(|Item { planned, .. }| {
            planned.hole || (planned.known.is_some() && copies.next() == Some(&true))
        });
        if nothing_else {
            let blocks = job.iter().map(|item| item.planned.reused()).collect();
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
            let planned = &item.planned;
            if planned.hole {
                finished.blocks.push(planned.reused());
                continue;
            }
            if let Some(known) = &planned.known {
                let bytes = copied.get(at..at + known.length as usize);
                at += known.length as usize;
                if let (Some(true), Some(bytes)) = (copies.next(), bytes) {
                    finished.buffer.extend_from_slice(bytes);
                    finished.blocks.push(planned.reused());
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
        let wanted: Vec<Stored> = job.iter().filter_map(|item| item.planned.known).collect();
        let Some(store) = self.queue.store.filter(|_| !wanted.is_empty()) else {
            return (Vec::new(), Vec::new());
        };
        let length: usize = wanted.iter().map(|known| known.length as usize).sum();
        let mut buffer = self.queue.buffer();
        if buffer.len() < length {
            // All at once, so that a buffer is filled with zeros once and not for every job.
            buffer.resize(length.max(COPY as usize), 0);
        }
        let sound = store.read(&wanted, &mut buffer[..length]);
        (buffer, sound)
    }

    /// Reads and compresses a block.
    pub(super) fn make(&mut self, item: &Item, finished: &mut Finished) -> Result<()> {
        let planned = &item.planned;
        match planned.source {
            Source::Data { file, offset } => {
                let reader = item.handle.get(self.queue.files, file)?;
                if !self.read(reader, file, offset, planned.length)? {
                    finished.blocks.push(planned.zeros());
                    return Ok(());
                }
            }
            Source::Fragment(group) => self.fragment(group)?,
        }
        let size = self.pack(&mut finished.buffer)?;
        finished.blocks.push(Block {
            size,
            new: planned.key,
            ..planned.zeros()
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
