//! dpkg's path filters: what of a package is left out.

use kiln_packages::debian::contents::{Entry, Kind};
use kiln_packages::glob_matches;
use serde::{Deserialize, Serialize};

/// A path filter of dpkg's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Filter {
    /// Whether it brings back what an earlier one left out.
    pub include: bool,
    /// A shell pattern over absolute paths.
    pub pattern: String,
}

/// Whether dpkg's path filters leave an entry out (dpkg(1), `--path-exclude`): the last match counts, but directories
/// and links stay where an include may match below them.
pub(super) fn left_out(filters: &[Filter], entry: &Entry) -> bool {
    use std::os::unix::ffi::OsStrExt;
    let path = match entry.path.as_os_str().as_bytes() {
        b"/." => b"".as_slice(),
        path => path,
    };
    let last = filters
        .iter()
        .rev()
        .find(|f| glob_matches(f.pattern.as_bytes(), path));
    if last.is_none_or(|f| f.include) {
        return false;
    }
    let may_hold = |filter: &Filter| {
        let end = filter.pattern.find(['*', '?', '[', '\\']);
        let fixed = &filter.pattern[..end.unwrap_or(filter.pattern.len())];
        path.starts_with(fixed.trim_end_matches('/').as_bytes())
    };
    let link_or_directory = matches!(entry.kind, Kind::Directory | Kind::Symlink(_));
    !(link_or_directory && filters.iter().any(|f| f.include && may_hold(f)))
}

/// Changes whenever an index has another format, or unpacking puts something else into it: what older versions noted beside a layer counts
/// no longer.
const FORMAT: &[u8] = b"1";

/// Stands for path filters: with others, other files of a package are unpacked.
pub(in crate::debian) fn digest(filters: &[Filter]) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(FORMAT);
    for Filter { include, pattern } in filters {
        hasher.update(&[u8::from(*include)]);
        hasher.update(pattern.as_bytes());
        hasher.update(&[0]);
    }
    hasher.finalize().to_hex().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(path: &str, kind: Kind) -> Entry {
        Entry {
            path: path.into(),
            kind,
            mode: 0o644,
            owner: (0, 0),
            names: (String::new(), String::new()),
            mtime: 0,
        }
    }

    #[test]
    fn filters_are_dpkgs() {
        let filter = |include, pattern: &str| Filter {
            include,
            pattern: pattern.into(),
        };
        let filters = [
            filter(false, "/usr/share/doc/*"),
            filter(true, "/usr/share/doc/*/copyright"),
        ];
        let out = |path: &str, kind| left_out(&filters, &entry(path, kind));
        assert!(out("/usr/share/doc/x/changelog.gz", Kind::File(1)));
        assert!(!out("/usr/share/doc/x/copyright", Kind::File(1)));
        // An include may match below, as far as dpkg can see.
        assert!(!out("/usr/share/doc/x", Kind::Directory));
        assert!(!out("/usr/share/doc", Kind::Directory));
        assert!(!out("/usr/bin/x", Kind::File(1)));
        assert!(!out("/.", Kind::Directory));
    }
}
