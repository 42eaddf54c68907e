//! Where the bytes of a regular file come from.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{
    AtFlags, Mode, OFlags, ResolveFlags, SeekFrom, Statx, StatxFlags, openat, openat2, seek, statx,
};
use rustix::io::Errno;

use super::digest::{BlockDigests, Digest, ZEROS, digest};
use crate::error::IoContext;
use crate::{Error, ErrorKind, Result};

/// The bytes of a regular file: on disk, in memory, or a run of zeros.
#[derive(Clone, Debug)]
pub struct Content {
    length: u64,
    source: Source,
    digests: Option<BlockDigests>,
}

#[derive(Clone)]
enum Source {
    Disk(Arc<OnDisk>),
    Bytes(Arc<[u8]>),
    Zero,
}

/// A file below an opened directory, with the state it had when it was seen first.
struct OnDisk {
    base: Arc<Base>,
    relative: PathBuf,
    stamp: Stamp,
    /// Fewer blocks than bytes: asking for holes is worth its system calls.
    sparse: bool,
}

/// An opened directory and the name it was opened by.
#[derive(Debug)]
pub(super) struct Base {
    pub(super) fd: OwnedFd,
    pub(super) path: PathBuf,
}

/// What must not change between the scan and the end of reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    size: u64,
    mtime: (i64, u32),
    /// Not known of a file whose manifest was recorded: a hard link made since changes it, and a backup that was restored. Its
    /// blocks are compared instead.
    ctime: Option<(i64, u32)>,
}

impl Content {
    /// Makes a content of bytes in memory.
    pub fn bytes(bytes: impl Into<Arc<[u8]>>) -> Self {
        let bytes = bytes.into();
        Content {
            length: bytes.len() as u64,
            source: Source::Bytes(bytes),
            digests: None,
        }
    }

    /// Makes a content of that many zero bytes.
    pub fn zeros(length: u64) -> Self {
        Content {
            length,
            source: Source::Zero,
            digests: None,
        }
    }

    /// Makes a content of a regular file on disk. Its size is taken now; it is opened when it is read. The last component is not followed.
    ///
    /// # Errors
    /// The file is missing, unreadable or not regular.
    pub fn path(path: &Path) -> Result<Self> {
        let name = path
            .file_name()
            .ok_or_else(|| Error::input(format!("{} does not name a file", path.display())))?;
        let parent = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let base = Arc::new(Base::open(parent)?);
        let stat =
            stat_at(&base.fd, Path::new(name)).doing(|| format!("reading {}", path.display()))?;
        if u32::from(stat.stx_mode) & 0o170_000 != 0o100_000 {
            return Err(Error::input(format!(
                "{} is no regular file",
                path.display()
            )));
        }
        Ok(Self::on_disk(base, name.into(), &stat))
    }

    pub(super) fn on_disk(base: Arc<Base>, relative: PathBuf, stat: &Statx) -> Self {
        let file = OnDisk {
            base,
            relative,
            stamp: Stamp::of(stat),
            sparse: stat.stx_blocks.saturating_mul(512) < stat.stx_size,
        };
        Content {
            length: stat.stx_size,
            source: Source::Disk(Arc::new(file)),
            digests: None,
        }
    }

    /// A file on disk that was seen earlier, in some run of this program.
    pub(super) fn recorded(
        base: Arc<Base>,
        relative: PathBuf,
        size: u64,
        mtime: (i64, u32),
    ) -> Self {
        let stamp = Stamp {
            size,
            mtime,
            ctime: None,
        };
        let file = OnDisk {
            base,
            relative,
            stamp,
            // Holes are known from the digests.
            sparse: false,
        };
        Content {
            length: size,
            source: Source::Disk(Arc::new(file)),
            digests: None,
        }
    }

    /// Returns the length in bytes.
    pub fn len(&self) -> u64 {
        self.length
    }

