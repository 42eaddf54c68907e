//! Runs of commands and calls in a root that is being made.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use kiln_sandbox::{
    Body, CancelToken, Io, Limits, Mount, Network, Outcome, Request, Root, Sandbox, Silence,
    Status, Stdin, Stream,
};

use crate::error::{Error, ErrorKind, Result, describe, sandbox_error};
use crate::report::{Reporter, Tail};
use crate::store::Staging;
use crate::trace::{self, SharedTrace, Tracer, Tracing};

/// `PATH` of everything that runs in a root.
pub(crate) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The place where runs happen: a root, and who listens.
pub struct Place<'a> {
    /// Runs things.
    pub sandbox: &'a Sandbox,
    /// The root.
    pub root: Root,
    /// `SOURCE_DATE_EPOCH` for everything inside.
    pub epoch: i64,
    /// Receives lines and progress.
    pub reporter: &'a dyn Reporter,
    /// Stops runs.
    pub cancel: &'a CancelToken,
    /// Takes the traces of all that runs here; `None`: nobody does.
    pub tracer: Option<&'a Tracer>,
}

/// What a run has beside the root's standard furniture.
#[derive(Default)]
pub struct Extras {
    /// Mounts after the standard ones.
    pub mounts: Vec<Mount>,
    /// Added to the environment.
    pub env: Vec<(String, String)>,
    /// Handed over to a program as descriptors 10, 11, …
    pub fds: Vec<OwnedFd>,
    /// Standard input.
    pub stdin: Vec<u8>,
    /// Whether set-id programs work: scripts may act as an ordinary user who needs them.
    pub set_ids: bool,
    /// What of the network can be reached.
    pub network: Network,
    /// Nothing is mounted: the root's own directories are seen as they are.
    pub bare: bool,
    /// Whether a status other than 0 is an answer rather than a failure.
    pub any_status: bool,
    /// How the run is traced; `None`: as all that run in its place.
    pub tracing: Option<Tracing>,
}

impl Extras {
    /// Of a run without the standard furniture.
    pub fn bare() -> Self {
        Extras {
            bare: true,
            ..Extras::default()
        }
    }
}

impl<'a> Place<'a> {
    /// A place over `lower` (the top layer first) whose changes go to `staging`.
    pub fn over(
        sandbox: &'a Sandbox,
        lower: Vec<PathBuf>,
        staging: &Staging,
        epoch: i64,
        reporter: &'a dyn Reporter,
        cancel: &'a CancelToken,
    ) -> Self {
        let root = Root::Overlay {
            lower,
            upper: staging.fs(),
            work: staging.work(),
        };
        Place {
            sandbox,
            root,
            epoch,
            reporter,
            cancel,
            tracer: None,
        }
    }

    /// The same place with somebody else listening.
    pub fn with_reporter<'b>(&'b self, reporter: &'b dyn Reporter) -> Place<'b> {
        Place {
            sandbox: self.sandbox,
            root: self.root.clone(),
            epoch: self.epoch,
            reporter,
            cancel: self.cancel,
            tracer: self.tracer,
        }
    }

    /// Runs a program of the root. The outcome's status is 0, or any with `any_status`.
    ///
    /// # Errors
    /// The sandbox cannot be made, or the program failed: with its command, status and last lines.
    pub fn exec(&self, argv: &[&str], extras: Extras) -> Result<Outcome> {
        let argv: Vec<String> = argv.iter().map(|&a| a.to_owned()).collect();
        let any_status = extras.any_status;
        let tail = Tail::new(self.reporter);
        let outcome = self.run(
            Body::Exec { argv: argv.clone() },
            extras,
            &tail,
            &mut |_| {},
        )?;
        match outcome.status {
            Status::Exited(0) => Ok(outcome),
            Status::Exited(_) | Status::Signaled(_) if any_status => Ok(outcome),
            _ => Err(command_failed(argv, &outcome, tail.take())),
        }
    }

    /// Runs a program of the root and returns the lines of its standard output.
    ///
    /// # Errors
    /// As [`Place::exec`].
    pub fn lines(&self, argv: &[&str]) -> Result<Vec<String>> {
        self.lines_with(argv, Extras::default())
    }

