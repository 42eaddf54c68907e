//! Reading an archive, which may be hostile.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, XattrFlags,
    chmodat, chownat, linkat, lsetxattr, makedev, mkdirat, mknodat, openat, openat2, symlinkat,
    utimensat,
};
use rustix::io::Errno;

use super::{BLOCK, at, bad};

/// Extended records of one entry, at most; an attribute has up to 64 KiB.
const RECORDS_MAX: u64 = 4 << 20;

/// Fills the empty directory `root` from an archive.
///
/// # Errors
/// The archive is damaged, or has something that this writer never makes: a path that leads out or through a link, a name
/// twice, an entry without its parent; or something cannot be made here. What was made until then stays.
pub fn unpack(root: &Path, input: &mut dyn Read) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = openat(rustix::fs::CWD, root, flags, Mode::empty())?;
    let mut unpacker = Unpacker {
        path: root,
        root: directory,
        input,
        directories: Vec::new(),
        open: None,
        buffer: vec![0; 1 << 18],
    };
    while let Some(entry) = unpacker.next()? {
        unpacker.make(&entry)?;
        if entry.letter == b'5' {
            unpacker.directories.push(entry);
        }
    }
    unpacker.finish()
}

/// One entry, its records applied.
struct Entry {
    /// Empty for the layer's own directory.
    path: Vec<u8>,
    letter: u8,
    size: u64,
    mode: u32,
    device: (u32, u32),
    facts: Facts,
}

/// What the extended records say.
#[derive(Default)]
struct Facts {
    path: Option<Vec<u8>>,
    target: Option<Vec<u8>>,
    mtime: Option<(i64, i64)>,
    uid: Option<u32>,
    gid: Option<u32>,
    size: Option<u64>,
    socket: bool,
    attributes: Vec<(String, Vec<u8>)>,
}

struct Unpacker<'a> {
    path: &'a Path,
    root: OwnedFd,
    input: &'a mut dyn Read,
    /// Directories get their owners, modes and times last, when nothing is put into them any longer.
    directories: Vec<Entry>,
    /// The directory used last.
    open: Option<(Vec<u8>, OwnedFd)>,
    buffer: Vec<u8>,
}

