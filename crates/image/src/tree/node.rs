//! What one inode is.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Content, InodeId, Xattr};

/// Owner, permissions, time and attributes of an inode.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Meta {
    /// The lower 12 bits of the mode: permissions, set-user-id, set-group-id and sticky.
    pub mode: u16,
    /// The owner.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// Last change in seconds since 1970, UTC.
    pub mtime: i64,
    /// Extended attributes, sorted by full name.
    pub xattrs: Arc<[Xattr]>,
}

impl Meta {
    /// Metadata of root's files, without extended attributes.
    pub fn root_owned(mode: u16, mtime: i64) -> Self {
        Meta {
            mode,
            mtime,
            ..Meta::default()
        }
    }

    /// Replaces the extended attributes; of two with one name the later counts.
    #[must_use]
    pub fn with_xattrs(mut self, xattrs: impl IntoIterator<Item = Xattr>) -> Self {
        let sorted: BTreeMap<Box<[u8]>, Xattr> =
            xattrs.into_iter().map(|x| (x.name.clone(), x)).collect();
        self.xattrs = sorted.into_values().collect();
        self
    }
}

/// The numbers of a device file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Device {
    /// Which driver.
    pub major: u32,
    /// Which of the driver's devices.
    pub minor: u32,
}

/// The type of an inode and what goes with it.
#[derive(Clone, Debug)]
pub enum Kind {
    /// Names and their inodes.
    Directory(Directory),
    /// A regular file.
    File(Content),
    /// A symbolic link with its target.
    Symlink(Box<[u8]>),
    /// A character device.
    CharDevice(Device),
    /// A block device.
    BlockDevice(Device),
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
}

/// A file without its name.
#[derive(Clone, Debug)]
pub struct Inode {
    /// Owner, permissions, time and attributes.
    pub meta: Meta,
    /// The type. Entries of a directory change through the [`Tree`](super::Tree) only.
    pub kind: Kind,
}

impl Inode {
    /// Makes an empty directory.
    pub fn directory(meta: Meta) -> Self {
        let kind = Kind::Directory(Directory::default());
        Inode { meta, kind }
    }

    /// Makes a regular file.
    pub fn file(meta: Meta, content: Content) -> Self {
        let kind = Kind::File(content);
        Inode { meta, kind }
    }

    /// Makes a symbolic link. Linux shows its mode as 0777 whatever is stored.
    pub fn symlink(meta: Meta, target: impl Into<Vec<u8>>) -> Self {
        let kind = Kind::Symlink(target.into().into_boxed_slice());
        Inode { meta, kind }
    }

    /// Returns the entries, if it is a directory.
    pub fn as_directory(&self) -> Option<&Directory> {
        match &self.kind {
            Kind::Directory(entries) => Some(entries),
            _ => None,
        }
    }
}

/// The entries of a directory, sorted by the bytes of their names.
#[derive(Clone, Debug, Default)]
pub struct Directory(BTreeMap<Box<[u8]>, InodeId>);

impl Directory {
    /// Returns the inode of a name.
    pub fn get(&self, name: &[u8]) -> Option<InodeId> {
        self.0.get(name).copied()
    }

    /// Names and inodes, sorted.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&[u8], InodeId)> {
        self.0.iter().map(|(name, id)| (name.as_ref(), *id))
    }

    /// Returns the number of names.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn insert(&mut self, name: Box<[u8]>, id: InodeId) {
        self.0.insert(name, id);
    }

    pub(super) fn remove(&mut self, name: &[u8]) -> Option<InodeId> {
        self.0.remove(name)
    }
}
