//! Unpacking packages' data archives into a root directory.

use std::ffi::OsStr;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use super::contents::{each, inner_path};
use super::deb::Deb;
use crate::unpack::{Attributes, Failure, Kind, Made, Unpacker};
pub use crate::unpack::{Owners, Skipped, Unpacked};
use crate::{Error, ErrorKind, Result};

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
    let mut unpacker = Unpacker::open(root, owners)?;
    each(name, data, |entry| {
        let bytes = entry.path_bytes();
        let path = inner_path(&bytes).ok_or_else(|| {
            let shown = bytes.escape_ascii().to_string();
            Error::package(name, format!("it has the path {shown:?}"))
        })?;
        described(&path, entry)
            .and_then(|(kind, attributes)| unpacker.entry(&path, &kind, attributes, entry))
            .map_err(|failure| failure.into_error(name, &path))
    })?;
    unpacker
        .finish()
        .map_err(|failure| failure.into_error(name, Path::new("/")))
}

/// What the archive says of an entry.
fn described<R: Read>(path: &Path, entry: &mut tar::Entry<'_, R>) -> Made<(Kind, Attributes)> {
    let kind = match entry.header().entry_type() {
        tar::EntryType::Regular | tar::EntryType::Continuous => Kind::File,
        tar::EntryType::Directory => Kind::Directory,
        tar::EntryType::Symlink => Kind::Symlink(link_target(entry)?),
        tar::EntryType::Link => {
            let target = link_target(entry)?;
            let inner = inner_path(target.as_bytes());
            Kind::HardLink(
                inner.ok_or_else(|| Failure::Bad(format!("a hard link leads to {target:?}")))?,
            )
        }
        tar::EntryType::Fifo => Kind::Fifo,
        tar::EntryType::Char | tar::EntryType::Block => Kind::Special,
        other => {
            return Err(Failure::Bad(format!(
                "/{} has the unknown type {:?}",
                path.display(),
                other.as_byte() as char
            )));
        }
    };
    let attributes = attributes(entry).map_err(Failure::Archive)?;
    Ok((kind, attributes))
}

fn attributes<R: Read>(entry: &mut tar::Entry<'_, R>) -> std::io::Result<Attributes> {
    let id = |value: u64| {
        u32::try_from(value).map_err(|_| std::io::Error::other("an owner's number is too large"))
    };
    let header = entry.header();
    let seconds =
        i64::try_from(header.mtime()?).map_err(|_| std::io::Error::other("a time is too large"))?;
    let owner = (id(header.uid()?)?, id(header.gid()?)?);
    let mode = header.mode()?;
    Ok(Attributes::new(owner, mode, seconds, xattrs(entry)?))
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
