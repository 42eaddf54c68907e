//! Writing an archive.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Metadata};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use super::{BLOCK, at, bad};

/// Writes everything in `root` to `out` as an archive.
///
/// # Errors
/// Something cannot be read or changes meanwhile, or `out` fails.
pub fn pack(root: &Path, out: &mut dyn Write) -> io::Result<()> {
    let mut packer = Packer {
        out,
        links: HashMap::new(),
        buffer: vec![0; 1 << 18],
    };
    packer.tree(root)?;
    packer.out.write_all(&[0; 2 * BLOCK])
}

struct Packer<'a> {
    out: &'a mut dyn Write,
    /// First names of files that have several, by device and inode.
    links: HashMap<(u64, u64), Vec<u8>>,
    buffer: Vec<u8>,
}

impl Packer<'_> {
    /// Depth first, as archivers expect it. The stack is a list: scripts can nest deeper than a thread's stack.
    fn tree(&mut self, root: &Path) -> io::Result<()> {
        let mut pending = vec![Vec::new()];
        while let Some(path) = pending.pop() {
            let full = match path.is_empty() {
                true => root.to_owned(),
                false => root.join(OsStr::from_bytes(&path)),
            };
            let shown: &[u8] = if path.is_empty() { b"./" } else { &path };
            let found = fs::symlink_metadata(&full).map_err(|e| at(e, shown, "looking at"))?;
            self.entry(&full, shown, &found)?;
            if found.is_dir() {
                let names = names(&full).map_err(|e| at(e, shown, "listing"))?;
                pending.extend(names.iter().rev().map(|name| child(&path, name)));
            }
        }
        Ok(())
    }

    fn entry(&mut self, full: &Path, path: &[u8], found: &Metadata) -> io::Result<()> {
        let kind = found.file_type();
        let mut records = Records::new(path, found);
        if !kind.is_dir() && found.nlink() > 1 {
            let key = (found.dev(), found.ino());
            if let Some(first) = self.links.get(&key) {
                records.put("linkpath", first);
                return self.header(path, b'1', &records, found, 0);
            }
            self.links.insert(key, path.to_vec());
        }
        records.attributes(full, path)?;
        if kind.is_file() {
            return self.file(full, path, &mut records, found);
        }
        if kind.is_symlink() {
            let target = fs::read_link(full).map_err(|e| at(e, path, "reading the link"))?;
            records.put("linkpath", target.as_os_str().as_bytes());
        }
        if kind.is_socket() {
            records.put("KILN.socket", b"1");
        }
        let letter = match () {
            () if kind.is_dir() => b'5',
            () if kind.is_symlink() => b'2',
            () if kind.is_char_device() => b'3',
            () if kind.is_block_device() => b'4',
            () => b'6',
        };
        self.header(path, letter, &records, found, 0)
    }

    fn file(
        &mut self,
        full: &Path,
        path: &[u8],
        records: &mut Records,
        found: &Metadata,
    ) -> io::Result<()> {
        let mut file = File::open(full).map_err(|e| at(e, path, "opening"))?;
        let size = found.len();
        if size > 0o777_7777_7777 {
            records.put("size", size.to_string().as_bytes());
        }
        self.header(path, b'0', records, found, size)?;
        let mut left = size;
        while left > 0 {
            let most = self
                .buffer
                .len()
                .min(usize::try_from(left).unwrap_or(usize::MAX));
            let buffer = &mut self.buffer[..most];
            let count = file.read(buffer).map_err(|e| at(e, path, "reading"))?;
            if count == 0 {
                return Err(bad(path, "it became shorter while it was read:"));
            }
            self.out.write_all(&buffer[..count])?;
            left -= count as u64;
        }
        self.pad(size)
    }

    fn header(
        &mut self,
        path: &[u8],
        letter: u8,
        records: &Records,
        found: &Metadata,
        size: u64,
    ) -> io::Result<()> {
        let extended = &records.0;
        let head = Header::new(b"./PaxHeaders/kiln", b'x', extended.len() as u64);
        self.out.write_all(&head.bytes())?;
        self.out.write_all(extended)?;
        self.pad(extended.len() as u64)?;
        let mut header = Header::new(path, letter, size);
        header.number(100, 8, u64::from(found.mode() & 0o7777));
        // Where a number does not fit, its record counts.
        header.number(108, 8, u64::from(found.uid()));
        header.number(116, 8, u64::from(found.gid()));
        header.number(136, 12, u64::try_from(found.mtime()).unwrap_or(0));
        if matches!(letter, b'3' | b'4') {
            header.number(329, 8, u64::from(rustix::fs::major(found.rdev())));
            header.number(337, 8, u64::from(rustix::fs::minor(found.rdev())));
        }
        self.out.write_all(&header.bytes())
    }

    fn pad(&mut self, size: u64) -> io::Result<()> {
        let over = (size % BLOCK as u64) as usize;
        let zeros = [0; BLOCK];
        match over {
            0 => Ok(()),
            over => self.out.write_all(&zeros[over..]),
        }
    }
}

