//! Unpacking archives into a root directory, as its owner sees it.
//!
//! Every path is resolved by the kernel inside the root (`openat2` with `RESOLVE_IN_ROOT`): symbolic links that
//! are already there, such as `bin -> usr/bin`, are followed, but none leads out. The last component is never
//! followed. Existing directories are left as they are, as package managers do. Nothing is synced to disk.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, XattrFlags,
    chmodat, chownat, fchmod, fchown, fsetxattr, futimens, linkat, mkdirat, mknodat, openat,
    openat2, statat, symlinkat, unlinkat, utimensat,
};
use rustix::io::Errno;

use crate::{Error, Result};

/// Whose the unpacked files become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owners {
    /// As the archive says, by number: for use as root of a user namespace.
    FromArchive,
    /// The caller's.
    Caller,
}

/// What was unpacked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unpacked {
    /// Files, links, directories and fifos made or found.
    pub entries: u64,
    /// Bytes of file content.
    pub bytes: u64,
    /// What was not made.
    pub skipped: Vec<Skipped>,
}

impl Unpacked {
    pub(crate) fn add(&mut self, other: Unpacked) {
        self.entries += other.entries;
        self.bytes += other.bytes;
        self.skipped.extend(other.skipped);
    }
}

/// An archive entry that was not made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// Path in the root.
    pub path: PathBuf,
    /// Why.
    pub why: &'static str,
}

/// Why an entry could not be made.
pub(crate) enum Failure {
    /// A system call.
    System(&'static str, Errno),
    /// The archive's bytes.
    Archive(std::io::Error),
    /// Writing content.
    Write(std::io::Error),
    /// Something that must not be.
    Bad(String),
}

impl Failure {
    pub(crate) fn into_error(self, package: &str, path: &Path) -> Error {
        let doing = |what: &str| format!("unpacking /{} of {package}: {what}", path.display());
        match self {
            Failure::System(call, errno) => {
                let error = Error::io(doing(call), errno.into());
                match (call, errno) {
                    ("changing the owner", Errno::PERM | Errno::INVAL) => error
                        .with_hint("The user namespace does not map this owner: more subordinate ids are needed (/etc/subuid, /etc/subgid)."),
                    _ => error,
                }
            }
            Failure::Write(error) => Error::io(doing("writing"), error),
            Failure::Archive(error) => match error.downcast::<Error>() {
                Ok(error) => error,
                Err(error) => Error::package(
                    package,
                    format!(
                        "its data archive is broken at /{} ({error})",
                        path.display()
                    ),
                ),
            },
            Failure::Bad(why) => Error::package(package, why),
        }
    }
}

fn system(call: &'static str) -> impl FnOnce(Errno) -> Failure {
    move |errno| Failure::System(call, errno)
}

pub(crate) type Made<T = ()> = std::result::Result<T, Failure>;

/// What an entry of an archive is.
pub(crate) enum Kind {
    /// A file, whose content comes with it.
    File,
    /// A directory.
    Directory,
    /// A symbolic link with its text.
    Symlink(OsString),
    /// Another name of an earlier file: its path in the root.
    HardLink(PathBuf),
    /// A named pipe.
    Fifo,
    /// A device node or socket, which no archive can bring.
    Special,
}

/// Writes the entries of an archive into a root.
pub(crate) struct Unpacker {
    root: OwnedFd,
    owners: Owners,
    /// The directory used last.
    parent: Option<(PathBuf, Arc<OwnedFd>)>,
    /// Directories made here, whose times are set at the end.
    directories: Vec<(PathBuf, Timestamps)>,
    buffer: Vec<u8>,
    done: Unpacked,
}

/// What an archive says of an entry beside type and name.
pub(crate) struct Attributes {
    uid: u32,
    gid: u32,
    mode: Mode,
    times: Timestamps,
    xattrs: Vec<(String, Vec<u8>)>,
}

impl Attributes {
    /// Owner, permission bits, seconds since 1970, extended attributes.
    pub(crate) fn new(
        owner: (u32, u32),
        mode: u32,
        seconds: i64,
        xattrs: Vec<(String, Vec<u8>)>,
    ) -> Self {
        let time = Timespec {
            tv_sec: seconds,
            tv_nsec: 0,
        };
        Attributes {
            uid: owner.0,
            gid: owner.1,
            mode: Mode::from_raw_mode(mode & 0o7777),
            times: Timestamps {
                last_access: time,
                last_modification: time,
            },
            xattrs,
        }
    }

