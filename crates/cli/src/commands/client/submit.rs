//! `kiln submit`

use std::path::Path;

use kiln_client::builds::Builds;
use kiln_client::repository::Repository;
use kiln_client::source::Files;
use kiln_engine::{Failure, FailureKind};
use serde_json::Value;

use super::builds::queued;
use super::task::Task;
use super::{connect, failure};
use crate::args::client::SubmitArgs;
use crate::commands::Context;
use crate::render::text::bytes;

/// Sends a source, unless the server has it, and queues its build.
pub(crate) fn run(args: &SubmitArgs, context: &Context<'_>) -> Result<u8, Failure> {
    if let Some(repository) = repository(args)? {
        return of_repository(args, &repository, context);
    }
    let task = Task::of(args)?;
    let files = Files::of(&task.dir).map_err(failure)?;
    for path in &files.special {
        let message = format!("{} is left out: it is no file", path.display());
        context.terminal.event(&kiln_engine::Event::Warning {
            step: None,
            message,
            origin: None,
            hint: None,
        });
    }
    if args.local {
        return super::local::run(args, &task, &files, context);
    }
    let builds = connect(&args.remote, context)?;
    let mut build = task.build(&builds.project, Path::new(""))?;
    let mut archive = files.pack().map_err(failure)?;
    let (source, sent) = builds.keep(&mut archive).map_err(failure)?;
    let what = format!("{} files, {}", files.count(), bytes(archive.size));
    match sent {
        true => context.terminal.note("sent", &what),
        false => context
            .terminal
            .note("known", &format!("{what}: the server has this source")),
    }
    build["source"] = source;
    create(&builds, &task, &build, args, context)
}

/// The repository that is to be built, if it is one.
fn repository(args: &SubmitArgs) -> Result<Option<Repository>, Failure> {
    match args.source.to_str() {
        Some(text) if Repository::is_meant(text) => {
            Repository::read(text).map(Some).map_err(failure)
        }
        _ => Ok(None),
    }
}

/// Queues a build whose source the server fetches.
fn of_repository(
    args: &SubmitArgs,
    repository: &Repository,
    context: &Context<'_>,
) -> Result<u8, Failure> {
    if args.local {
        let message = format!("--local builds a directory, and {} is none", repository.url);
        let hint = format!("clone it first: git clone {}", repository.url);
        return Err(Failure::new(FailureKind::Usage, message).hint(hint));
    }
    let builds = connect(&args.remote, context)?;
    let (task, revision) = Task::of_repository(args, repository)?;
    let mut build = task.build(&builds.project, &task.dir)?;
    build["source"] = repository.source(&revision, &task.dir);
    // As for a source that is sent: what the build makes goes there, unless it says something else.
    builds.make(&builds.bucket()).map_err(failure)?;
    create(&builds, &task, &build, args, context)
}

fn create(
    builds: &Builds,
    task: &Task,
    build: &Value,
    args: &SubmitArgs,
    context: &Context<'_>,
) -> Result<u8, Failure> {
    let queued_build = builds.create(build).map_err(|error| {
        let mut failure = failure(error);
        if failure.kind == FailureKind::Definition {
            failure.origin = Some(task.shown.clone());
        }
        failure
    })?;
    queued(builds, &queued_build, args.json, args.follow, context)
}
