//! What a package in the pool holds: one line for each entry of its data archive.
//!
//! ```text
//! kind NUL mode NUL uid NUL gid NUL user NUL group NUL mtime NUL blob NUL md5 NUL digest NUL path NUL target LF
//!
//! kind    f file, h hard link, l symbolic link, d directory, p named pipe, c device
//! mode    octal; the other numbers are decimal
//! blob    number of the file with the content; - for what is not a file; x for what a path filter leaves out
//! md5     of a file's content, if the package brings no md5sums of its own; else empty
//! digest  BLAKE3 of a file's content; empty for what has none
//! target  of a link; size of a file
//! ```
//!
//! Neither paths nor targets hold a NUL or a line end (`kiln_packages::debian::contents`).

use std::ffi::OsStr;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use kiln_packages::debian::contents::{Entry, Kind};

/// An entry and where its content is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Item {
    pub(super) entry: Entry,
    /// A path filter leaves it out.
    pub(super) filtered: bool,
    /// Number of the file that holds the content.
    pub(super) blob: Option<u32>,
    /// MD5 of the content in hexadecimal, where it was asked for.
    pub(super) md5: String,
    /// Of the content.
    pub(super) digest: Option<blake3::Hash>,
}

impl Item {
    pub(super) fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let Entry {
            path,
            kind,
            mode,
            owner,
            names,
            mtime,
        } = &self.entry;
        let size;
        let (letter, target): (char, &OsStr) = match kind {
            Kind::File(bytes) => {
                size = bytes.to_string();
                ('f', OsStr::new(&size))
            }
            Kind::HardLink(target) => ('h', target.as_os_str()),
            Kind::Symlink(target) => ('l', target),
            Kind::Directory => ('d', OsStr::new("")),
            Kind::Fifo => ('p', OsStr::new("")),
            Kind::Device => ('c', OsStr::new("")),
        };
        let blob = match self.blob {
            Some(number) => number.to_string(),
            None if self.filtered => "x".to_owned(),
            None => "-".to_owned(),
        };
        let digest = self.digest.as_ref().map(blake3::Hash::to_hex);
        write!(
            out,
            "{letter}\0{mode:o}\0{}\0{}\0{}\0{}\0{mtime}\0{blob}\0{}\0{}\0",
            owner.0,
            owner.1,
            names.0,
            names.1,
            self.md5,
            digest.as_deref().unwrap_or("")
        )?;
        out.write_all(path.as_os_str().as_bytes())?;
        out.write_all(b"\0")?;
        out.write_all(target.as_bytes())?;
        out.write_all(b"\n")
    }
}

/// Reads a whole index; `None` if it is not one.
pub(super) fn read(bytes: &[u8]) -> Option<Vec<Item>> {
    let lines = bytes.split(|&b| b == b'\n').filter(|line| !line.is_empty());
    lines.map(item).collect()
}

fn item(line: &[u8]) -> Option<Item> {
    let mut fields = line.split(|&b| b == 0);
    let mut text = || std::str::from_utf8(fields.next()?).ok();
    let letter = text()?;
    let mode = u32::from_str_radix(text()?, 8).ok()?;
    let owner = (text()?.parse().ok()?, text()?.parse().ok()?);
    let names = (text()?.to_owned(), text()?.to_owned());
    let mtime = text()?.parse().ok()?;
    let blob = text()?;
    let md5 = text()?.to_owned();
    let digest = match text()? {
        "" => None,
        digest => Some(blake3::Hash::from_hex(digest).ok()?),
    };
    let path = PathBuf::from(OsStr::from_bytes(fields.next()?));
    let target = OsStr::from_bytes(fields.next()?);
    let kind = match letter {
        "f" => Kind::File(target.to_str()?.parse().ok()?),
        "h" => Kind::HardLink(Path::new(target).to_owned()),
        "l" => Kind::Symlink(target.to_owned()),
        "d" => Kind::Directory,
        "p" => Kind::Fifo,
        "c" => Kind::Device,
        _ => return None,
    };
    let entry = Entry {
        path,
        kind,
        mode,
        owner,
        names,
        mtime,
    };
    Some(Item {
        entry,
        filtered: blob == "x",
        blob: blob.parse().ok(),
        md5,
        digest,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let item = |path: &str, kind, blob, filtered| Item {
            entry: Entry {
                path: path.into(),
                kind,
                mode: 0o4755,
                owner: (0, 42),
                names: ("root".into(), String::new()),
                mtime: -1,
            },
            filtered,
            blob,
            md5: String::new(),
            digest: blob.map(|_| blake3::hash(path.as_bytes())),
        };
        let items = vec![
            item("/.", Kind::Directory, None, false),
            item("/a b", Kind::File(7), Some(3), false),
            item("/c", Kind::HardLink("/a b".into()), None, false),
            item("/d", Kind::Symlink("../x y".into()), None, true),
        ];
        let mut bytes = Vec::new();
        items.iter().for_each(|i| i.write(&mut bytes).unwrap());
        assert_eq!(read(&bytes), Some(items));
        assert_eq!(read(b"f\0x\n"), None);
    }
}
