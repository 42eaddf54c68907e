//! Whole images that other machines made, so that a machine which has nothing yet need not get the layers to have the image.
//!
//! A record names no second copy of the blocks: it says which parts of which packs lie one behind the other in the disk, and has the
//! rest of the disk (tables, boot partition, the root's metadata, `/home`). So an image that differs little from another adds little.
//!
//! ```text
//! facts    what the manifest says of the image, the disk's size and digest, where the root begins, the layers' ids
//! rest     all of the disk that is neither a block nor a hole, one part behind the other
//! map      JSON: { "rest": [[place in the disk, bytes], …], "blocks": [[pack, place in the pack, bytes], …] }
//! <name>.pack    as in the record of the blocks
//! ```
//!
//! The packs are read chunk by chunk in the order of the disk. Of each layer's packs the image takes the blocks in their order, so a few chunks
//! in memory are enough to read each once.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, Read, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;

use kiln_image::disk::data;
use kiln_plan::Id;
use kiln_rootfs::finish::Finished;
use kiln_share::{Chunk, Error, Record, Share};
use serde::{Deserialize, Serialize};

use super::Shared;
use crate::means::digest::digest;
use crate::steps::{Steps, locked};
use crate::values::Squashed;

pub(super) const KIND: &str = "images";
const REST: &str = "rest";
const MAP: &str = "map";
/// Bytes of a map, at most.
const MAP_MAX: u64 = 64 << 20;
/// Chunks that are kept in memory.
const KEPT: usize = 16;

/// What a record says of an image.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct ImageFacts {
    pub(crate) kernel: String,
    pub(crate) squashed: Squashed,
    pub(crate) finished: Finished,
    /// Bytes of the disk.
    pub(crate) size: u64,
    /// SHA-256 of the disk, hexadecimal; none where it is not known yet.
    pub(crate) sha256: Option<String>,
    /// Where in the disk the root's file system begins.
    pub(crate) root: u64,
    /// The layers, the lowest first.
    pub(crate) layers: Vec<Id>,
    /// The highest of them that packages made.
    pub(crate) of_packages: Option<Id>,
}

/// Which bytes of the disk come from where.
#[derive(Default, Serialize, Deserialize)]
struct Map {
    /// Where in the root's file system its blocks begin.
    data: u64,
    packs: Vec<String>,
    rest: Vec<(u64, u64)>,
    blocks: Vec<(u32, u64, u64)>,
}

/// Parts of packs, one behind the other in an image.
#[derive(Default)]
pub(crate) struct Runs(Vec<(u32, u64, u64)>);

impl Runs {
    /// Adds what comes next.
    pub(crate) fn add(&mut self, pack: u32, offset: u64, length: u64) {
        match self.0.last_mut() {
            Some(last) if last.0 == pack && last.1 + last.2 == offset => last.2 += length,
            _ => self.0.push((pack, offset, length)),
        }
    }

    /// Writes them down for [`Runs::read`].
    pub(crate) fn put(&self, out: impl Write) -> io::Result<()> {
        Ok(serde_json::to_writer(io::BufWriter::new(out), &self.0)?)
    }

    pub(crate) fn read(bytes: &[u8]) -> serde_json::Result<Runs> {
        serde_json::from_slice(bytes).map(Runs)
    }

    fn bytes(&self) -> u64 {
        self.0.iter().map(|(_, _, length)| length).sum()
    }
}

/// Where an image's blocks are.
pub(crate) struct Located {
    /// Where in the root's file system they begin.
    pub(crate) data: u64,
    /// Names of packs.
    pub(crate) packs: Vec<String>,
    pub(crate) runs: Runs,
}

/// An image that is to be sent.
pub(super) struct Image {
    pub(super) id: Id,
    pub(super) disk: File,
    pub(super) facts: ImageFacts,
    pub(super) locate: Box<dyn FnOnce() -> Option<Located> + Send>,
    /// Also if there is one.
    pub(super) replace: bool,
}

