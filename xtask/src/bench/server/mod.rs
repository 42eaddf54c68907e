//! The build server: how soon a log begins, what it bears, and what it costs over the same build by hand.

mod load;
mod overhead;

use std::time::Duration;

use crate::peer::{FETCHED, Options};
use crate::{Result, workspace};

/// What `cargo xtask bench` says of it.
pub(super) const ABOUT: &str = "[DEF] [--kiln FILE] [--warm CACHE] [--keep] the build server: time to the first line of a log; 200 queued \
    builds with 50 followers of a loud one; the same build on it and by hand";

/// Runs the case. What is measured by hand and on the server is `examples/minimal.ks` if no definition is named.
pub(super) fn run(words: &[&str]) -> Result<()> {
    let options = Options::parse(words)?;
    let kiln = options.kiln()?;
    let work = workspace::target_directory()?.join("bench/server");
    let _leftovers = options.leftovers(&work, FETCHED, "the next run need not fetch it again");
    load::first_lines(&kiln, &work)?;
    load::storm(&kiln, &work)?;
    overhead::compare(&kiln, &options, &work)
}

/// The value below which so many hundredths of a list lie, in milliseconds.
fn percentile(times: &mut [Duration], hundredths: usize) -> f64 {
    times.sort_unstable();
    let at = (times.len() * hundredths / 100).min(times.len().saturating_sub(1));
    times.get(at).map_or(0.0, |time| time.as_secs_f64() * 1e3)
}
