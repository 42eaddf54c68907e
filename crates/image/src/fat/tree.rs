//! What goes into the file system.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

use super::name;
use crate::error::{Error, IoContext, Result};

/// Where a file's content comes from.
#[derive(Debug)]
pub enum Source {
    /// Bytes in memory.
    Bytes(Vec<u8>),
    /// A part of an open file. Holes stay holes.
    File {
        /// Open for reading.
        file: File,
        /// First byte.
        offset: u64,
        /// Number of bytes.
        len: u64,
    },
}

impl Source {
    /// Returns the whole of an open file, at its present size.
    ///
    /// # Errors
    /// The size cannot be told.
    pub fn whole(file: File) -> Result<Self> {
        let len = file
            .metadata()
            .doing(|| "looking at the size of a file for the EFI partition".into())?
            .len();
        Ok(Source::File {
            file,
            offset: 0,
            len,
        })
    }

    /// Returns the file at a host path.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).doing(|| format!("opening {}", path.display()))?;
        Source::whole(file)
    }

    /// Size in bytes.
    pub fn len(&self) -> u64 {
        match self {
            Source::Bytes(bytes) => bytes.len() as u64,
            Source::File { len, .. } => *len,
        }
    }

    /// Returns whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl From<Vec<u8>> for Source {
    fn from(bytes: Vec<u8>) -> Self {
        Source::Bytes(bytes)
    }
}

impl From<&str> for Source {
    fn from(text: &str) -> Self {
        Source::Bytes(text.into())
    }
}

impl From<String> for Source {
    fn from(text: String) -> Self {
        Source::Bytes(text.into())
    }
}

/// Deepest nesting of directories; Windows ends at about this many.
const MAX_DEPTH: usize = 64;
/// Largest file of FAT in bytes: its size is a u32.
pub const MAX_FILE: u64 = u32::MAX as u64;

#[derive(Debug)]
pub(super) enum Node {
    Directory(Directory),
    File(Source),
    /// The file that is in the target already; its length.
    Ahead(u64),
}

/// Entries by their caseless key, with the name as given.
#[derive(Debug, Default)]
pub(super) struct Directory {
    pub(super) entries: BTreeMap<String, (String, Node)>,
}

/// A tree of directories and files.
#[derive(Debug, Default)]
pub struct FatTree {
    pub(super) root: Directory,
    /// The length of the file that is in the target already.
    pub(super) ahead: Option<u64>,
}

impl FatTree {
    /// Makes an empty tree.
    pub fn new() -> Self {
        FatTree::default()
    }

    /// Adds a file at `path` (`EFI/BOOT/BOOTX64.EFI`, a leading slash does not matter), and the directories above it.
    ///
    /// # Errors
    /// A name that FAT does not allow, a path that is taken (FAT ignores case), or a file of 4 GiB and more.
    pub fn add_file(&mut self, path: &str, source: impl Into<Source>) -> Result<()> {
        let source = source.into();
        self.add(path, source.len(), Node::File(source))
    }

    /// Adds the file whose `len` bytes were written to byte [`super::FatImage::AHEAD`] of the volume before the volume was laid out.
    ///
    /// # Errors
    /// As [`FatTree::add_file`]; and a tree has one such file.
    pub fn add_file_ahead(&mut self, path: &str, len: u64) -> Result<()> {
        if self.ahead.is_some() {
            return Err(Error::new(
                crate::ErrorKind::Internal,
                format!("`{path}` would be the second file ahead of a FAT volume"),
            ));
        }
        self.add(path, len, Node::Ahead(len))?;
        self.ahead = Some(len);
        Ok(())
    }

    fn add(&mut self, path: &str, len: u64, node: Node) -> Result<()> {
        if len > MAX_FILE {
            return Err(Error::input(format!(
                "`{path}` has {len} bytes; a file on FAT32 has at most {MAX_FILE}"
            ))
            .with_hint("put it on a partition of its own"));
        }
        let (parent, last) = split(path);
        name::check(last)?;
        let directory = self.directory(parent, path)?;
        let key = name::key(last);
        if let Some((taken, _)) = directory.entries.get(&key) {
            return Err(
                Error::input(format!("`{path}` is there already (as `{taken}`)"))
                    .with_hint("FAT does not tell upper from lower case"),
            );
        }
        directory.entries.insert(key, (last.to_owned(), node));
        Ok(())
    }

    /// Adds a directory and those above it; one that is there already is fine.
    ///
    /// # Errors
    /// A name that FAT does not allow, or a file in its way.
    pub fn add_directory(&mut self, path: &str) -> Result<()> {
        self.directory(path.trim_matches('/'), path).map(|_| ())
    }

    fn directory(&mut self, parent: &str, path: &str) -> Result<&mut Directory> {
        if parent.split('/').count() > MAX_DEPTH {
            return Err(Error::input(format!(
                "a path on the EFI partition has more than {MAX_DEPTH} directories"
            )));
        }
        let mut at = &mut self.root;
        for part in parent.split('/').filter(|p| !p.is_empty()) {
            name::check(part)?;
            let (_, node) = at
                .entries
                .entry(name::key(part))
                .or_insert_with(|| (part.to_owned(), Node::Directory(Directory::default())));
            at = match node {
                Node::Directory(directory) => directory,
                Node::File(_) | Node::Ahead(_) => {
                    return Err(Error::input(format!(
                        "`{path}` needs a directory `{part}`, which is a file"
                    )));
                }
            };
        }
        Ok(at)
    }
}

fn split(path: &str) -> (&str, &str) {
    let path = path.trim_start_matches('/');
    path.rsplit_once('/').unwrap_or(("", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clashes_are_named() {
        let mut tree = FatTree::new();
        tree.add_file("/EFI/BOOT/x.cfg", "1").unwrap();
        tree.add_directory("efi/boot").unwrap();
        let twice = tree.add_file("efi/Boot/X.CFG", "2").unwrap_err();
        assert_eq!(
            twice.to_string(),
            "`efi/Boot/X.CFG` is there already (as `x.cfg`)"
        );
        assert!(tree.add_file("EFI/BOOT/x.cfg/y", "").is_err());
        assert!(tree.add_file("EFI", "").is_err());
        assert!(tree.add_file("", "").is_err());
        assert!(tree.add_file("a//", "").is_err());
        assert!(tree.add_directory("../x").is_err());
        assert!(tree.add_directory(&"d/".repeat(100_000)).is_err());
    }

    #[test]
    fn four_gigabytes_do_not_fit() {
        let source = |len| Source::File {
            file: tempfile::tempfile().unwrap(),
            offset: 0,
            len,
        };
        let mut tree = FatTree::new();
        assert!(tree.add_file("a", source(1 << 32)).is_err());
        assert!(tree.add_file("a", source((1 << 32) - 1)).is_ok());
    }
}
