//! Manifests: everything about a layer, so that an image can be made of it without looking at it again.
//!
//! A layer never changes once it is finished. So it is walked once, and its files are read and digested once; whoever writes
//! an image of a stack of layers afterwards knows every name and every block without a single system call per file.
//!
//! ```text
//! "kilnman2"  u32 block size  u32 inodes  u32 digests  u32 skipped attributes         all numbers little-endian
//! inodes      u8 kind  u16 mode  u32 uid  u32 gid  i64 last change  u16 attributes {u16 + name, u32 + value}, then
//!             0 directory    u32 names {u16 + name, u32 inode}
//!             1 file         u64 size  u32 nanoseconds of the last change  u32 first digest
//!             2 symlink      u16 + target
//!             3 4 devices    u32 major  u32 minor
//!             5 6            pipe, socket
//! skipped     u32 + path  u16 + attribute
//! digests     32 bytes each
//! BLAKE3      of everything before, 32 bytes
//! ```

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use super::content::Content;
use super::digest::{BlockDigests, Digest, number};
use super::node::{Device, Directory, Inode, Kind, Meta};
use super::{InodeId, ScanOptions, Skipped, Tree, Xattr};
use crate::{Error, Result, parallel};

const MAGIC: &[u8; 8] = b"kilnman2";
const SUM: usize = 32;
/// Files that one thread digests at a time.
const BATCH: usize = 64;

/// A layer as it is stored: an overlay's directory with its whiteouts and marks, and what its files hold.
#[derive(Clone, Debug)]
pub struct Manifest {
    pub(super) tree: Tree,
    /// By [`InodeId::index`]; only of files.
    pub(super) files: Vec<Option<Recorded>>,
    block_size: u32,
    table: Arc<Vec<Digest>>,
}

/// What is known of a regular file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Recorded {
    pub(super) size: u64,
    pub(super) mtime: (i64, u32),
    first: u32,
}

impl Manifest {
    /// Walks a layer's directory and reads all its files, also those that layers above hide.
    ///
    /// # Errors
    /// Something cannot be read, or changes meanwhile.
    pub fn record(root: &Path, block_size: u32, threads: usize) -> Result<Self> {
        let options = ScanOptions {
            overlay_marks: true,
            ..ScanOptions::default()
        };
        let tree = Tree::scan(root, &options)?;
        let contents: Vec<(usize, &Content)> = tree
            .inodes
            .iter()
            .enumerate()
            .filter_map(|(index, inode)| match &inode.kind {
                Kind::File(content) => Some((index, content)),
                _ => None,
            })
            .collect();
        let batches = parallel::map(contents.len().div_ceil(BATCH), threads, |batch| {
            let (mut buffer, mut digests) = (Vec::new(), Vec::new());
            for (_, content) in contents.iter().skip(batch * BATCH).take(BATCH) {
                content.digest_into(block_size, &mut buffer, &mut digests)?;
            }
            Ok(digests)
        })?;
        let table = batches.concat();
        number(table.len())?;
        let mut files = vec![None; tree.inodes.len()];
        let mut first = 0;
        for (index, content) in contents {
            files[index] = Some(Recorded {
                size: content.len(),
                mtime: content.mtime().ok_or_else(|| {
                    Error::internal("a file of a layer was scanned and is not on the disk")
                })?,
                first: first as u32,
            });
            first += content.len().div_ceil(u64::from(block_size));
        }
        Ok(Manifest {
            tree,
            files,
            block_size,
            table: Arc::new(table),
        })
    }

    /// Returns the block size that the digests are for.
    pub fn block_size(&self) -> u32 {
        self.block_size
    }

    /// The digests of a file's blocks.
    pub(super) fn digests(&self, file: &Recorded) -> Option<BlockDigests> {
        let count = file.size.div_ceil(u64::from(self.block_size.max(1)));
        let count = u32::try_from(count).ok()?;
        BlockDigests::part(self.block_size, &self.table, file.first, count)
    }

