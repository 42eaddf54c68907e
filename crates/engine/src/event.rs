//! The one stream of events beside every build. The terminal, a log file and a web page only render it.

use std::borrow::Cow;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::Failure;

/// What happened. One JSON object a line says it, and can be read back.
#[derive(Clone, Debug, Serialize, Deserialize)]
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
        stream: Cow<'static, str>,
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unit {
    /// Bytes.
    Bytes,
    /// Packages.
    Packages,
    /// Files.
    Files,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::FailureKind;

    fn failures() -> Vec<Event> {
        let failure = Failure {
            layer: Some("base".to_owned()),
            origin: Some("base.ks:7".to_owned()),
            command: Some(vec!["sh".to_owned(), "-e".to_owned()]),
            tail: vec!["no such file".to_owned()],
            log: Some(PathBuf::from("/state/failed/1/build.log")),
            ..Failure::new(FailureKind::Step, "%post failed").cause("it ended")
        };
        let bare = Failure::new(FailureKind::Cancelled, "the build was stopped");
        let failures = [failure, bare].map(Box::new);
        let failed = |failure| Event::BuildFailed { failure };
        failures.into_iter().map(failed).collect()
    }

    fn others() -> Vec<Event> {
        vec![
            Event::BuildStarted {
                name: "lab".to_owned(),
                plan_id: "5e2d".to_owned(),
            },
            Event::StepStarted {
                step: 1,
                title: "installing 3 packages".to_owned(),
                layer: None,
                why: Some("vim is new".to_owned()),
            },
            Event::StepCached {
                step: 2,
                title: "finishing the root".to_owned(),
                layer: Some("lab".to_owned()),
                shared: true,
            },
            Event::Progress {
                step: 1,
                done: 7,
                total: None,
                unit: Unit::Packages,
                item: Some("vim".to_owned()),
            },
            Event::Log {
                step: 1,
                stream: "stderr".into(),
                line: "a line".to_owned(),
            },
            Event::Warning {
                step: None,
                message: "a key".to_owned(),
                origin: None,
                hint: Some("remove it".to_owned()),
            },
            Event::StepFinished {
                step: 1,
                seconds: 1.5,
                summary: None,
            },
            Event::StepFailed {
                step: 3,
                seconds: 0.25,
            },
            Event::Artifact {
                path: PathBuf::from("output/disk.raw"),
                bytes: 1 << 40,
                allocated: 4096,
                kept: false,
            },
            Event::BuildFinished {
                seconds: 61.0,
                output: PathBuf::from("output"),
            },
        ]
    }

    #[test]
    fn every_event_can_be_read_back() {
        for event in others().into_iter().chain(failures()) {
            let line = serde_json::to_string(&event).expect("JSON");
            let read: Event = serde_json::from_str(&line).expect(&line);
            assert_eq!(format!("{read:?}"), format!("{event:?}"));
            assert_eq!(serde_json::to_string(&read).expect("JSON"), line);
        }
    }

    #[test]
    fn what_is_no_event_is_refused() {
        for line in [
            "{}",
            r#"{"event":"build-started"}"#,
            r#"{"event":"exploded","step":1}"#,
            r#"{"event":"progress","step":1,"done":1,"total":null,"unit":"miles","item":null}"#,
        ] {
            assert!(serde_json::from_str::<Event>(line).is_err(), "{line}");
        }
    }
}
