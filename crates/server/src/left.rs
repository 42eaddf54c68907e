//! What is noted of container engines whose directories could not be removed yet.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::executor::request::Attempt;

/// Directories of engines that are still to be removed.
#[derive(Debug, Default)]
pub(crate) struct Left(Mutex<BTreeMap<PathBuf, Leftover>>);

/// What is known of one.
#[derive(Clone, Debug)]
pub(crate) struct Leftover {
    /// The build whose engine it was.
    pub build: String,
    /// Why it could not be removed, as the audit log has been told.
    pub trouble: Option<String>,
}

impl Left {
    /// All of them.
    pub(crate) fn all(&self) -> MutexGuard<'_, BTreeMap<PathBuf, Leftover>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes what an attempt of a build left.
    pub(crate) fn note(&self, attempt: &Attempt, build: &str) {
        let leftover = Leftover {
            build: build.to_owned(),
            trouble: None,
        };
        self.all().entry(attempt.engine()).or_insert(leftover);
    }
}