impl Image {
    /// Sends what the shared cache does not have; `packs` are the chunks of the packs that it has. Whether there is news.
    pub(super) fn send(
        mut self,
        share: &Share,
        packs: &BTreeMap<String, Vec<Chunk>>,
        progress: kiln_share::Progress<'_>,
    ) -> kiln_share::Result<bool> {
        let id = self.id.to_string();
        // A record that cannot be used is as good as none.
        if !self.replace && matches!(share.find(KIND, &id), Ok(Some(_))) {
            return Ok(false);
        }
        let Some(located) = (self.locate)() else {
            return Ok(false);
        };
        let local =
            |error: io::Error| Error::local_failure("sharing the image", &error.to_string());
        let mut record = Record::default();
        for pack in &located.packs {
            let name = format!("{pack}.pack");
            // A pack that was not sent, because it has gone meanwhile.
            let Some(chunks) = packs.get(&name) else {
                return Ok(false);
            };
            record.files.insert(name, chunks.clone());
        }
        let begin = self.facts.root + located.data;
        let end = begin + located.runs.bytes();
        let around = [0..begin, end..self.facts.size];
        let mut rest = Vec::new();
        for range in around {
            let found = data(&self.disk, range);
            let found =
                found.map_err(|e| Error::local_failure("sharing the image", &e.to_string()))?;
            rest.extend(
                found
                    .into_iter()
                    .map(|part| (part.start, part.end - part.start)),
            );
        }
        let mut parts = Parts {
            disk: &self.disk,
            along: Along::new(&rest),
        };
        record
            .files
            .insert(REST.to_owned(), share.store(&mut parts, progress)?);
        let map = Map {
            data: located.data,
            packs: located.packs,
            rest,
            blocks: located.runs.0,
        };
        let map = serde_json::to_vec(&map).map_err(|e| local(e.into()))?;
        record
            .files
            .insert(MAP.to_owned(), share.store(&mut &map[..], progress)?);
        if self.facts.sha256.is_none() {
            let sha256 = digest(&self.disk, self.facts.size).map_err(local)?;
            self.facts.sha256 = Some(sha256);
        }
        record.facts = serde_json::to_value(&self.facts).map_err(|e| local(e.into()))?;
        share.publish(KIND, &id, &record)?;
        Ok(true)
    }
}

/// An image that the shared cache has.
pub(crate) struct SharedImage {
    id: Id,
    record: Record,
    pub(crate) facts: ImageFacts,
}

impl SharedImage {
    /// Bytes that come over.
    pub(crate) fn bytes(&self) -> u64 {
        self.record.size()
    }

    fn wrong(&self, why: &str) -> Error {
        Error::damaged(format!("{KIND}/{}", self.id), why)
    }

    /// It turned out to be another than the one that was sent.
    pub(crate) fn is_another(&self) -> Error {
        self.wrong("what was put together is not what its SHA-256 says")
    }
}

/// How much of a disk is in its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Placed {
    /// Everything but the root's blocks.
    Around,
    /// So many bytes of the root's file system.
    Root(u64),
}

impl Shared {
    /// The image of this id, if the shared cache has it.
    pub(crate) fn image(&self, steps: &Steps<'_>, id: Id) -> Option<SharedImage> {
        let record = self.find(steps, KIND, &id.to_string())?;
        match ImageFacts::deserialize(&record.facts) {
            Ok(facts) => Some(SharedImage { id, record, facts }),
            Err(error) => {
                let name = format!("{KIND}/{id}");
                super::warn(steps, &Error::damaged(name, error));
                None
            }
        }
    }

    /// Says that an image cannot be used; what this build makes instead is sent in its place.
    pub(crate) fn spoil(&self, steps: &Steps<'_>, image: &SharedImage, error: &Error) {
        locked(&self.spoiled).insert(image.id);
        super::warn(steps, error);
    }