    /// Returns the paths, without a leading slash, that are not what `earlier` says, or that only one of the two has.
    pub fn differences(&self, earlier: &Manifest) -> Vec<Vec<u8>> {
        let facts = |manifest: &Manifest| -> HashMap<Vec<u8>, Vec<u8>> {
            let walk = manifest.tree.walk();
            walk.map(|entry| {
                let mut facts = Vec::new();
                manifest.put_inode(entry.id.index(), entry.inode, &mut facts);
                // Numbers of inodes and places of digests are each manifest's own.
                if let Kind::Directory(_) = entry.inode.kind {
                    facts.clear();
                }
                if let Some(Some(file)) = manifest.files.get(entry.id.index()) {
                    facts.truncate(facts.len() - 4);
                    let digests = manifest.digests(file);
                    facts.extend(digests.iter().flat_map(|d| d.blocks().as_flattened()));
                }
                (entry.path, facts)
            })
            .collect()
        };
        let (ours, theirs) = (facts(self), facts(earlier));
        let changed = ours
            .iter()
            .filter(|(path, facts)| theirs.get(*path) != Some(facts));
        let gone = theirs.keys().filter(|path| !ours.contains_key(*path));
        let mut paths: Vec<Vec<u8>> = changed
            .map(|(path, _)| path.clone())
            .chain(gone.cloned())
            .collect();
        paths.sort();
        paths
    }

    /// Returns the form in which it is stored.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.tree.inodes.len() * 96 + self.table.len() * 32);
        out.extend_from_slice(MAGIC);
        put32(&mut out, self.block_size);
        put32(&mut out, self.tree.inodes.len() as u32);
        put32(&mut out, self.table.len() as u32);
        put32(&mut out, self.tree.skipped.len() as u32);
        for (index, inode) in self.tree.inodes.iter().enumerate() {
            self.put_inode(index, inode, &mut out);
        }
        for skipped in &self.tree.skipped {
            put32(&mut out, skipped.path.len() as u32);
            out.extend_from_slice(&skipped.path);
            put_short(&mut out, &skipped.attribute);
        }
        out.extend_from_slice(self.table.as_flattened());
        let sum = blake3::hash(&out);
        out.extend_from_slice(sum.as_bytes());
        out
    }

    fn put_inode(&self, index: usize, inode: &Inode, out: &mut Vec<u8>) {
        let start = out.len();
        out.push(0);
        put_meta(out, &inode.meta);
        let kind = match &inode.kind {
            Kind::Directory(entries) => {
                put32(out, entries.len() as u32);
                for (name, id) in entries.iter() {
                    put_short(out, name);
                    put32(out, id.index() as u32);
                }
                0
            }
            Kind::File(_) => {
                let file = self.files.get(index).copied().flatten();
                out.extend_from_slice(&file.map_or(0, |f| f.size).to_le_bytes());
                put32(out, file.map_or(0, |f| f.mtime.1));
                put32(out, file.map_or(0, |f| f.first));
                1
            }
            Kind::Symlink(target) => {
                put_short(out, target);
                2
            }
            Kind::CharDevice(device) => put_device(out, device, 3),
            Kind::BlockDevice(device) => put_device(out, device, 4),
            Kind::Fifo => 5,
            Kind::Socket => 6,
        };
        if let Some(place) = out.get_mut(start) {
            *place = kind;
        }
    }

    /// Returns whether this is the stored form of a manifest for this block size, undamaged.
    pub fn is_whole(bytes: &[u8], block_size: u32) -> bool {
        let head = [MAGIC.as_slice(), &block_size.to_le_bytes()].concat();
        bytes.starts_with(&head)
            && bytes
                .split_last_chunk::<SUM>()
                .is_some_and(|(body, sum)| blake3::hash(body).as_bytes() == sum)
    }

    /// Reads the stored form; `None` where it is damaged, cut off or of another version.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (body, sum) = bytes.split_last_chunk::<SUM>()?;
        if blake3::hash(body).as_bytes() != sum {
            return None;
        }
        let mut input = Input(body);
        if input.take(8)? != MAGIC {
            return None;
        }
        let block_size = input.u32()?;
        let (inodes, digests, skipped) = (input.u32()?, input.u32()?, input.u32()?);
        // Nothing is reserved that the bytes could not hold.
        let room = (inodes as usize).min(body.len() / 21);
        let mut tree = Tree {
            inodes: Vec::with_capacity(room),
            skipped: Vec::new(),
        };
        let mut files = Vec::with_capacity(room);
        for _ in 0..inodes {
            let (inode, file) = input.inode(inodes)?;
            tree.inodes.push(inode);
            files.push(file);
        }
        tree.inodes.first()?.as_directory()?;
        for _ in 0..skipped {
            let length = input.u32()? as usize;
            tree.skipped.push(Skipped {
                path: input.take(length)?.to_vec(),
                attribute: input.short()?.to_vec(),
            });
        }
        let table = input.take((digests as usize).checked_mul(32)?)?;
        Some(Manifest {
            tree,
            files,
            block_size,
            table: Arc::new(table.as_chunks().0.to_vec()),
        })
    }
}

