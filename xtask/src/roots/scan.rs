//! A tree on disk as a list of entries.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::Metadata;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::buffer::spare_capacity;
use rustix::io::Errno;

use crate::Result;

/// All entries by their path below the root; the root itself is `.`.
pub(crate) type Entries = BTreeMap<PathBuf, Entry>;

/// What a directory entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Directory,
    File { size: u64 },
    Symlink { target: PathBuf },
    Block { device: u64 },
    Character { device: u64 },
    Fifo,
    Socket,
}

impl Kind {
    /// For people.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Kind::Directory => "directory",
            Kind::File { .. } => "file",
            Kind::Symlink { .. } => "symbolic link",
            Kind::Block { .. } => "block device",
            Kind::Character { .. } => "character device",
            Kind::Fifo => "fifo",
            Kind::Socket => "socket",
        }
    }
}

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// What it is.
    pub(crate) kind: Kind,
    /// Permission bits with set-id and sticky bits.
    pub(crate) mode: u32,
    /// Owner and group.
    pub(crate) owner: (u32, u32),
    /// Seconds since 1970.
    pub(crate) mtime: i64,
    /// Extended attributes by name.
    pub(crate) xattrs: BTreeMap<OsString, Vec<u8>>,
    /// The first path, in order, of the same file; its own path unless it is a hard link of an earlier one.
    pub(crate) first_name: PathBuf,
}

/// Reads a whole tree, without following links.
pub(crate) fn scan(root: &Path) -> Result<Entries> {
    let mut entries = Entries::new();
    let mut inodes = BTreeMap::new();
    let mut open = vec![PathBuf::from(".")];
    while let Some(path) = open.pop() {
        let full = root.join(&path);
        let metadata = full
            .symlink_metadata()
            .map_err(|error| trouble(&full, &error))?;
        if metadata.is_dir() {
            open.extend(children(&full, &path)?);
        } else {
            inodes
                .entry((metadata.dev(), metadata.ino()))
                .or_insert_with(Vec::new)
                .push(path.clone());
        }
        let entry = entry(&full, &path, &metadata)?;
        entries.insert(path, entry);
    }
    for mut names in inodes.into_values() {
        names.sort();
        for name in &names {
            if let (Some(first), Some(entry)) = (names.first(), entries.get_mut(name)) {
                entry.first_name.clone_from(first);
            }
        }
    }
    Ok(entries)
}

fn children(full: &Path, path: &Path) -> Result<Vec<PathBuf>> {
    let listing = full.read_dir().map_err(|error| trouble(full, &error))?;
    let join = |name: OsString| {
        if path == Path::new(".") {
            PathBuf::from(name)
        } else {
            path.join(name)
        }
    };
    listing
        .map(|child| {
            child
                .map(|child| join(child.file_name()))
                .map_err(|error| trouble(full, &error))
        })
        .collect()
}

fn entry(full: &Path, path: &Path, metadata: &Metadata) -> Result<Entry> {
    let kind = match metadata.file_type() {
        kind if kind.is_dir() => Kind::Directory,
        kind if kind.is_file() => Kind::File {
            size: metadata.size(),
        },
        kind if kind.is_symlink() => Kind::Symlink {
            target: full.read_link().map_err(|error| trouble(full, &error))?,
        },
        kind if kind.is_block_device() => Kind::Block {
            device: metadata.rdev(),
        },
        kind if kind.is_char_device() => Kind::Character {
            device: metadata.rdev(),
        },
        kind if kind.is_fifo() => Kind::Fifo,
        _ => Kind::Socket,
    };
    Ok(Entry {
        kind,
        mode: metadata.mode() & 0o7777,
        owner: (metadata.uid(), metadata.gid()),
        mtime: metadata.mtime(),
        xattrs: xattrs(full)?,
        first_name: path.to_path_buf(),
    })
}

fn xattrs(full: &Path) -> Result<BTreeMap<OsString, Vec<u8>>> {
    let mut names = Vec::with_capacity(1 << 16);
    match rustix::fs::llistxattr(full, spare_capacity(&mut names)) {
        Ok(_) => {}
        Err(Errno::NOTSUP) => return Ok(BTreeMap::new()),
        Err(error) => return Err(trouble(full, &error.into())),
    }
    let mut all = BTreeMap::new();
    for name in names
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
    {
        let name = OsString::from_vec(name.to_vec());
        let mut value = Vec::with_capacity(1 << 16);
        rustix::fs::lgetxattr(full, &name, spare_capacity(&mut value))
            .map_err(|error| trouble(full, &error.into()))?;
        all.insert(name, value);
    }
    Ok(all)
}

fn trouble(path: &Path, error: &std::io::Error) -> String {
    format!("reading {}: {error}", path.display())
}
