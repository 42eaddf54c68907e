//! Counters of requests.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper ends of the histogram's buckets, in seconds.
pub(crate) const BUCKETS: [f64; 9] = [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0];
/// Requests since the start: time until the answer's head, and the kind of answer.
#[derive(Debug, Default)]
pub(crate) struct Requests {
    /// By their time, each in the first bucket that it fits.
    pub(crate) buckets: [AtomicU64; BUCKETS.len()],
    /// All times together.
    pub(crate) microseconds: AtomicU64,
    /// By the first digit of the status, from 1 to 5.
    pub(crate) kinds: [AtomicU64; 5],
}

impl Requests {
    /// Counts one.
    pub(crate) fn count(&self, took: Duration, status: u16) {
        let kind = usize::from(status / 100).saturating_sub(1).min(4);
        self.kinds[kind].fetch_add(1, Ordering::Relaxed);
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.microseconds.fetch_add(micros, Ordering::Relaxed);
        let bucket = BUCKETS.iter().position(|end| took.as_secs_f64() <= *end);
        if let Some(bucket) = bucket.and_then(|at| self.buckets.get(at)) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
    }
}
