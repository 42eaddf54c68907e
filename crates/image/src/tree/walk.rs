//! Walking a tree without recursion: depth is the input's, the stack is ours.

use super::{Inode, InodeId, Tree};

/// One name of a tree.
#[derive(Debug)]
pub struct Entry<'a> {
    /// The path without a leading slash; empty for the root.
    pub path: Vec<u8>,
    /// Which inode.
    pub id: InodeId,
    /// The inode.
    pub inode: &'a Inode,
}

/// See [`Tree::walk`].
#[derive(Debug)]
pub struct Walk<'a> {
    tree: &'a Tree,
    pending: Vec<(Vec<u8>, InodeId)>,
}

impl<'a> Walk<'a> {
    pub(super) fn new(tree: &'a Tree) -> Self {
        Walk {
            tree,
            pending: vec![(Vec::new(), tree.root())],
        }
    }
}

impl<'a> Iterator for Walk<'a> {
    type Item = Entry<'a>;

    fn next(&mut self) -> Option<Entry<'a>> {
        let (path, id) = self.pending.pop()?;
        let inode = self.tree.inode(id);
        if let Some(entries) = inode.as_directory() {
            let children = entries.iter().rev();
            self.pending
                .extend(children.map(|(name, child)| (join(&path, name), child)));
        }
        Some(Entry { path, id, inode })
    }
}

/// `directory/name`, or the name alone in the root.
pub(super) fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    let mut path = Vec::with_capacity(directory.len() + 1 + name.len());
    path.extend_from_slice(directory);
    if !path.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(name);
    path
}