impl Unpacker<'_> {
    fn next(&mut self) -> io::Result<Option<Entry>> {
        let mut facts = None;
        loop {
            let mut block = [0; BLOCK];
            self.input.read_exact(&mut block)?;
            if block == [0; BLOCK] {
                return match facts {
                    None => self.end(),
                    Some(_) => Err(bad(b"", "an entry is missing behind its records")),
                };
            }
            let header = Header::check(&block)?;
            let size = header.number(124, 12)?;
            let letter = header.0[156];
            if letter == b'x' && facts.is_none() {
                facts = Some(self.records(size)?);
                continue;
            }
            let facts = facts.ok_or_else(|| bad(b"", "an entry has no records"))?;
            return header.entry(letter, size, facts).map(Some);
        }
    }

    /// The second block of zeros, and nothing behind it.
    fn end(&mut self) -> io::Result<Option<Entry>> {
        let mut rest = Vec::new();
        self.input.take(BLOCK as u64 + 1).read_to_end(&mut rest)?;
        if rest == [0; BLOCK] {
            return Ok(None);
        }
        Err(bad(b"", "the archive's end is wrong"))
    }

    fn records(&mut self, size: u64) -> io::Result<Facts> {
        if size > RECORDS_MAX {
            return Err(bad(b"", "an entry's records are too long"));
        }
        let mut bytes = vec![0; size as usize];
        self.input.read_exact(&mut bytes)?;
        self.skip_padding(size)?;
        Facts::parse(&bytes).ok_or_else(|| bad(b"", "an entry's records are damaged"))
    }

    fn skip_padding(&mut self, size: u64) -> io::Result<()> {
        let over = (size % BLOCK as u64) as usize;
        if over > 0 {
            let mut padding = [0; BLOCK];
            self.input.read_exact(&mut padding[over..])?;
        }
        Ok(())
    }

    fn make(&mut self, entry: &Entry) -> io::Result<()> {
        let path = &entry.path;
        if entry.letter != b'0' && entry.size > 0 {
            return Err(bad(path, "content where none can be:"));
        }
        let (above, name) = split(path);
        if name.is_empty() {
            return match entry.letter {
                b'5' => Ok(()),
                _ => Err(bad(path, "the layer itself is no directory")),
            };
        }
        let parent = match self.open.take() {
            Some((known, fd)) if known == above => fd,
            _ => open_below(&self.root, above)
                .map_err(|e| at(e, path, "opening the directory of"))?,
        };
        self.make_in(&parent, name, entry)
            .map_err(|e| at(e, path, "making"))?;
        self.open = Some((above.to_vec(), parent));
        Ok(())
    }

    fn make_in(&mut self, parent: &OwnedFd, name: &[u8], entry: &Entry) -> io::Result<()> {
        let target = entry.facts.target.as_deref();
        let node = |kind, device| mknodat(parent, name, kind, Mode::RUSR, device);
        match (entry.letter, target) {
            (b'0', None) => return self.file(parent, name, entry),
            (b'1', Some(target)) => return self.hard_link(parent, name, target),
            (b'2', Some(target)) => symlinkat(target, parent, name)?,
            (b'5', None) => mkdirat(parent, name, Mode::RWXU)?,
            (b'3', None) => node(FileType::CharacterDevice, entry.device())?,
            (b'4', None) => node(FileType::BlockDevice, entry.device())?,
            (b'6', None) if entry.facts.socket => node(FileType::Socket, 0)?,
            (b'6', None) => node(FileType::Fifo, 0)?,
            _ => return Err(io::Error::other("it is of no kind that a layer has")),
        }
        if entry.letter == b'5' {
            // Its attributes come last.
            return Ok(());
        }
        entry.apply(self.path, parent, name)
    }

    fn file(&mut self, parent: &OwnedFd, name: &[u8], entry: &Entry) -> io::Result<()> {
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file = File::from(openat(parent, name, flags, Mode::RUSR | Mode::WUSR)?);
        let mut left = entry.size;
        while left > 0 {
            let most = self
                .buffer
                .len()
                .min(usize::try_from(left).unwrap_or(usize::MAX));
            let buffer = &mut self.buffer[..most];
            self.input.read_exact(buffer)?;
            file.write_all(buffer)?;
            left -= most as u64;
        }
        drop(file);
        self.skip_padding(entry.size)?;
        entry.apply(self.path, parent, name)
    }

    fn hard_link(&mut self, parent: &OwnedFd, name: &[u8], target: &[u8]) -> io::Result<()> {
        let target = inner_path(target).ok_or_else(|| bad(target, "a hard link leads to"))?;
        let (above, last) = split(&target);
        let above = open_below(&self.root, above)?;
        Ok(linkat(&above, last, parent, name, AtFlags::empty())?)
    }

    /// Directories from the last to the first, so that a parent's attributes are set after its children's.
    fn finish(mut self) -> io::Result<()> {
        for entry in std::mem::take(&mut self.directories).iter().rev() {
            let (above, name) = split(&entry.path);
            let name: &[u8] = if name.is_empty() { b"." } else { name };
            let done = open_below(&self.root, above)
                .map_err(io::Error::from)
                .and_then(|parent| entry.apply(self.path, &parent, name));
            done.map_err(|e| at(e, &entry.path, "finishing"))?;
        }
        Ok(())
    }
}

/// Directory and name.
fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (&path[..0], path),
    }
}

/// Opens a directory below the root. No link is followed, and nothing leads out.
fn open_below(root: &OwnedFd, path: &[u8]) -> rustix::io::Result<OwnedFd> {
    let path: &[u8] = if path.is_empty() { b"." } else { path };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    loop {
        match openat2(root, path, flags, Mode::empty(), resolve) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return other,
        }
    }
}

/// `./a/b` gives `a/b`, `./` nothing; `None` where the path is absolute or has an empty part, `.`, `..` or a NUL.
fn inner_path(path: &[u8]) -> Option<Vec<u8>> {
    if path == b"./" {
        return Some(Vec::new());
    }
    let fine =
        |part: &[u8]| !part.is_empty() && part != b"." && part != b".." && !part.contains(&0);
    path.split(|byte| *byte == b'/')
        .all(fine)
        .then(|| path.to_vec())
}

impl Entry {
    fn device(&self) -> u64 {
        makedev(self.device.0, self.device.1)
    }

    /// Owner, mode, attributes and times. The owner first: changing it clears set-id bits and capabilities.
    fn apply(&self, root: &Path, parent: &OwnedFd, name: &[u8]) -> io::Result<()> {
        let facts = &self.facts;
        let owner = (facts.uid.map(Uid::from_raw), facts.gid.map(Gid::from_raw));
        chownat(parent, name, owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW)?;
        if self.letter != b'2' {
            // It was just made here and is no link, so there is nothing to follow.
            chmodat(
                parent,
                name,
                Mode::from_raw_mode(self.mode),
                AtFlags::empty(),
            )?;
        }
        if !facts.attributes.is_empty() {
            self.set_attributes(root)?;
        }
        let (seconds, nanoseconds) = facts
            .mtime
            .ok_or_else(|| bad(name, "an entry lacks its time:"))?;
        let time = Timespec {
            tv_sec: seconds,
            tv_nsec: nanoseconds as _,
        };
        let times = Timestamps {
            last_access: time,
            last_modification: time,
        };
        Ok(utimensat(parent, name, &times, AtFlags::SYMLINK_NOFOLLOW)?)
    }

