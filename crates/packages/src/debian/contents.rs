//! What a package's data archive says, entry by entry and without writing anything.

use std::cell::Cell;
use std::ffi::{OsStr, OsString};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use crate::{Error, Result};

/// Bytes of the archive that lead to one entry: its header, long names and records. Names have at most 4 KiB, the extended
/// attributes that Linux keeps at most 64 KiB.
const MAX_HEADER: u64 = 1 << 20;

/// Bytes of a name, as Linux has it (`PATH_MAX`).
const MAX_NAME: usize = 4096;

/// Entries of an archive. Debian's largest package has less than a tenth.
const MAX_ENTRIES: u64 = 1 << 20;

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file of so many bytes.
    File(u64),
    /// Another name of an earlier file, by its path.
    HardLink(PathBuf),
    /// A symbolic link with its text.
    Symlink(OsString),
    /// A directory.
    Directory,
    /// A named pipe.
    Fifo,
    /// A device node.
    Device,
}

/// One entry of the archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Absolute path in the root, in dpkg's spelling: `/.` is the root itself.
    pub path: PathBuf,
    /// What it is.
    pub kind: Kind,
    /// Permission bits with set-id and sticky bits.
    pub mode: u32,
    /// Owner and group by number.
    pub owner: (u32, u32),
    /// Owner and group by name; empty where the archive has none.
    pub names: (String, String),
    /// Modification time in seconds since 1970.
    pub mtime: i64,
}

/// Reads a tar stream; `name` is the package's, for messages.
pub(super) fn entries(
    name: &str,
    data: impl Read,
    visit: &mut dyn FnMut(Entry, &mut dyn Read) -> Result<()>,
) -> Result<()> {
    each(name, data, |entry| {
        let described = describe(entry).map_err(|why| Error::package(name, why))?;
        visit(described, entry)
    })
}

/// A tar stream that ends with an error where more is read between two entries than headers may have. Names and records
/// are kept in memory by whoever reads them, however much their headers say, before an entry is shown.
pub(super) struct Bounded<R> {
    inner: R,
    left: Rc<Cell<Option<u64>>>,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.inner.read(buffer)?;
        if let Some(left) = self.left.get() {
            let rest = left.checked_sub(read as u64);
            self.left.set(Some(rest.ok_or_else(|| {
                let why = format!(
                    "the names and records before an entry have more than {MAX_HEADER} bytes"
                );
                std::io::Error::other(why)
            })?));
        }
        Ok(read)
    }
}

