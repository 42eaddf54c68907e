//! What a run learned of a root.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};

use super::search::Search;

/// What a run learned of a path, as a set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Access {
    /// Its content was read, or could have been.
    pub content: bool,
    /// The names in it were listed.
    pub names: bool,
    /// It was executed.
    pub executed: bool,
    /// The dynamic linker looked up names of libraries in it; only of its cache.
    pub linked: bool,
}

/// What a run has accessed: every path whose existence, type, attributes, content or names it has asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trace {
    /// Absolute paths in the root, as the run named them: links in them are not resolved.
    pub paths: BTreeMap<String, Access>,
    /// Names that it has searched for.
    pub searches: BTreeSet<Search>,
    /// Why something may be missing here.
    pub incomplete: Option<String>,
}

/// A trace while it grows, for whoever cannot wait for the end of the run.
pub type SharedTrace = Arc<Mutex<Trace>>;

impl Trace {
    /// Adds the trace of another run.
    pub(super) fn add(&mut self, other: Trace) {
        for (path, access) in other.paths {
            self.paths.entry(path).or_default().add(access);
        }
        self.searches.extend(other.searches);
        self.incomplete = self.incomplete.take().or(other.incomplete);
    }
}

impl Access {
    pub(super) fn add(&mut self, other: Access) {
        self.content |= other.content;
        self.names |= other.names;
        self.executed |= other.executed;
        self.linked |= other.linked;
    }
}
