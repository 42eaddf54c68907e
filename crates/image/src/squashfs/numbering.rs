//! Inode numbers, and the order in which files are written.

use crate::tree::{Content, InodeId, Kind, Tree};
use crate::{Error, Result};

/// The inodes that can be reached, numbered from 1.
///
/// The entries of one directory have numbers in a row, because a directory header holds one number and small
/// differences to it.
pub(super) struct Numbering<'a> {
    /// Inodes in the order of their numbers; the root has number 1.
    pub(super) order: Vec<InodeId>,
    /// Regular files in the order of their numbers.
    pub(super) files: Vec<File<'a>>,
    /// Directories, each before those it holds.
    pub(super) directories: Vec<InodeId>,
    /// By [`InodeId::index`].
    facts: Vec<Facts>,
}

/// A regular file and the first of its names.
pub(super) struct File<'a> {
    pub(super) path: Vec<u8>,
    pub(super) content: &'a Content,
}

#[derive(Clone, Copy, Default)]
struct Facts {
    number: u32,
    names: u32,
    /// A file's place in `files`, a directory's parent's number.
    extra: u32,
}

impl<'a> Numbering<'a> {
    pub(super) fn new(tree: &'a Tree) -> Result<Self> {
        let mut numbering = Numbering {
            order: Vec::new(),
            files: Vec::new(),
            directories: Vec::new(),
            facts: vec![Facts::default(); tree.capacity()],
        };
        numbering.visit(tree)?;
        Ok(numbering)
    }

    /// The inode's number.
    pub(super) fn number(&self, id: InodeId) -> Result<u32> {
        Ok(self.facts(id)?.number)
    }

    /// How many names lead to it.
    pub(super) fn names(&self, id: InodeId) -> Result<u32> {
        Ok(self.facts(id)?.names)
    }

    /// A regular file's index in `files`.
    pub(super) fn file(&self, id: InodeId) -> Result<usize> {
        Ok(self.facts(id)?.extra as usize)
    }

    /// The number of a directory's parent. The root's is the number after the last, as in `mksquashfs`.
    pub(super) fn parent(&self, id: InodeId) -> Result<u32> {
        Ok(match self.facts(id)?.extra {
            0 => self.inodes().saturating_add(1),
            parent => parent,
        })
    }

    /// How many inodes there are.
    pub(super) fn inodes(&self) -> u32 {
        self.order.len() as u32
    }

    fn facts(&self, id: InodeId) -> Result<Facts> {
        let numbered = self.facts.get(id.index()).filter(|facts| facts.number != 0);
        numbered.copied().ok_or_else(no_number)
    }

    fn visit(&mut self, tree: &'a Tree) -> Result<()> {
        self.number_one(tree.root(), 0)?;
        let mut pending = vec![(Vec::new(), tree.root())];
        while let Some((path, directory)) = pending.pop() {
            self.directories.push(directory);
            let own = self.number(directory)?;
            let first = pending.len();
            for (name, id) in tree
                .inode(directory)
                .as_directory()
                .into_iter()
                .flat_map(|entries| entries.iter())
            {
                let fresh = self.number_one(id, own)?;
                match &tree.inode(id).kind {
                    Kind::Directory(_) => pending.push((join(&path, name), id)),
                    Kind::File(content) if fresh => {
                        self.add_file(id, join(&path, name), content)?;
                    }
                    _ => {}
                }
            }
            pending[first..].reverse();
        }
        Ok(())
    }

    /// Counts a name, and returns whether it was the inode's first.
    fn number_one(&mut self, id: InodeId, parent: u32) -> Result<bool> {
        let next = u32::try_from(self.order.len() + 1)
            .ok()
            .filter(|number| *number < u32::MAX)
            .ok_or_else(|| Error::input("a SquashFS holds fewer than 4,294,967,295 inodes"))?;
        let facts = self.facts.get_mut(id.index()).ok_or_else(no_number)?;
        facts.names += 1;
        if facts.number != 0 {
            return Ok(false);
        }
        facts.number = next;
        facts.extra = parent;
        self.order.push(id);
        Ok(true)
    }

    fn add_file(&mut self, id: InodeId, path: Vec<u8>, content: &'a Content) -> Result<()> {
        let facts = self.facts.get_mut(id.index()).ok_or_else(no_number)?;
        facts.extra = self.files.len() as u32;
        self.files.push(File { path, content });
        Ok(())
    }
}

fn no_number() -> Error {
    Error::internal("an inode of the tree has no number in the SquashFS")
}

fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    if directory.is_empty() {
        name.to_vec()
    } else {
        [directory, name].join(&b'/')
    }
}
