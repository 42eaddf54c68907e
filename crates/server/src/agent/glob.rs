//! Patterns of paths: `*`, `?` within a name, `**` for any directories.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The regular files below `root` that a pattern fits, relative to it and sorted. Links are not followed.
pub(super) fn find(root: &Path, pattern: &str) -> io::Result<Vec<PathBuf>> {
    let parts: Vec<&str> = pattern.split('/').collect();
    let mut found = Vec::new();
    walk(
        root,
        Path::new(""),
        &parts,
        &mut Seen::default(),
        &mut found,
    )?;
    found.sort();
    found.dedup();
    Ok(found)
}

/// Directories, and how many parts of the pattern were left there: several `**` lead to the same ones again and again.
type Seen = BTreeSet<(PathBuf, usize)>;

fn walk(
    root: &Path,
    at: &Path,
    parts: &[&str],
    seen: &mut Seen,
    found: &mut Vec<PathBuf>,
) -> io::Result<()> {
    let Some((part, rest)) = parts.split_first() else {
        return Ok(());
    };
    if !seen.insert((at.to_owned(), parts.len())) {
        return Ok(());
    }
    if *part == "**" {
        walk(root, at, rest, seen, found)?;
    }
    let entries = match fs::read_dir(root.join(at)) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let Some(text) = name.to_str() else { continue };
        if *part != "**" && !fits(part.as_bytes(), text.as_bytes()) {
            continue;
        }
        let path = at.join(&name);
        let kind = entry.file_type()?;
        if kind.is_dir() {
            let below = if *part == "**" { parts } else { rest };
            walk(root, &path, below, seen, found)?;
        } else if kind.is_file() && (rest.is_empty() || *part == "**" && rest == ["**"]) {
            found.push(path);
        }
    }
    Ok(())
}

/// Whether a pattern fits a name.
fn fits(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    let mut star = None;
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(byte) if *byte == b'?' || *byte == name[n] => {
                p += 1;
                n += 1;
            }
            _ => match star {
                Some((at, from)) => {
                    star = Some((at, from + 1));
                    p = at + 1;
                    n = from + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_found() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("out/deep/er")).unwrap();
        for name in [
            "out/a.raw",
            "out/b.txt",
            "out/deep/c.raw",
            "out/deep/er/d.raw",
            "e.raw",
        ] {
            fs::write(dir.path().join(name), "").unwrap();
        }
        std::os::unix::fs::symlink("/etc/passwd", dir.path().join("out/l.raw")).unwrap();
        let found = |pattern: &str| {
            let found = find(dir.path(), pattern).unwrap();
            let names: Vec<String> = found
                .iter()
                .map(|path| path.display().to_string())
                .collect();
            names.join(" ")
        };
        assert_eq!(found("out/a.raw"), "out/a.raw");
        assert_eq!(found("out/*.raw"), "out/a.raw");
        assert_eq!(
            found("**/*.raw"),
            "e.raw out/a.raw out/deep/c.raw out/deep/er/d.raw"
        );
        assert_eq!(found("out/?.txt"), "out/b.txt");
        assert_eq!(
            found("out/**"),
            "out/a.raw out/b.txt out/deep/c.raw out/deep/er/d.raw"
        );
        assert_eq!(found("none/*"), "");
        assert_eq!(found("**/**/er/**/*.raw"), "out/deep/er/d.raw");
    }
}
