//! Unpacks a source into a workspace. The archive is a stranger's: nothing of it ends up elsewhere, or leads elsewhere later.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::fs::{self, File, Permissions};
use std::io::{self, Read};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;

use flate2::read::MultiGzDecoder;
use kiln_git::leads_out;
use tar::{Archive, Entry, EntryType};

/// Files, directories and links of a source at most.
const MOST_ENTRIES: usize = 1_000_000;
/// Bytes that a source unpacks to at most.
const MOST_BYTES: u64 = 64 << 30;

/// Unpacks a gzipped tar archive and returns what was left out of it, a sentence for each.
///
/// Links are made last, so that nothing is written through one. A link that leads out of the workspace is left out.
///
/// # Errors
/// The archive is damaged, or has paths that lead out.
pub(super) fn unpack(archive: &Path, workspace: &Path) -> io::Result<Vec<String>> {
    let mut left_out = Vec::new();
    let mut links = Vec::new();
    let mut bytes = 0_u64;
    let archive = MultiGzDecoder::new(File::open(archive)?);
    each(archive, |number, entry| {
        bytes = bytes.saturating_add(entry.size());
        if number >= MOST_ENTRIES || bytes > MOST_BYTES {
            return Err(too_large());
        }
        let path = plain(&entry.path()?)?;
        match entry.header().entry_type() {
            EntryType::Directory => fs::create_dir_all(workspace.join(&path))?,
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                file(entry, workspace, &path)?;
            }
            EntryType::Symlink => links.push((path, target(entry)?)),
            EntryType::Link => {
                let to = plain(&target(entry)?)?;
                parents(workspace, &path)?;
                let (from, to) = (workspace.join(to), workspace.join(&path));
                // A file over and over again is not as short as its archive.
                bytes = bytes.saturating_add(from.metadata()?.len());
                if bytes > MOST_BYTES {
                    return Err(too_large());
                }
                if from != to {
                    fs::copy(from, to)?;
                }
            }
            EntryType::XGlobalHeader => {}
            kind => left_out.push(format!(
                "{} is left out: its type is {kind:?}",
                path.display()
            )),
        }
        Ok(())
    })?;
    let mut made: BTreeSet<PathBuf> = BTreeSet::new();
    for (path, to) in links {
        if leads_out(&path, &to) {
            left_out.push(format!(
                "the link {} is left out: {} is not in the source",
                path.display(),
                to.display()
            ));
            continue;
        }
        if path.ancestors().any(|above| made.contains(above)) {
            return Err(wrong(format!("{} is behind a link", path.display())));
        }
        parents(workspace, &path)?;
        symlink(&to, workspace.join(&path))?;
        made.insert(path);
    }
    Ok(left_out)
}

/// Bytes of what an archive says of an entry: names, times, attributes, holes. They are held in memory, and tar has no limit to them.
const LONGEST_NOTE: u64 = 1 << 20;
/// Bytes of a path at most, which is what Linux takes.
const LONGEST_PATH: usize = 4095;

/// An archive, of which no more is read at once than is left.
struct Bounded<R> {
    inner: R,
    left: Rc<Cell<u64>>,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.left.get();
        if left == 0 && !buffer.is_empty() {
            return Err(wrong(format!(
                "a name or another note of the source is longer than {} MiB",
                LONGEST_NOTE >> 20
            )));
        }
        let most = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
        let read = self.inner.read(&mut buffer[..most])?;
        self.left.set(left.saturating_sub(read as u64));
        Ok(read)
    }
}

/// Goes through an archive's entries. What it says of one is believed up to [`LONGEST_NOTE`] only; what an entry holds is counted by `see`.
fn each<R: Read>(
    archive: R,
    mut see: impl FnMut(usize, &mut Entry<'_, Bounded<R>>) -> io::Result<()>,
) -> io::Result<()> {
    let left = Rc::new(Cell::new(LONGEST_NOTE));
    let mut archive = Archive::new(Bounded {
        inner: archive,
        left: Rc::clone(&left),
    });
    for (number, entry) in archive.entries()?.enumerate() {
        let mut entry = entry?;
        left.set(entry.size());
        see(number, &mut entry)?;
        io::copy(&mut entry, &mut io::sink())?;
        left.set(LONGEST_NOTE);
    }
    Ok(())
}

/// What a source may have that is looked at before it is kept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Most {
    /// Files, directories and links.
    pub(crate) entries: usize,
    /// Bytes, unpacked.
    pub(crate) bytes: u64,
}

