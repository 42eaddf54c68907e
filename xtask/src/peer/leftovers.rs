//! What a comparison makes takes gigabytes; it goes when the comparison ends, also when it fails.

use std::fs;
use std::path::{Path, PathBuf};

use crate::space::{gib, size};

/// Clears a comparison's directory when dropped, all but what another comparison takes from it.
#[must_use]
pub(crate) struct Leftovers {
    work: PathBuf,
    /// Paths below it that stay.
    kept: Vec<PathBuf>,
    /// Why they stay; printed with their size.
    reason: &'static str,
}

impl Leftovers {
    /// Of `work`, only `kept` stays, for this reason.
    pub(crate) fn new(work: &Path, kept: &[&str], reason: &'static str) -> Leftovers {
        Leftovers {
            work: work.to_owned(),
            kept: kept.iter().map(|name| work.join(name)).collect(),
            reason,
        }
    }

    /// All of `work` stays: somebody wants to look at it.
    pub(crate) fn all(work: &Path) -> Leftovers {
        Leftovers::new(work, &[""], "--keep")
    }

    fn stays(&self, path: &Path) -> bool {
        self.kept.iter().any(|kept| path.starts_with(kept))
    }

    fn holds_what_stays(&self, path: &Path) -> bool {
        self.kept.iter().any(|kept| kept.starts_with(path))
    }

    fn clear(&self, path: &Path) -> std::io::Result<()> {
        if self.stays(path) {
            return Ok(());
        }
        if !fs::symlink_metadata(path)?.is_dir() {
            return fs::remove_file(path);
        }
        if !self.holds_what_stays(path) {
            return fs::remove_dir_all(path);
        }
        fs::read_dir(path)?.try_for_each(|entry| self.clear(&entry?.path()))?;
        // Nothing of what may stay was there.
        let _ = fs::remove_dir(path);
        Ok(())
    }
}

impl Drop for Leftovers {
    fn drop(&mut self) {
        let work = self.work.display();
        if let Err(error) = self.clear(&self.work) {
            println!("{work} could not be cleared: {error}");
        }
        if self.work.exists() {
            println!(
                "kept in {work}: {} ({})",
                gib(size(&self.work)),
                self.reason
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree() -> tempfile::TempDir {
        let here = tempfile::tempdir().unwrap();
        for name in ["cache/layers/a", "cache/downloads/b", "peer/etc"] {
            fs::create_dir_all(here.path().join(name)).unwrap();
        }
        fs::write(here.path().join("peer.squashfs"), "x").unwrap();
        here
    }

    #[test]
    fn only_what_is_named_stays() {
        let here = tree();
        let kept = ["cache/downloads", "output/disk.raw"];
        drop(Leftovers::new(here.path(), &kept, "a test"));
        assert!(here.path().join("cache/downloads/b").is_dir());
        for gone in ["cache/layers", "peer", "peer.squashfs"] {
            assert!(!here.path().join(gone).exists(), "{gone}");
        }
    }

    #[test]
    fn nothing_or_everything_stays() {
        let here = tree();
        drop(Leftovers::all(here.path()));
        assert!(here.path().join("peer.squashfs").is_file());
        drop(Leftovers::new(here.path(), &["absent/x"], "a test"));
        assert!(!here.path().exists());
    }
}
