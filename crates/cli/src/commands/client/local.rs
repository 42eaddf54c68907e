//! `kiln submit --local`: the build runs here, as a server would run it.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use kiln_client::source::Files;
use kiln_engine::{Failure, FailureKind};
use kiln_server::agent::Agent;
use kiln_server::executor::request::{Artifact, Attempt, closing};
use kiln_server::local::{Here, Outcome, outcome, prepare};
use kiln_server::wire::model::Status;

use super::DEFAULT_PROJECT;
use super::failure;
use super::task::Task;
use crate::args::client::SubmitArgs;
use crate::commands::Context;
use crate::commands::step::Steps;
use crate::output;
use crate::render::text::bytes;

/// How often the log is looked at.
const LOOK: Duration = Duration::from_millis(50);

/// Carries out the build and puts its artifacts into the output directory.
pub(super) fn run(
    args: &SubmitArgs,
    task: &Task,
    files: &Files,
    context: &Context<'_>,
) -> Result<u8, Failure> {
    let project = args.remote.project.as_deref().unwrap_or(DEFAULT_PROJECT);
    let build = task.build(project, Path::new(""))?;
    let target = &args.output;
    fs::create_dir_all(target).map_err(|error| trouble(target, &error))?;
    // Beside the artifacts, which may be large: they are moved then.
    let dir = tempfile::Builder::new()
        .prefix(".kiln-local-")
        .tempdir_in(target)
        .and_then(|dir| Ok((dir.path().canonicalize()?, dir)));
    let (path, _dir) = dir.map_err(|error| trouble(target, &error))?;
    let attempt = Attempt { dir: path };
    let mut archive = files.pack().map_err(failure)?;
    let source = attempt.source();
    let kept = File::create(&source).and_then(|mut file| io::copy(&mut archive.file, &mut file));
    kept.map_err(|error| trouble(&source, &error))?;
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH);
    let id = format!("local-{}", seconds.map_or(0, |time| time.as_secs()));
    let threads = u32::try_from(context.settings.processors).unwrap_or(1);
    let here = Here {
        project,
        id: &id,
        commands: &Steps,
        cache: context.settings.cache_dir()?,
        threads,
    };
    let warnings = prepare(build, &attempt, &here).map_err(|why| {
        let mut failure =
            Failure::new(FailureKind::Definition, "the build cannot be run").cause(why);
        failure.origin = Some(task.shown.clone());
        failure
    })?;
    for message in warnings {
        context.terminal.event(&kiln_engine::Event::Warning {
            step: None,
            message,
            origin: None,
            hint: None,
        });
    }
    let ended = carry_out(&attempt, context)?;
    finish(&ended, &attempt, target, context)
}

fn trouble(path: &Path, error: &io::Error) -> Failure {
    let message = format!("{} cannot be written", path.display());
    Failure::new(FailureKind::Environment, message).cause(error.to_string())
}

/// Runs the agent and shows its log meanwhile.
fn carry_out(attempt: &Attempt, context: &Context<'_>) -> Result<Outcome, Failure> {
    let lost = |error: io::Error| {
        Failure::new(FailureKind::Environment, "the build cannot be carried out")
            .cause(error.to_string())
    };
    let stopped = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&stopped);
    context
        .interrupt
        .on_signal(move || flag.store(true, Ordering::SeqCst))?;
    let access = crate::commands::serve::of_containers(context)?;
    let handed_on = context.settings.handed_on.0.iter();
    let agent = Agent {
        dir: attempt.dir.clone(),
        program: std::env::current_exe().map_err(lost)?,
        commands: &Steps,
        env: handed_on
            .map(|(name, value)| (name.into(), value.into()))
            .collect(),
        mounts: access.mounts(),
        network: access.network,
        proxies: access.env,
        stopped,
    };
    let mut log = File::open(attempt.log()).map_err(lost)?;
    thread::scope(|scope| {
        let running = scope.spawn(|| kiln_server::agent::run(&agent));
        loop {
            // In this order: what was written before the end is shown.
            let is_over = running.is_finished();
            show(&mut log)?;
            if is_over {
                break;
            }
            thread::sleep(LOOK);
        }
        let ran = running.join();
        ran.unwrap_or_else(|_| Err(io::Error::other("the build's thread panicked")))
            .map_err(lost)
    })?;
    outcome(attempt).map_err(lost)
}

/// Prints what a log has that was not printed yet.
fn show(log: &mut File) -> Result<(), Failure> {
    let mut text = Vec::new();
    log.read_to_end(&mut text).map_err(|error| {
        Failure::new(FailureKind::Environment, "the build's log cannot be read")
            .cause(error.to_string())
    })?;
    output::print_bytes(&text)
}

fn finish(
    ended: &Outcome,
    attempt: &Attempt,
    target: &Path,
    context: &Context<'_>,
) -> Result<u8, Failure> {
    if ended.status == Status::Success {
        for artifact in &ended.artifacts {
            keep(artifact, attempt, target, context)?;
        }
        if !ended.artifacts.is_empty() {
            // As a server does when they are in their bucket.
            output::print(&closing(None))?;
        }
        return Ok(0);
    }
    let (kind, what) = match ended.status {
        Status::Cancelled => (FailureKind::Cancelled, "was stopped"),
        Status::Timeout => (FailureKind::Step, "ran out of time"),
        Status::InternalError => (FailureKind::Environment, "could not be carried out"),
        _ => (FailureKind::Step, "failed"),
    };
    let mut failure = Failure::new(kind, format!("the build {what}"));
    failure.causes.extend(ended.detail.clone());
    Err(failure)
}

/// Moves an artifact out of the workspace, under its last name as on a server.
fn keep(
    artifact: &Artifact,
    attempt: &Attempt,
    target: &Path,
    context: &Context<'_>,
) -> Result<(), Failure> {
    let name = artifact.path.rsplit('/').next().unwrap_or(&artifact.path);
    let (from, to) = (attempt.workspace().join(&artifact.path), target.join(name));
    fs::rename(&from, &to).map_err(|error| trouble(&to, &error))?;
    let text = format!("{}, {}", to.display(), bytes(artifact.size));
    context.terminal.note("kept", &text);
    Ok(())
}