    fn owner(&self) -> (Uid, Gid) {
        (Uid::from_raw(self.uid), Gid::from_raw(self.gid))
    }
}

impl Unpacker {
    /// Over a directory that stands for `/`.
    pub(crate) fn open(root: &Path, owners: Owners) -> Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = rustix::fs::open(root, flags, Mode::empty())
            .map_err(|e| Error::io(format_args!("opening {}", root.display()), e.into()))?;
        Ok(Unpacker {
            root: opened,
            owners,
            parent: None,
            directories: Vec::new(),
            buffer: vec![0; 128 << 10],
            done: Unpacked::default(),
        })
    }

    /// Makes an entry; `path` has neither a `/` before it nor `..` in it.
    pub(crate) fn entry(
        &mut self,
        path: &Path,
        kind: &Kind,
        attributes: Attributes,
        content: &mut dyn Read,
    ) -> Made {
        let Some(name) = path.file_name() else {
            // The root itself: not ours to change.
            return Ok(());
        };
        let parent = self.directory(path.parent().unwrap_or(Path::new("")))?;
        self.done.entries += 1;
        match kind {
            Kind::File => self.file(&parent, name, content, &attributes),
            Kind::Directory => self.make_directory(&parent, path, name, attributes),
            Kind::Symlink(target) => self.symlink(&parent, path, name, target, &attributes),
            Kind::HardLink(target) => self.hard_link(&parent, name, target),
            Kind::Fifo => self.fifo(&parent, name, &attributes),
            Kind::Special => {
                self.skip(
                    path,
                    "device nodes cannot be made without privileges; /dev is not part of an image",
                );
                Ok(())
            }
        }
    }

    /// Sets what has to be set last; returns what was unpacked.
    pub(crate) fn finish(mut self) -> Made<Unpacked> {
        self.set_directory_times()?;
        Ok(self.done)
    }

    fn skip(&mut self, path: &Path, why: &'static str) {
        self.done.entries -= 1;
        self.done.skipped.push(Skipped {
            path: Path::new("/").join(path),
            why,
        });
    }

    /// Opens a directory inside the root; missing ones are made (mode 0755).
    fn directory(&mut self, path: &Path) -> Made<Arc<OwnedFd>> {
        if let Some((known, fd)) = &self.parent
            && known == path
        {
            return Ok(Arc::clone(fd));
        }
        let fd = match self.open_inside(path) {
            Err(Errno::NOENT) => {
                self.make_parents(path)?;
                self.open_inside(path)
            }
            other => other,
        };
        let fd = Arc::new(fd.map_err(system("opening the directory"))?);
        self.parent = Some((path.to_owned(), Arc::clone(&fd)));
        Ok(fd)
    }

