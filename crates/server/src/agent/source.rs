//! Unpacks a source into a workspace. The archive is a stranger's: nothing of it ends up elsewhere, or leads elsewhere later.

use std::collections::BTreeSet;
use std::fs::{self, File, Permissions};
use std::io::{self, Read};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};

use flate2::read::MultiGzDecoder;
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
    let mut archive = Archive::new(MultiGzDecoder::new(File::open(archive)?));
    for (number, entry) in archive.entries()?.enumerate() {
        let mut entry = entry?;
        bytes = bytes.saturating_add(entry.size());
        if number >= MOST_ENTRIES || bytes > MOST_BYTES {
            return Err(too_large());
        }
        let path = plain(&entry.path()?)?;
        match entry.header().entry_type() {
            EntryType::Directory => fs::create_dir_all(workspace.join(&path))?,
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                file(&mut entry, workspace, &path)?;
            }
            EntryType::Symlink => links.push((path, target(&entry)?)),
            EntryType::Link => {
                let to = plain(&target(&entry)?)?;
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
    }
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

/// What a source may have that is looked at before it is kept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Most {
    /// Files, directories and links.
    pub(crate) entries: usize,
    /// Bytes, unpacked.
    pub(crate) bytes: u64,
}

/// Bytes of what an archive says of an entry: a name, times, attributes. They are held in memory.
const LONGEST_NOTE: u64 = 1 << 20;

/// Looks through a gzipped tar archive and returns its files. Nothing is written.
///
/// # Errors
/// It is no such archive, has more than it may, or has something that [`unpack`] refuses or leaves out.
pub(crate) fn look(archive: &[u8], most: Most) -> io::Result<Vec<PathBuf>> {
    // First without believing any note, so that none is too long to be read.
    let heads = most.entries as u64 * 2 * 1024 + (64 << 10);
    let unpacked = || MultiGzDecoder::new(archive).take(most.bytes.saturating_add(heads));
    let mut bytes = 0_u64;
    for (number, entry) in Archive::new(unpacked()).entries()?.raw(true).enumerate() {
        let entry = entry?;
        bytes = bytes.saturating_add(entry.size());
        if bytes > most.bytes {
            return Err(too_long(most));
        }
        if number >= most.entries.saturating_mul(2) {
            return Err(too_many(most));
        }
        let kind = entry.header().entry_type();
        let is_content = kind.is_file() || kind.is_contiguous() || kind.is_gnu_sparse();
        if !is_content && entry.size() > LONGEST_NOTE {
            return Err(wrong(format!("an entry of type {kind:?} is too long")));
        }
    }
    let (mut files, mut bytes) = (Vec::new(), 0_u64);
    for (number, entry) in Archive::new(unpacked()).entries()?.enumerate() {
        let entry = entry?;
        // Files with holes are longer than what stands for them.
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
            EntryType::Link => drop(plain(&target(&entry)?)?),
            EntryType::Symlink => {
                let to = target(&entry)?;
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
    }
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

/// Whether a link may lead out: upward steps count only at its beginning, where they are sure to be real.
fn leads_out(path: &Path, to: &Path) -> bool {
    let mut depth = path.components().count().saturating_sub(1);
    let mut down = false;
    for part in to.components() {
        match part {
            Component::Normal(_) => down = true,
            Component::CurDir => {}
            Component::ParentDir if !down && depth > 0 => depth -= 1,
            _ => return true,
        }
    }
    false
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
