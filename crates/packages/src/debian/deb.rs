//! Binary packages (deb(5)).
//!
//! ```text
//! offset
//! 0       "!<arch>\n"
//! 8       members, each at an even offset:
//!         0   name, padded with spaces, maybe ending in "/"    16 bytes
//!         16  mtime 12, uid 6, gid 6, mode 8                   decimal and octal text, unused here
//!         48  size in bytes, decimal text                      10 bytes
//!         58  "`\n"
//!         60  content
//! ```
//!
//! The members are, in this order, `debian-binary` (`2.0\n`), `control.tar[.gz|.xz|.zst]` and
//! `data.tar[.gz|.xz|.zst]`; names that begin with `_` are for others and passed over.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use super::contents::{self, Entry};
use super::control::field;
use crate::decompress::Compression;
use crate::{Error, Result};

const MAGIC: &[u8] = b"!<arch>\n";
const HEADER: u64 = 60;

/// Bound for the whole control archive, unpacked: maintainer scripts and lists are small.
const MAX_CONTROL: u64 = 64 << 20;

/// An open `.deb`.
#[derive(Debug)]
pub struct Deb {
    name: String,
    file: Arc<File>,
    control: Member,
    data: Member,
}

#[derive(Clone, Debug)]
struct Member {
    start: u64,
    end: u64,
    compression: Compression,
}

/// What the control archive of a package holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Control {
    /// The stanza; see [`field`].
    pub stanza: String,
    /// All other files: `preinst`, `postinst`, `conffiles`, `md5sums`, `triggers`, `templates`, ….
    pub files: BTreeMap<String, Vec<u8>>,
    /// Permission bits, and seconds since 1970, of all files, `control` included.
    pub looks: BTreeMap<String, (u32, i64)>,
}

impl Control {
    /// Returns a field of the stanza.
    pub fn field(&self, name: &str) -> Option<&str> {
        field(&self.stanza, name)
    }

    /// Absolute paths of the configuration files, of any bytes. Flags before a path (`remove-on-upgrade`) are cut off.
    pub fn conffiles(&self) -> Vec<&[u8]> {
        let text = self.files.get("conffiles").map_or(&[][..], Vec::as_slice);
        let lines = text.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
        let path = |line: &'_ [u8]| line.iter().position(|byte| *byte == b'/');
        lines.filter_map(|line| line.get(path(line)?..)).collect()
    }

    /// Returns a maintainer script: `preinst`, `postinst`, `prerm`, `postrm`, `config`.
    pub fn script(&self, name: &str) -> Option<&[u8]> {
        self.files.get(name).map(Vec::as_slice)
    }
}

impl Deb {
    /// Opens a package file.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] or [`crate::ErrorKind::Malformed`].
    pub fn open(path: &Path) -> Result<Self> {
        let name = path.display().to_string();
        let file = File::open(path).map_err(|e| Error::io(format_args!("opening {name}"), e))?;
        Deb::of_file(file, &name)
    }

    /// Reads an open file; `name` is for messages.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] or [`crate::ErrorKind::Malformed`].
    pub fn of_file(file: File, name: &str) -> Result<Self> {
        let mut found = find_members(&file).map_err(|why| Error::package(name, why))?;
        let mut take = |kind: &str| {
            let at = found
                .iter()
                .position(|(n, _)| n == kind || n.starts_with(&format!("{kind}.")));
            at.map(|at| found.swap_remove(at).1)
                .ok_or_else(|| Error::package(name, format!("it has no {kind}")))
        };
        let (control, data) = (take("control.tar")?, take("data.tar")?);
        Ok(Deb {
            name: name.to_owned(),
            file: Arc::new(file),
            control,
            data,
        })
    }

    /// Reads the control archive of the package that an index or a lock describes.
    ///
    /// # Errors
    /// As [`Deb::control`]; [`ErrorKind::Malformed`] too if the package calls itself otherwise.
    pub fn control_of(&self, name: &str, version: &str, architecture: &str) -> Result<Control> {
        let control = self.control()?;
        for (field, wanted) in [
            ("Package", name),
            ("Version", version),
            ("Architecture", architecture),
        ] {
            let own = control.field(field).unwrap_or("");
            if own != wanted {
                let own: String = own.chars().take(80).collect();
                let why = format!(
                    "its own control file says {field} {own:?}, but the repository's index says {wanted:?}"
                );
                return Err(Error::package(&self.name, why).with_hint(
                    "The repository's index does not describe its packages: tell whoever runs it, or use another repository.",
                ));
            }
        }
        Ok(control)
    }

