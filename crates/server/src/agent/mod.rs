//! One attempt at a build, in a process of its own: unpacks the source, runs the steps, finds the artifacts. It knows the
//! attempt's directory and nothing of the server; what it has to say goes into the log and the events there.

mod artifacts;
mod container;
pub(crate) mod engine;
mod events;
mod glob;
mod log;
mod mask;
mod output;
mod push;
mod repository;
mod schedule;
pub(crate) mod source;
mod step;
mod workspace;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use kiln_git::Credentials;
use rustix::process::{Resource, Rlimit, setrlimit};

use crate::commands::Commands;
use crate::executor::local::wish;
use crate::executor::request::{Artifact, ArtifactsRequest, Attempt, Request, What, closing};
use crate::git;
use crate::wire::model::Status;
use crate::wire::time;
use artifacts::Trouble;
use engine::Engines;
use events::Events;
use log::Log;
use mask::Mask;
use schedule::Verdict;
use step::{Means, Stop};

/// What an agent is started with.
pub struct Agent<'a> {
    /// The attempt's directory.
    pub dir: PathBuf,
    /// The program `kiln`.
    pub program: PathBuf,
    /// Its command line.
    pub commands: &'a dyn Commands,
    /// The environment of steps.
    pub env: Vec<(OsString, OsString)>,
    /// What containers reach.
    pub network: kiln_sandbox::Network,
    /// What makes names resolve in their network.
    pub mounts: Vec<kiln_sandbox::Mount>,
    /// Variables that name the proxies there.
    pub proxies: Vec<(String, String)>,
    /// Set by a signal that asks for the end.
    pub stopped: Arc<AtomicBool>,
}

/// How an attempt ended, before it is written down.
struct Ending {
    status: Status,
    detail: Option<String>,
    failure: Option<&'static str>,
}

impl Ending {
    fn new(status: Status) -> Self {
        Ending {
            status,
            detail: None,
            failure: None,
        }
    }

    fn failed(failure: &'static str, detail: String) -> Self {
        Ending {
            status: Status::Failure,
            detail: Some(detail),
            failure: Some(failure),
        }
    }
}

/// Carries out an attempt. How the build went is in its events; an error is trouble with the attempt's own files.
///
/// # Errors
/// The request cannot be read, or the log or the events cannot be written.
pub fn run(agent: &Agent<'_>) -> io::Result<()> {
    let attempt = Attempt {
        dir: agent.dir.clone(),
    };
    let request: Request = serde_json::from_slice(&fs::read(attempt.request())?)?;
    let workspace = attempt.workspace();
    fs::create_dir_all(&workspace)?;
    let secrets = request.secrets_of.read(&request.secrets);
    let credentials = match &request.git {
        Some(_) => git::credentials(request.git_credentials.as_deref()),
        None => Ok(Credentials::default()),
    };
    let passwords = credentials.iter().flat_map(Credentials::passwords);
    let values = secrets.iter().flat_map(|values| values.values());
    let mask = Mask::new(values.map(String::as_str).chain(passwords));
    if !request.secrets.is_empty() || request.git_credentials.is_some() {
        no_memory_on_disk()?;
    }
    let log = Log::open(&attempt.log(), &attempt.times(), &workspace, mask)?;
    let events = Events::open(&attempt.events())?;
    if request.attempt == 1 {
        log.line(&format!("starting build \"{}\"", request.build))?;
    } else {
        log.line(&format!(
            "\nstarting build \"{}\" again, attempt {}",
            request.build, request.attempt
        ))?;
    }
    let work = Work {
        agent,
        attempt: &attempt,
        request: &request,
        log: &log,
        events: &events,
        deadline: Instant::now() + Duration::from_secs_f64(request.timeout),
    };
    let result = match secrets {
        Ok(values) => work.all(&values, credentials),
        Err(why) => Ok(Ending::failed("USER_BUILD_STEP", why)),
    };
    let mut ending = result.unwrap_or_else(|error| Ending {
        status: Status::InternalError,
        detail: Some(error.to_string()),
        failure: None,
    });
    ending.detail = ending.detail.map(|detail| log.shown(&detail).into_owned());
    step::keep(&workspace, &attempt.dir.join("states"), &attempt.kept())?;
    let detail = ending.detail.as_deref();
    match (ending.status, detail) {
        // Nothing is done until the artifacts are in their bucket: whoever puts them there closes the log.
        (Status::Success, _) if request.artifacts.is_some() => {}
        (Status::Success, _) => log.write(&closing(None))?,
        (Status::Timeout, _) => log.line("TIMEOUT\nERROR: context deadline exceeded")?,
        (Status::Cancelled, _) => log.line("CANCELLED\nERROR: context canceled")?,
        (_, detail) => log.write(&closing(Some(detail.unwrap_or("unknown"))))?,
    }
    events.write(What::Ended {
        status: ending.status,
        detail: ending.detail,
        failure: ending.failure.map(str::to_owned),
    })
}

/// A process that fails leaves nothing of its memory in a file, nor do those that it starts.
fn no_memory_on_disk() -> io::Result<()> {
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    Ok(setrlimit(Resource::Core, none)?)
}