    /// By the whole path: its directory was opened without following a link, and nobody else changes it.
    fn set_attributes(&self, root: &Path) -> io::Result<()> {
        let full = root.join(OsStr::from_bytes(&self.path));
        self.facts.attributes.iter().try_for_each(|(key, value)| {
            lsetxattr(&full, key.as_str(), value, XattrFlags::empty())
                .map_err(|e| io::Error::new(io::Error::from(e).kind(), format!("{key}: {e}")))
        })
    }
}

impl Facts {
    /// `None` where they are damaged, or one is unknown.
    fn parse(mut bytes: &[u8]) -> Option<Facts> {
        let mut seen = HashSet::new();
        let mut facts = Facts::default();
        while !bytes.is_empty() {
            let space = bytes.iter().position(|byte| *byte == b' ')?;
            let length: usize = text(bytes.get(..space)?)?.parse().ok()?;
            let record = bytes.get(space + 1..length.checked_sub(1)?)?;
            if bytes.get(length - 1) != Some(&b'\n') {
                return None;
            }
            bytes = bytes.get(length..)?;
            let equals = record.iter().position(|byte| *byte == b'=')?;
            let (key, value) = (record.get(..equals)?, record.get(equals + 1..)?);
            if !seen.insert(key) {
                return None;
            }
            facts.take(text(key)?, value)?;
        }
        Some(facts)
    }

    fn take(&mut self, key: &str, value: &[u8]) -> Option<()> {
        match key {
            "path" => self.path = Some(value.to_vec()),
            "linkpath" => self.target = Some(value.to_vec()).filter(|v| !v.is_empty()),
            "uid" => self.uid = Some(text(value)?.parse().ok()?),
            "gid" => self.gid = Some(text(value)?.parse().ok()?),
            "size" => self.size = Some(text(value)?.parse().ok()?),
            "mtime" => self.mtime = Some(time(text(value)?)?),
            "KILN.socket" => self.socket = true,
            _ => {
                let name = key.strip_prefix("SCHILY.xattr.")?;
                self.attributes.push((name.to_owned(), value.to_vec()));
            }
        }
        Some(())
    }
}

fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok()
}

/// Seconds and nanoseconds of a decimal number; nanoseconds count upward, so -1.5 is -2 and 500,000,000.
fn time(text: &str) -> Option<(i64, i64)> {
    let (whole, fraction) = text.split_once('.')?;
    let digits = fraction.len() == 9 && fraction.bytes().all(|b| b.is_ascii_digit());
    let seconds: i64 = whole.parse().ok()?;
    let nanoseconds: i64 = fraction.parse().ok().filter(|_| digits)?;
    Some(match (whole.starts_with('-'), nanoseconds) {
        (true, 1..) => (seconds.checked_sub(1)?, 1_000_000_000 - nanoseconds),
        _ => (seconds, nanoseconds),
    })
}

struct Header<'a>(&'a [u8; BLOCK]);

impl Header<'_> {
    fn check(block: &[u8; BLOCK]) -> io::Result<Header<'_>> {
        let header = Header(block);
        let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
        let stored: u64 = block[148..156].iter().map(|byte| u64::from(*byte)).sum();
        let expected = sum - stored + 8 * u64::from(b' ');
        if block[257..265] != *b"ustar\x0000" || header.number(148, 8)? != expected {
            return Err(bad(b"", "the archive is damaged"));
        }
        Ok(header)
    }

    fn number(&self, at: usize, width: usize) -> io::Result<u64> {
        let field = &self.0[at..at + width];
        let end = field.iter().position(|byte| matches!(byte, 0 | b' '));
        let digits = field.get(..end.unwrap_or(width));
        digits
            .and_then(text)
            .and_then(|digits| u64::from_str_radix(digits, 8).ok())
            .ok_or_else(|| bad(b"", "a number in the archive is damaged"))
    }

    fn entry(&self, letter: u8, size: u64, facts: Facts) -> io::Result<Entry> {
        let named = facts
            .path
            .as_deref()
            .ok_or_else(|| bad(b"", "an entry has no path"))?;
        let path = inner_path(named).ok_or_else(|| bad(named, "the archive has the path"))?;
        let device = match letter {
            b'3' | b'4' => (self.number(329, 8)? as u32, self.number(337, 8)? as u32),
            _ => (0, 0),
        };
        let whole = facts.mtime.is_some() && facts.uid.is_some() && facts.gid.is_some();
        if !whole {
            return Err(bad(named, "an entry lacks owner or time:"));
        }
        Ok(Entry {
            path,
            letter,
            size: facts.size.unwrap_or(size),
            mode: self.number(100, 8)? as u32 & 0o7777,
            device,
            facts,
        })
    }
}