    /// As [`Place::lines`], with more than the standard furniture.
    ///
    /// # Errors
    /// As [`Place::exec`].
    pub fn lines_with(&self, argv: &[&str], extras: Extras) -> Result<Vec<String>> {
        let collector = Collector {
            inner: self.reporter,
            lines: std::sync::Mutex::new(Vec::new()),
        };
        self.with_reporter(&collector).exec(argv, extras)?;
        Ok(collector
            .lines
            .into_inner()
            .unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    /// Calls one of Kiln's own functions in the root.
    ///
    /// # Errors
    /// The sandbox cannot be made, or the function failed.
    pub fn call<C: kiln_sandbox::Call<Message = Silence>>(
        &self,
        call: &C,
        handed: C::Handed,
        extras: Extras,
    ) -> Result<C::Answer> {
        let (answer, _) = self.call_and_hear(call, handed, extras, &mut |never| match never {})?;
        Ok(answer)
    }

    /// As [`Place::call`]; `message` hears what the function says on the way.
    ///
    /// # Errors
    /// As [`Place::call`], or it says something unknown.
    pub fn call_and_hear<C: kiln_sandbox::Call>(
        &self,
        call: &C,
        handed: C::Handed,
        mut extras: Extras,
        message: &mut dyn FnMut(C::Message),
    ) -> Result<(C::Answer, Outcome)> {
        let tail = Tail::new(self.reporter);
        let (body, fds) = Body::call(call, handed).map_err(|e| call_failed(e, Vec::new()))?;
        extras.fds = fds;
        let mut unknown = None;
        let mut hear = |value| match kiln_sandbox::message::<C>(value) {
            Ok(said) => message(said),
            Err(error) => unknown = Some(error),
        };
        let mut outcome = self.run(body, extras, &tail, &mut hear)?;
        if let Some(error) = unknown {
            return Err(call_failed(error, tail.take()));
        }
        match outcome.answer::<C>() {
            Some(Ok(answer)) => Ok((answer, outcome)),
            Some(Err(error)) => Err(call_failed(error, tail.take())),
            None => {
                let mut error = Error::new(
                    ErrorKind::Internal,
                    format!("Kiln's own step `{}` ended without a result", C::NAME),
                );
                error.status = Some(describe(outcome.status));
                error.tail = tail.take();
                explain_kill(&mut error, &outcome);
                Err(error)
            }
        }
    }

    fn run(
        &self,
        body: Body,
        extras: Extras,
        tail: &Tail<'_>,
        message: &mut dyn FnMut(serde_json::Value),
    ) -> Result<Outcome> {
        let bare = extras.bare;
        let command = match &body {
            Body::Exec { argv } => Some(argv.clone()),
            Body::Call { .. } => None,
        };
        let mut mounts = if bare { Vec::new() } else { standard_mounts() };
        let tracer = self.tracer.filter(|_| extras.tracing.is_none());
        let trace = SharedTrace::default();
        let tracing = extras
            .tracing
            .or_else(|| tracer.map(|_| trace::of_layers(bare, &trace)));
        mounts.extend(extras.mounts);
        let mut env = standard_env(self.epoch);
        // Of two variables of one name most programs take the first.
        env.retain(|(name, _)| extras.env.iter().all(|(given, _)| given != name));
        env.extend(extras.env);
        let request = Request {
            root: self.root.clone(),
            mounts,
            body,
            env,
            cwd: "/".to_owned(),
            network: extras.network,
            limits: Limits::default(),
            hostname: "localhost".to_owned(),
            no_new_privs: !extras.set_ids,
            watch: tracing.as_ref().map(|tracing| tracing.watch.clone()),
        };
        let stdin = if extras.stdin.is_empty() {
            Stdin::Null
        } else {
            Stdin::Bytes(extras.stdin)
        };
        let mut output = |stream, line: &str| tail.line(stream, line);
        let io = Io {
            stdin,
            output: &mut output,
            message,
            fds: extras.fds,
            cancel: Some(self.cancel),
            terminal: None,
            observer: tracing.map(|tracing| Box::new(tracing.recorder()) as _),
        };
        let outcome = self.sandbox.run(&request, io);
        if let Some(tracer) = tracer {
            let outcome = outcome.as_ref().ok();
            tracer.add(outcome.and_then(|outcome| trace::taken(&trace, outcome)));
        }
        let outcome = outcome.map_err(sandbox_error)?;
        if outcome.status == Status::Cancelled {
            return Err(Error::new(ErrorKind::Cancelled, "the step was stopped"));
        }
        over_limit(outcome.status, self.sandbox.limits(), command, tail)?;
        Ok(outcome)
    }
}

/// Keeps standard output and passes the rest on.
struct Collector<'a> {
    inner: &'a dyn Reporter,
    lines: std::sync::Mutex<Vec<String>>,
}

impl Reporter for Collector<'_> {
    fn line(&self, stream: Stream, line: &str) {
        if stream == Stream::Stdout {
            self.lines
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner)
                .push(line.to_owned());
        } else {
            self.inner.line(stream, line);
        }
    }

    fn progress(&self, done: u64, total: Option<u64>, item: Option<&str>) {
        self.inner.progress(done, total, item);
    }

    fn warn(&self, message: String, origin: Option<String>, hint: Option<String>) {
        self.inner.warn(message, origin, hint);
    }
}

/// Mounts of every run: the kernel's file systems, and nothing in `/run` and `/tmp` that could stay.
pub fn standard_mounts() -> Vec<Mount> {
    let tmpfs = |target: &str, mode| Mount::Tmpfs {
        target: target.to_owned(),
        mode,
    };
    vec![
        Mount::Proc,
        Mount::Sys,
        Mount::Dev,
        tmpfs("/run", 0o755),
        tmpfs("/tmp", 0o1777),
    ]
}

