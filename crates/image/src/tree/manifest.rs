//! Content manifests: what the files of a layer hold.
//!
//! A layer never changes once it is finished. So its files are read and digested once, and whoever writes an image of a
//! stack of layers afterwards knows every block without opening a file.
//!
//! ```text
//! "kilnman1"  u32 block size  u32 files  u32 digests  u64 bytes of names      all little-endian
//! files       u32 length of the path, u64 size, i64 + u32 last change, u32 first digest; sorted by path
//! names       paths without a leading slash, one behind the other
//! digests     32 bytes each
//! BLAKE3      of everything before, 32 bytes
//! ```

use std::collections::HashMap;
use std::ffi::OsStr;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Dir, FileType, OFlags, Statx};

use super::content::{Base, Content, open_beneath, stat_at};
use super::digest::{BlockDigests, Digest, digest_blocks, number};
use super::node::Kind;
use super::walk::join;
use super::{InodeId, Tree, show};
use crate::error::IoContext;
use crate::{Result, parallel};

const MAGIC: &[u8; 8] = b"kilnman1";
const HEAD: usize = 8 + 4 + 4 + 4 + 8;
const ENTRY: usize = 4 + 8 + 8 + 4 + 4;
const SUM: usize = 32;
/// Files that one thread digests at a time.
const BATCH: usize = 64;
const S_IFMT: u16 = 0o170_000;
const S_IFREG: u16 = 0o100_000;

/// What the regular files of one directory hold, block by block.
#[derive(Clone, Debug)]
pub struct Manifest {
    block_size: u32,
    files: Vec<File>,
    names: Vec<u8>,
    table: Arc<Vec<Digest>>,
}

#[derive(Clone, Debug)]
struct File {
    path: Range<usize>,
    size: u64,
    mtime: (i64, u32),
    first: u32,
}

impl Manifest {
    /// Reads every regular file below an opened directory, also those that an overlay's upper layers hide. `path` is for messages.
    ///
    /// # Errors
    /// A file cannot be read, or changes meanwhile.
    pub fn record(
        directory: OwnedFd,
        path: &Path,
        block_size: u32,
        threads: usize,
    ) -> Result<Self> {
        let base = Arc::new(Base {
            fd: directory,
            path: path.to_owned(),
        });
        let mut found = find_files(&base)?;
        found.sort_by(|a, b| a.path.cmp(&b.path));
        let (originals, place) = distinct(&found);
        let batches = parallel::map(originals.len().div_ceil(BATCH), threads, |batch| {
            let (mut buffer, mut digests) = (Vec::new(), Vec::new());
            for &index in originals.iter().skip(batch * BATCH).take(BATCH) {
                digest_blocks(&found[index].content, block_size, &mut buffer, &mut digests)?;
            }
            Ok(digests)
        })?;
        Self::assemble(block_size, &found, (&originals, &place), batches.concat())
    }

    fn assemble(
        block_size: u32,
        found: &[Found],
        (originals, place): (&[usize], &[usize]),
        table: Vec<Digest>,
    ) -> Result<Self> {
        number(table.len())?;
        let mut firsts = Vec::with_capacity(originals.len());
        let mut next = 0;
        for &index in originals {
            firsts.push(next as u32);
            next += found[index].content.len().div_ceil(u64::from(block_size));
        }
        let mut names = Vec::new();
        let files = found
            .iter()
            .zip(place)
            .map(|(found, place)| {
                let from = names.len();
                names.extend_from_slice(&found.path);
                File {
                    path: from..names.len(),
                    size: found.content.len(),
                    mtime: found.content.mtime().unwrap_or_default(),
                    first: firsts[*place],
                }
            })
            .collect();
        Ok(Manifest {
            block_size,
            files,
            names,
            table: Arc::new(table),
        })
    }

    /// The block size that the digests are for.
    pub fn block_size(&self) -> u32 {
        self.block_size
    }

    /// The number of files.
    pub fn len(&self) -> usize {
        self.files.len()
    }

    /// Whether the layer holds no regular file.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// Whether the layer holds a regular file of this path, without a leading slash.
    pub fn contains(&self, path: &[u8]) -> bool {
        let found = self
            .files
            .binary_search_by(|file| self.name(file).cmp(path));
        found.is_ok()
    }

