//! What the tests' warm cache holds. A test that is over leaves it as it found it: the lab's desktop alone would leave six gigabytes.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::residue::names;

/// What was in a cache. All that came since then goes when this is dropped, so also when a test fails. Downloads stay.
pub(crate) struct Stock {
    cache: PathBuf,
    before: BTreeSet<PathBuf>,
}

impl Stock {
    pub(crate) fn of(cache: PathBuf) -> Self {
        let before = entries(&cache).collect();
        Stock { cache, before }
    }

    /// What is there now stays too.
    pub(crate) fn keep(&mut self) {
        self.before = entries(&self.cache).collect();
    }
}

/// What builds add: layers, packs of blocks, roots of failed steps, names of initramfs results.
fn entries(cache: &Path) -> impl Iterator<Item = PathBuf> {
    let below = |directory: PathBuf| {
        let paths = names(&directory).into_iter();
        paths.map(move |name| directory.join(name))
    };
    let results = below(cache.join("initramfs")).flat_map(below);
    ["blocks", "failed", "layers"]
        .map(|name| cache.join(name))
        .into_iter()
        .flat_map(below)
        .chain(results)
}

impl Drop for Stock {
    // A failure is no reason to end a test's unwinding.
    #[allow(clippy::print_stdout)]
    fn drop(&mut self) {
        let staging = self.cache.join("staging");
        // After a collection, what is there now stands in for what was there: packs and an initramfs made anew.
        if !self.before.iter().all(|path| path.exists()) {
            return;
        }
        let added = entries(&self.cache).filter(|path| !self.before.contains(path));
        for path in added.collect::<Vec<_>>() {
            // Through the place of unfinished things, so that nobody finds half a layer if this is killed.
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let away = staging.join(format!("over-{name}"));
            let removed = fs::rename(&path, &away).and_then(|()| match away.is_dir() {
                true => fs::remove_dir_all(&away),
                false => fs::remove_file(&away),
            });
            if let Err(error) = removed {
                println!("{} stays: {error}", path.display());
            }
        }
    }
}
