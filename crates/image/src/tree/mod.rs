//! A file tree as an image holds it: names, owners, modes, times, attributes and where contents come from.
//!
//! A [`Tree`] is read from a directory with [`Tree::scan`], made in memory with [`Tree::new`], or both: everything that
//! was read can be overridden before the tree is written. Inodes and names are apart, as in the kernel, so a hard link is
//! two names of one [`InodeId`].
//!
//! What is absent: no file is read before it is written to an image; contents stay on disk and are opened through
//! [`Content`].

mod content;
mod digest;
mod exclude;
mod expect;
mod manifest;
mod node;
mod scan;
mod stack;
mod walk;
mod xattr;

pub use content::{Content, ContentReader};
pub use digest::{BlockDigests, Digest, ZEROS};
pub(crate) use digest::{digest, is_zero};
pub use exclude::Pattern;
pub use expect::{Expected, Overlay, first_other};
pub use manifest::Manifest;
pub use node::{Device, Directory, Inode, Kind, Meta};
pub use scan::ScanOptions;
pub use stack::provider;
pub use walk::{Entry, Walk};
pub use xattr::Xattr;

use crate::error::show;
use crate::{Error, ErrorKind, Result};

/// The longest file name in bytes: Linux's `NAME_MAX`.
pub const NAME_MAX: usize = 255;
/// The longest symbolic link target in bytes: Linux's `PATH_MAX` without the closing zero.
pub const TARGET_MAX: usize = 4095;

/// An inode of one [`Tree`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InodeId(u32);

impl InodeId {
    /// Returns the place in a dense table of [`Tree::capacity`] entries.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// Inodes and the names that lead to them.
#[derive(Clone, Debug)]
pub struct Tree {
    inodes: Vec<Inode>,
    skipped: Vec<Skipped>,
}

/// Something the source has and no image can hold, left out by [`Tree::scan`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// The path in the tree, without a leading slash.
    pub path: Vec<u8>,
    /// What was left out: the name of the extended attribute.
    pub attribute: Vec<u8>,
}

impl Tree {
    /// Makes a tree of one directory.
    pub fn new(root: Meta) -> Self {
        Tree {
            inodes: vec![Inode::directory(root)],
            skipped: Vec::new(),
        }
    }

    /// Returns the root directory.
    pub fn root(&self) -> InodeId {
        InodeId(0)
    }

    /// Returns what [`Tree::scan`] could not take over, in tree order.
    pub fn skipped(&self) -> &[Skipped] {
        &self.skipped
    }

    /// Returns one more than the largest [`InodeId::index`]; inodes without a name count too.
    pub fn capacity(&self) -> usize {
        self.inodes.len()
    }

    /// Returns the inode. An id of another tree gives another inode or the root; ids are never forged.
    pub fn inode(&self, id: InodeId) -> &Inode {
        self.inodes.get(id.index()).unwrap_or(&self.inodes[0])
    }

    /// Returns the inode, to change its metadata or content. All names of a hard link see the change.
    pub fn inode_mut(&mut self, id: InodeId) -> &mut Inode {
        let index = if id.index() < self.inodes.len() {
            id.index()
        } else {
            0
        };
        &mut self.inodes[index]
    }

    /// Finds a path such as `usr/bin/env`; leading and doubled slashes do not count, symbolic links are not followed.
    pub fn lookup(&self, path: impl AsRef<[u8]>) -> Option<InodeId> {
        components(path.as_ref()).try_fold(self.root(), |at, name| {
            self.inode(at).as_directory()?.get(name)
        })
    }

    /// Names this inode `path`; what had the name before loses it. A directory that was there keeps its entries when the
    /// new inode is a directory too.
    ///
    /// # Errors
    /// The parent does not exist or is no directory, or the last name is not valid.
    pub fn insert(&mut self, path: impl AsRef<[u8]>, inode: Inode) -> Result<InodeId> {
        check_inode(path.as_ref(), &inode)?;
        let (parent, name) = self.slot(path.as_ref())?;
        if let Some(id) = self.merge_directory(parent, &name, &inode) {
            return Ok(id);
        }
        let id = self.push(inode)?;
        self.attach(parent, name, id);
        Ok(id)
    }

    /// Like [`Tree::insert`], but makes missing parents as directories with `meta`.
    ///
    /// # Errors
    /// A parent is there and is no directory, or a name is not valid.
    pub fn insert_all(
        &mut self,
        path: impl AsRef<[u8]>,
        inode: Inode,
        meta: &Meta,
    ) -> Result<InodeId> {
        let path = path.as_ref();
        let names: Vec<&[u8]> = components(path).collect();
        for depth in 1..names.len() {
            let parent = names[..depth].join(&b'/');
            if self.lookup(&parent).is_none() {
                self.insert(&parent, Inode::directory(meta.clone()))?;
            }
        }
        self.insert(path, inode)
    }