/// Looks through a gzipped tar archive and returns its files. Nothing is written.
///
/// # Errors
/// It is no such archive, has more than it may, or has something that [`unpack`] refuses or leaves out.
pub(crate) fn look(archive: &[u8], most: Most) -> io::Result<Vec<PathBuf>> {
    let (mut files, mut bytes) = (Vec::new(), 0_u64);
    each(MultiGzDecoder::new(archive), |number, entry| {
        bytes = bytes.saturating_add(entry.size());
        if bytes > most.bytes {
            return Err(too_long(most));
        }
        if number >= most.entries {
            return Err(too_many(most));
        }
        let path = plain(&entry.path()?)?;
        match entry.header().entry_type() {
            EntryType::Directory | EntryType::XGlobalHeader => {}
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => files.push(path),
            EntryType::Link => drop(plain(&target(entry)?)?),
            EntryType::Symlink => {
                let to = target(entry)?;
                if leads_out(&path, &to) {
                    let (path, to) = (path.display(), to.display());
                    return Err(wrong(format!(
                        "the link {path} leads out of the source, to {to}"
                    )));
                }
            }
            kind => {
                let path = path.display();
                return Err(wrong(format!(
                    "{path} is neither a file nor a link but {kind:?}"
                )));
            }
        }
        Ok(())
    })?;
    Ok(files)
}

fn too_long(most: Most) -> io::Error {
    let most = most.bytes.div_ceil(1_000_000);
    wrong(format!("the source has more than {most} MB, unpacked"))
}

fn too_many(most: Most) -> io::Error {
    let entries = most.entries;
    wrong(format!(
        "the source has more than {entries} files, directories and links"
    ))
}

fn target<R: Read>(entry: &Entry<'_, R>) -> io::Result<PathBuf> {
    let name = entry.link_name()?;
    let name = name.ok_or_else(|| wrong("a link of the source says nothing".to_owned()))?;
    Ok(name.into_owned())
}

fn file<R: Read>(entry: &mut Entry<'_, R>, workspace: &Path, path: &Path) -> io::Result<()> {
    parents(workspace, path)?;
    let target = workspace.join(path);
    let mode = entry.header().mode()?;
    let mut file = File::create(&target)?;
    io::copy(entry, &mut file)?;
    let mode = if mode & 0o111 == 0 { 0o644 } else { 0o755 };
    file.set_permissions(Permissions::from_mode(mode))
}

fn parents(workspace: &Path, path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) => fs::create_dir_all(workspace.join(parent)),
        None => Ok(()),
    }
}

/// A path without `.` and with nothing that leads up.
pub(crate) fn plain(path: &Path) -> io::Result<PathBuf> {
    let length = path.as_os_str().len();
    if length > LONGEST_PATH {
        let bytes = path.as_os_str().as_encoded_bytes();
        let begins = String::from_utf8_lossy(&bytes[..40]);
        return Err(wrong(format!(
            "a path of the source has {length} bytes, {LONGEST_PATH} at most may be: it begins with {begins:?}"
        )));
    }
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => plain.push(name),
            Component::CurDir => {}
            Component::RootDir | Component::ParentDir | Component::Prefix(_) => {
                return Err(wrong(format!(
                    "{:?} leads out of the source",
                    path.display()
                )));
            }
        }
    }
    Ok(plain)
}

fn too_large() -> io::Error {
    wrong("the source is too large to be unpacked".to_owned())
}