    /// Paths, without a leading slash, of files whose blocks are not what `earlier` says of them, and of those that only
    /// one of the two has.
    pub fn differences(&self, earlier: &Manifest) -> Vec<Vec<u8>> {
        let facts = |manifest: &Manifest| -> HashMap<Vec<u8>, Vec<Digest>> {
            let digests = |file| manifest.digests(file).map(|d| d.blocks().to_vec());
            let of = |file| {
                (
                    manifest.name(file).to_vec(),
                    digests(file).unwrap_or_default(),
                )
            };
            manifest.files.iter().map(of).collect()
        };
        let (ours, theirs) = (facts(self), facts(earlier));
        let mut paths: Vec<Vec<u8>> = ours
            .iter()
            .filter(|(path, digests)| theirs.get(*path) != Some(digests))
            .map(|(path, _)| path.clone())
            .chain(theirs.keys().filter(|p| !ours.contains_key(*p)).cloned())
            .collect();
        paths.sort();
        paths
    }

    /// Tells the files of a tree what they hold, where the tree is the overlay of these layers. Gives how many were told.
    ///
    /// `layers` has to hold *every* layer of the stack, the top one first. A file that the tree has comes from the topmost
    /// layer that holds a regular file of its path: anything above that hid it would hide it in the tree as well, and
    /// directories are never renamed in layers that an overlay with `userxattr` made. Size and time of the last change
    /// have to agree too.
    pub fn apply(layers: &[Manifest], tree: &mut Tree) -> usize {
        let mut by_path: HashMap<&[u8], (&Manifest, &File)> = HashMap::new();
        by_path.reserve(layers.iter().map(Manifest::len).sum());
        for layer in layers {
            for file in &layer.files {
                by_path.entry(layer.name(file)).or_insert((layer, file));
            }
        }
        let known: Vec<(InodeId, BlockDigests)> = tree
            .walk()
            .filter_map(|entry| {
                let Kind::File(content) = &entry.inode.kind else {
                    return None;
                };
                let (layer, file) = by_path.get(entry.path.as_slice())?;
                let same = file.size == content.len() && Some(file.mtime) == content.mtime();
                let digests = layer.digests(file).filter(|_| same)?;
                Some((entry.id, digests))
            })
            .collect();
        let count = known.len();
        for (id, digests) in known {
            if let Kind::File(content) = &mut tree.inode_mut(id).kind {
                *content = content.clone().with_digests(digests);
            }
        }
        count
    }

    /// The form in which it is stored.
    pub fn encode(&self) -> Vec<u8> {
        let size = HEAD + self.files.len() * ENTRY + self.names.len() + self.table.len() * 32 + SUM;
        let mut out = Vec::with_capacity(size);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&self.block_size.to_le_bytes());
        out.extend_from_slice(&(self.files.len() as u32).to_le_bytes());
        out.extend_from_slice(&(self.table.len() as u32).to_le_bytes());
        out.extend_from_slice(&(self.names.len() as u64).to_le_bytes());
        for file in &self.files {
            out.extend_from_slice(&(file.path.len() as u32).to_le_bytes());
            out.extend_from_slice(&file.size.to_le_bytes());
            out.extend_from_slice(&file.mtime.0.to_le_bytes());
            out.extend_from_slice(&file.mtime.1.to_le_bytes());
            out.extend_from_slice(&file.first.to_le_bytes());
        }
        out.extend_from_slice(&self.names);
        self.table.iter().for_each(|d| out.extend_from_slice(d));
        let sum = blake3::hash(&out);
        out.extend_from_slice(sum.as_bytes());
        out
    }

    /// Whether this is the stored form of a manifest for this block size, undamaged.
    pub fn is_whole(bytes: &[u8], block_size: u32) -> bool {
        let head = [MAGIC.as_slice(), &block_size.to_le_bytes()].concat();
        bytes.starts_with(&head)
            && bytes
                .split_last_chunk::<SUM>()
                .is_some_and(|(body, sum)| blake3::hash(body).as_bytes() == sum)
    }

    /// The layer that a file of their overlay comes from, by its place in `layers`, the top one first.
    pub fn provider(layers: &[Manifest], path: &[u8]) -> Option<usize> {
        layers.iter().position(|layer| layer.contains(path))
    }

    /// Reads the stored form; `None` where it is damaged, cut off or of another version.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (body, sum) = bytes.split_at_checked(bytes.len().checked_sub(SUM)?)?;
        if blake3::hash(body).as_bytes() != sum {
            return None;
        }
        let mut input = Input(body);
        if input.take(8)? != MAGIC {
            return None;
        }
        let block_size = input.u32()?;
        let (count, digests) = (input.u32()? as usize, input.u32()? as usize);
        let names_len = usize::try_from(input.u64()?).ok()?;
        let mut entries = Input(input.take(count.checked_mul(ENTRY)?)?);
        let names = input.take(names_len)?.to_vec();
        let table = input.take(digests.checked_mul(32)?)?;
        let table = Arc::new(table.as_chunks().0.to_vec());
        let mut at = 0;
        let mut files = Vec::with_capacity(count);
        for _ in 0..count {
            let from = at;
            at += entries.u32()? as usize;
            names.get(from..at)?;
            files.push(File {
                path: from..at,
                size: entries.u64()?,
                mtime: (entries.u64()? as i64, entries.u32()?),
                first: entries.u32()?,
            });
        }
        Some(Manifest {
            block_size,
            files,
            names,
            table,
        })
    }

    fn name(&self, file: &File) -> &[u8] {
        self.names.get(file.path.clone()).unwrap_or_default()
    }

    fn digests(&self, file: &File) -> Option<BlockDigests> {
        let count = file.size.div_ceil(u64::from(self.block_size.max(1)));
        let count = u32::try_from(count).ok()?;
        BlockDigests::part(self.block_size, &self.table, file.first, count)
    }
}