/// The whole environment of a run.
pub fn standard_env(epoch: i64) -> Vec<(String, String)> {
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    vec![
        pair("PATH", PATH),
        pair("HOME", "/root"),
        pair("LC_ALL", "C.UTF-8"),
        pair("TERM", "dumb"),
        pair("SOURCE_DATE_EPOCH", &epoch.to_string()),
        // systemctl then works on files alone, and ignores what needs a running service manager.
        pair("SYSTEMD_OFFLINE", "1"),
    ]
}

fn command_failed(argv: Vec<String>, outcome: &Outcome, tail: Vec<String>) -> Error {
    let name = argv.first().map_or("", String::as_str);
    let mut error = Error::new(ErrorKind::Step, format!("`{name}` failed"));
    error.command = Some(argv);
    error.status = Some(describe(outcome.status));
    error.tail = tail;
    explain_kill(&mut error, outcome);
    explain_tail(&mut error);
    error
}

fn explain_kill(error: &mut Error, outcome: &Outcome) {
    if outcome.out_of_memory {
        error
            .causes
            .push("the kernel killed it because memory ran out".to_owned());
        error.hints.push(
            "close other programs, add swap, or build on a machine with more memory".to_owned(),
        );
    }
}

/// The error of a run that was ended for what it took.
fn over_limit(
    status: Status,
    limits: &Limits,
    command: Option<Vec<String>>,
    tail: &Tail<'_>,
) -> Result<()> {
    let (message, key, more) = match status {
        Status::TimedOut => {
            let minutes = limits.seconds.unwrap_or(0).div_ceil(60);
            let plural = if minutes == 1 { "" } else { "s" };
            let message = format!("the step was stopped after {minutes} minute{plural}");
            (message, "step-minutes", "it hangs, or needs more time")
        }
        Status::OverMemory => {
            let message = "the step was stopped because its processes took too much memory";
            (
                message.to_owned(),
                "memory-mib",
                "seven eighths of the machine's are the default",
            )
        }
        _ => return Ok(()),
    };
    let mut error = Error::new(ErrorKind::Step, message);
    error.command = command;
    error.status = Some(describe(status));
    error.tail = tail.take();
    let hint = format!("{more}: `{key}` below `[limits]` in kiln.toml says how much it may take");
    Err(error.hint(hint))
}

/// Hints for causes that the last lines give away.
pub(crate) fn explain_tail(error: &mut Error) {
    let says = |needle: &str| error.tail.iter().any(|line| line.contains(needle));
    if says("Cannot fork") || says("fork: Resource temporarily unavailable") {
        let hint = "it has as many processes as it may: `processes` below `[limits]` in kiln.toml allows more";
        error.hints.push(hint.to_owned());
    }
    if says("Temporary failure in name resolution") || says("Could not resolve host") {
        error.hints.push("the name could not be looked up: check the network; package scriptlets and --offline builds have none".to_owned());
    }
}

fn call_failed(error: kiln_sandbox::Error, tail: Vec<String>) -> Error {
    let kind = match error.kind {
        kiln_sandbox::ErrorKind::Input => ErrorKind::Definition,
        kiln_sandbox::ErrorKind::Environment => ErrorKind::Environment,
        kiln_sandbox::ErrorKind::Step => ErrorKind::Step,
        kiln_sandbox::ErrorKind::Internal => ErrorKind::Internal,
    };
    let mut made = Error::new(kind, error.message);
    made.causes = error.causes;
    made.hints.extend(error.hint);
    made.tail = tail;
    made
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Nobody;

    impl Reporter for Nobody {
        fn line(&self, _: Stream, _: &str) {}
        fn progress(&self, _: u64, _: Option<u64>, _: Option<&str>) {}
        fn warn(&self, _: String, _: Option<String>, _: Option<String>) {}
    }

    #[test]
    fn a_limit_that_was_reached_is_named_with_its_key() {
        let tail = Tail::new(&Nobody);
        tail.line(Stream::Stdout, "the last line");
        let limits = Limits {
            seconds: Some(7200),
            ..Limits::default()
        };
        let reached = |status| over_limit(status, &limits, Some(vec!["sh".to_owned()]), &tail);
        let late = reached(Status::TimedOut).expect_err("it was stopped");
        assert_eq!(late.message, "the step was stopped after 120 minutes");
        assert!(
            late.hints[0].contains("`step-minutes` below `[limits]`"),
            "{late:?}"
        );
        assert_eq!(late.tail, ["the last line"]);
        let large = reached(Status::OverMemory).expect_err("it was stopped");
        assert!(large.hints[0].contains("`memory-mib`"), "{large:?}");
        assert!(reached(Status::Exited(1)).is_ok());
    }
}