fn wrong(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use tar::{Builder, Header};

    use super::*;

    /// `(path, link or content)`; a content begins with `=`, a hard link with `#`.
    fn archive(dir: &Path, entries: &[(&str, &str)]) -> PathBuf {
        let path = dir.join("source.tgz");
        let kind = |what: &str| match what.strip_prefix('#') {
            Some(_) => EntryType::Link,
            None => EntryType::Symlink,
        };
        let mut builder = Builder::new(GzEncoder::new(
            File::create(&path).unwrap(),
            Compression::fast(),
        ));
        for (name, what) in entries {
            let mut header = Header::new_gnu();
            header.set_mode(0o644);
            let old = header.as_old_mut();
            old.name[..name.len()].copy_from_slice(name.as_bytes());
            match what.strip_prefix('=') {
                Some(content) => {
                    header.set_size(content.len() as u64);
                    header.set_cksum();
                    builder.append(&header, content.as_bytes()).unwrap();
                }
                None => {
                    header.set_entry_type(kind(what));
                    header
                        .set_link_name_literal(what.trim_start_matches('#'))
                        .unwrap();
                    header.set_size(0);
                    header.set_cksum();
                    builder.append(&header, io::empty()).unwrap();
                }
            }
        }
        builder.into_inner().unwrap().finish().unwrap();
        path
    }

    #[test]
    fn a_source_is_unpacked() {
        let dir = tempfile::tempdir().unwrap();
        let source = archive(
            dir.path(),
            &[
                ("./a/x.ks", "=lang"),
                ("b", "a/x.ks"),
                ("a/up", "../a/x.ks"),
                ("hard", "#a/x.ks"),
                ("a/x.ks", "#a/x.ks"),
            ],
        );
        let workspace = dir.path().join("w");
        fs::create_dir(&workspace).unwrap();
        assert!(unpack(&source, &workspace).unwrap().is_empty());
        for name in ["b", "a/up", "a/x.ks", "hard"] {
            assert_eq!(fs::read_to_string(workspace.join(name)).unwrap(), "lang");
        }
    }

    #[test]
    fn a_source_is_looked_at_before_it_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let most = Most {
            entries: 3,
            bytes: 100,
        };
        let look = |entries: &[(&str, &str)]| {
            let archive = fs::read(archive(dir.path(), entries)).unwrap();
            look(&archive, most).map_err(|error| error.to_string())
        };
        let good = look(&[("./a/x.ks", "=lang"), ("b", "a/x.ks"), ("h", "#b")]);
        assert_eq!(good, Ok(vec![PathBuf::from("a/x.ks")]));
        let long = format!("={}", "x".repeat(60));
        for (entries, expected) in [
            (&[("../x", "=1")][..], "\"../x\" leads out"),
            (&[("/x", "=1")], "leads out"),
            (&[("h", "#../x")], "leads out"),
            (&[("l", "/etc/passwd")], "to /etc/passwd"),
            (&[("a", &long), ("b", &long)], "more than 1 MB"),
            (
                &[("a", "="), ("b", "="), ("c", "="), ("d", "=")],
                "more than 3 files",
            ),
        ] {
            let error = look(entries).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
        for bytes in [&b""[..], b"PK\x03\x04", &[0x1f, 0x8b, 8, 0]] {
            assert!(super::look(bytes, most).is_err());
        }
    }

    /// An archive of one file whose name, or another note, has this many bytes of zeros or of a letter.
    fn noted(dir: &Path, kind: EntryType, length: u64, byte: u8) -> PathBuf {
        let path = dir.join("noted.tgz");
        let to = GzEncoder::new(File::create(&path).unwrap(), Compression::fast());
        let mut builder = Builder::new(to);
        let mut header = Header::new_gnu();
        header.set_path("note").unwrap();
        header.set_entry_type(kind);
        header.set_size(length);
        header.set_cksum();
        let note = io::repeat(byte).take(length);
        builder.append(&header, note).unwrap();
        let mut header = Header::new_gnu();
        header.set_path("file").unwrap();
        header.set_mode(0o644);
        header.set_size(4);
        header.set_cksum();
        builder.append(&header, &b"text"[..]).unwrap();
        builder.into_inner().unwrap().finish().unwrap();
        path
    }

    #[test]
    fn no_name_is_believed_to_be_longer_than_a_path() {
        let dir = tempfile::tempdir().unwrap();
        let most = Most {
            entries: 3,
            bytes: 1 << 30,
        };
        let workspace = dir.path().join("w");
        fs::create_dir(&workspace).unwrap();
        let cases = [
            (EntryType::GNULongName, 64 << 20, "longer than 1 MiB"),
            (EntryType::GNULongLink, 64 << 20, "longer than 1 MiB"),
            (EntryType::XHeader, 64 << 20, "longer than 1 MiB"),
            (EntryType::GNULongName, 5000, "has 5000 bytes, 4095 at most"),
        ];
        for (kind, length, expected) in cases {
            let source = noted(dir.path(), kind, length, b'a');
            let error = unpack(&source, &workspace).unwrap_err().to_string();
            assert!(error.contains(expected), "{kind:?}: {error}");
            let error = look(&fs::read(source).unwrap(), most).unwrap_err();
            assert!(error.to_string().contains(expected), "{kind:?}: {error}");
        }
        let source = noted(dir.path(), EntryType::GNULongName, 200, b'a');
        unpack(&source, &workspace).unwrap();
        let name = "a".repeat(200);
        assert_eq!(fs::read(workspace.join(name)).unwrap(), b"text");
    }

    #[test]
    fn nothing_leads_out() {
        let dir = tempfile::tempdir().unwrap();
        let workspace = dir.path().join("w");
        fs::create_dir(&workspace).unwrap();
        let links = [
            ("a", "/etc"),
            ("b", ".."),
            ("c/d", "../.."),
            ("e", "c/../.."),
            ("f", "a/../x"),
        ];
        let source = archive(dir.path(), &links);
        assert_eq!(unpack(&source, &workspace).unwrap().len(), links.len());
        for entries in [
            &[("../x", "=1")][..],
            &[("/x", "=1")],
            &[("deep/l", "../ok"), ("deep/l/m", "../x")],
        ] {
            let source = archive(dir.path(), entries);
            assert!(unpack(&source, &workspace).is_err(), "{entries:?}");
        }
        // A file at a link's place: the link cannot be made, and nothing is written through it.
        let source = archive(dir.path(), &[("l", "ok"), ("l", "=1")]);
        assert!(unpack(&source, &workspace).is_err());
        assert!(!dir.path().join("x").exists());
    }
}
