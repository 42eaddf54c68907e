//! Finding mount points inside the root, and making missing ones.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, Timespec};
use rustix::io::Errno;

use crate::error::{Context, Error, Result};

/// Symbolic links followed in one path, as the kernel's own limit.
const MAX_LINKS: usize = 40;

/// What has to be at a mount point.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Dir,
    File,
}

/// A mount point that did not exist before the run.
pub(super) struct Created {
    /// Relative to the root, without symbolic links.
    pub(super) path: PathBuf,
    pub(super) kind: Kind,
    /// The parent's modification time before and after.
    pub(super) parent_times: (Timespec, Timespec),
}

/// Walks paths inside one root.
pub(super) struct Walker<'a> {
    pub(super) root: BorrowedFd<'a>,
    pub(super) created: &'a mut Vec<Created>,
}

impl Walker<'_> {
    /// Opens the mount point, as a path descriptor, with its path free of links. Missing parts are created.
    pub(super) fn open(&mut self, target: &str, kind: Kind) -> Result<(OwnedFd, PathBuf)> {
        let place = self.walk(Path::new(target), kind)?;
        let fd = self
            .at(&place, OFlags::empty())
            .doing_at("opening the mount point", Path::new(target))?;
        let is_dir = rustix::fs::fstat(&fd)
            .map(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
            .doing_at("looking at the mount point", Path::new(target))?;
        match (kind, is_dir) {
            (Kind::Dir, true) | (Kind::File, false) => Ok((fd, place)),
            (Kind::Dir, false) => Err(Error::input(format!(
                "the mount point {target} is not a directory in the root"
            ))),
            (Kind::File, true) => Err(Error::input(format!(
                "the mount point {target} is a directory in the root"
            ))),
        }
    }

    /// Resolves the directory part and returns an open descriptor of it with the last name.
    pub(super) fn open_parent(&mut self, target: &str) -> Result<(OwnedFd, OsString)> {
        let path = Path::new(target);
        let name = path
            .file_name()
            .ok_or_else(|| Error::input(format!("{target} has no last name")))?;
        let parent = path.parent().and_then(Path::to_str).unwrap_or("/");
        Ok((self.open(parent, Kind::Dir)?.0, name.to_owned()))
    }

    fn at(&self, path: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let path = if path.as_os_str().is_empty() {
            Path::new(".")
        } else {
            path
        };
        let flags = flags | OFlags::PATH | OFlags::CLOEXEC;
        let within = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        rustix::fs::openat2(self.root, path, flags, Mode::empty(), within)
    }

    fn walk(&mut self, target: &Path, kind: Kind) -> Result<PathBuf> {
        let mut pending: VecDeque<OsString> = names(target);
        let mut place = PathBuf::new();
        let mut links = 0;
        while let Some(name) = pending.pop_front() {
            if name == ".." {
                place.pop();
                continue;
            }
            let next = place.join(&name);
            match self.at(&next, OFlags::NOFOLLOW) {
                Ok(fd) => match link_of(fd.as_fd()).doing_at("reading the link", &next)? {
                    Some(_) if links >= MAX_LINKS => return Err(too_many_links(target)),
                    Some(link) => {
                        links += 1;
                        if link.is_absolute() {
                            place.clear();
                        }
                        names(&link)
                            .into_iter()
                            .rev()
                            .for_each(|name| pending.push_front(name));
                    }
                    None => place = next,
                },
                Err(Errno::NOENT) => {
                    let kind = if pending.is_empty() { kind } else { Kind::Dir };
                    self.create(&place, &name, kind)
                        .map_err(|error| cannot_create(target, error))?;
                    place = next;
                }
                Err(error) => return Err(Error::at("opening the mount point", target, error)),
            }
        }
        Ok(place)
    }

    fn create(&mut self, parent: &Path, name: &OsString, kind: Kind) -> rustix::io::Result<()> {
        let dir = self.at(parent, OFlags::DIRECTORY)?;
        let before = modified(dir.as_fd())?;
        match kind {
            Kind::Dir => rustix::fs::mkdirat(&dir, name, Mode::from_raw_mode(0o755))?,
            Kind::File => {
                let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
                drop(rustix::fs::openat(
                    &dir,
                    name,
                    flags,
                    Mode::from_raw_mode(0o644),
                )?);
            }
        }
        let parent_times = (before, modified(dir.as_fd())?);
        self.created.push(Created {
            path: parent.join(name),
            kind,
            parent_times,
        });
        Ok(())
    }
}

fn names(path: &Path) -> VecDeque<OsString> {
    let name = |component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some(OsString::from("..")),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    };
    path.components().filter_map(name).collect()
}

fn link_of(fd: BorrowedFd<'_>) -> rustix::io::Result<Option<PathBuf>> {
    let stat = rustix::fs::fstat(fd)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
        return Ok(None);
    }
    let text = rustix::fs::readlinkat(fd, "", Vec::new())?;
    Ok(Some(PathBuf::from(OsString::from_vec(text.into_bytes()))))
}

/// The modification time of an open directory.
pub(super) fn modified(fd: BorrowedFd<'_>) -> rustix::io::Result<Timespec> {
    let stat = rustix::fs::fstat(fd)?;
    Ok(Timespec {
        tv_sec: stat.st_mtime as _,
        tv_nsec: stat.st_mtime_nsec as _,
    })
}

fn too_many_links(target: &Path) -> Error {
    Error::input(format!(
        "the mount point {} has too many symbolic links",
        target.display()
    ))
}

fn cannot_create(target: &Path, error: Errno) -> Error {
    let error = Error::at("making the mount point", target, error);
    error.hint("a root that may not be written needs all its mount points beforehand")
}
