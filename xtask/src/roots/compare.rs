//! Two lists of entries against each other.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::canonical::{Accounts, canonical};
use super::scan::{Entries, Entry, Kind};
use crate::Result;

/// In what respect two entries differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Aspect {
    /// Only one side has it.
    Presence,
    /// File here, directory there; a link's target; a device's numbers.
    Kind,
    /// Permission bits.
    Mode,
    /// Owner or group.
    Owner,
    /// A file's bytes.
    Content,
    /// Extended attributes.
    Xattrs,
    /// Which names are one file.
    Links,
    /// The time of the last change.
    Time,
    /// What the package manager finds changed.
    Verification,
}

/// How closely files are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Closeness {
    /// For two installers: a few files by what they say, and no times.
    Meaning,
    /// For two ways of one installer: every byte, and times.
    Bytes,
}

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Difference {
    /// Below the roots.
    pub(crate) path: PathBuf,
    /// In what respect.
    pub(crate) aspect: Aspect,
    /// Both sides in words.
    pub(crate) detail: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.path, self.detail)
    }
}

/// Everything that differs, in the order of the paths.
pub(crate) fn compare(
    a: &Path,
    left: &Entries,
    b: &Path,
    right: &Entries,
    closeness: Closeness,
) -> Result<Vec<Difference>> {
    let mut differences = Vec::new();
    let sides = (Side::new(a, closeness), Side::new(b, closeness));
    for (path, entry) in left {
        match right.get(path) {
            Some(other) => pair(&sides, path, entry, other, &mut differences)?,
            None => differences.push(only("A", path, entry)),
        }
    }
    let missing = right.iter().filter(|(path, _)| !left.contains_key(*path));
    differences.extend(missing.map(|(path, entry)| only("B", path, entry)));
    differences.sort_by(|x, y| x.path.cmp(&y.path));
    Ok(differences)
}

/// One of the two roots.
struct Side<'a> {
    root: &'a Path,
    accounts: Accounts,
    closeness: Closeness,
}

