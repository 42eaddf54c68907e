//! `kiln logs`, and what `--follow` does.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use kiln_client::builds::Builds;
use kiln_client::follow::{Reader, follow};
use kiln_client::{Error, Kind};
use kiln_engine::{Failure, FailureKind};
use serde_json::Value;

use super::{connect, failure};
use crate::args::client::LogsArgs;
use crate::commands::Context;

/// Shows the log of a build.
pub(crate) fn run(args: &LogsArgs, context: &Context<'_>) -> Result<u8, Failure> {
    let builds = connect(&args.remote, context)?;
    let id = builds.find(args.build.as_deref()).map_err(failure)?;
    if args.follow {
        return to_the_end(&builds, &id, context);
    }
    let mut screen = Screen::new(context);
    follow(&builds, &id, false, &mut screen).map_err(failure)?;
    Ok(0)
}

/// Shows the log until the build ends; the exit code says how. The first signal leaves the build alone.
pub(super) fn to_the_end(builds: &Builds, id: &str, context: &Context<'_>) -> Result<u8, Failure> {
    let mut screen = Screen::new(context);
    let flag = Arc::clone(&screen.stopped);
    context
        .interrupt
        .on_signal(move || flag.store(true, Ordering::SeqCst))?;
    let again = format!("kiln logs -f {id}");
    let ended = follow(builds, id, true, &mut screen).map_err(|error| {
        let mut failure = failure(error);
        failure
            .hints
            .push(format!("the build may be going on: {again}"));
        failure
    })?;
    let Some(build) = ended else {
        if screen.closed {
            return Ok(0);
        }
        let message = format!("the build {id} goes on without this command");
        return Err(Failure::new(FailureKind::Cancelled, message)
            .hint(format!("follow it again: {again}"))
            .hint(format!("stop it: kiln cancel {id}")));
    };
    outcome(builds, &build, context)
}

/// Says how a build ended.
fn outcome(builds: &Builds, build: &Value, context: &Context<'_>) -> Result<u8, Failure> {
    let status = build["status"].as_str().unwrap_or("");
    let id = build["id"].as_str().unwrap_or("");
    if status == "SUCCESS" {
        let made = build["results"]["numArtifacts"].as_str().unwrap_or("0");
        context.terminal.note("built", &super::page(builds, id));
        if made != "0" {
            let text = format!("{made} artifacts: kiln artifacts {id} --download DIR");
            context.terminal.note("kept", &text);
        }
        return Ok(0);
    }
    let kind = match status {
        "INTERNAL_ERROR" => FailureKind::Environment,
        _ => FailureKind::Step,
    };
    let what = match status {
        "TIMEOUT" => "ran out of time",
        "CANCELLED" => "was cancelled",
        "EXPIRED" => "waited too long in the queue",
        "INTERNAL_ERROR" => "was given up by the server",
        _ => "failed",
    };
    let mut failure = Failure::new(kind, format!("the build {id} {what}"));
    let detail = build["failureInfo"]["detail"].as_str();
    failure
        .causes
        .extend(detail.or(build["statusDetail"].as_str()).map(str::to_owned));
    Err(failure.hint(format!("queue it again: kiln retry {id}")))
}

/// Writes a log to standard output as it comes.
struct Screen<'a> {
    context: &'a Context<'a>,
    stopped: Arc<AtomicBool>,
    /// Whether nobody reads standard output any more.
    closed: bool,
}

impl<'a> Screen<'a> {
    fn new(context: &'a Context<'a>) -> Self {
        Screen {
            context,
            stopped: Arc::new(AtomicBool::new(false)),
            closed: false,
        }
    }
}

impl Reader for Screen<'_> {
    fn text(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let mut stdout = std::io::stdout().lock();
        match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {
                self.closed = true;
                self.stopped.store(true, Ordering::SeqCst);
                Ok(())
            }
            Err(error) => Err(Error {
                cause: Some(error.to_string()),
                ..Error::new(
                    Kind::Environment,
                    "the log could not be written to standard output",
                )
            }),
        }
    }

    fn trouble(&mut self, error: Option<&Error>) {
        let terminal = self.context.terminal;
        match error {
            Some(error) => terminal.note(
                "waiting",
                &format!("{error}; the log goes on when it is back"),
            ),
            None => terminal.note("back", "the server answers again"),
        }
    }

    fn waits(&mut self, why: &str) {
        self.context.terminal.note("queued", why);
    }

    fn stopped(&self) -> bool {
        self.stopped.load(Ordering::SeqCst)
    }
}
