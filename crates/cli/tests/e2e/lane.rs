//! The lanes of the test command: two processes that run different tests at the same time, since an emulated machine occupies
//! one processor for minutes.
//!
//! `xtask/src/test.rs` says which tests are in which lane, and starts each in a mount namespace of its own. What a test finds on the
//! machine beside mounts must not be the other lane's: a lane has its own caches, and names for its directories. Without a lane,
//! one process runs all tests.

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use crate::harness::{text, tool};

/// The lanes' names, and where below the target directory each has its caches.
const LANES: [(&str, &str); 2] = [("builds", "e2e"), ("machines", "e2e-machines")];

/// The lane that this process is.
fn own() -> Option<&'static str> {
    let name = env::var("KILN_E2E_LANE").ok()?;
    let known = LANES.iter().find(|(lane, _)| *lane == name);
    let (lane, _) = known.unwrap_or_else(|| panic!("KILN_E2E_LANE={name} is no lane"));
    Some(lane)
}

/// What the tests of this process share; nothing else uses it at the same time.
pub(crate) fn base() -> PathBuf {
    let lane = LANES.iter().find(|(lane, _)| Some(*lane) == own());
    below_target(lane.map_or("e2e", |(_, directory)| directory))
}

/// Where both lanes keep what they share, under `alone`.
pub(crate) fn common() -> PathBuf {
    below_target(LANES[0].1)
}

fn below_target(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(name)
}

/// How the names of this process's temporary directories begin.
pub(crate) fn prefix() -> String {
    own().map_or("kiln-e2e-".to_owned(), |lane| format!("kiln-e2e-{lane}-"))
}

/// Whether a path is in a directory of this process. Where there are lanes, files elsewhere may be the other's.
pub(crate) fn is_own(path: &str) -> bool {
    let places = [format!("/{}", prefix()), format!("{}/", text(&base()))];
    own().is_none() || places.iter().any(|place| path.contains(place))
}

/// The other lane; none where one process runs all tests.
fn others() -> impl Iterator<Item = &'static (&'static str, &'static str)> {
    let own = own();
    LANES
        .iter()
        .filter(move |(lane, _)| own.is_some_and(|own| own != *lane))
}

/// Waits until the other lane is not in such a piece of work. Over when the file is closed, so also when a process ends.
pub(crate) fn alone() -> File {
    fs::create_dir_all(common()).expect("a directory for what the lanes share");
    let file = File::create(common().join("alone")).expect("a file to lock");
    file.lock().expect("a lock");
    file
}

/// Gives the other lane a copy of a cache if it has none, so that it need not fetch and build the same. The caller is `alone`.
pub(crate) fn hand_over(cache: &Path) {
    for (_, directory) in others() {
        let (home, name) = (below_target(directory), cache.file_name().expect("a name"));
        if home.join(name).exists() {
            continue;
        }
        let part = home.join("unfinished");
        let _ = fs::remove_dir_all(&part);
        fs::create_dir_all(&home).expect("a directory for the other lane");
        tool("cp", &["-a", &text(cache), &text(&part)]).assert(0);
        // It may have begun without one.
        if fs::rename(&part, home.join(name)).is_err() {
            let _ = fs::remove_dir_all(&part);
        }
    }
}
