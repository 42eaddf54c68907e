//! Unpacking tar archives into a root directory, as its owner sees it.
//!
//! Every path is resolved by the kernel inside the root (`openat2` with `RESOLVE_IN_ROOT`): symbolic links that
//! are already there, such as `bin -> usr/bin`, are followed, but none leads out. The last component is never
//! followed. Existing directories are left as they are, as dpkg does. Nothing is synced to disk.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, XattrFlags,
    chmodat, chownat, fchmod, fchown, fsetxattr, futimens, linkat, mkdirat, mknodat, openat,
    openat2, statat, symlinkat, unlinkat, utimensat,
};
use rustix::io::Errno;

use super::contents::{each, inner_path};
use super::deb::Deb;
use crate::{Error, ErrorKind, Result};

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
    fn add(&mut self, other: Unpacked) {
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

/// Makes the merged-/usr layout in an empty root, which Debian's bootstrap makes before unpacking anything:
/// `bin`, `sbin`, `lib` and the architecture's `lib64` become links into `usr`.
///
/// # Errors
/// [`ErrorKind::Io`].
pub fn create_merged_usr(root: &Path, architecture: &str) -> Result<()> {
    let lib64 = ["amd64", "ppc64el", "s390x", "mips64el", "loong64"]
        .contains(&architecture)
        .then_some("lib64");
    for name in ["bin", "sbin", "lib"].into_iter().chain(lib64) {
        let failed = |e| Error::io(format_args!("creating {}", root.join(name).display()), e);
        std::fs::create_dir_all(root.join("usr").join(name)).map_err(failed)?;
        match std::os::unix::fs::symlink(format!("usr/{name}"), root.join(name)) {
            Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => return Err(failed(e)),
            _ => {}
        }
    }
    Ok(())
}

/// Unpacks a package's data archive into `root`, a directory that stands for `/`.
///
/// # Errors
/// [`ErrorKind::Malformed`] for an archive that is broken or reaches outside; [`ErrorKind::Io`].
pub fn unpack(deb: &Deb, root: &Path, owners: Owners) -> Result<Unpacked> {
    unpack_stream(deb.name(), deb.data()?, root, owners)
}

/// Unpacks packages in the given order, decompressing ahead on `threads` threads (memory: 16 MiB each).
/// `done` is told after each package.
///
/// # Errors
/// As [`unpack`]; the packages before the failing one stay unpacked.
pub fn unpack_all(
    debs: &[PathBuf],
    root: &Path,
    owners: Owners,
    threads: usize,
    done: &mut dyn FnMut(&Path),
) -> Result<Unpacked> {
    let threads = threads.clamp(1, debs.len().max(1));
    std::thread::scope(|scope| {
        let streams: Vec<Receiver<Stream>> = (0..threads)
            .map(|worker| {
                let (sender, receiver) = sync_channel(1);
                let own = debs.iter().skip(worker).step_by(threads);
                scope.spawn(move || decompress_each(own, &sender));
                receiver
            })
            .collect();
        let mut total = Unpacked::default();
        for (at, deb) in debs.iter().enumerate() {
            let lost = || Error::new(ErrorKind::Internal, "a decompression thread ended early");
            let stream = streams[at % threads].recv().map_err(|_| lost())?;
            total.add(unpack_stream(
                &deb.display().to_string(),
                stream,
                root,
                owners,
            )?);
            done(deb);
        }
        Ok(total)
    })
}

type Chunk = std::io::Result<Vec<u8>>;

/// A tar stream that another thread decompresses.
struct Stream {
    chunks: Receiver<Chunk>,
    chunk: Vec<u8>,
    at: usize,
    ended: bool,
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        while self.at == self.chunk.len() && !self.ended {
            match self.chunks.recv() {
                Ok(chunk) => (self.chunk, self.at) = (chunk?, 0),
                Err(_) => self.ended = true,
            }
        }
        let length = buffer.len().min(self.chunk.len() - self.at);
        buffer[..length].copy_from_slice(&self.chunk[self.at..self.at + length]);
        self.at += length;
        Ok(length)
    }
}

/// Bytes of one chunk, and how many wait for the reader.
const CHUNK: u64 = 1 << 20;
const AHEAD: usize = 14;

/// Ends when the reader is gone.
fn decompress_each<'a>(debs: impl Iterator<Item = &'a PathBuf>, streams: &SyncSender<Stream>) {
    for deb in debs {
        let (sender, chunks) = sync_channel(AHEAD);
        if streams
            .send(Stream {
                chunks,
                chunk: Vec::new(),
                at: 0,
                ended: false,
            })
            .is_err()
        {
            return;
        }
        let mut data = match Deb::open(deb).and_then(|deb| deb.data()) {
            Ok(data) => data,
            Err(error) => {
                let _ = sender.send(Err(std::io::Error::other(error)));
                continue;
            }
        };
        loop {
            let mut chunk = Vec::with_capacity(CHUNK as usize);
            let result = data.by_ref().take(CHUNK).read_to_end(&mut chunk);
            let ended = !matches!(result, Ok(read) if read > 0);
            let sent = match result {
                Ok(0) => Ok(()),
                Ok(_) => sender.send(Ok(chunk)),
                Err(error) => sender.send(Err(error)),
            };
            if ended || sent.is_err() {
                break;
            }
        }
    }
}

