//! The one stream of events beside every build. The terminal, a log file and a web page only render it.

use std::path::PathBuf;

use serde::Serialize;

use crate::Failure;

/// What happened. Serialised as one JSON object a line by `--log-format json`.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// A build began.
    BuildStarted {
        /// The definition's name.
        name: String,
        /// Hash of the plan.
        plan_id: String,
    },
    /// A step runs. Several may run at once.
    StepStarted {
        /// Unique in this build.
        step: u32,
        /// For people: `installing 312 packages`.
        title: String,
        /// The layer it belongs to, if any.
        layer: Option<String>,
        /// Why the result of an earlier build is not taken: which input changed. `None` where no such result is stored.
        #[serde(skip_serializing_if = "Option::is_none")]
        why: Option<String>,
    },
    /// A step's result was already there.
    StepCached {
        /// Unique in this build.
        step: u32,
        /// For people.
        title: String,
        /// The layer it belongs to, if any.
        layer: Option<String>,
        /// Whether it came from the shared cache in this build.
        shared: bool,
    },
    /// A step has come further.
    Progress {
        /// Which step.
        step: u32,
        /// Units done.
        done: u64,
        /// Units in all, once known.
        total: Option<u64>,
        /// Of what.
        unit: Unit,
        /// What is being worked on (a package, a file).
        item: Option<String>,
    },
    /// A line that a step printed.
    Log {
        /// Which step.
        step: u32,
        /// `stdout`, `stderr`, `syslog`, `kiln`.
        stream: &'static str,
        /// The line without its end.
        line: String,
    },
    /// Something the user should know although the build goes on.
    Warning {
        /// Which step, if any.
        step: Option<u32>,
        /// One sentence.
        message: String,
        /// `file:line`, if it has a place.
        origin: Option<String>,
        /// What to do about it.
        hint: Option<String>,
    },
    /// A step ended well.
    StepFinished {
        /// Which step.
        step: u32,
        /// How long it took.
        seconds: f64,
        /// A figure worth showing: `1,244 packages, 882 MB`.
        summary: Option<String>,
    },
    /// A step failed; the failure follows in [`Event::BuildFailed`].
    StepFailed {
        /// Which step.
        step: u32,
        /// How long it took.
        seconds: f64,
    },
    /// A file is complete and in its place.
    Artifact {
        /// Where.
        path: PathBuf,
        /// Its size.
        bytes: u64,
        /// Bytes it takes on disk (sparse files).
        allocated: u64,
        /// Whether it was there already, made by an earlier build of the same inputs.
        kept: bool,
    },
    /// The build is done.
    BuildFinished {
        /// How long it took.
        seconds: f64,
        /// Where the artifacts are.
        output: PathBuf,
    },
    /// The build failed.
    BuildFailed {
        /// Why.
        failure: Box<Failure>,
    },
}

/// What a progress counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unit {
    /// Bytes.
    Bytes,
    /// Packages.
    Packages,
    /// Files.
    Files,
}
