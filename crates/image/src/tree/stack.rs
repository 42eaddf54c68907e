//! The tree that an overlay of layers shows, computed from their manifests.
//!
//! The rules are overlayfs's (kernel, `Documentation/filesystems/overlayfs.rst`): a name comes from the topmost layer that has it; a
//! character device 0:0 (whiteout) hides it; directories are merged, down to one that is opaque or to
//! something that is no directory; a merged directory has the owner, mode, time and attributes of the topmost.
//! With `userxattr`, as Kiln mounts, directories are never redirected and files are never copied up without their data.

use std::borrow::Borrow;
use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::content::{Base, Content};
use super::manifest::Manifest;
use super::node::{Device, Inode, Kind, Meta};
use super::walk::join;
use super::xattr::is_overlay_private;
use super::{InodeId, ScanOptions, Tree};
use crate::Result;

/// Marks a directory that hides those of lower layers, by `y`.
const OPAQUE: &[u8] = b"user.overlay.opaque";
/// What the rules above do not know.
const UNKNOWN: [&[u8]; 3] = [
    b"user.overlay.redirect",
    b"user.overlay.metacopy",
    b"user.overlay.whiteout",
];

impl Tree {
    /// Merges layers, the top one first, as [`Tree::scan`] would see their overlay.
    ///
    /// `roots` are where the layers' files can be opened when they have to be read, one for each layer: the layer's own
    /// directory, or the overlay. Returns `None` where a layer has marks that Kiln's overlays do not make: then the overlay has to
    /// be scanned.
    ///
    /// # Errors
    /// A root cannot be opened.
    pub fn stack(
        layers: &[Manifest],
        roots: &[PathBuf],
        options: &ScanOptions,
    ) -> Result<Option<Tree>> {
        if layers.is_empty() || layers.len() != roots.len() || layers.iter().any(is_strange) {
            return Ok(None);
        }
        let mut merge = Merge {
            layers,
            bases: bases(roots)?,
            options,
            known: layers.iter().map(|_| HashMap::new()).collect(),
            tree: Tree::new(Meta::default()),
        };
        merge.run()?;
        merge.skipped();
        Ok(Some(merge.tree))
    }
}

/// Returns the layer that a file of the merged tree comes from, by its place in `layers`, the top one first.
pub fn provider(layers: &[Manifest], path: &[u8]) -> Option<usize> {
    layers.iter().position(|layer| {
        let found = layer.tree.lookup(path);
        found.is_some_and(|id| matches!(layer.tree.inode(id).kind, Kind::File(_)))
    })
}

fn bases(roots: &[PathBuf]) -> Result<Vec<Arc<Base>>> {
    let mut opened: HashMap<&Path, Arc<Base>> = HashMap::new();
    let mut bases = Vec::with_capacity(roots.len());
    for root in roots {
        let base = match opened.get(root.as_path()) {
            Some(base) => Arc::clone(base),
            None => Arc::new(Base::open(root)?),
        };
        opened.insert(root, Arc::clone(&base));
        bases.push(base);
    }
    Ok(bases)
}

pub(super) fn is_strange(layer: &Manifest) -> bool {
    layer.tree.inodes.iter().any(|inode| {
        let mut xattrs = inode.meta.xattrs.iter();
        xattrs.any(|x| {
            UNKNOWN.contains(&&*x.name) || (&*x.name == OPAQUE && x.value.first() == Some(&b'x'))
        })
    })
}

/// A directory in the layers that have a part in it, the top one first.
pub(super) type Parts = Vec<(usize, InodeId)>;

/// Those from the top on that are merged: down to an opaque directory, or to something else.
pub(super) fn directories<M: Borrow<Manifest>>(
    layers: &[M],
    found: impl Iterator<Item = (usize, InodeId)>,
) -> Parts {
    let mut parts = Parts::new();
    for (layer, id) in found {
        let inode = layers[layer].borrow().tree.inode(id);
        if inode.as_directory().is_none() {
            break;
        }
        parts.push((layer, id));
        let mut xattrs = inode.meta.xattrs.iter();
        if xattrs.any(|x| &*x.name == OPAQUE && &*x.value == b"y") {
            break;
        }
    }
    parts
}

struct Merge<'a> {
    layers: &'a [Manifest],
    bases: Vec<Arc<Base>>,
    options: &'a ScanOptions,
    /// By layer: inodes that were taken over, as their other names are the same inode.
    known: Vec<HashMap<InodeId, InodeId>>,
    tree: Tree,
}

