//! The files of a package, as its header has them.

use std::collections::HashSet;
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use super::header::Header;
use crate::Digest;

mod tag {
    pub(super) const SIZES: u32 = 1028;
    pub(super) const MODES: u32 = 1030;
    pub(super) const TIMES: u32 = 1034;
    pub(super) const DIGESTS: u32 = 1035;
    pub(super) const LINKS: u32 = 1036;
    pub(super) const FLAGS: u32 = 1037;
    pub(super) const USERS: u32 = 1039;
    pub(super) const GROUPS: u32 = 1040;
    pub(super) const DEVICES: u32 = 1095;
    pub(super) const INODES: u32 = 1096;
    pub(super) const DIRECTORY_INDEXES: u32 = 1116;
    pub(super) const BASE_NAMES: u32 = 1117;
    pub(super) const DIRECTORY_NAMES: u32 = 1118;
    pub(super) const LONG_SIZES: u32 = 5008;
    pub(super) const CAPABILITIES: u32 = 5010;
    pub(super) const DIGEST_ALGORITHM: u32 = 5011;
}

/// SHA-256 among OpenPGP's hash algorithms.
const SHA256: u64 = 8;
/// The flag of a file that belongs to the package without being in it.
const GHOST: u64 = 1 << 6;

/// A file of a package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileInfo {
    /// Its path in the root, without a `/` before it; empty for the root itself.
    pub path: PathBuf,
    /// Type and mode, as `stat` has them.
    pub mode: u32,
    /// Owner's name.
    pub user: String,
    /// Group's name.
    pub group: String,
    /// Bytes of content.
    pub size: u64,
    /// When it was changed last, in seconds since 1970.
    pub time: u64,
    /// Where a symbolic link leads.
    pub link: OsString,
    /// Its content, where SHA-256 says it.
    pub sha256: Option<Digest>,
    /// Its capabilities as text: `cap_net_raw=ep`.
    pub capabilities: Option<String>,
    /// Whether it is not in the payload.
    pub is_ghost: bool,
    /// Device and inode where it was built: hard links have the same.
    pub(super) identity: (u64, u64),
}

/// Reads all. An `Err` is the end of a sentence about the package.
pub(super) fn read(header: &Header) -> Result<Vec<FileInfo>, String> {
    let names = header.strings(tag::BASE_NAMES);
    let directories = header.strings(tag::DIRECTORY_NAMES);
    let count = names.len();
    let numbers = |tag: u32, what: &str| of_all(header.numbers(tag), count, what);
    let strings = |tag: u32, what: &str| of_all(header.strings(tag), count, what);
    if count == 0 {
        return Ok(Vec::new());
    }
    let indexes = numbers(tag::DIRECTORY_INDEXES, "directories")?;
    let modes = numbers(tag::MODES, "modes")?;
    let times = numbers(tag::TIMES, "times")?;
    let flags = numbers(tag::FLAGS, "flags")?;
    let inodes = numbers(tag::INODES, "inodes")?;
    let devices = numbers(tag::DEVICES, "devices")?;
    let sizes = match header.numbers(tag::LONG_SIZES) {
        long if long.len() == count => long,
        _ => numbers(tag::SIZES, "sizes")?,
    };
    let (users, groups) = (
        strings(tag::USERS, "owners")?,
        strings(tag::GROUPS, "groups")?,
    );
    let (links, digests) = (
        strings(tag::LINKS, "links")?,
        strings(tag::DIGESTS, "digests")?,
    );
    let capabilities = header.strings(tag::CAPABILITIES);
    let is_sha256 = header.numbers(tag::DIGEST_ALGORITHM).first() == Some(&SHA256);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (mut all, mut known) = (Vec::with_capacity(count), HashSet::new());
    for at in 0..count {
        let directory = usize::try_from(indexes[at])
            .ok()
            .and_then(|index| directories.get(index));
        let directory = directory.ok_or("a file of it is in no directory")?;
        let path = path_of(directory, names[at])?;
        if !known.insert(path.clone()) {
            return Err(format!("it has /{} twice", path.display()));
        }
        let digest = Some(digests[at]).filter(|digest| is_sha256 && !digest.is_empty());
        let bad = |_| format!("it has a bad digest of /{}", path.display());
        all.push(FileInfo {
            mode: u32::from(modes[at] as u16),
            user: text(users[at]),
            group: text(groups[at]),
            size: sizes[at],
            time: times[at],
            link: OsString::from_vec(links[at].to_vec()),
            sha256: digest
                .map(|digest| text(digest).parse().map_err(bad))
                .transpose()?,
            capabilities: capabilities
                .get(at)
                .filter(|text| !text.is_empty())
                .map(|bytes| text(bytes)),
            is_ghost: flags[at] & GHOST != 0,
            identity: (devices[at], inodes[at]),
            path,
        });
    }
    Ok(all)
}

