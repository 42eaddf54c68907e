//! A parallel map whose result does not depend on the number of threads.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::{Error, ErrorKind, Result};

/// Calls `work` for 0..`count`, on `threads` threads; the results are in order. The first failure ends it.
pub(crate) fn map<T: Send>(
    count: usize,
    threads: usize,
    work: impl Fn(usize) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    let (next, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    let share = || -> Result<Vec<(usize, T)>> {
        let mut done = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= count {
                break;
            }
            let result = work(index).inspect_err(|_| stop.store(true, Ordering::Relaxed))?;
            done.push((index, result));
        }
        Ok(done)
    };
    let shares = std::thread::scope(|scope| {
        let jobs: Vec<_> = (0..threads.clamp(1, count.max(1)))
            .map(|_| scope.spawn(share))
            .collect();
        jobs.into_iter()
            .map(|job| job.join().unwrap_or_else(|_| Err(panicked())))
            .collect::<Result<Vec<_>>>()
    })?;
    let mut all: Vec<(usize, T)> = shares.into_iter().flatten().collect();
    all.sort_unstable_by_key(|(index, _)| *index);
    Ok(all.into_iter().map(|(_, result)| result).collect())
}

pub(crate) fn panicked() -> Error {
    Error::new(ErrorKind::Internal, "a thread of the image writer panicked")
}