    /// Returns whether there is no byte.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Returns what its blocks are known to be, if they are; see [`Tree::stack`](super::Tree::stack).
    pub fn digests(&self) -> Option<&BlockDigests> {
        self.digests.as_ref()
    }

    /// Says what its blocks are. A writer goes by it without reading, and where it reads, other bytes are an error.
    #[must_use]
    pub fn with_digests(mut self, digests: BlockDigests) -> Self {
        self.digests = Some(digests);
        self
    }

    /// Reads it and digests its blocks.
    ///
    /// # Errors
    /// The file cannot be read or was changed.
    pub fn digest(&self, block_size: u32) -> Result<BlockDigests> {
        let mut blocks = Vec::new();
        self.digest_into(block_size, &mut Vec::new(), &mut blocks)?;
        BlockDigests::new(block_size, blocks)
    }

    /// Appends the digests of its blocks to `table`.
    pub(super) fn digest_into(
        &self,
        block_size: u32,
        buffer: &mut Vec<u8>,
        table: &mut Vec<Digest>,
    ) -> Result<()> {
        if self.is_empty() {
            return Ok(());
        }
        let reader = self.open()?;
        let mut offset = 0;
        while offset < self.length {
            let length = u64::from(block_size).min(self.length - offset);
            table.push(reader.digest_at(offset, length, buffer)?);
            offset += length;
        }
        Ok(())
    }

    /// The time of the last change of a file on disk, in seconds and nanoseconds since 1970.
    pub(super) fn mtime(&self) -> Option<(i64, u32)> {
        match &self.source {
            Source::Disk(file) => Some(file.stamp.mtime),
            _ => None,
        }
    }

    /// Opens it for reading at any place, from any thread.
    ///
    /// # Errors
    /// The file vanished, cannot be read, or is another one than was seen first.
    pub fn open(&self) -> Result<ContentReader> {
        let source = match &self.source {
            Source::Disk(file) => ReaderSource::Disk(file.open()?, Arc::clone(file)),
            Source::Bytes(bytes) => ReaderSource::Bytes(Arc::clone(bytes)),
            Source::Zero => ReaderSource::Zero,
        };
        Ok(ContentReader {
            length: self.length,
            source,
        })
    }
}

/// An opened [`Content`].
pub struct ContentReader {
    length: u64,
    source: ReaderSource,
}

enum ReaderSource {
    Disk(File, Arc<OnDisk>),
    Bytes(Arc<[u8]>),
    Zero,
}

impl ContentReader {
    /// Fills `buffer` from `offset`.
    ///
    /// # Errors
    /// Reading fails, the content ends before the buffer is full, or the file was changed since it was seen first.
    pub fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        let end = offset.saturating_add(buffer.len() as u64);
        if end > self.length {
            return Err(Error::new(
                ErrorKind::Internal,
                format!("reading to byte {end} of a file of {} bytes", self.length),
            ));
        }
        match &self.source {
            ReaderSource::Disk(file, origin) => origin.read(file, buffer, offset),
            ReaderSource::Bytes(bytes) => {
                // The bounds were checked against the length of these bytes.
                let start = offset as usize;
                buffer.copy_from_slice(&bytes[start..start + buffer.len()]);
                Ok(())
            }
            ReaderSource::Zero => {
                buffer.fill(0);
                Ok(())
            }
        }
    }

    fn digest_at(&self, offset: u64, length: u64, buffer: &mut Vec<u8>) -> Result<Digest> {
        if self.is_hole(offset, length) {
            return Ok(ZEROS);
        }
        buffer.resize(length as usize, 0);
        self.read_exact_at(buffer, offset)?;
        Ok(digest(buffer))
    }

    /// Returns whether the range is known to be zeros without reading it: a hole, or [`Content::zeros`].
    pub fn is_hole(&self, offset: u64, length: u64) -> bool {
        match &self.source {
            ReaderSource::Zero => true,
            ReaderSource::Bytes(_) => false,
            ReaderSource::Disk(file, origin) => {
                origin.sparse
                    && match seek(file, SeekFrom::Data(offset)) {
                        Ok(data) => data >= offset.saturating_add(length),
                        // No data after the offset.
                        Err(Errno::NXIO) => true,
                        Err(_) => false,
                    }
            }
        }
    }
}

