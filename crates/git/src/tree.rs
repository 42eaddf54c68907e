//! Commits, tags and trees as they are written.

use crate::id::{Id, Kind};

/// What an entry of a tree is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    File,
    Program,
    Link,
    Directory,
    Submodule,
}

/// A name in a directory.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Entry<'a> {
    pub(crate) mode: Mode,
    pub(crate) name: &'a [u8],
    pub(crate) id: Id,
}

/// The tree of a commit, or what a tag is for.
pub(crate) fn leads_to(kind: Kind, content: &[u8]) -> Option<Id> {
    let word: &[u8] = match kind {
        Kind::Commit => b"tree ",
        Kind::Tag => b"object ",
        Kind::Tree | Kind::Blob => return None,
    };
    let line = content.split(|byte| *byte == b'\n').next()?;
    Id::parse(line.strip_prefix(word)?)
}

/// The entries of a tree. No name leads elsewhere or stands there twice.
///
/// # Errors
/// A sentence about what is wrong.
pub(crate) fn entries(content: &[u8]) -> Result<Vec<Entry<'_>>, String> {
    let mut rest = content;
    let mut entries: Vec<Entry<'_>> = Vec::new();
    while !rest.is_empty() {
        let broken = || "a directory breaks off".to_owned();
        let end = rest.iter().position(|byte| *byte == 0).ok_or_else(broken)?;
        let space = rest[..end].iter().position(|byte| *byte == b' ');
        let (mode, name) = rest[..end].split_at(space.ok_or_else(broken)?);
        let name = &name[1..];
        let (id, after) = rest[end + 1..]
            .split_first_chunk::<20>()
            .ok_or_else(broken)?;
        rest = after;
        let shown = || format!("{:?}", String::from_utf8_lossy(name));
        let mode = match mode {
            b"100644" | b"100664" | b"100600" => Mode::File,
            b"100755" => Mode::Program,
            b"120000" => Mode::Link,
            b"40000" | b"040000" => Mode::Directory,
            b"160000" => Mode::Submodule,
            _ => return Err(format!("{} has a mode that git does not have", shown())),
        };
        if !is_name(name) {
            return Err(format!("{} is no name of a file", shown()));
        }
        entries.push(Entry {
            mode,
            name,
            id: Id(*id),
        });
    }
    let mut names: Vec<&[u8]> = entries.iter().map(|entry| entry.name).collect();
    names.sort_unstable();
    match names.windows(2).find(|pair| pair[0] == pair[1]) {
        None => Ok(entries),
        Some(pair) => Err(format!(
            "{:?} is in a directory twice",
            String::from_utf8_lossy(pair[0])
        )),
    }
}

/// A name of a file that leads nowhere else, and is not git's own directory, in which programs of steps would find hooks.
fn is_name(name: &[u8]) -> bool {
    !name.is_empty()
        && name.len() <= 255
        && !name.contains(&b'/')
        && name != b"."
        && name != b".."
        && !name.eq_ignore_ascii_case(b".git")
        && !name.eq_ignore_ascii_case(b"git~1")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(names: &[(&str, &str)]) -> Vec<u8> {
        let entry = |(mode, name): &(&str, &str)| {
            let mut entry = format!("{mode} {name}\0").into_bytes();
            entry.extend([7; 20]);
            entry
        };
        names.iter().flat_map(entry).collect()
    }

    #[test]
    fn trees_are_read() {
        let content = tree(&[("100644", "a b"), ("40000", "d"), ("120000", "l")]);
        let entries = entries(&content).unwrap();
        let names: Vec<_> = entries.iter().map(|e| (e.mode, e.name)).collect();
        assert_eq!(
            names,
            [
                (Mode::File, &b"a b"[..]),
                (Mode::Directory, b"d"),
                (Mode::Link, b"l")
            ]
        );
    }

    #[test]
    fn hostile_trees_are_refused() {
        for names in [
            [("100644", "..")],
            [("40000", ".")],
            [("40000", ".git")],
            [("40000", ".GIT")],
            [("40000", "GIT~1")],
            [("100644", "a/b")],
            [("100644", "/etc/passwd")],
            [("100644", "")],
            [("020000", "tty")],
            [("104755", "su")],
        ] {
            assert!(entries(&tree(&names)).is_err(), "{names:?}");
        }
        assert!(entries(&tree(&[("120000", "a"), ("40000", "a")])).is_err());
        let whole = tree(&[("100644", "a")]);
        for length in 1..whole.len() {
            assert!(entries(&whole[..length]).is_err(), "{length}");
        }
    }
}
