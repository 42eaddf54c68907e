//! `kiln shell`

use std::fs;
use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kiln_engine::{Failure, FailureKind};
use kiln_rootfs::Store;
use kiln_rootfs::network::{Access, Reach, resolv_conf};
use kiln_rootfs::run::{standard_env, standard_mounts};
use kiln_rootfs::sandbox_error;
use kiln_sandbox::{
    Body, CancelToken, Io, Limits, Request, Root, Sandbox, Status, Stdin, Stream, own_network,
};
use serde::Deserialize;

use super::Context;
use crate::args::ShellArgs;
use crate::output;
use crate::render::terminal::write_stderr;

/// An interactive shell of the root, the better one if it is there.
const SHELL: &str = "if [ -x /bin/bash ]; then exec /bin/bash -i; else exec /bin/sh -i; fi";
/// Output of a command run in the root that is passed on: what a log would hold, many times over.
const OUTPUT: u64 = 1 << 40;

/// How to enter a failed root again: `failed.json` beside it.
#[derive(Deserialize)]
struct Failed {
    /// Read-only layers, the top one first.
    lower: Vec<PathBuf>,
    /// The step that failed.
    title: String,
    layer: Option<String>,
    /// `SOURCE_DATE_EPOCH` of the step.
    epoch: i64,
}

/// Opens a shell, or runs a command, in the root of the last failed step; the exit code is the program's.
pub(crate) fn run(args: &ShellArgs, context: &Context<'_>) -> Result<u8, Failure> {
    let sandbox = Arc::new(Sandbox::detect().map_err(sandbox_error)?);
    let store = Store::open(context.settings.cache_dir()?, Arc::clone(&sandbox))?;
    context.notices(store.notices());
    let directory = store.last_failed().ok_or_else(|| {
        Failure::new(FailureKind::Definition, "there is no failed root to enter").hint(
            "a build that fails in a step keeps its root until the next one fails or succeeds",
        )
    })?;
    let failed = read(&directory)?;
    let layer = failed
        .layer
        .as_ref()
        .map_or_else(String::new, |layer| format!(" of layer {layer}"));
    context.terminal.note(
        "entering",
        &format!("the root in which `{}`{layer} failed", failed.title),
    );
    let request = request(args, &failed, &directory, context);
    enter(&sandbox, &request, context)
}

fn read(directory: &Path) -> Result<Failed, Failure> {
    let file = directory.join("failed.json");
    let damaged = |cause: String| {
        let message = format!(
            "the failed root in {} cannot be entered",
            directory.display()
        );
        Failure::new(FailureKind::Environment, message)
            .cause(cause)
            .hint("build again to get a new one")
    };
    let bytes =
        fs::read(&file).map_err(|error| damaged(format!("reading {}: {error}", file.display())))?;
    let failed: Failed = serde_json::from_slice(&bytes)
        .map_err(|error| damaged(format!("reading {}: {error}", file.display())))?;
    match failed.lower.iter().find(|layer| !layer.is_dir()) {
        Some(gone) => Err(damaged(format!("its layer {} is gone", gone.display()))),
        None => Ok(failed),
    }
}

/// What the scripts of a build have of the network.
fn access(context: &Context<'_>) -> Access {
    let reach = match own_network() {
        Ok(()) => Reach::Own,
        Err(error) => {
            context
                .terminal
                .note("without", &format!("a network: {error}"));
            Reach::None
        }
    };
    let resolv_conf = resolv_conf().unwrap_or_else(|error| {
        let note = format!("name servers: reading /etc/resolv.conf: {error}");
        context.terminal.note("without", &note);
        String::new()
    });
    Access::new(reach, &resolv_conf, &context.settings.proxies())
}

fn request(args: &ShellArgs, failed: &Failed, directory: &Path, context: &Context<'_>) -> Request {
    let mut mounts = standard_mounts();
    // People try downloads in here, as the scripts of the build would do them.
    let access = access(context);
    mounts.extend(access.mounts());
    let term = context
        .settings
        .term
        .clone()
        .unwrap_or_else(|| "dumb".to_owned());
    let mut env = standard_env(failed.epoch);
    env.retain(|(name, _)| name != "TERM");
    env.push(("TERM".to_owned(), term));
    env.extend(access.env);
    let argv = match args.command.is_empty() {
        true => vec!["/bin/sh".to_owned(), "-c".to_owned(), SHELL.to_owned()],
        false => args.command.clone(),
    };
    Request {
        root: Root::Overlay {
            lower: failed.lower.clone(),
            upper: directory.join("fs"),
            work: directory.join("work"),
        },
        mounts,
        body: Body::Exec { argv },
        env,
        cwd: "/".to_owned(),
        network: access.network,
        limits: Limits {
            output_bytes: OUTPUT,
            ..Limits::default()
        },
        hostname: "kiln".to_owned(),
        no_new_privs: false,
        watch: None,
    }
}

/// With a terminal on both ends the program gets one of its own; else its lines are passed on.
fn enter(sandbox: &Sandbox, request: &Request, context: &Context<'_>) -> Result<u8, Failure> {
    let cancel = CancelToken::new().map_err(|error| {
        Failure::new(FailureKind::Environment, "no file descriptor is left")
            .cause(error.to_string())
    })?;
    let switch = cancel.clone();
    context.interrupt.on_signal(move || switch.cancel())?;
    let mut pass_on = |stream: Stream, line: &str| match stream {
        // A reader that has seen enough is no reason to stop a program in the middle of its work.
        Stream::Stdout => drop(output::print(&format!("{line}\n"))),
        _ => write_stderr(&format!("{line}\n")),
    };
    let mut no_message = |_| {};
    let mut io = Io::new(&mut pass_on, &mut no_message);
    io.cancel = Some(&cancel);
    let stdin = io::stdin();
    if stdin.is_terminal() && io::stdout().is_terminal() {
        io.terminal = Some(stdin.as_fd());
    } else {
        io.stdin = Stdin::Inherit;
    }
    let outcome = sandbox.run(request, io).map_err(sandbox_error)?;
    match outcome.status {
        Status::Exited(code) => Ok(u8::try_from(code).unwrap_or(1)),
        Status::Signaled(signal) => Ok(u8::try_from(128 + signal).unwrap_or(1)),
        Status::TimedOut | Status::OverMemory | Status::Cancelled => Err(Failure::new(
            FailureKind::Cancelled,
            "the shell was stopped",
        )),
    }
}