struct Work<'a> {
    agent: &'a Agent<'a>,
    attempt: &'a Attempt,
    request: &'a Request,
    log: &'a Log,
    events: &'a Events,
    deadline: Instant,
}

impl Work<'_> {
    fn all(
        &self,
        secrets: &BTreeMap<String, String>,
        credentials: kiln_git::Result<Credentials>,
    ) -> io::Result<Ending> {
        if let Some(ending) = self.fetch(credentials)? {
            return Ok(ending);
        }
        let ending = self.steps(secrets)?;
        match &self.request.artifacts {
            Some(artifacts) if ending.status == Status::Success => self.artifacts(artifacts),
            _ => Ok(ending),
        }
    }

    /// Unpacks the source; returns an end only if that is one.
    fn fetch(&self, credentials: kiln_git::Result<Credentials>) -> io::Result<Option<Ending>> {
        if let Some(task) = &self.request.git
            && let Some(ending) = repository::fetch(self, task, credentials)?
        {
            return Ok(Some(ending));
        }
        let began = time::now();
        let workspace = self.attempt.workspace();
        if let Some(place) = &self.request.source {
            self.log
                .line(&format!("\nFETCHSOURCE\nFetching storage object: {place}"))?;
            match source::unpack(&self.attempt.source(), &workspace) {
                Ok(left_out) => {
                    for sentence in left_out {
                        self.log.line(&format!("WARNING: {sentence}"))?;
                    }
                }
                Err(error) => {
                    let detail = format!("unpacking {place}: {error}");
                    return Ok(Some(Ending::failed("FETCH_SOURCE_FAILED", detail)));
                }
            }
            self.events.write(What::Fetched {
                began,
                commit: None,
            })?;
        }
        if let Some(kept) = &self.request.locks_of {
            step::put_locks(kept, &workspace)?;
        }
        Ok(None)
    }

    fn steps(&self, secrets: &BTreeMap<String, String>) -> io::Result<Ending> {
        self.log.line("BUILD")?;
        self.events.write(What::StepsBegan)?;
        let engines = Engines::new(self);
        engines.prepare(&self.request.steps)?;
        let means = Means {
            program: &self.agent.program,
            commands: self.agent.commands,
            env: &self.agent.env,
            cache: &self.request.cache,
            states: &self.attempt.dir.join("states"),
            workspace: &self.attempt.workspace(),
            threads: self.request.threads,
            from_elsewhere: self.request.from_elsewhere,
            log: self.log,
            proxies: &self.agent.proxies,
            secrets,
            engines: &engines,
        };
        let verdict = schedule::run(&self.request.steps, &means, self.events, &|| self.stop());
        let pushed = match &verdict {
            Ok(Verdict::Done) if !self.request.push.is_empty() => Some(self.push(&engines)),
            _ => None,
        };
        // Before anything else is read or written in the workspace.
        engines.end()?;
        let verdict = verdict?;
        self.events.write(What::StepsEnded)?;
        if let Some(Some(ending)) = pushed.transpose()? {
            return Ok(ending);
        }
        Ok(match verdict {
            Verdict::Done => Ending::new(Status::Success),
            Verdict::Stopped(Stop::Cancelled) => Ending::new(Status::Cancelled),
            Verdict::Stopped(Stop::TimedOut) => Ending::new(Status::Timeout),
            Verdict::Failed(detail) => Ending::failed("USER_BUILD_STEP", detail),
        })
    }

    /// Keeps the images that the build names; returns an end only if that is one.
    fn push(&self, engines: &Engines) -> io::Result<Option<Ending>> {
        self.log.line("PUSH")?;
        let mut say = |line: &str| self.log.line(line);
        match push::keep(engines, &self.request.push, &self.request.images, &mut say)? {
            Ok(images) => {
                self.events.write(What::Pushed { images })?;
                Ok(None)
            }
            Err(push::Trouble { failure, detail }) => Ok(Some(Ending::failed(failure, detail))),
        }
    }

    fn stop(&self) -> Option<Stop> {
        if self.agent.stopped.load(Ordering::SeqCst) || wish(self.attempt).exists() {
            return Some(Stop::Cancelled);
        }
        (Instant::now() >= self.deadline).then_some(Stop::TimedOut)
    }

    fn artifacts(&self, wanted: &ArtifactsRequest) -> io::Result<Ending> {
        let place = &wanted.location;
        self.log
            .line(&format!("PUSH\nArtifacts will be uploaded to {place}"))?;
        let files = match artifacts::find(wanted, &self.attempt.workspace()) {
            Ok(files) => files,
            Err(Trouble::Asked(what)) => {
                let detail = format!("could not upload artifacts: {what}");
                return Ok(Ending::failed("PUSH_FAILED", detail));
            }
            Err(Trouble::Read(error)) => return Err(error),
        };
        for file in &files {
            let Artifact {
                path, size, sha256, ..
            } = file;
            self.log
                .line(&format!("{path}: {size} bytes, SHA-256 {sha256}"))?;
        }
        self.events.write(What::Artifacts { files })?;
        Ok(Ending::new(Status::Success))
    }
}
