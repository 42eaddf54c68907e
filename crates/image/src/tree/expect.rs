//! What an overlay of layers has to hold at single paths, told from the layers' manifests.
//!
//! Whoever has looked at a few hundred paths of a root wants to know whether a disk has changed what is stored there. Merging all
//! layers for that, as [`Tree::stack`](super::Tree::stack) does, costs more than comparing the files.

use std::collections::HashSet;
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::content::{Base, Content, open_beneath, stat_at};
use super::digest::BlockDigests;
use super::manifest::Manifest;
use super::node::{Inode, Kind};
use super::stack::{Parts, directories, is_strange, is_whiteout};
use super::walk::join;
use super::{InodeId, components};
use crate::{Result, parallel};

/// Links that one path may lead through (`MAXSYMLINKS` of Linux).
const MOST_LINKS: usize = 40;

/// Something that must be at a path, which leads through no link, and the layer that brings it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Expected {
    /// Without a leading slash.
    pub path: Vec<u8>,
    /// Counted from the top one.
    pub layer: usize,
    what: What,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
enum What {
    /// A symbolic link to this.
    Link(Vec<u8>),
    /// A file whose blocks have these digests, by the digest of all.
    File {
        size: u64,
        block_size: u32,
        sum: [u8; 32],
    },
    /// A directory with exactly these names, by their digest.
    Names([u8; 32]),
}

/// Layers, the top one first, of which single paths are asked.
#[derive(Clone, Debug)]
pub struct Overlay {
    layers: Vec<Arc<Manifest>>,
}

/// What a name in a merged directory stands for.
enum Found<'a> {
    Directory(Parts),
    Other(usize, InodeId, &'a Inode),
}

impl Overlay {
    /// Of these layers, the top one first; `None` where one has marks that Kiln's overlays do not make.
    pub fn new(layers: Vec<Arc<Manifest>>) -> Option<Self> {
        let strange = layers.is_empty() || layers.iter().any(|layer| is_strange(layer));
        (!strange).then_some(Overlay { layers })
    }

    /// What must be there for whoever opens `path`, links on the way included. With `names` also the names in it, if it is a
    /// directory. Nothing where nothing is there, and nothing of what links that lead in circles hide.
    pub fn expect(&self, path: &[u8], names: bool, expected: &mut HashSet<Expected>) {
        let root = directories(
            &self.layers,
            (0..self.layers.len()).map(|layer| (layer, InodeId(0))),
        );
        // Where we are: each directory's name and parts, the root first.
        let mut at: Vec<(&[u8], Parts)> = vec![(&[], root)];
        let mut left: Vec<&[u8]> = components(path).collect();
        left.reverse();
        let mut links = 0;
        while let Some(name) = left.pop() {
            if name == b".." {
                at.truncate(at.len().saturating_sub(1).max(1));
                continue;
            }
            if name == b"." {
                continue;
            }
            let Some((_, parts)) = at.last() else { return };
            match self.named(parts, name) {
                None => return,
                Some(Found::Directory(parts)) => at.push((name, parts)),
                Some(Found::Other(layer, _, inode)) if matches!(inode.kind, Kind::Symlink(_)) => {
                    let Kind::Symlink(target) = &inode.kind else {
                        return;
                    };
                    links += 1;
                    if links > MOST_LINKS {
                        return;
                    }
                    expected.insert(Expected {
                        path: full(&at, name),
                        layer,
                        what: What::Link(target.to_vec()),
                    });
                    if target.first() == Some(&b'/') {
                        at.truncate(1);
                    }
                    let mut more: Vec<&[u8]> = components(target).collect();
                    more.reverse();
                    left.extend(more);
                }
                Some(Found::Other(layer, id, _)) => {
                    // Something below a file is not there.
                    if left.is_empty()
                        && let Some(what) = self.file(layer, id)
                    {
                        let path = full(&at, name);
                        expected.insert(Expected { path, layer, what });
                    }
                    return;
                }
            }
        }
        if let Some(((name, parts), above)) = at.split_last().filter(|_| names) {
            let path = if above.is_empty() {
                Vec::new()
            } else {
                full(above, name)
            };
            expected.insert(Expected {
                path,
                layer: parts.first().map_or(0, |(layer, _)| *layer),
                what: What::Names(digest_of_names(self.names(parts))),
            });
        }
    }