/// Little-endian numbers from a slice.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (now, later) = self.0.split_at_checked(length)?;
        self.0 = later;
        Some(now)
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.take(4)?.try_into().ok()?))
    }

    fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.take(8)?.try_into().ok()?))
    }
}

struct Found {
    path: Vec<u8>,
    content: Content,
    /// Device and inode, where it has several names.
    links: Option<(u32, u32, u64)>,
}

fn find_files(base: &Arc<Base>) -> Result<Vec<Found>> {
    let mut found = Vec::new();
    let mut pending = vec![Vec::new()];
    while let Some(directory) = pending.pop() {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let relative = if directory.is_empty() {
            b"."
        } else {
            directory.as_slice()
        };
        let doing = || format!("reading {}/{}", base.path.display(), show(&directory));
        let fd =
            open_beneath(&base.fd, Path::new(OsStr::from_bytes(relative)), flags).doing(doing)?;
        for entry in Dir::read_from(&fd).doing(doing)? {
            let entry = entry.doing(doing)?;
            let name = entry.file_name().to_bytes();
            if name == b"." || name == b".." {
                continue;
            }
            let kind = entry.file_type();
            if !matches!(
                kind,
                FileType::RegularFile | FileType::Directory | FileType::Unknown
            ) {
                continue;
            }
            let path = join(&directory, name);
            if kind == FileType::Directory {
                pending.push(path);
                continue;
            }
            let stat = stat_at(&fd, Path::new(OsStr::from_bytes(name))).doing(doing)?;
            match stat.stx_mode & S_IFMT {
                S_IFREG => found.push(one(base, path, &stat)),
                S_IFDIR => pending.push(path),
                _ => {}
            }
        }
    }
    Ok(found)
}

const S_IFDIR: u16 = 0o040_000;

fn one(base: &Arc<Base>, path: Vec<u8>, stat: &Statx) -> Found {
    let relative = PathBuf::from(OsStr::from_bytes(&path));
    let key = (stat.stx_dev_major, stat.stx_dev_minor, stat.stx_ino);
    Found {
        content: Content::on_disk(Arc::clone(base), relative, stat),
        links: (stat.stx_nlink > 1).then_some(key),
        path,
    }
}

/// The first name of every file, and for each name the place of its file among those.
fn distinct(found: &[Found]) -> (Vec<usize>, Vec<usize>) {
    let mut first = HashMap::new();
    let mut originals = Vec::with_capacity(found.len());
    let mut place = Vec::with_capacity(found.len());
    for (index, file) in found.iter().enumerate() {
        let next = originals.len();
        let at = file
            .links
            .map_or(next, |key| *first.entry(key).or_insert(next));
        if at == next {
            originals.push(index);
        }
        place.push(at);
    }
    (originals, place)
}
