//! What a mirror's threads share: where its files come from, the faults to inject, the requests so far.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::fault::{Fault, Rule, matches};

/// Where a mirror's files come from.
#[derive(Clone, Debug)]
pub enum Source {
    /// A directory.
    Directory(PathBuf),
    /// Another mirror; every file is fetched once and kept in a directory.
    Forward {
        /// Its URL, for instance that of a Debian mirror; paths are appended.
        upstream: String,
        /// Where fetched files are kept.
        cache: PathBuf,
    },
}

/// A request that a mirror got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The path, or the whole URL where the mirror was used as a proxy.
    pub target: String,
    /// The first byte that was asked for (`Range`).
    pub from: u64,
    /// Header lines as they came, names in lower case.
    pub headers: Vec<(String, String)>,
    /// Status of the answer; 0: none.
    pub status: u16,
    /// Bytes of body sent.
    pub sent: u64,
}

#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) rules: Vec<Rule>,
    pub(crate) requests: Vec<Request>,
}

/// What the threads of a mirror share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) source: Source,
    state: Mutex<State>,
    stop: AtomicBool,
    /// Requests that are being answered.
    busy: AtomicUsize,
}

/// Counts a request as being answered for as long as it lives.
#[derive(Debug)]
pub(crate) struct Busy<'a>(&'a AtomicUsize);

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Shared {
    pub(crate) fn new(source: Source) -> Shared {
        Shared {
            source,
            state: Mutex::default(),
            stop: AtomicBool::new(false),
            busy: AtomicUsize::new(0),
        }
    }

    pub(crate) fn busy(&self) -> Busy<'_> {
        self.busy.fetch_add(1, Ordering::SeqCst);
        Busy(&self.busy)
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a request is being answered.
    pub(crate) fn is_busy(&self) -> bool {
        self.busy.load(Ordering::SeqCst) > 0
    }

    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    pub(crate) fn stopping(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// All faults that hit this request; counts them down.
    pub(crate) fn faults(&self, path: &str) -> Vec<Fault> {
        let mut state = self.state();
        let hit = state
            .rules
            .iter_mut()
            .filter(|rule| rule.times != Some(0) && matches(&rule.pattern, path));
        hit.map(|rule| {
            rule.times = rule.times.map(|left| left - 1);
            rule.fault.clone()
        })
        .collect()
    }

    pub(crate) fn log(&self, request: Request) {
        self.state().requests.push(request);
    }
}