/// Unpacks one tar stream; `name` is the package's, for messages.
fn unpack_stream(name: &str, data: impl Read, root: &Path, owners: Owners) -> Result<Unpacked> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let opened = rustix::fs::open(root, flags, Mode::empty())
        .map_err(|e| Error::io(format_args!("opening {}", root.display()), e.into()))?;
    let mut unpacker = Unpacker {
        root: opened,
        owners,
        parent: None,
        directories: Vec::new(),
        buffer: vec![0; 128 << 10],
        done: Unpacked::default(),
    };
    each(name, data, |entry| {
        let bytes = entry.path_bytes();
        let path = inner_path(&bytes).ok_or_else(|| {
            let shown = bytes.escape_ascii().to_string();
            Error::package(name, format!("it has the path {shown:?}"))
        })?;
        unpacker
            .entry(&path, entry)
            .map_err(|failure| failure.into_error(name, &path))
    })?;
    unpacker
        .set_directory_times()
        .map_err(|failure| failure.into_error(name, Path::new("/")))?;
    Ok(unpacker.done)
}

/// Why an entry could not be made.
enum Failure {
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
    fn into_error(self, package: &str, path: &Path) -> Error {
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

type Made<T = ()> = std::result::Result<T, Failure>;

struct Unpacker {
    root: OwnedFd,
    owners: Owners,
    /// The directory used last.
    parent: Option<(PathBuf, Arc<OwnedFd>)>,
    /// Directories made here, whose times are set at the end.
    directories: Vec<(PathBuf, Timestamps)>,
    buffer: Vec<u8>,
    done: Unpacked,
}

/// What the header says beside type and name.
struct Attributes {
    uid: u32,
    gid: u32,
    mode: Mode,
    times: Timestamps,
}

impl Unpacker {
    fn entry<R: Read>(&mut self, path: &Path, entry: &mut tar::Entry<'_, R>) -> Made {
        let Some(name) = path.file_name() else {
            // The root itself: not ours to change.
            return Ok(());
        };
        let attributes = attributes(entry.header()).map_err(Failure::Archive)?;
        let parent = self.directory(path.parent().unwrap_or(Path::new("")))?;
        self.done.entries += 1;
        match entry.header().entry_type() {
            tar::EntryType::Regular | tar::EntryType::Continuous => {
                self.file(&parent, name, entry, &attributes)
            }
            tar::EntryType::Directory => self.make_directory(&parent, path, name, attributes),
            tar::EntryType::Symlink => {
                let target = link_target(entry)?;
                self.symlink(&parent, path, name, &target, &attributes)
            }
            tar::EntryType::Link => {
                let target = link_target(entry)?;
                self.hard_link(&parent, name, &target)
            }
            tar::EntryType::Fifo => self.fifo(&parent, name, &attributes),
            tar::EntryType::Char | tar::EntryType::Block => {
                self.skip(
                    path,
                    "device nodes cannot be made without privileges; /dev is not part of an image",
                );
                Ok(())
            }
            other => Err(Failure::Bad(format!(
                "/{} has the unknown type {:?}",
                path.display(),
                other.as_byte() as char
            ))),
        }
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

    fn file<R: Read>(
        &mut self,
        parent: &OwnedFd,
        name: &OsStr,
        entry: &mut tar::Entry<'_, R>,
        attributes: &Attributes,
    ) -> Made {
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = replacing(parent, name, || {
            openat(parent, name, flags, Mode::from_raw_mode(0o600))
        })
        .map_err(system("creating the file"))?;
        let xattrs = xattrs(entry).map_err(Failure::Archive)?;
        let mut file = File::from(fd);
        loop {
            let read = match entry.read(&mut self.buffer) {
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
        for (key, value) in &xattrs {
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

    fn hard_link(&mut self, parent: &OwnedFd, name: &OsStr, target: &OsStr) -> Made {
        let inner = inner_path(target.as_bytes());
        let ends = inner
            .as_deref()
            .and_then(|path| Some((path.parent()?, path.file_name()?)));
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

impl Attributes {
    fn owner(&self) -> (Uid, Gid) {
        (Uid::from_raw(self.uid), Gid::from_raw(self.gid))
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

fn attributes(header: &tar::Header) -> std::io::Result<Attributes> {
    let id = |value: u64| {
        u32::try_from(value).map_err(|_| std::io::Error::other("an owner's number is too large"))
    };
    let seconds =
        i64::try_from(header.mtime()?).map_err(|_| std::io::Error::other("a time is too large"))?;
    let time = Timespec {
        tv_sec: seconds,
        tv_nsec: 0,
    };
    Ok(Attributes {
        uid: id(header.uid()?)?,
        gid: id(header.gid()?)?,
        mode: Mode::from_raw_mode(header.mode()? & 0o7777),
        times: Timestamps {
            last_access: time,
            last_modification: time,
        },
    })
}

fn link_target<R: Read>(entry: &tar::Entry<'_, R>) -> Made<std::ffi::OsString> {
    let target = entry
        .link_name_bytes()
        .filter(|t| !t.is_empty() && !t.contains(&0));
    let target = target.ok_or_else(|| Failure::Bad("a link has no target".into()))?;
    Ok(OsStr::from_bytes(&target).to_owned())
}

/// Extended attributes of a pax header, as GNU tar and star write them.
fn xattrs<R: Read>(entry: &mut tar::Entry<'_, R>) -> std::io::Result<Vec<(String, Vec<u8>)>> {
    let mut found = Vec::new();
    for extension in entry.pax_extensions()?.into_iter().flatten() {
        let extension = extension?;
        if let Some(key) = extension
            .key()
            .ok()
            .and_then(|key| key.strip_prefix("SCHILY.xattr."))
        {
            found.push((key.to_owned(), extension.value_bytes().to_vec()));
        }
    }
    Ok(found)
}