    /// Puts an image together in an empty file. `placed` is told how far it is. What comes of it is to be compared with the
    /// digest.
    ///
    /// # Errors
    /// As [`Share::fetch`]; the record is none that this program writes; the file cannot be written.
    pub(crate) fn receive_image(
        &self,
        image: &SharedImage,
        disk: &File,
        progress: kiln_share::Progress<'_>,
        placed: &dyn Fn(Placed),
    ) -> kiln_share::Result<()> {
        let local =
            |error: io::Error| Error::local_failure("writing the image", &error.to_string());
        let none = Vec::new();
        let file = |name: &str| image.record.files.get(name).unwrap_or(&none);
        if file(MAP).iter().map(|chunk| chunk.size).sum::<u64>() > MAP_MAX {
            return Err(image.wrong("its map is too long"));
        }
        let map: Map = serde_json::from_slice(&self.share.fetch_whole(file(MAP))?)
            .map_err(|_| image.wrong("its map is none"))?;
        let packs = map
            .packs
            .iter()
            .map(|pack| &file(&format!("{pack}.pack"))[..]);
        let schedule = Schedule::new(&map, &packs.collect::<Vec<_>>(), &image.facts);
        let schedule = schedule.ok_or_else(|| image.wrong("its map does not fit"))?;
        disk.set_len(image.facts.size).map_err(local)?;
        let mut rest = Scattered {
            disk,
            along: Along::new(&map.rest),
        };
        self.share.fetch(file(REST), &mut rest, progress)?;
        if !rest.along.parts.is_empty() {
            return Err(image.wrong("it ends early"));
        }
        placed(Placed::Around);
        let chunks: Vec<Chunk> = schedule
            .loads
            .iter()
            .map(|load| load.chunk.clone())
            .collect();
        let mut placer = Placer {
            disk,
            schedule: &schedule,
            kept: vec![Vec::new(); KEPT],
            next: 0,
            root: image.facts.root,
            placed,
        };
        self.share.fetch(&chunks, &mut placer, progress)?;
        placed(Placed::Root(image.facts.squashed.bytes));
        Ok(())
    }
}

/// A chunk to be fetched, and which copies can be made once it is there.
struct Load {
    chunk: Chunk,
    /// Where it is kept.
    slot: usize,
    copies: Range<usize>,
}

/// A part of a chunk in memory that has a place in the disk.
#[derive(Debug, PartialEq, Eq)]
struct Copy {
    slot: usize,
    from: usize,
    length: usize,
    to: u64,
}

/// In which order chunks are fetched and copied, so that only a few are in memory.
struct Schedule {
    loads: Vec<Load>,
    copies: Vec<Copy>,
}

impl Schedule {
    /// `packs` are the chunks of the map's packs. `None` where the map does not fit the disk or the packs.
    fn new(map: &Map, packs: &[&[Chunk]], facts: &ImageFacts) -> Option<Self> {
        let ends: Vec<Vec<u64>> = packs.iter().map(|chunks| ends(chunks)).collect();
        let fits =
            |at: u64, length: u64| at.checked_add(length).is_some_and(|end| end <= facts.size);
        if !map
            .rest
            .iter()
            .all(|(at, length)| *length > 0 && fits(*at, *length))
        {
            return None;
        }
        if !fits(facts.root, facts.squashed.bytes) {
            return None;
        }
        let mut schedule = Schedule {
            loads: Vec::new(),
            copies: Vec::new(),
        };
        let mut kept = Kept::default();
        let mut to = facts.root.checked_add(map.data)?;
        for (pack, offset, length) in &map.blocks {
            let pack = *pack as usize;
            let (ends, chunks) = (ends.get(pack)?, packs.get(pack)?);
            let (mut at, end) = (*offset, offset.checked_add(*length)?);
            if end > *ends.last()? || !fits(to, *length) {
                return None;
            }
            while at < end {
                let index = ends.partition_point(|end| *end <= at);
                let (chunk, chunk_end) = (chunks.get(index)?, *ends.get(index)?);
                let (slot, is_new) = kept.slot((pack, index));
                if is_new {
                    let here = schedule.copies.len();
                    schedule.loads.push(Load {
                        chunk: chunk.clone(),
                        slot,
                        copies: here..here,
                    });
                }
                let part = chunk_end.min(end) - at;
                schedule.copies.push(Copy {
                    slot,
                    from: usize::try_from(at - (chunk_end - chunk.size)).ok()?,
                    length: usize::try_from(part).ok()?,
                    to,
                });
                schedule.loads.last_mut()?.copies.end += 1;
                (at, to) = (at + part, to + part);
            }
        }
        Some(schedule)
    }
}