/// Reads a tar stream to its end; `name` is the package's, for messages.
pub(super) fn each<R: Read>(
    name: &str,
    data: R,
    mut visit: impl FnMut(&mut tar::Entry<'_, Bounded<R>>) -> Result<()>,
) -> Result<()> {
    let broken = |e: std::io::Error| match e.downcast::<Error>() {
        Ok(error) => error,
        Err(e) => Error::package(name, format!("its data archive is broken ({e})")),
    };
    let left = Rc::new(Cell::new(Some(MAX_HEADER)));
    let mut archive = tar::Archive::new(Bounded {
        inner: data,
        left: Rc::clone(&left),
    });
    let mut seen = 0;
    for entry in archive.entries().map_err(broken)? {
        let mut entry = entry.map_err(broken)?;
        left.set(None);
        seen += 1;
        if seen > MAX_ENTRIES {
            let why = format!("its data archive has more than {MAX_ENTRIES} entries");
            return Err(Error::package(name, why));
        }
        let link = entry.link_name_bytes().map_or(0, |target| target.len());
        if entry.path_bytes().len().max(link) > MAX_NAME {
            let shown = entry.path_bytes()[..entry.path_bytes().len().min(60)]
                .escape_ascii()
                .to_string();
            return Err(Error::package(
                name,
                format!("it has a name of more than {MAX_NAME} bytes ({shown}…)"),
            ));
        }
        visit(&mut entry)?;
        std::io::copy(&mut entry, &mut std::io::sink()).map_err(broken)?;
        left.set(Some(MAX_HEADER));
    }
    Ok(())
}

fn describe<R: Read>(entry: &mut tar::Entry<'_, R>) -> std::result::Result<Entry, String> {
    let bytes = entry.path_bytes().into_owned();
    let shown = bytes.escape_ascii().to_string();
    let path = root_path(&bytes).ok_or_else(|| format!("it has the path {shown:?}"))?;
    let trouble = |e: std::io::Error| format!("the header of {} is broken ({e})", path.display());
    let header = entry.header();
    let id = |value: u64| {
        u32::try_from(value)
            .map_err(|_| format!("the owner's number of {} is too large", path.display()))
    };
    let owner = (
        id(header.uid().map_err(trouble)?)?,
        id(header.gid().map_err(trouble)?)?,
    );
    let mode = header.mode().map_err(trouble)? & 0o7777;
    let mtime = i64::try_from(header.mtime().map_err(trouble)?)
        .map_err(|_| format!("the time of {} is too large", path.display()))?;
    let text = |bytes: Option<&[u8]>| String::from_utf8_lossy(bytes.unwrap_or(b"")).into_owned();
    let names = (
        text(header.username_bytes()),
        text(header.groupname_bytes()),
    );
    let kind = kind(entry, &path)?;
    Ok(Entry {
        path,
        kind,
        mode,
        owner,
        names,
        mtime,
    })
}

fn kind<R: Read>(entry: &tar::Entry<'_, R>, path: &Path) -> std::result::Result<Kind, String> {
    let target = || {
        let target = entry
            .link_name_bytes()
            .filter(|t| !t.is_empty() && !t.contains(&0) && !t.contains(&b'\n'));
        target.ok_or_else(|| format!("the link {} has no usable target", path.display()))
    };
    Ok(match entry.header().entry_type() {
        tar::EntryType::Regular | tar::EntryType::Continuous => Kind::File(entry.size()),
        tar::EntryType::Directory => Kind::Directory,
        tar::EntryType::Symlink => Kind::Symlink(OsStr::from_bytes(&target()?).to_owned()),
        tar::EntryType::Link => {
            let target = target()?;
            let inside = root_path(&target);
            Kind::HardLink(inside.ok_or_else(|| {
                let shown = target.escape_ascii().to_string();
                format!("the hard link {} leads to {shown:?}", path.display())
            })?)
        }
        tar::EntryType::Fifo => Kind::Fifo,
        tar::EntryType::Char | tar::EntryType::Block => Kind::Device,
        other => {
            return Err(format!(
                "{} has the unknown type {:?}",
                path.display(),
                other.as_byte() as char
            ));
        }
    })
}

/// `./usr/bin/x` and `/usr/bin/x` give `/usr/bin/x`, `./` gives `/.`; `None` where a part is `..` or holds a NUL or a
/// line end, which dpkg's lists of files could not hold.
fn root_path(bytes: &[u8]) -> Option<PathBuf> {
    let inner = inner_path(bytes).filter(|_| !bytes.contains(&b'\n'))?;
    Some(match inner.as_os_str().is_empty() {
        true => PathBuf::from("/."),
        false => Path::new("/").join(inner),
    })
}

/// `./usr/bin/x` and `/usr/bin/x` give `usr/bin/x`; `None` where a part is `..` or holds a NUL.
pub(super) fn inner_path(bytes: &[u8]) -> Option<PathBuf> {
    let mut path = PathBuf::new();
    for part in bytes
        .split(|&b| b == b'/')
        .filter(|part| !part.is_empty() && *part != b".")
    {
        if part == b".." || part.contains(&0) {
            return None;
        }
        path.push(OsStr::from_bytes(part));
    }
    Some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_inside() {
        let path = |text: &str| root_path(text.as_bytes());
        assert_eq!(path("./usr//bin/x/"), Some("/usr/bin/x".into()));
        assert_eq!(path("./"), Some("/.".into()));
        assert_eq!(path("usr/../../etc/passwd"), None);
        assert_eq!(path("a\nb"), None);
        assert_eq!(path("a\0b"), None);
    }
}
