//! A build without a server: the same file, prepared, carried out and reported the same way, in a directory.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use serde_json::Value;

use crate::agent::engine;
use crate::commands::Commands;
use crate::executor::request::{Artifact, Attempt, Event, Request, What};
use crate::prepare::{self, Rules};
use crate::secrets::Secrets;
use crate::substitute::Place;
use crate::wire::model::Status;

/// What a build is prepared with.
pub struct Here<'a> {
    /// The project that its substitutions name.
    pub project: &'a str,
    /// Its id.
    pub id: &'a str,
    /// Kiln's command line.
    pub commands: &'a dyn Commands,
    /// Kiln's cache.
    pub cache: &'a Path,
    /// Threads for a step.
    pub threads: u32,
}

/// How a build ended.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Its status.
    pub status: Status,
    /// For people.
    pub detail: Option<String>,
    /// What it made, below the attempt's workspace.
    pub artifacts: Vec<Artifact>,
}

/// Makes an attempt's directory of a build, whose source lies in `attempt.source()` already. Returns the warnings.
///
/// # Errors
/// What is wrong with the build, as a server's client is told; or the directory cannot be written.
pub fn prepare(build: Value, attempt: &Attempt, here: &Here<'_>) -> Result<Vec<String>, String> {
    let place = Place {
        project: here.project,
        location: "global",
        id: here.id,
    };
    let rules = Rules {
        images: &["kiln".to_owned()],
        commands: here.commands,
        engine: &engine::available,
        secrets: &|_| Err("a build without a server has no secrets".to_owned()),
        pin: None,
    };
    let prepared = prepare::prepare(build, place, &rules).map_err(|error| error.message)?;
    let request = Request {
        build: here.id.to_owned(),
        attempt: 1,
        steps: prepared.task.steps,
        source: Some("the directory".to_owned()),
        git: None,
        git_credentials: None,
        timeout: prepared.task.timeout,
        artifacts: prepared.task.artifacts,
        push: Vec::new(),
        threads: here.threads,
        memory: None,
        cache: here.cache.to_owned(),
        from_elsewhere: false,
        images: attempt.dir.join("images"),
        secrets: BTreeMap::new(),
        secrets_of: Secrets::default(),
        engine: None,
        locks_of: None,
    };
    let written = serde_json::to_vec(&request)
        .map_err(io::Error::from)
        .and_then(|bytes| fs::write(attempt.request(), bytes))
        .and_then(|()| fs::write(attempt.log(), ""));
    written.map_err(|error| format!("the build's directory cannot be written: {error}"))?;
    let warnings = prepared.build.warnings.into_iter();
    Ok(warnings.map(|warning| warning.text).collect())
}

/// Reads how an attempt ended.
///
/// # Errors
/// Its events cannot be read, or it has not ended.
pub fn outcome(attempt: &Attempt) -> io::Result<Outcome> {
    let text = fs::read_to_string(attempt.events())?;
    let mut artifacts = Vec::new();
    for line in text.lines() {
        let event: Event = serde_json::from_str(line)?;
        match event.what {
            What::Artifacts { files } => artifacts = files,
            What::Ended { status, detail, .. } => {
                return Ok(Outcome {
                    status,
                    detail,
                    artifacts,
                });
            }
            _ => {}
        }
    }
    Err(io::Error::other("the build has not said how it ended"))
}
