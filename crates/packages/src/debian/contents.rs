//! What a package's data archive says, entry by entry and without writing anything.

use std::ffi::{OsStr, OsString};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::deb::malformed;
use crate::{Error, Result};

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
    each(name, data, |mut entry| {
        let described = describe(&mut entry).map_err(|why| malformed(name, why))?;
        visit(described, &mut entry)
    })
}

/// Goes through a tar stream; `name` is the package's, for messages.
pub(super) fn each<R: Read>(
    name: &str,
    data: R,
    mut visit: impl FnMut(tar::Entry<'_, R>) -> Result<()>,
) -> Result<()> {
    let broken = |e: std::io::Error| match e.downcast::<Error>() {
        Ok(error) => error,
        Err(e) => malformed(name, format!("its data archive is broken ({e})")),
    };
    let mut archive = tar::Archive::new(data);
    for entry in archive.entries().map_err(broken)? {
        visit(entry.map_err(broken)?)?;
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
        tar::EntryType::Regular | tar::EntryType::Continuous | tar::EntryType::GNUSparse => {
            Kind::File(entry.size())
        }
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