fn of_all<T>(values: Vec<T>, count: usize, what: &str) -> Result<Vec<T>, String> {
    match values.len() == count {
        true => Ok(values),
        false => Err(format!("it has {count} files, but {} {what}", values.len())),
    }
}

/// A path that stays in the root.
fn path_of(directory: &[u8], name: &[u8]) -> Result<PathBuf, String> {
    let shown = || {
        format!(
            "it has the path {:?}",
            [directory, name].concat().escape_ascii().to_string()
        )
    };
    let inner = directory.strip_prefix(b"/").ok_or_else(shown)?;
    let inner = inner.strip_suffix(b"/").unwrap_or(inner);
    if name.contains(&b'/') {
        return Err(shown());
    }
    let mut path = PathBuf::new();
    let directories = inner
        .split(|&byte| byte == b'/')
        .filter(|_| !inner.is_empty());
    for part in directories {
        if matches!(part, b"" | b"." | b"..") {
            return Err(shown());
        }
        path.push(std::ffi::OsStr::from_bytes(part));
    }
    match name {
        b"." | b".." => return Err(shown()),
        // The root itself.
        b"" if inner.is_empty() => {}
        b"" => return Err(shown()),
        name => path.push(std::ffi::OsStr::from_bytes(name)),
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_in_the_root() {
        let good: [(&[u8], &[u8], &str); 4] = [
            (b"/usr/bin/", b"a", "usr/bin/a"),
            (b"/", b"etc", "etc"),
            (b"/", b"", ""),
            (b"/etc/", b"..x", "etc/..x"),
        ];
        for (directory, name, path) in good {
            assert_eq!(path_of(directory, name), Ok(PathBuf::from(path)));
        }
        let bad: [(&[u8], &[u8]); 7] = [
            (b"usr/", b"a"),
            (b"/../", b"a"),
            (b"/usr/", b".."),
            (b"/usr//", b"a"),
            (b"/usr/", b"a/../../b"),
            (b"/usr/./", b"a"),
            (b"/usr/", b""),
        ];
        for (directory, name) in bad {
            assert!(path_of(directory, name).is_err(), "{directory:?} {name:?}");
        }
    }

    #[test]
    fn lists_of_different_lengths_are_refused() {
        use super::super::header::tests::make;
        let strings = |tag, text: &[u8]| {
            (
                tag,
                8,
                text.iter().filter(|&&b| b == 0).count() as u32,
                text.to_vec(),
            )
        };
        let mut tags = vec![
            strings(tag::BASE_NAMES, b"a\0b\0"),
            strings(tag::DIRECTORY_NAMES, b"/etc/\0"),
        ];
        tags.push((tag::DIRECTORY_INDEXES, 4, 2, vec![0; 8]));
        let header = Header::parse(make(&tags)).expect("a header");
        assert_eq!(read(&header), Err("it has 2 files, but 0 modes".into()));
    }
}