    /// Adds a name to an inode: a hard link.
    ///
    /// # Errors
    /// The inode is a directory, the parent is none, or the name is not valid.
    pub fn link(&mut self, path: impl AsRef<[u8]>, id: InodeId) -> Result<()> {
        let path = path.as_ref();
        if id.index() >= self.inodes.len() || self.inode(id).as_directory().is_some() {
            return Err(Error::input(format!(
                "{} cannot be a second name of a directory",
                show(path)
            )));
        }
        let (parent, name) = self.slot(path)?;
        self.attach(parent, name, id);
        Ok(())
    }

    /// Takes a name away, with everything below it. Other names of the same inode stay.
    ///
    /// Returns whether the name was there. The root stays.
    pub fn remove(&mut self, path: impl AsRef<[u8]>) -> bool {
        let Ok((parent, name)) = self.slot(path.as_ref()) else {
            return false;
        };
        self.entries_mut(parent)
            .is_some_and(|entries| entries.remove(&name).is_some())
    }

    /// Replaces what a regular file holds; owner, mode and time stay.
    ///
    /// # Errors
    /// The path is missing or no regular file.
    pub fn set_content(&mut self, path: impl AsRef<[u8]>, content: Content) -> Result<()> {
        let path = path.as_ref();
        let id = self
            .lookup(path)
            .ok_or_else(|| Error::input(format!("{} is not in the tree", show(path))))?;
        match &mut self.inode_mut(id).kind {
            Kind::File(old) => {
                *old = content;
                Ok(())
            }
            _ => Err(Error::input(format!("{} is no regular file", show(path)))),
        }
    }

    /// Returns all names, each directory before what it holds, sorted by the bytes of the names.
    pub fn walk(&self) -> Walk<'_> {
        Walk::new(self)
    }

    fn push(&mut self, inode: Inode) -> Result<InodeId> {
        let id = u32::try_from(self.inodes.len()).map_err(|_| {
            Error::new(ErrorKind::Input, "a tree holds at most 4,294,967,295 files")
        })?;
        self.inodes.push(inode);
        Ok(InodeId(id))
    }

    fn merge_directory(&mut self, parent: InodeId, name: &[u8], new: &Inode) -> Option<InodeId> {
        let fresh = new.as_directory()?;
        let id = self.inode(parent).as_directory()?.get(name)?;
        let old = self.inode_mut(id);
        if old.as_directory().is_none() || !fresh.is_empty() {
            return None;
        }
        old.meta = new.meta.clone();
        Some(id)
    }

    fn slot(&self, path: &[u8]) -> Result<(InodeId, Box<[u8]>)> {
        let mut names: Vec<&[u8]> = components(path).collect();
        let name = names
            .pop()
            .ok_or_else(|| Error::input("the root of a tree cannot be replaced or removed"))?;
        check_name(path, name)?;
        let parent = names.join(&b'/');
        match self.lookup(&parent) {
            Some(id) if self.inode(id).as_directory().is_some() => Ok((id, name.into())),
            Some(_) => Err(Error::input(format!("{} is no directory", show(&parent)))
                .with_hint(format!("{} was to be put into it", show(path)))),
            None => Err(
                Error::input(format!("{} is not in the tree", show(&parent)))
                    .with_hint(format!("{} was to be put into it", show(path))),
            ),
        }
    }

    fn entries_mut(&mut self, id: InodeId) -> Option<&mut Directory> {
        match &mut self.inode_mut(id).kind {
            Kind::Directory(entries) => Some(entries),
            _ => None,
        }
    }

    fn attach(&mut self, parent: InodeId, name: Box<[u8]>, id: InodeId) {
        if let Some(entries) = self.entries_mut(parent) {
            entries.insert(name, id);
        }
    }
}

fn components(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|b| *b == b'/').filter(|name| !name.is_empty())
}

fn check_name(path: &[u8], name: &[u8]) -> Result<()> {
    let fault = if name.len() > NAME_MAX {
        "is longer than 255 bytes"
    } else if name == b"." || name == b".." {
        "is reserved"
    } else if name.contains(&0) {
        "holds a zero byte"
    } else {
        return Ok(());
    };
    Err(Error::input(format!(
        "the last name of {} {fault}",
        show(path)
    )))
}

fn check_inode(path: &[u8], inode: &Inode) -> Result<()> {
    let Kind::Symlink(target) = &inode.kind else {
        return Ok(());
    };
    if target.is_empty() || target.len() > TARGET_MAX || target.contains(&0) {
        return Err(Error::input(format!(
            "the symbolic link {} has a target of {} bytes; 1 to {TARGET_MAX} without a zero byte are possible",
            show(path),
            target.len()
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