impl<'a> Side<'a> {
    fn new(root: &'a Path, closeness: Closeness) -> Side<'a> {
        Side {
            root,
            closeness,
            accounts: Accounts::of(root),
        }
    }

    /// What a file says, where that is not its bytes.
    fn says(&self, path: &Path) -> Option<Vec<String>> {
        if self.closeness == Closeness::Bytes {
            return None;
        }
        let text = std::fs::read_to_string(self.root.join(path)).ok()?;
        canonical(path, &text, &self.accounts)
    }
}

/// Whether two files that differ say the same.
fn say_the_same((a, b): &(Side<'_>, Side<'_>), path: &Path) -> bool {
    let left = a.says(path);
    left.is_some() && left == b.says(path)
}

fn only(side: &str, path: &Path, entry: &Entry) -> Difference {
    let detail = format!("only {side} has this {}", entry.kind.name());
    Difference {
        path: path.to_path_buf(),
        aspect: Aspect::Presence,
        detail,
    }
}

fn pair(
    sides: &(Side<'_>, Side<'_>),
    path: &Path,
    left: &Entry,
    right: &Entry,
    out: &mut Vec<Difference>,
) -> Result<()> {
    let mut report = |aspect, detail| {
        out.push(Difference {
            path: path.to_path_buf(),
            aspect,
            detail,
        })
    };
    let (a, b) = sides;
    match (&left.kind, &right.kind) {
        (Kind::File { size: x }, Kind::File { size: y })
            if x != y && !say_the_same(sides, path) =>
        {
            report(Aspect::Content, format!("{x} bytes in A, {y} bytes in B"));
        }
        (Kind::File { size: x }, Kind::File { size: y }) if x != y => {}
        (Kind::File { .. }, Kind::File { .. }) => {
            let found = first_different_byte(&a.root.join(path), &b.root.join(path))?;
            if let Some(offset) = found.filter(|_| !say_the_same(sides, path)) {
                report(
                    Aspect::Content,
                    format!("contents differ from byte {offset} on"),
                );
            }
        }
        (x, y) if x != y => report(
            Aspect::Kind,
            format!("{} in A, {} in B", describe(x), describe(y)),
        ),
        _ => {}
    }
    if left.mode != right.mode {
        report(
            Aspect::Mode,
            format!("mode {:04o} in A, {:04o} in B", left.mode, right.mode),
        );
    }
    let owners = (a.accounts.names(left.owner), b.accounts.names(right.owner));
    if owners.0 != owners.1 {
        let ((u, g), (v, h)) = owners;
        report(Aspect::Owner, format!("owner {u}:{g} in A, {v}:{h} in B"));
    }
    if left.xattrs != right.xattrs {
        let names = |entry: &Entry| {
            entry
                .xattrs
                .keys()
                .map(|name| name.to_string_lossy().into_owned())
                .collect::<Vec<_>>()
        };
        report(
            Aspect::Xattrs,
            format!(
                "attributes {:?} in A, {:?} in B, or their values",
                names(left),
                names(right)
            ),
        );
    }
    if a.closeness == Closeness::Bytes && left.mtime != right.mtime {
        let (x, y) = (left.mtime, right.mtime);
        report(Aspect::Time, format!("time {x} in A, {y} in B"));
    }
    if left.first_name != right.first_name {
        report(
            Aspect::Links,
            format!(
                "one file with {:?} in A, with {:?} in B",
                left.first_name, right.first_name
            ),
        );
    }
    Ok(())
}

fn describe(kind: &Kind) -> String {
    match kind {
        Kind::Symlink { target } => format!("symbolic link to {target:?}"),
        Kind::Block { device } | Kind::Character { device } => {
            format!(
                "{} {}:{}",
                kind.name(),
                rustix::fs::major(*device),
                rustix::fs::minor(*device)
            )
        }
        other => other.name().to_owned(),
    }
}

/// Where two files of equal size begin to differ.
fn first_different_byte(a: &Path, b: &Path) -> Result<Option<u64>> {
    let open = |path: &Path| {
        File::open(path).map_err(|error| format!("opening {}: {error}", path.display()))
    };
    let (mut x, mut y) = (open(a)?, open(b)?);
    let mut buffers = (vec![0; 1 << 16], vec![0; 1 << 16]);
    let mut offset = 0;
    loop {
        let length = fill(&mut x, &mut buffers.0)
            .map_err(|error| format!("reading {}: {error}", a.display()))?;
        let other = fill(&mut y, &mut buffers.1)
            .map_err(|error| format!("reading {}: {error}", b.display()))?;
        let pairs = buffers.0[..length].iter().zip(&buffers.1[..other]);
        if let Some(place) = pairs.clone().position(|(x, y)| x != y) {
            return Ok(Some(offset + place as u64));
        }
        if length != other {
            return Ok(Some(offset + length.min(other) as u64));
        }
        if length == 0 {
            return Ok(None);
        }
        offset += length as u64;
    }
}

/// Reads until the buffer is full or the file ends.
fn fill(file: &mut File, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read(&mut buffer[filled..])? {
            0 => break,
            count => filled += count,
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use tempfile::TempDir;

    use super::super::scan;
    use super::*;

    fn tree() -> TempDir {
        let directory = TempDir::new().unwrap();
        let root = directory.path();
        fs::create_dir(root.join("etc")).unwrap();
        fs::write(root.join("etc/hosts"), vec![b'x'; 200_000]).unwrap();
        fs::write(root.join("etc/motd"), "hello").unwrap();
        fs::hard_link(root.join("etc/motd"), root.join("etc/motd.2")).unwrap();
        symlink("hosts", root.join("etc/link")).unwrap();
        directory
    }

    fn differences(a: &TempDir, b: &TempDir) -> Vec<String> {
        let (left, right) = (scan(a.path()).unwrap(), scan(b.path()).unwrap());
        compare(a.path(), &left, b.path(), &right, Closeness::Meaning)
            .unwrap()
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn equal_trees_are_equal() {
        assert!(differences(&tree(), &tree()).is_empty());
    }

    #[test]
    fn every_aspect_is_seen() {
        let (a, b) = (tree(), tree());
        let mut bytes = vec![b'x'; 200_000];
        bytes[150_000] = b'y';
        fs::write(b.path().join("etc/hosts"), bytes).unwrap();
        fs::set_permissions(b.path().join("etc"), fs::Permissions::from_mode(0o700)).unwrap();
        fs::remove_file(b.path().join("etc/motd.2")).unwrap();
        fs::write(b.path().join("etc/motd.2"), "hello!").unwrap();
        fs::remove_file(b.path().join("etc/link")).unwrap();
        symlink("motd", b.path().join("etc/link")).unwrap();
        fs::write(b.path().join("new"), "").unwrap();
        fs::write(a.path().join("old"), "").unwrap();
        let mode = format!(
            "{:04o}",
            a.path()
                .join("etc")
                .metadata()
                .unwrap()
                .permissions()
                .mode()
                & 0o7777
        );
        assert_eq!(
            differences(&a, &b),
            [
                format!("\"etc\": mode {mode} in A, 0700 in B"),
                "\"etc/hosts\": contents differ from byte 150000 on".to_owned(),
                "\"etc/link\": symbolic link to \"hosts\" in A, symbolic link to \"motd\" in B"
                    .to_owned(),
                "\"etc/motd.2\": 5 bytes in A, 6 bytes in B".to_owned(),
                "\"etc/motd.2\": one file with \"etc/motd\" in A, with \"etc/motd.2\" in B"
                    .to_owned(),
                "\"new\": only B has this file".to_owned(),
                "\"old\": only A has this file".to_owned(),
            ]
        );
    }
}