fn child(path: &[u8], name: &OsStr) -> Vec<u8> {
    match path.is_empty() {
        true => name.as_bytes().to_vec(),
        false => [path, b"/", name.as_bytes()].concat(),
    }
}

fn names(directory: &Path) -> io::Result<Vec<OsString>> {
    let mut names = fs::read_dir(directory)?
        .map(|entry| Ok(entry?.file_name()))
        .collect::<io::Result<Vec<_>>>()?;
    names.sort();
    Ok(names)
}

/// A time as a decimal number. The kernel's nanoseconds count upward also before 1970: -2 s and 500,000,000 ns are -1.5.
fn decimal(seconds: i64, nanoseconds: i64) -> String {
    match (seconds, nanoseconds) {
        (0.., _) => format!("{seconds}.{nanoseconds:09}"),
        (_, 0) => format!("{seconds}.000000000"),
        _ => format!("-{}.{:09}", -(seconds + 1), 1_000_000_000 - nanoseconds),
    }
}

/// Extended records of one entry.
struct Records(Vec<u8>);

impl Records {
    fn new(path: &[u8], found: &Metadata) -> Self {
        let mut records = Records(Vec::new());
        records.put("path", path);
        let time = decimal(found.mtime(), found.mtime_nsec());
        records.put("mtime", time.as_bytes());
        records.put("uid", found.uid().to_string().as_bytes());
        records.put("gid", found.gid().to_string().as_bytes());
        records
    }

    /// `length key=value\n`, where the length counts itself.
    fn put(&mut self, key: &str, value: &[u8]) {
        let rest = key.len() + value.len() + 3;
        let mut length = rest + 1;
        while length != rest + length.to_string().len() {
            length = rest + length.to_string().len();
        }
        self.0
            .extend_from_slice(format!("{length} {key}=").as_bytes());
        self.0.extend_from_slice(value);
        self.0.push(b'\n');
    }

    fn attributes(&mut self, full: &Path, path: &[u8]) -> io::Result<()> {
        let failed = |e| at(io::Error::from(e), path, "reading an attribute of");
        let mut list = vec![0; 1 << 16];
        let length = match rustix::fs::llistxattr(full, &mut list[..]) {
            Ok(length) => length,
            // A file system without any.
            Err(rustix::io::Errno::NOTSUP) => 0,
            Err(error) => return Err(failed(error)),
        };
        let list = &list[..length];
        let mut names: Vec<&[u8]> = list.split(|b| *b == 0).filter(|n| !n.is_empty()).collect();
        names.sort();
        let mut value = vec![0; 1 << 16];
        for name in names {
            let text = std::str::from_utf8(name)
                .ok()
                .filter(|text| !text.contains('='))
                .ok_or_else(|| bad(path, "an attribute with an unusual name is on"))?;
            let length = rustix::fs::lgetxattr(full, text, &mut value[..]).map_err(failed)?;
            self.put(&format!("SCHILY.xattr.{text}"), &value[..length]);
        }
        Ok(())
    }
}

/// A `ustar` header.
struct Header([u8; BLOCK]);

impl Header {
    fn new(path: &[u8], letter: u8, size: u64) -> Self {
        let mut header = Header([0; BLOCK]);
        let name = path.get(path.len().saturating_sub(99)..).unwrap_or(path);
        header.bytes_at(0, name);
        for (at, width) in [(100, 8), (108, 8), (116, 8), (136, 12), (329, 8), (337, 8)] {
            header.number(at, width, 0);
        }
        header.number(124, 12, size);
        header.bytes_at(156, &[letter]);
        header.bytes_at(257, b"ustar\x0000");
        header
    }

    fn bytes_at(&mut self, at: usize, bytes: &[u8]) {
        if let Some(place) = self.0.get_mut(at..at + bytes.len()) {
            place.copy_from_slice(bytes);
        }
    }

    /// Octal digits and a NUL; the largest possible number where it does not fit.
    fn number(&mut self, at: usize, width: usize, number: u64) {
        let most = (1_u64 << (3 * (width - 1))) - 1;
        let text = format!("{:0digits$o}\0", number.min(most), digits = width - 1);
        self.bytes_at(at, text.as_bytes());
    }

    /// With its checksum: the sum of all bytes, the sum itself counted as spaces.
    fn bytes(mut self) -> [u8; BLOCK] {
        self.bytes_at(148, b"        ");
        let sum: u32 = self.0.iter().map(|byte| u32::from(*byte)).sum();
        self.bytes_at(148, format!("{sum:06o}\0 ").as_bytes());
        self.0
    }
}
