//! One entry of a package into the root, by dpkg's rules (`tarobject` of dpkg 1.21 and 1.22).
//!
//! What is there already decides: an existing directory, or a link to one, stays as it is; a directory never becomes a
//! link; a configuration file goes beside its place as `.dpkg-new`; everything else replaces what is there. Contents
//! come from the pool by rename.

use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};

use kiln_packages::debian::contents::Kind;
use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, Uid, chmodat, chownat, mknodat, utimensat};
use rustix::io::Errno;

use super::dress::times;
use super::index::Item;

/// What dpkg puts behind the name of a configuration file that it has not installed yet.
pub(super) const NEW: &str = ".dpkg-new";

/// Owner, group and mode.
pub(super) type Dress = (u32, u32, u32);

/// A root, and the pool in it.
pub(super) struct Tree<'a> {
    pub(super) root: &'a Path,
    /// The package's directory in the pool.
    pub(super) pool: PathBuf,
    /// Contents are linked rather than moved, because they will be placed again.
    pub(super) again: bool,
}

impl Tree<'_> {
    /// A path of the root on disk.
    pub(super) fn at(&self, path: &OsStr) -> PathBuf {
        let path = Path::new(path);
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// What is at a path, links not followed.
    pub(super) fn look(&self, path: &OsStr) -> io::Result<Option<Metadata>> {
        absent(fs::symlink_metadata(self.at(path)))
    }

    /// Whether an entry need not be made because a directory is there (dpkg's `existingdir`).
    pub(super) fn is_there(
        &self,
        item: &Item,
        path: &OsStr,
        there: Option<&Metadata>,
    ) -> io::Result<bool> {
        let Some(there) = there else { return Ok(false) };
        match &item.entry.kind {
            Kind::Directory => {
                if there.is_dir() {
                    return Ok(true);
                }
                let followed = absent(fs::metadata(self.at(path)))?;
                Ok(followed.is_some_and(|m| m.is_dir()))
            }
            Kind::Symlink(_) if there.is_dir() => Ok(true),
            Kind::Symlink(target) if there.is_symlink() => self.same_directory(path, target),
            _ => Ok(false),
        }
    }

    /// Whether a link that is there leads to the same directory as one that would replace it.
    fn same_directory(&self, path: &OsStr, target: &OsStr) -> io::Result<bool> {
        let old = absent(fs::metadata(self.at(path)))?;
        let place = self.at(path);
        let new = match Path::new(target).strip_prefix("/") {
            Ok(inside) => self.root.join(inside),
            Err(_) => place.parent().unwrap_or(self.root).join(target),
        };
        let new = absent(fs::metadata(new))?;
        Ok(match (old, new) {
            (Some(old), Some(new)) => {
                old.is_dir() && new.is_dir() && (old.dev(), old.ino()) == (new.dev(), new.ino())
            }
            _ => false,
        })
    }

    /// Whether a configuration file can go beside this place: nothing is there, or a file, or a link to one or to
    /// nothing.
    pub(super) fn takes_conffile(&self, path: &OsStr) -> bool {
        match fs::metadata(self.at(path)) {
            Ok(there) => there.is_file(),
            Err(e) => Errno::from_io_error(&e) != Some(Errno::LOOP),
        }
    }

    /// Makes an entry at `path`. `link` is where a hard link's other name is.
    pub(super) fn make(
        &self,
        item: &Item,
        path: &OsStr,
        there: Option<&Metadata>,
        dress: Dress,
        link: Option<&OsStr>,
    ) -> io::Result<()> {
        let place = self.at(path);
        if let Some(there) = there {
            self.clear(&place, there, &item.entry.kind)?;
        }
        let entry = &item.entry;
        match &entry.kind {
            Kind::File(_) => return self.file(item, &place, dress),
            Kind::HardLink(_) => {
                let unknown = || io::Error::other("the other name of a hard link is unknown");
                fs::hard_link(self.at(link.ok_or_else(unknown)?), &place)?;
            }
            Kind::Symlink(target) => symlink(target, &place)?,
            Kind::Directory => fs::create_dir(&place)?,
            Kind::Fifo => mknodat(CWD, &place, FileType::Fifo, Mode::from_raw_mode(0o600), 0)?,
            Kind::Device => return Err(io::Error::other("devices cannot be made")),
        }
        let is_link = matches!(entry.kind, Kind::Symlink(_));
        own(&place, dress)?;
        if !is_link {
            chmodat(CWD, &place, Mode::from_raw_mode(dress.2), AtFlags::empty())?;
        }
        Ok(utimensat(
            CWD,
            &place,
            &times(entry.mtime),
            AtFlags::SYMLINK_NOFOLLOW,
        )?)
    }

    /// Takes away what cannot be replaced by a rename.
    fn clear(&self, place: &Path, there: &Metadata, kind: &Kind) -> io::Result<()> {
        if there.is_dir() {
            fs::remove_dir_all(place)
        } else if matches!(kind, Kind::File(_)) && !self.again && there.nlink() == 1 {
            // A file with more names may be the very one that is to come, which a rename would leave alone.
            Ok(())
        } else {
            fs::remove_file(place)
        }
    }

    fn file(&self, item: &Item, place: &Path, dress: Dress) -> io::Result<()> {
        let number = item
            .blob
            .ok_or_else(|| io::Error::other("the pool does not have it"))?;
        let blob = self.pool.join(number.to_string());
        let entry = &item.entry;
        if dress != (entry.owner.0, entry.owner.1, entry.mode) {
            own(&blob, dress)?;
            chmodat(CWD, &blob, Mode::from_raw_mode(dress.2), AtFlags::empty())?;
            utimensat(CWD, &blob, &times(entry.mtime), AtFlags::empty())?;
        }
        if self.again {
            fs::hard_link(blob, place)
        } else {
            fs::rename(blob, place)
        }
    }

    /// A copy of a file's content with all that belongs to it, where a link would be the same file twice.
    pub(super) fn copy(&self, item: &Item, path: &OsStr, dress: Dress) -> io::Result<()> {
        let number = item
            .blob
            .ok_or_else(|| io::Error::other("the pool does not have it"))?;
        let place = self.at(path);
        if let Some(there) = self.look(path)? {
            self.clear(&place, &there, &Kind::Fifo)?;
        }
        fs::copy(self.pool.join(number.to_string()), &place)?;
        own(&place, dress)?;
        chmodat(CWD, &place, Mode::from_raw_mode(dress.2), AtFlags::empty())?;
        Ok(utimensat(
            CWD,
            &place,
            &times(item.entry.mtime),
            AtFlags::empty(),
        )?)
    }
}

fn absent(found: io::Result<Metadata>) -> io::Result<Option<Metadata>> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(e) => match Errno::from_io_error(&e) {
            Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
            _ => Err(e),
        },
    }
}

/// Gives a file to its owner, if it is not the owner's already.
fn own(place: &Path, (uid, gid, _): Dress) -> io::Result<()> {
    let now = fs::symlink_metadata(place)?;
    if (now.uid(), now.gid()) == (uid, gid) {
        return Ok(());
    }
    let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
    Ok(chownat(CWD, place, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?)
}

/// Removes whatever is at a path.
pub(super) fn remove(place: &Path) -> io::Result<()> {
    match fs::symlink_metadata(place) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(e),
        Ok(there) if there.is_dir() => fs::remove_dir_all(place),
        Ok(_) => fs::remove_file(place),
    }
}

/// Whether a regular file is there.
pub(super) fn is_plain(there: Option<&Metadata>) -> bool {
    there.is_some_and(|m| m.is_file() && !m.file_type().is_fifo())
}