impl OnDisk {
    fn open(&self) -> Result<File> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOFOLLOW;
        let file = open_beneath(&self.base.fd, &self.relative, flags)
            .doing(|| format!("opening {self}"))?
            .into();
        self.check(&file)?;
        Ok(file)
    }

    fn read(&self, file: &File, buffer: &mut [u8], offset: u64) -> Result<()> {
        match file.read_exact_at(buffer, offset) {
            Ok(()) => self.check(file),
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Err(self.changed()),
            Err(e) => Err(Error::io(format!("reading {self}"), e)),
        }
    }

    fn check(&self, file: &File) -> Result<()> {
        let stat = statx(file, c"", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS)
            .doing(|| format!("reading {self}"))?;
        if self.stamp.allows(&Stamp::of(&stat)) {
            Ok(())
        } else {
            Err(self.changed())
        }
    }

    fn changed(&self) -> Error {
        Error::new(
            ErrorKind::Step,
            format!("{self} was changed while the image was being written"),
        )
        .with_hint("stop whatever writes into the tree, then start again")
    }
}

impl Stamp {
    fn allows(&self, now: &Stamp) -> bool {
        let ctime = self.ctime.is_none() || self.ctime == now.ctime;
        self.size == now.size && self.mtime == now.mtime && ctime
    }

    fn of(stat: &Statx) -> Self {
        Stamp {
            size: stat.stx_size,
            mtime: (stat.stx_mtime.tv_sec, stat.stx_mtime.tv_nsec),
            ctime: Some((stat.stx_ctime.tv_sec, stat.stx_ctime.tv_nsec)),
        }
    }
}

impl Base {
    pub(super) fn open(path: &Path) -> Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = openat(rustix::fs::CWD, path, flags, Mode::empty())
            .doing(|| format!("opening the directory {}", path.display()))?;
        Ok(Base {
            fd,
            path: path.to_owned(),
        })
    }
}

/// Opens below `base` without following a single symbolic link, also not in the middle of the path.
pub(super) fn open_beneath(
    base: &OwnedFd,
    relative: &Path,
    flags: OFlags,
) -> rustix::io::Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    match openat2(base, relative, flags, Mode::empty(), resolve) {
        // Linux before 5.6, or a seccomp filter: walk by hand.
        Err(Errno::NOSYS | Errno::PERM) => open_stepwise(base, relative, flags),
        other => other,
    }
}

fn open_stepwise(base: &OwnedFd, relative: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let through = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut at = openat(base, c".", through, Mode::empty())?;
    if let Some(parent) = relative.parent() {
        for component in parent.components() {
            at = openat(&at, component.as_os_str(), through, Mode::empty())?;
        }
    }
    let name = relative.file_name().ok_or(Errno::INVAL)?;
    openat(&at, name, flags | OFlags::NOFOLLOW, Mode::empty())
}

/// The state of one name in a directory, links not followed, with the attributes that [`super::scan`] asks for.
pub(super) fn stat_at(directory: &OwnedFd, name: &Path) -> rustix::io::Result<Statx> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    statx(directory, name, flags, StatxFlags::BASIC_STATS)
}

impl fmt::Display for OnDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.base.path.join(&self.relative).display().fmt(f)
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Disk(file) => write!(f, "Disk({file})"),
            Source::Bytes(bytes) => write!(f, "Bytes({})", bytes.len()),
            Source::Zero => f.write_str("Zero"),
        }
    }
}

impl fmt::Debug for ContentReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ContentReader({} bytes)", self.length)
    }
}
