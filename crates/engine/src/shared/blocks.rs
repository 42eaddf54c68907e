//! Compressed blocks of images that other machines made.
//!
//! Blocks are found by keys that an image's layers decide (`kiln_image::squashfs::BlockKey`). So first a process in the sandbox says
//! which blocks the image needs and the local store lacks. Then records name packs: those of an image of the
//! same stack of layers, or of the longest part of it. Of these packs only the chunks with such blocks are fetched.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{channel, sync_channel};

use kiln_image::blocks;
use kiln_image::squashfs::BlockKey;
use kiln_plan::{Hasher, Id};
use kiln_rootfs::{Extras, Place};
use kiln_sandbox::{Call, Error, ErrorKind, Say, Silence, handed};
use kiln_share::{Chunk, Record, Share};
use rustix::fs::MemfdFlags;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Shared;
use crate::steps::Steps;

const KIND: &str = "blocks";
/// Blocks that are compressed sooner than asked for.
const WORTH_ASKING: usize = 64;
/// Packs that one image is looked for in, at most.
const PACKS_MAX: usize = 512;

/// What an image's blocks lie in.
pub(super) struct Packs {
    directory: PathBuf,
    names: Vec<String>,
    /// Under which names they are found, that of the whole stack first.
    ids: Vec<Id>,
    /// Whether the image brought more than an edit does.
    many: bool,
}

/// Names under which the packs of an image of this stack are found: of the whole stack, then of its lower parts.
fn ids(encoder: &Value, layers: &[Id]) -> Vec<Id> {
    let id = |layer: &Id| {
        Hasher::new("shared-blocks.v1")
            .json("encoder", encoder)
            .id("layer", *layer)
            .finish()
    };
    layers.iter().rev().map(id).collect()
}

/// Names of a pack's files in a record.
fn files(pack: &str) -> [String; 2] {
    [format!("{pack}.index"), format!("{pack}.pack")]
}

impl Shared {
    /// Gets blocks that an image needs, `missing`, into the store whose directory is given. `layers` is the stack, the lowest first.
    pub(crate) fn pull_blocks(
        &self,
        steps: &Steps<'_>,
        place: &Place<'_>,
        store: &OwnedFd,
        encoder: &Value,
        layers: &[Id],
        missing: &HashSet<BlockKey>,
    ) -> u64 {
        if missing.len() < WORTH_ASKING {
            return 0;
        }
        let ids = ids(encoder, layers);
        let found = ids
            .iter()
            .find_map(|id| self.find(steps, KIND, &id.to_string()));
        let Some(record) = found else { return 0 };
        let names = names(&record);
        let (fetched, packs) = sync_channel(0);
        let (spare, spares) = channel();
        let has_all = &AtomicBool::new(false);
        // While the blocks of one pack are taken, the next one is fetched. Two files in memory go back and forth: new memory
        // costs more than what is done with it.
        std::thread::scope(|scope| {
            scope.spawn(move || {
                let (mut unused, is_enough) = (2_u32, || has_all.load(Ordering::Relaxed));
                for name in names.iter().take(PACKS_MAX) {
                    let file = match unused {
                        0 => spares.recv().ok(),
                        _ => memory(),
                    };
                    unused = unused.saturating_sub(1);
                    let Some(file) = file.filter(|_| !is_enough()) else {
                        break;
                    };
                    let part = self.part(steps, &record, name, missing, &file);
                    let part = part.unwrap_or_else(|error| {
                        super::warn(steps, &error);
                        false
                    });
                    if self.cancel.is_cancelled() || fetched.send((part, file)).is_err() {
                        break;
                    }
                }
            });
            let mut adopted = 0;
            for (part, file) in packs {
                if part {
                    let copy = file.try_clone();
                    let taken =
                        copy.map_err(|error| kiln_rootfs::Error::io("keeping blocks", &error));
                    match taken.and_then(|pack| adopt(place, store, pack)) {
                        Ok(count) => adopted += count,
                        Err(error) => {
                            let hint = Some("the blocks are compressed here".to_owned());
                            steps.warn(format!("shared cache: {error}"), None, hint);
                            break;
                        }
                    }
                }
                has_all.store(adopted as usize >= missing.len(), Ordering::Relaxed);
                let _ = spare.send(file);
            }
            drop(spare);
            adopted
        })
    }