    fn inode(&self, layer: usize, id: InodeId) -> &Inode {
        self.layers[layer].tree.inode(id)
    }

    fn named(&self, parts: &Parts, name: &[u8]) -> Option<Found<'_>> {
        let entry = |&(layer, id): &(usize, InodeId)| {
            let found = self.inode(layer, id).as_directory()?.get(name)?;
            Some((layer, found))
        };
        let found: Parts = parts.iter().filter_map(entry).collect();
        let &(layer, id) = found.first()?;
        let inode = self.inode(layer, id);
        if is_whiteout(inode) {
            return None;
        }
        Some(match inode.as_directory() {
            Some(_) => Found::Directory(directories(&self.layers, found.into_iter())),
            None => Found::Other(layer, id, inode),
        })
    }

    fn names(&self, parts: &Parts) -> Vec<Vec<u8>> {
        let all = parts.iter().flat_map(|&(layer, id)| {
            let entries = self.inode(layer, id).as_directory().into_iter();
            entries.flat_map(|entries| entries.iter().map(|(name, _)| name))
        });
        let all: HashSet<&[u8]> = all.collect();
        let there = all
            .into_iter()
            .filter(|name| self.named(parts, name).is_some());
        there.map(<[u8]>::to_vec).collect()
    }

    fn file(&self, layer: usize, id: InodeId) -> Option<What> {
        let manifest = &self.layers[layer];
        let file = manifest.files.get(id.index())?.as_ref()?;
        Some(What::File {
            size: file.size,
            block_size: manifest.block_size(),
            sum: sum(&manifest.digests(file)?),
        })
    }
}

/// The path of a name in the last of some nested directories.
fn full(at: &[(&[u8], Parts)], name: &[u8]) -> Vec<u8> {
    let above = at.iter().skip(1).map(|(name, _)| *name);
    above
        .chain([name])
        .fold(Vec::new(), |path, name| join(&path, name))
}

/// Returns the first of what must be below `root` that is not as it must be.
///
/// # Errors
/// `root` cannot be opened.
pub fn first_other<'e>(
    root: &Path,
    expected: &'e [Expected],
    threads: usize,
) -> Result<Option<&'e Expected>> {
    let base = Arc::new(Base::open(root)?);
    let sound = parallel::map(expected.len(), threads, |index| {
        Ok(expected.get(index).is_none_or(|one| one.holds(&base)))
    })?;
    let other = sound.iter().position(|sound| !sound);
    Ok(other.and_then(|index| expected.get(index)))
}

impl Expected {
    /// What cannot be read is not as it must be either.
    fn holds(&self, base: &Arc<Base>) -> bool {
        let path = PathBuf::from(std::ffi::OsStr::from_bytes(&self.path));
        match &self.what {
            What::Link(target) => fs::read_link(base.path.join(&path))
                .is_ok_and(|found| found.as_os_str().as_bytes() == target),
            What::File {
                size,
                block_size,
                sum: wanted,
            } => stat_at(&base.fd, &path).is_ok_and(|stat| {
                let content = Content::on_disk(Arc::clone(base), path, &stat);
                stat.stx_size == *size
                    && content
                        .digest(*block_size)
                        .is_ok_and(|d| sum(&d) == *wanted)
            }),
            What::Names(wanted) => {
                // No link on the way may lead elsewhere.
                let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC;
                let there =
                    path.as_os_str().is_empty() || open_beneath(&base.fd, &path, flags).is_ok();
                let names = || -> std::io::Result<Vec<Vec<u8>>> {
                    let entries = fs::read_dir(base.path.join(&path))?;
                    entries.map(|e| Ok(e?.file_name().into_vec())).collect()
                };
                there && names().is_ok_and(|names| digest_of_names(names) == *wanted)
            }
        }
    }
}

fn sum(digests: &BlockDigests) -> [u8; 32] {
    *blake3::hash(digests.blocks().as_flattened()).as_bytes()
}

fn digest_of_names(mut names: Vec<Vec<u8>>) -> [u8; 32] {
    names.sort();
    *blake3::hash(&names.join(&0)).as_bytes()
}