    /// Returns its name in messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Reads the control archive.
    ///
    /// # Errors
    /// [`ErrorKind::Malformed`] or [`crate::ErrorKind::Io`].
    pub fn control(&self) -> Result<Control> {
        let read = || -> std::io::Result<Control> {
            let mut control = Control::default();
            let plain = Ending {
                inner: self.member(&self.control)?,
                left: MAX_CONTROL,
            };
            for entry in tar::Archive::new(plain).entries()? {
                let mut entry = entry?;
                let path = entry.path()?.into_owned();
                let Some(name) = path.file_name().and_then(|n| n.to_str()) else {
                    continue;
                };
                if !entry.header().entry_type().is_file() {
                    continue;
                }
                let name = name.to_owned();
                let header = entry.header();
                let mtime = i64::try_from(header.mtime()?).map_err(std::io::Error::other)?;
                let look = (header.mode()? & 0o7777, mtime);
                control.looks.insert(name.clone(), look);
                let mut bytes = Vec::new();
                entry.read_to_end(&mut bytes)?;
                control.files.insert(name, bytes);
            }
            Ok(control)
        };
        let mut control = read().map_err(|e| {
            Error::package(&self.name, format!("its control archive is broken ({e})"))
        })?;
        let stanza = control
            .files
            .remove("control")
            .ok_or_else(|| Error::package(&self.name, "it has no control file"))?;
        control.stanza = String::from_utf8_lossy(&stanza)
            .trim_matches('\n')
            .to_owned();
        Ok(control)
    }

    /// Returns the data archive as an uncompressed tar stream.
    ///
    /// # Errors
    /// [`ErrorKind::Malformed`] if decompression cannot start.
    pub fn data(&self) -> Result<Box<dyn Read + Send>> {
        self.member(&self.data)
            .map_err(|e| Error::package(&self.name, format!("its data archive is broken ({e})")))
    }

    /// Shows every entry of the data archive, and the content of files, in the archive's order.
    ///
    /// # Errors
    /// [`ErrorKind::Malformed`] for an archive that is broken or holds a name that no root can have; whatever `visit`
    /// fails with.
    pub fn entries(&self, visit: &mut dyn FnMut(Entry, &mut dyn Read) -> Result<()>) -> Result<()> {
        contents::entries(&self.name, self.data()?, visit)
    }

    fn member(&self, member: &Member) -> std::io::Result<Box<dyn Read + Send>> {
        let section = Section {
            file: Arc::clone(&self.file),
            at: member.start,
            end: member.end,
        };
        member.compression.reader(section)
    }
}

fn find_members(file: &File) -> Result<Vec<(String, Member)>, String> {
    let length = file.metadata().map_err(|e| e.to_string())?.len();
    let read = |buffer: &mut [u8], at: u64| {
        file.read_exact_at(buffer, at)
            .map_err(|_| format!("it ends within a header at byte {at}"))
    };
    let mut magic = [0; MAGIC.len()];
    read(&mut magic, 0)?;
    if magic != MAGIC {
        return Err("it does not begin like an ar archive".into());
    }
    let mut members = Vec::new();
    let mut at = MAGIC.len() as u64;
    while at < length {
        let mut header = [0; HEADER as usize];
        read(&mut header, at)?;
        let (name, size) =
            parse_header(&header).ok_or_else(|| format!("the header at byte {at} is damaged"))?;
        let start = at + HEADER;
        let end = start.checked_add(size).filter(|&end| end <= length);
        let end = end.ok_or_else(|| format!("its member {name} reaches beyond its end"))?;
        let compression = Compression::of_name(&name);
        members.push((
            name,
            Member {
                start,
                end,
                compression,
            },
        ));
        at = end + end % 2;
    }
    match members
        .first()
        .map(|(name, member)| (name.as_str(), member.clone()))
    {
        Some(("debian-binary", member)) => check_format(file, &member)?,
        _ => return Err("its first member is not debian-binary".into()),
    }
    Ok(members)
}

/// Versions 2.x of the format are compatible.
fn check_format(file: &File, member: &Member) -> Result<(), String> {
    let mut version = [0; 2];
    match file.read_exact_at(&mut version, member.start) {
        Ok(()) if &version == b"2." => Ok(()),
        _ => Err("its format is not version 2".into()),
    }
}

fn parse_header(header: &[u8; HEADER as usize]) -> Option<(String, u64)> {
    let text = std::str::from_utf8(header)
        .ok()
        .filter(|text| text.ends_with("`\n"))?;
    let name = text.get(..16)?.trim_end().trim_end_matches('/');
    let size = text.get(48..58)?.trim_end().parse().ok()?;
    Some((name.to_owned(), size))
}

/// A stream that may have so many bytes; one more is an error.
struct Ending<R> {
    inner: R,
    left: u64,
}

impl<R: Read> Read for Ending<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.inner.read(buffer)?;
        let rest = self.left.checked_sub(read as u64);
        self.left = rest.ok_or_else(|| {
            std::io::Error::other(format!("unpacked, it has more than {MAX_CONTROL} bytes"))
        })?;
        Ok(read)
    }
}

/// A part of a file, read without moving the file's position.
struct Section {
    file: Arc<File>,
    at: u64,
    end: u64,
}

impl Read for Section {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let left = usize::try_from(self.end - self.at)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        let read = self.file.read_at(&mut buffer[..left], self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}