/// Where each chunk of a file ends.
fn ends(chunks: &[Chunk]) -> Vec<u64> {
    let mut at = 0_u64;
    let end = |chunk: &Chunk| {
        at = at.saturating_add(chunk.size);
        at
    };
    chunks.iter().map(end).collect()
}

/// Which chunks are in memory. The one that was not used for the longest time goes.
#[derive(Default)]
struct Kept {
    slots: HashMap<(usize, usize), (usize, u64)>,
    clock: u64,
}

impl Kept {
    /// The slot of a chunk, and whether it has to be fetched into it.
    fn slot(&mut self, chunk: (usize, usize)) -> (usize, bool) {
        self.clock += 1;
        if let Some((slot, used)) = self.slots.get_mut(&chunk) {
            *used = self.clock;
            return (*slot, false);
        }
        let mut slot = self.slots.len();
        if slot == KEPT {
            let oldest = self.slots.iter().min_by_key(|(_, (_, used))| *used);
            if let Some((oldest, (free, _))) = oldest.map(|(key, value)| (*key, *value)) {
                self.slots.remove(&oldest);
                slot = free;
            }
        }
        self.slots.insert(chunk, (slot, self.clock));
        (slot, true)
    }
}

/// Receives chunks whole, in the order of the schedule, and makes the copies that they allow.
struct Placer<'a> {
    disk: &'a File,
    schedule: &'a Schedule,
    kept: Vec<Vec<u8>>,
    next: usize,
    root: u64,
    placed: &'a dyn Fn(Placed),
}

impl Write for Placer<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let short = || io::Error::from(io::ErrorKind::InvalidData);
        let load = self.schedule.loads.get(self.next).ok_or_else(short)?;
        self.next += 1;
        let slot = self.kept.get_mut(load.slot).ok_or_else(short)?;
        slot.clear();
        slot.extend_from_slice(bytes);
        let copies = self
            .schedule
            .copies
            .get(load.copies.clone())
            .ok_or_else(short)?;
        for copy in copies {
            let kept = self.kept.get(copy.slot).ok_or_else(short)?;
            let part = kept
                .get(copy.from..copy.from + copy.length)
                .ok_or_else(short)?;
            self.disk.write_all_at(part, copy.to)?;
        }
        if let Some(last) = copies.last() {
            (self.placed)(Placed::Root(last.to + last.length as u64 - self.root));
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Where in parts of a disk, one after the other, somebody is.
struct Along<'a> {
    parts: &'a [(u64, u64)],
    /// Bytes of the first part.
    done: u64,
}

impl<'a> Along<'a> {
    fn new(parts: &'a [(u64, u64)]) -> Self {
        Along { parts, done: 0 }
    }

    /// The place in the disk, and how many of `most` bytes the part goes on for; none behind the last one.
    fn next(&self, most: usize) -> Option<(u64, usize)> {
        let (at, length) = self.parts.first()?;
        let left = usize::try_from(length - self.done).unwrap_or(usize::MAX);
        Some((at + self.done, left.min(most)))
    }

