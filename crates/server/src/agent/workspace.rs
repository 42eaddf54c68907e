//! Where a path that a step names stands on this machine.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::prepare::inside;

/// Finds a step's path: relative to the step's directory, or below `/workspace`. The answer is relative to the step's
/// directory where that is possible, so that messages have the step's own words.
///
/// # Errors
/// The path leads out of the workspace, also through links.
pub(super) fn find(workspace: &Path, dir: &Path, path: &Path) -> Result<PathBuf, String> {
    let shown = path.display();
    let out = || format!("{shown} is not below /workspace");
    let from_dir = Path::new("/workspace").join(dir).join(path);
    let relative = from_dir.to_str().and_then(inside).ok_or_else(out)?;
    let whole = workspace.join(&relative);
    let real = real(&whole).map_err(|error| format!("{shown}: {error}"))?;
    let root = workspace
        .canonicalize()
        .map_err(|error| format!("/workspace: {error}"))?;
    if !real.starts_with(&root) {
        return Err(out());
    }
    Ok(match relative.strip_prefix(dir) {
        Ok(below) if below.as_os_str().is_empty() => PathBuf::from("."),
        // So that a name like -x is no option.
        Ok(below) if below.as_os_str().as_encoded_bytes().starts_with(b"-") => {
            Path::new(".").join(below)
        }
        Ok(below) => below.to_owned(),
        Err(_) => whole,
    })
}

/// The path without links, of which the last parts need not be there.
fn real(path: &Path) -> std::io::Result<PathBuf> {
    let mut missing: Vec<OsString> = Vec::new();
    let mut at = path;
    loop {
        match at.canonicalize() {
            Ok(mut real) => {
                missing.into_iter().rev().for_each(|name| real.push(name));
                return Ok(real);
            }
            Err(error)
                if error.kind() == std::io::ErrorKind::NotFound
                    && at.symlink_metadata().is_err() =>
            {
                match (at.parent(), at.file_name()) {
                    (Some(parent), Some(name)) => {
                        missing.push(name.to_owned());
                        at = parent;
                    }
                    _ => return Err(error),
                }
            }
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn paths_are_found_inside_only() {
        let dir = tempfile::tempdir().unwrap();
        let workspace = dir.path().join("w");
        std::fs::create_dir_all(workspace.join("a")).unwrap();
        symlink("/etc", workspace.join("out")).unwrap();
        symlink("nowhere", workspace.join("broken")).unwrap();
        let found = |dir: &str, path: &str| find(&workspace, Path::new(dir), Path::new(path));
        assert_eq!(found("", "/workspace/lab.ks").unwrap(), Path::new("lab.ks"));
        assert_eq!(found("a", "output/x").unwrap(), Path::new("output/x"));
        assert_eq!(found("a", "../lab.ks").unwrap(), workspace.join("lab.ks"));
        assert_eq!(found("", ".").unwrap(), Path::new("."));
        assert_eq!(found("", "-x").unwrap(), Path::new("./-x"));
        for path in [
            "/etc/passwd",
            "../x",
            "out/passwd",
            "/workspace/../x",
            "broken",
            "broken/x",
        ] {
            assert!(found("", path).is_err(), "{path}");
        }
    }
}
