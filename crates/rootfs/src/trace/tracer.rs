//! Collects the traces of runs.

use std::sync::{Mutex, PoisonError};

use kiln_sandbox::Watch;

use super::access::{SharedTrace, Trace};
use super::recorder::Tracing;

/// Collects the traces of the runs in a place: what they have read of it, and files of layers below that they changed.
#[derive(Debug, Default)]
pub struct Tracer(Mutex<Trace>);

impl Tracer {
    /// Returns all of it so far.
    pub fn take(self) -> Trace {
        self.0.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds the trace of a run; `None` of one that was not watched.
    pub(crate) fn add(&self, trace: Option<Trace>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match trace {
            Some(trace) => all.add(trace),
            None => all.incomplete = Some("a run could not be watched".to_owned()),
        }
    }
}

/// Notes all that can bring something of a layer into what a run makes. What lies in mounts belongs to no layer.
pub(crate) fn of_layers(bare: bool, trace: &SharedTrace) -> Tracing {
    let mounts = ["/dev", "/proc", "/sys", "/run", "/tmp"];
    let watch = Watch {
        ignored: mounts
            .iter()
            .filter(|_| !bare)
            .map(|&m| m.to_owned())
            .collect(),
        changes: true,
    };
    Tracing {
        watch,
        globs: Vec::new(),
        trace: SharedTrace::clone(trace),
    }
}
