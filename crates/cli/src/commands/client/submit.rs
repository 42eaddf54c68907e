//! `kiln submit`

use kiln_client::source::Files;
use kiln_engine::{Failure, FailureKind};

use super::builds::queued;
use super::task::Task;
use super::{connect, failure};
use crate::args::client::SubmitArgs;
use crate::commands::Context;
use crate::render::text::bytes;

/// Sends a source, unless the server has it, and queues its build.
pub(crate) fn run(args: &SubmitArgs, context: &Context<'_>) -> Result<u8, Failure> {
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
    let mut build = task.build(&builds.project)?;
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
    let queued_build = builds.create(&build).map_err(|error| {
        let mut failure = failure(error);
        if failure.kind == FailureKind::Definition {
            failure.origin = Some(task.shown.clone());
        }
        failure
    })?;
    queued(&builds, &queued_build, args.json, args.follow, context)
}