fn put32(out: &mut Vec<u8>, number: u32) {
    out.extend_from_slice(&number.to_le_bytes());
}

fn put_short(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&(bytes.len() as u16).to_le_bytes());
    out.extend_from_slice(bytes);
}

fn put_device(out: &mut Vec<u8>, device: &Device, kind: u8) -> u8 {
    put32(out, device.major);
    put32(out, device.minor);
    kind
}

fn put_meta(out: &mut Vec<u8>, meta: &Meta) {
    out.extend_from_slice(&meta.mode.to_le_bytes());
    put32(out, meta.uid);
    put32(out, meta.gid);
    out.extend_from_slice(&meta.mtime.to_le_bytes());
    out.extend_from_slice(&(meta.xattrs.len() as u16).to_le_bytes());
    for xattr in meta.xattrs.iter() {
        put_short(out, &xattr.name);
        put32(out, xattr.value.len() as u32);
        out.extend_from_slice(&xattr.value);
    }
}

/// Reads what the functions above write.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (now, later) = self.0.split_at_checked(length)?;
        self.0 = later;
        Some(now)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn short(&mut self) -> Option<&'a [u8]> {
        let length = self.u16()?;
        self.take(usize::from(length))
    }

    fn inode(&mut self, inodes: u32) -> Option<(Inode, Option<Recorded>)> {
        let [kind] = self.array()?;
        let meta = self.meta()?;
        let mut file = None;
        let kind = match kind {
            0 => Kind::Directory(self.directory(inodes)?),
            1 => {
                let (size, nanoseconds) = (self.u64()?, self.u32()?);
                file = Some(Recorded {
                    size,
                    mtime: (meta.mtime, nanoseconds),
                    first: self.u32()?,
                });
                Kind::File(Content::zeros(size))
            }
            2 => Kind::Symlink(self.short()?.into()),
            3 => Kind::CharDevice(self.device()?),
            4 => Kind::BlockDevice(self.device()?),
            5 => Kind::Fifo,
            6 => Kind::Socket,
            _ => return None,
        };
        Some((Inode { meta, kind }, file))
    }

    fn meta(&mut self) -> Option<Meta> {
        let mut meta = Meta {
            mode: self.u16()?,
            uid: self.u32()?,
            gid: self.u32()?,
            mtime: self.u64()? as i64,
            ..Meta::default()
        };
        let count = self.u16()?;
        if count > 0 {
            let mut xattrs = Vec::new();
            for _ in 0..count {
                let name = self.short()?;
                let length = self.u32()? as usize;
                xattrs.push(Xattr::new(name, self.take(length)?));
            }
            meta.xattrs = xattrs.into();
        }
        Some(meta)
    }

    fn directory(&mut self, inodes: u32) -> Option<Directory> {
        let mut directory = Directory::default();
        for _ in 0..self.u32()? {
            let name = self.short()?;
            let id = self.u32().filter(|id| *id < inodes)?;
            directory.insert(name.into(), InodeId(id));
        }
        Some(directory)
    }

    fn device(&mut self) -> Option<Device> {
        Some(Device {
            major: self.u32()?,
            minor: self.u32()?,
        })
    }
}