    fn advance(&mut self, bytes: usize) {
        self.done += bytes as u64;
        if let Some(((_, length), later)) = self.parts.split_first()
            && self.done == *length
        {
            (self.parts, self.done) = (later, 0);
        }
    }
}

/// Writes what comes to parts of a disk.
struct Scattered<'a> {
    disk: &'a File,
    along: Along<'a>,
}

impl Write for Scattered<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let next = self.along.next(bytes.len());
        let (at, count) = next.ok_or(io::ErrorKind::InvalidData)?;
        self.disk.write_all_at(&bytes[..count], at)?;
        self.along.advance(count);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reads parts of a disk.
struct Parts<'a> {
    disk: &'a File,
    along: Along<'a>,
}

impl Read for Parts<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some((at, most)) = self.along.next(buffer.len()) else {
            return Ok(0);
        };
        let count = self.disk.read_at(&mut buffer[..most], at)?;
        if count == 0 && most > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.along.advance(count);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The disk's size in the tests, and where its root is.
    const SIZE: u64 = 4000;
    const ROOT: u64 = 1000;

    fn facts() -> ImageFacts {
        ImageFacts {
            kernel: String::new(),
            squashed: Squashed {
                bytes: 2000,
                inodes: 0,
                content_bytes: 0,
                blocks: 0,
                lost: Vec::new(),
            },
            finished: Finished::default(),
            size: SIZE,
            sha256: None,
            root: ROOT,
            layers: Vec::new(),
            of_packages: None,
        }
    }

    fn chunk(size: u64) -> Chunk {
        let sha256 = format!("{size}");
        Chunk { sha256, size }
    }

    fn map(blocks: &[(u32, u64, u64)], rest: &[(u64, u64)]) -> Map {
        Map {
            data: 100,
            packs: vec!["a".to_owned(), "b".to_owned()],
            rest: rest.to_vec(),
            blocks: blocks.to_vec(),
        }
    }

    /// Two packs of 25 and of 10,000 bytes, in chunks.
    fn packs() -> [Vec<Chunk>; 2] {
        [
            vec![chunk(10), chunk(10), chunk(5)],
            (0..100).map(|_| chunk(100)).collect(),
        ]
    }

    fn schedule(map: &Map) -> Option<Schedule> {
        let packs = packs();
        let packs: Vec<&[Chunk]> = packs.iter().map(|chunks| &chunks[..]).collect();
        Schedule::new(map, &packs, &facts())
    }

    #[test]
    fn what_follows_in_a_pack_and_in_the_image_is_one_run() {
        let mut runs = Runs::default();
        for (pack, offset, length) in [(0, 8, 5), (0, 13, 7), (1, 20, 3), (0, 20, 1), (0, 22, 1)] {
            runs.add(pack, offset, length);
        }
        let mut text = Vec::new();
        runs.put(&mut text).expect("written");
        let read = Runs::read(&text).expect("read").0;
        assert_eq!(read, [(0, 8, 12), (1, 20, 3), (0, 20, 1), (0, 22, 1)]);
        assert_eq!(runs.bytes(), 17);
    }

    #[test]
    fn a_chunk_is_fetched_once_while_it_is_in_memory() {
        let schedule = schedule(&map(&[(0, 8, 4), (1, 150, 10), (0, 12, 8), (1, 0, 1)], &[]));
        let schedule = schedule.expect("it fits");
        let loads: Vec<_> = schedule
            .loads
            .iter()
            .map(|load| (load.chunk.size, load.slot, load.copies.clone()))
            .collect();
        assert_eq!(
            loads,
            [(10, 0, 0..1), (10, 1, 1..2), (100, 2, 2..4), (100, 3, 4..5)]
        );
        let copies: Vec<_> = schedule
            .copies
            .iter()
            .map(|c| (c.slot, c.from, c.length, c.to))
            .collect();
        assert_eq!(
            copies,
            [
                (0, 8, 2, 1100),
                (1, 0, 2, 1102),
                (2, 50, 10, 1104),
                (1, 2, 8, 1114),
                (3, 0, 1, 1122)
            ]
        );
    }

    #[test]
    fn the_chunk_that_was_not_used_for_the_longest_time_goes() {
        let mut kept = Kept::default();
        for index in 0..KEPT {
            assert_eq!(kept.slot((0, index)), (index, true));
        }
        assert_eq!(kept.slot((0, 0)), (0, false));
        assert_eq!(kept.slot((1, 0)), (1, true));
        assert_eq!(kept.slot((0, 1)), (2, true));
        assert_eq!(kept.slot((0, 0)), (0, false));
    }

    #[test]
    fn a_map_that_does_not_fit_is_none() {
        for blocks in [
            &[(2, 0, 1)][..],
            &[(u32::MAX, 0, 1)],
            &[(0, 0, 26)],
            &[(0, 25, 1)],
            &[(0, u64::MAX, 1)],
            &[(0, 1, u64::MAX)],
            // More than the disk has room for.
            &[(1, 0, 2901)],
            &[(1, 0, 2900), (0, 0, 1)],
        ] {
            assert!(schedule(&map(blocks, &[])).is_none(), "{blocks:?}");
        }
        for rest in [
            (0, 0),
            (SIZE, 1),
            (u64::MAX, 1),
            (1, u64::MAX),
            (0, SIZE + 1),
        ] {
            assert!(schedule(&map(&[], &[rest])).is_none(), "{rest:?}");
        }
        assert!(schedule(&map(&[(1, 0, 2900)], &[(0, SIZE)])).is_some());
        let packs = packs();
        let packs = [&packs[0][..]];
        assert!(Schedule::new(&map(&[(1, 0, 1)], &[]), &packs, &facts()).is_none());
        for (root, bytes) in [(SIZE, 1), (u64::MAX, 1), (1, u64::MAX)] {
            let mut facts = facts();
            (facts.root, facts.squashed.bytes) = (root, bytes);
            assert!(
                Schedule::new(&map(&[], &[]), &packs, &facts).is_none(),
                "{root} {bytes}"
            );
        }
        // A pack whose chunks are said to be longer than any file.
        let endless = [&[chunk(u64::MAX), chunk(u64::MAX)][..], &[]];
        let one = Schedule::new(&map(&[(0, 5, 10)], &[]), &endless, &facts()).expect("it fits");
        assert_eq!(one.copies.len(), 1);
    }

    #[test]
    fn parts_of_a_disk_go_to_another_disk() {
        let disks = [0, 1].map(|_| tempfile::tempfile().expect("a file"));
        let whole: Vec<u8> = (0..SIZE).map(|n| (n % 251) as u8 + 1).collect();
        disks[0].write_all_at(&whole, 0).expect("written");
        let parts = [(0, 7), (100, 1), (3000, 900)];
        let reader = || Parts {
            disk: &disks[0],
            along: Along::new(&parts),
        };
        let mut read = Vec::new();
        reader().read_to_end(&mut read).expect("read");
        assert_eq!(read.len(), 908);
        disks[1].set_len(SIZE).expect("a long file");
        let mut to = Scattered {
            disk: &disks[1],
            along: Along::new(&parts),
        };
        for piece in read.chunks(50) {
            to.write_all(piece).expect("it fits");
        }
        assert!(to.along.parts.is_empty());
        to.write_all(b"more").expect_err("nowhere to go");
        let mut expected = vec![0; SIZE as usize];
        for (at, length) in parts.map(|(at, length)| (at as usize, length as usize)) {
            expected[at..at + length].copy_from_slice(&whole[at..at + length]);
        }
        let mut found = vec![0; SIZE as usize];
        disks[1].read_exact_at(&mut found, 0).expect("read");
        assert!(found == expected);
        disks[0].set_len(3100).expect("a short file");
        reader().read_to_end(&mut read).expect_err("it ends early");
    }
}