    /// Puts into `file` what of a pack has wanted blocks, at the places that it has in the pack; what lies between is anything. Whether there
    /// is such a block.
    fn part(
        &self,
        steps: &Steps<'_>,
        record: &Record,
        name: &str,
        wanted: &HashSet<BlockKey>,
        file: &File,
    ) -> kiln_share::Result<bool> {
        let [index, pack] = files(name).map(|file| record.files.get(&file));
        let (Some(index), Some(pack)) = (index, pack) else {
            return Ok(false);
        };
        let size: u64 = pack.iter().map(|chunk| chunk.size).sum();
        let index = self.share.fetch_whole(index)?;
        let Some(places) = blocks::places(&index, size, wanted).filter(|p| !p.is_empty()) else {
            return Ok(false);
        };
        let local = |error: std::io::Error| {
            kiln_share::Error::local_failure("keeping blocks", &error.to_string())
        };
        file.set_len(size).map_err(local)?;
        // A pack begins with its magic and ends with its index.
        let ends = [(0, 8), (size.saturating_sub(1), 1)];
        let needed = needed(pack, places.iter().chain(&ends));
        let mut rest = &needed[..];
        while !rest.is_empty() {
            let chunks: Vec<Chunk> = rest.iter().map(|(_, chunk)| (*chunk).clone()).collect();
            let mut spread = Spread { file, chunks: rest };
            let progress = &mut |_| !self.cancel.is_cancelled();
            let done = self.share.fetch(&chunks, &mut spread, progress);
            rest = spread.chunks;
            match done {
                Ok(()) => break,
                Err(error) if error.kind() == kiln_share::ErrorKind::Stopped => return Err(error),
                // A gap: only its blocks are missed.
                Err(error) if !self.share.is_given_up() => super::warn(steps, &error),
                Err(error) => return Err(error),
            }
            rest = rest.get(1..).unwrap_or(&[]);
        }
        let at = size.saturating_sub(index.len() as u64);
        file.write_all_at(&index, at).map_err(local)?;
        Ok(true)
    }
}

/// Writes chunks that come whole, each to its place.
struct Spread<'a, 'c> {
    file: &'a File,
    /// Those that are still to come.
    chunks: &'a [(u64, &'c Chunk)],
}

impl Write for Spread<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let ((at, _), later) = self
            .chunks
            .split_first()
            .ok_or(std::io::ErrorKind::InvalidData)?;
        self.file.write_all_at(bytes, *at)?;
        self.chunks = later;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn memory() -> Option<File> {
    let made = rustix::fs::memfd_create("kiln-blocks", MemfdFlags::CLOEXEC);
    made.ok().map(File::from)
}

/// Packs that a record names.
fn names(record: &Record) -> Vec<String> {
    let listed = record.facts["packs"].as_array().into_iter().flatten();
    listed
        .filter_map(|name| Some(name.as_str()?.to_owned()))
        .collect()
}

/// The chunks in which these parts of a file lie, with their offsets.
fn needed<'c, 'p>(
    chunks: &'c [Chunk],
    parts: impl Iterator<Item = &'p (u64, u64)>,
) -> Vec<(u64, &'c Chunk)> {
    let starts: Vec<u64> = chunks
        .iter()
        .scan(0, |at, chunk| {
            let start = *at;
            *at += chunk.size;
            Some(start)
        })
        .collect();
    let mut hit = BTreeSet::new();
    for (offset, length) in parts {
        let first = starts.partition_point(|start| start <= offset).max(1) - 1;
        let end = starts.partition_point(|start| *start < offset + length);
        hit.extend(first..end);
    }
    hit.into_iter()
        .filter_map(|index| Some((*starts.get(index)?, chunks.get(index)?)))
        .collect()
}

fn adopt(place: &Place<'_>, store: &OwnedFd, pack: File) -> kiln_rootfs::Result<u64> {
    let store = store
        .try_clone()
        .map_err(|error| kiln_rootfs::Error::io("keeping blocks", &error))?;
    place.call(&Adopt {}, Blocks { store, pack }, Extras::bare())
}

handed! {
    /// Where blocks are, and where they go.
    pub(crate) struct Blocks {
        store: OwnedFd,
        pack: File,
    }
}

/// Takes blocks into the store, which belongs to the namespace's root.
#[derive(Serialize, Deserialize)]
pub(crate) struct Adopt {}

impl Call for Adopt {
    const NAME: &'static str = "build.adopt-blocks";
    type Handed = Blocks;
    type Message = Silence;
    type Answer = u64;

    fn run(self, blocks: Blocks, _: &Say<Silence>) -> Result<u64, Error> {
        let adopted = blocks::adopt(blocks.store, &blocks.pack);
        adopted.map_err(|error| {
            Error::new(ErrorKind::Step, "keeping blocks of the shared cache").because(error)
        })
    }
}