impl<'a> Merge<'a> {
    fn run(&mut self) -> Result<()> {
        let root = self.tree.root();
        let all = (0..self.layers.len()).map(|layer| (layer, root));
        let parts = directories(self.layers, all);
        if let Some((layer, id)) = parts.first() {
            self.tree.inode_mut(root).meta = self.meta(&self.inode(*layer, *id).meta);
        }
        let mut pending = vec![(Vec::new(), root, parts)];
        while let Some((path, directory, parts)) = pending.pop() {
            for (name, found) in self.names(&parts) {
                let child = join(&path, name);
                if self.options.exclude.iter().any(|p| p.matches(&child)) {
                    continue;
                }
                let Some(&(layer, id)) = found.first() else {
                    continue;
                };
                let inode = self.inode(layer, id);
                if is_whiteout(inode) {
                    continue;
                }
                let new = self.take(layer, id, inode, &child)?;
                self.tree.attach(directory, name.into(), new);
                if inode.as_directory().is_some() {
                    pending.push((child, new, directories(self.layers, found.into_iter())));
                }
            }
        }
        Ok(())
    }

    fn inode(&self, layer: usize, id: InodeId) -> &'a Inode {
        self.layers[layer].tree.inode(id)
    }

    /// All names with the layers that have them, the top one first.
    fn names(&self, parts: &Parts) -> Vec<(&'a [u8], Parts)> {
        let entries = |&(layer, id): &(usize, InodeId)| {
            let entries = self.inode(layer, id).as_directory().into_iter();
            entries.flat_map(move |e| e.iter().map(move |(name, id)| (name, (layer, id))))
        };
        if let [one] = parts.as_slice() {
            return entries(one).map(|(name, at)| (name, vec![at])).collect();
        }
        let mut names: BTreeMap<&[u8], Parts> = BTreeMap::new();
        for (name, at) in parts.iter().flat_map(entries) {
            names.entry(name).or_default().push(at);
        }
        names.into_iter().collect()
    }

    fn take(&mut self, layer: usize, id: InodeId, inode: &Inode, path: &[u8]) -> Result<InodeId> {
        if let Some(known) = self.known[layer].get(&id) {
            return Ok(*known);
        }
        let kind = match &inode.kind {
            Kind::Directory(_) => Kind::Directory(super::Directory::default()),
            Kind::File(_) => Kind::File(self.content(layer, id, path)),
            other => other.clone(),
        };
        let meta = self.meta(&inode.meta);
        let new = self.tree.push(Inode { meta, kind })?;
        if inode.as_directory().is_none() {
            self.known[layer].insert(id, new);
        }
        Ok(new)
    }

    fn content(&self, layer: usize, id: InodeId, path: &[u8]) -> Content {
        let manifest = &self.layers[layer];
        let Some(file) = manifest.files.get(id.index()).copied().flatten() else {
            return Content::zeros(0);
        };
        let relative = PathBuf::from(OsStr::from_bytes(path));
        let base = Arc::clone(&self.bases[layer]);
        let content = Content::recorded(base, relative, file.size, file.mtime);
        match manifest.digests(&file) {
            Some(digests) => content.with_digests(digests),
            None => content,
        }
    }

    fn meta(&self, meta: &Meta) -> Meta {
        let mut meta = meta.clone();
        if let Some(max) = self.options.clamp_mtime {
            meta.mtime = meta.mtime.min(max);
        }
        let dropped = |name: &[u8]| {
            let mut prefixes = self.options.drop_xattrs.iter();
            is_overlay_private(name) || prefixes.any(|prefix| name.starts_with(prefix))
        };
        if meta.xattrs.iter().any(|x| dropped(&x.name)) {
            let kept = meta.xattrs.iter().filter(|x| !dropped(&x.name));
            meta.xattrs = kept.cloned().collect();
        }
        meta
    }

    /// Takes over what the scans of the layers left out, of inodes that are in the tree.
    fn skipped(&mut self) {
        let mut skipped = Vec::new();
        for (number, layer) in self.layers.iter().enumerate() {
            for one in &layer.tree.skipped {
                let there = self.tree.lookup(&one.path);
                let old = layer.tree.lookup(&one.path);
                let same = there.is_some()
                    && (old.and_then(|old| self.known[number].get(&old)).copied() == there
                        || provider_of_directory(self.layers, &one.path) == Some(number));
                if same {
                    skipped.push(one.clone());
                }
            }
        }
        skipped.sort_by(|a, b| {
            a.path
                .split(|b| *b == b'/')
                .cmp(b.path.split(|b| *b == b'/'))
        });
        self.tree.skipped = skipped;
    }
}

/// The topmost layer that has this path as a directory.
fn provider_of_directory(layers: &[Manifest], path: &[u8]) -> Option<usize> {
    layers.iter().position(|layer| {
        let found = layer.tree.lookup(path);
        found.is_some_and(|id| layer.tree.inode(id).as_directory().is_some())
    })
}

pub(super) fn is_whiteout(inode: &Inode) -> bool {
    const WHITEOUT: Device = Device { major: 0, minor: 0 };
    matches!(&inode.kind, Kind::CharDevice(device) if *device == WHITEOUT)
}