    fn open_inside(&self, path: &Path) -> rustix::io::Result<OwnedFd> {
        let path = if path.as_os_str().is_empty() {
            Path::new(".")
        } else {
            path
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        loop {
            // EAGAIN: a rename somewhere made the kernel unsure; it asks to try again.
            match openat2(&self.root, path, flags, Mode::empty(), resolve) {
                Err(Errno::AGAIN | Errno::INTR) => continue,
                other => return other,
            }
        }
    }

    fn make_parents(&mut self, path: &Path) -> Made {
        let mut at = PathBuf::new();
        for part in path.components() {
            let parent = self
                .open_inside(&at)
                .map_err(system("opening the directory"))?;
            at.push(part);
            match mkdirat(&parent, part.as_os_str(), Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(Failure::System("creating a directory above", errno)),
            }
        }
        Ok(())
    }

    fn file(
        &mut self,
        parent: &OwnedFd,
        name: &OsStr,
        content: &mut dyn Read,
        attributes: &Attributes,
    ) -> Made {
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = replacing(parent, name, || {
            openat(parent, name, flags, Mode::from_raw_mode(0o600))
        })
        .map_err(system("creating the file"))?;
        let mut file = File::from(fd);
        loop {
            let read = match content.read(&mut self.buffer) {
                Ok(0) => break,
                Ok(read) => read,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(Failure::Archive(e)),
            };
            file.write_all(&self.buffer[..read])
                .map_err(Failure::Write)?;
            self.done.bytes += read as u64;
        }
        // The owner first: changing it clears set-id bits and capabilities.
        if self.owners == Owners::FromArchive {
            let (uid, gid) = attributes.owner();
            fchown(&file, Some(uid), Some(gid)).map_err(system("changing the owner"))?;
        }
        fchmod(&file, attributes.mode).map_err(system("changing the mode"))?;
        for (key, value) in &attributes.xattrs {
            fsetxattr(&file, key.as_str(), value, XattrFlags::empty())
                .map_err(system("setting an extended attribute"))?;
        }
        futimens(&file, &attributes.times).map_err(system("setting the time"))
    }

    fn make_directory(
        &mut self,
        parent: &OwnedFd,
        path: &Path,
        name: &OsStr,
        attributes: Attributes,
    ) -> Made {
        match mkdirat(parent, name, Mode::from_raw_mode(0o700)) {
            Ok(()) => {}
            // A directory, or a link to one: left as it is. Anything else fails here.
            Err(Errno::EXIST) => {
                return self
                    .open_inside(path)
                    .map(drop)
                    .map_err(system("creating the directory"));
            }
            Err(errno) => return Err(Failure::System("creating the directory", errno)),
        }
        self.set_owner(parent, name, &attributes)?;
        chmodat(parent, name, attributes.mode, AtFlags::empty())
            .map_err(system("changing the mode"))?;
        self.directories.push((path.to_owned(), attributes.times));
        Ok(())
    }

    fn symlink(
        &mut self,
        parent: &OwnedFd,
        path: &Path,
        name: &OsStr,
        target: &OsStr,
        attributes: &Attributes,
    ) -> Made {
        match replacing(parent, name, || symlinkat(target, parent, name)) {
            Ok(()) => {}
            Err(Errno::ISDIR) => {
                self.skip(path, "a directory is already there and was kept");
                return Ok(());
            }
            Err(errno) => return Err(Failure::System("creating the link", errno)),
        }
        self.set_owner(parent, name, attributes)?;
        utimensat(parent, name, &attributes.times, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(system("setting the time"))
    }

    fn hard_link(&mut self, parent: &OwnedFd, name: &OsStr, target: &Path) -> Made {
        let ends = target.parent().zip(target.file_name());
        let (directory, target) =
            ends.ok_or_else(|| Failure::Bad(format!("a hard link leads to {target:?}")))?;
        let from = self
            .open_inside(directory)
            .map_err(system("opening the link's target"))?;
        replacing(parent, name, || {
            linkat(&from, target, parent, name, AtFlags::empty())
        })
        .map_err(system("creating the hard link"))
    }

    fn fifo(&mut self, parent: &OwnedFd, name: &OsStr, attributes: &Attributes) -> Made {
        replacing(parent, name, || {
            mknodat(parent, name, FileType::Fifo, Mode::from_raw_mode(0o600), 0)
        })
        .map_err(system("creating the fifo"))?;
        self.set_owner(parent, name, attributes)?;
        chmodat(parent, name, attributes.mode, AtFlags::empty())
            .map_err(system("changing the mode"))?;
        utimensat(parent, name, &attributes.times, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(system("setting the time"))
    }

    fn set_owner(&self, parent: &OwnedFd, name: &OsStr, attributes: &Attributes) -> Made {
        if self.owners == Owners::Caller {
            return Ok(());
        }
        let (uid, gid) = attributes.owner();
        chownat(
            parent,
            name,
            Some(uid),
            Some(gid),
            AtFlags::SYMLINK_NOFOLLOW,
        )
        .map_err(system("changing the owner"))
    }

    /// Deepest first is not needed: setting a directory's times does not touch its parent's.
    fn set_directory_times(&mut self) -> Made {
        for (path, times) in std::mem::take(&mut self.directories) {
            let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
                // The root itself: not ours to change.
                continue;
            };
            let parent = self.directory(parent)?;
            utimensat(&*parent, name, &times, AtFlags::SYMLINK_NOFOLLOW)
                .map_err(system("setting the time"))?;
        }
        Ok(())
    }
}

/// Runs `make`; if something other than a directory is in its way, removes that and runs it again.
fn replacing<T>(
    parent: &OwnedFd,
    name: &OsStr,
    make: impl Fn() -> rustix::io::Result<T>,
) -> rustix::io::Result<T> {
    match make() {
        Err(Errno::EXIST) => {
            let there = statat(parent.as_fd(), name, AtFlags::SYMLINK_NOFOLLOW)?;
            if FileType::from_raw_mode(there.st_mode) == FileType::Directory {
                return Err(Errno::ISDIR);
            }
            unlinkat(parent, name, AtFlags::empty())?;
            make()
        }
        other => other,
    }
}