impl Packs {
    /// The packs of an image of this stack; `many` if it brought more blocks than an edit does.
    pub(super) fn new(
        directory: PathBuf,
        names: Vec<String>,
        encoder: &Value,
        layers: &[Id],
        many: bool,
    ) -> Self {
        Packs {
            directory,
            names,
            ids: ids(encoder, layers),
            many,
        }
    }

    /// Sends what the shared cache does not have. Returns the chunks of all files that are there then.
    pub(super) fn send(
        &self,
        share: &Share,
        progress: kiln_share::Progress<'_>,
    ) -> kiln_share::Result<BTreeMap<String, Vec<Chunk>>> {
        // Packs never change: what an earlier record has of one need not be read again.
        let mut known = None;
        for id in &self.ids {
            if let Ok(Some(record)) = share.find(KIND, &id.to_string()) {
                known = Some((id, record));
                break;
            }
        }
        let mut record = Record {
            facts: json!({ "packs": self.names }),
            ..Record::default()
        };
        let mut news = false;
        for name in &self.names {
            let [index, pack] = files(name);
            let old = known.as_ref().map(|(_, record)| &record.files);
            let parts = old.and_then(|files| Some((files.get(&index)?, files.get(&pack)?)));
            // What turned out to be missing is sent again, also where it has the same name.
            let parts = parts.filter(|(i, p)| share.is_sound(i) && share.is_sound(p));
            let (of_index, of_pack) = match parts {
                Some((of_index, of_pack)) => (of_index.clone(), of_pack.clone()),
                None => {
                    news = true;
                    let Some(sent) = self.pack(share, name, progress)? else {
                        continue;
                    };
                    sent
                }
            };
            record.files.insert(index, of_index);
            record.files.insert(pack, of_pack);
        }
        let top = self.ids.first();
        if !news && known.as_ref().map(|(id, _)| *id) == top {
            return Ok(record.files);
        }
        for (number, id) in self.ids.iter().enumerate() {
            let id = id.to_string();
            // An edit need not renew what leads to the packs of the layers below it.
            if number == 0 || self.many || !share.has(KIND, &id)? {
                share.publish(KIND, &id, &record)?;
            }
        }
        Ok(record.files)
    }

    /// The chunks of index and blocks; none where the pack has gone meanwhile.
    fn pack(
        &self,
        share: &Share,
        name: &str,
        progress: kiln_share::Progress<'_>,
    ) -> kiln_share::Result<Option<(Vec<Chunk>, Vec<Chunk>)>> {
        let Ok(mut file) = File::open(self.directory.join(format!("{name}.pack"))) else {
            return Ok(None);
        };
        let Ok(index) = blocks::index(&file) else {
            return Ok(None);
        };
        let of_index = share.store(&mut &index[..], progress)?;
        let of_pack = share.store(&mut file, progress)?;
        Ok(Some((of_index, of_pack)))
    }
}

/// Writes keys one behind the other.
pub(crate) fn put_keys(keys: &[BlockKey], mut out: impl Write) -> std::io::Result<()> {
    let bytes: Vec<u8> = keys.iter().flat_map(|key| *key.as_bytes()).collect();
    out.write_all(&bytes)
}

/// Keys as [`put_keys`] wrote them.
pub(crate) fn keys(bytes: &[u8]) -> HashSet<BlockKey> {
    let (keys, _) = bytes.as_chunks::<32>();
    keys.iter().map(|key| BlockKey::from_bytes(*key)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_chunks_with_wanted_blocks_are_needed() {
        let chunk = |size| Chunk {
            sha256: String::new(),
            size,
        };
        let chunks = [chunk(10), chunk(10), chunk(10), chunk(3)];
        let starts = |parts: &[(u64, u64)]| -> Vec<u64> {
            needed(&chunks, parts.iter())
                .iter()
                .map(|(at, _)| *at)
                .collect()
        };
        assert_eq!(starts(&[(0, 8)]), [0]);
        assert_eq!(starts(&[(0, 10), (32, 1)]), [0, 30]);
        assert_eq!(starts(&[(9, 2)]), [0, 10]);
        assert_eq!(starts(&[(10, 10)]), [10]);
        assert_eq!(starts(&[(5, 20)]), [0, 10, 20]);
        assert_eq!(starts(&[]), [0_u64; 0]);
        assert_eq!(starts(&[(100, 5)]), [30]);
    }
}
