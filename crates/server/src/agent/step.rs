//! Runs one step: Kiln itself, as a process that ends with the agent.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::pipe::fcntl_setpipe_size;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::engine::Engines;
use super::log::{self, Log};
use super::workspace;
use crate::commands::Commands;
use crate::executor::request::{FAILURES, LARGEST_PICTURE, StepRequest};

/// How often a step that runs is asked whether it is to end early. Its end is seen at once.
const LOOK: Duration = Duration::from_millis(50);
/// How long a step may take to end when it is asked to.
const GRACE: Duration = Duration::from_secs(10);
/// The variables of a step's environment that go to Kiln. Others could change which programs it runs.
const VARIABLES: &[&str] = &[
    "SOURCE_DATE_EPOCH",
    "NO_COLOR",
    "CLICOLOR",
    "CLICOLOR_FORCE",
];

/// What steps of an attempt have in common.
#[derive(Clone)]
pub(super) struct Means<'a> {
    /// The program `kiln`.
    pub program: &'a Path,
    /// Its command line.
    pub commands: &'a dyn Commands,
    /// Its environment.
    pub env: &'a [(OsString, OsString)],
    /// Its cache.
    pub cache: &'a Path,
    /// Where its states go, a directory for each step.
    pub states: &'a Path,
    /// What steps see as `/workspace`.
    pub workspace: &'a Path,
    /// Threads.
    pub threads: u32,
    /// Whether it fetches from other machines only.
    pub from_elsewhere: bool,
    /// The log.
    pub log: &'a Log,
    /// Variables that name the proxies of containers.
    pub proxies: &'a [(String, String)],
    /// Values of secrets, by the names of their variables.
    pub secrets: &'a BTreeMap<String, String>,
    /// The container engine.
    pub engines: &'a Engines,
}

/// Boots that are kept.
const MOST_BOOTS: usize = 8;

/// Why a step is to end early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// The build is cancelled, or another step has failed.
    Cancelled,
    /// The build's or the step's time is over.
    TimedOut,
}

/// How a step ended.
#[derive(Debug)]
pub(super) enum End {
    /// By itself.
    Exited(i32),
    /// By a signal that the agent did not send.
    Killed(i32),
    /// As it was asked to.
    Stopped(Stop),
    /// It did not begin; why.
    Failed(String),
}

/// Runs a step to its end. `stop` says whether it is to end early.
pub(super) fn run(
    step: &StepRequest,
    number: usize,
    prefix: &str,
    means: &Means<'_>,
    stop: &dyn Fn() -> Option<Stop>,
) -> End {
    let _held = means.engines.for_kiln();
    let result = start(step, number, prefix, means).and_then(|running| running.wait(step, stop));
    result.unwrap_or_else(|error| End::Failed(error.to_string()))
}

struct Running {
    child: Child,
    /// Readable as soon as it has ended.
    ended: OwnedFd,
    log: thread::JoinHandle<io::Result<()>>,
    began: Instant,
}

fn start(
    step: &StepRequest,
    number: usize,
    prefix: &str,
    means: &Means<'_>,
) -> io::Result<Running> {
    // A container may have put a link in its place.
    workspace::find(
        means.workspace,
        Path::new(""),
        &Path::new("/workspace").join(&step.dir),
    )
    .map_err(|error| io::Error::other(format!("the step's directory: {error}")))?;
    let dir = means.workspace.join(&step.dir);
    fs::create_dir_all(&dir)?;
    let mut find = |path: &Path| workspace::find(means.workspace, &step.dir, path);
    let words = means
        .commands
        .read(&step.args, means.threads, &mut find)
        .map_err(io::Error::other)?;
    let state = means.states.join(number.to_string());
    let mut command = Command::new(means.program);
    command
        .args(words)
        .arg("--cache-dir")
        .arg(means.cache)
        .arg("--state-dir")
        .arg(&state)
        .arg("--within")
        .arg(means.workspace)
        .args(means.from_elsewhere.then_some("--from-elsewhere"))
        .current_dir(&dir)
        .env_clear()
        .envs(means.env.iter().map(|(name, value)| (name, value)));
    for entry in &step.env {
        if let Some((name, value)) = entry.split_once('=')
            && VARIABLES.contains(&name)
        {
            command.env(name, value);
        }
    }
    kiln_sandbox::die_with_parent(&mut command);
    let (output, input) = io::pipe()?;
    // Where users may have no larger pipes, the step waits for the log a little more often.
    let _ = fcntl_setpipe_size(&output, log::CHUNK);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(input.try_clone()?)
        .stderr(input)
        .spawn()?;
    let ended = pidfd_open(Pid::from_child(&child), PidfdFlags::empty());
    let ended = ended.or_else(|error| {
        child.kill()?;
        child.wait()?;
        Err(io::Error::from(error))
    })?;
    // The command holds the pipe's other end open.
    drop(command);
    let log = means.log.clone();
    let prefix = prefix.to_owned();
    let log = thread::spawn(move || log.copy(output, &prefix));
    Ok(Running {
        child,
        ended,
        log,
        began: Instant::now(),
    })
}

impl Running {
    fn wait(mut self, step: &StepRequest, stop: &dyn Fn() -> Option<Stop>) -> io::Result<End> {
        let deadline = step.timeout.map(Duration::from_secs_f64);
        let mut stopped = None;
        let status = loop {
            if let Some(status) = self.child.try_wait()? {
                break status;
            }
            let late = deadline.is_some_and(|deadline| self.began.elapsed() >= deadline);
            let why = stop().or(late.then_some(Stop::TimedOut));
            if let Some(why) = why {
                stopped = Some(why);
                break self.end()?;
            }
            self.look()?;
        };
        self.log
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the log could not be written")))?;
        Ok(match (stopped, status.code(), status.signal()) {
            (Some(why), ..) => End::Stopped(why),
            (None, Some(code), _) => End::Exited(code),
            (None, None, signal) => End::Killed(signal.unwrap_or(0)),
        })
    }

    /// Asks the step to end, and ends it if it does not.
    fn end(&mut self) -> io::Result<ExitStatus> {
        // It may have ended just now.
        let _ = pidfd_send_signal(&self.ended, Signal::TERM);
        let asked = Instant::now();
        while asked.elapsed() < GRACE {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            self.look()?;
        }
        self.child.kill()?;
        self.child.wait()
    }

    /// Waits until it has ended, but no longer than until the next look.
    fn look(&self) -> io::Result<()> {
        let time = Timespec::try_from(LOOK).ok();
        let mut fds = [PollFd::new(&self.ended, PollFlags::IN)];
        match poll(&mut fds, time.as_ref()) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// Copies what steps used and made into a directory of the attempt: lock files and `manifest.json`, wherever they lie, what tests
/// of images saw, and why a step failed.
pub(super) fn keep(workspace: &Path, states: &Path, kept: &Path) -> io::Result<()> {
    for name in ["kiln.lock", "*.kiln.lock", "manifest.json"] {
        for path in super::glob::find(workspace, &format!("**/{name}"))? {
            let target: PathBuf = kept.join(&path);
            if let Some(parent) = target.parent() {
                fs::create_dir_all(parent)?;
            }
            fs::copy(workspace.join(&path), target)?;
        }
    }
    for record in super::glob::find(workspace, "**/boot.json")?
        .into_iter()
        .take(MOST_BOOTS)
    {
        for path in [record.with_file_name("desktop.png"), record] {
            let from = workspace.join(&path);
            let data = from.symlink_metadata();
            if data.is_ok_and(|data| data.is_file() && data.len() <= LARGEST_PICTURE) {
                let target = kept.join(&path);
                if let Some(parent) = target.parent() {
                    fs::create_dir_all(parent)?;
                }
                fs::copy(from, target)?;
            }
        }
    }
    for path in super::glob::find(states, "*/failed/*/failure.json")? {
        let step = path.components().next();
        let target = kept
            .join(FAILURES)
            .join(step.map_or(OsStr::new("0"), |step| step.as_os_str()));
        fs::create_dir_all(&target)?;
        fs::copy(states.join(&path), target.join("failure.json"))?;
    }
    Ok(())
}

/// Puts the lock files of an earlier attempt where the source has none.
pub(super) fn put_locks(kept: &Path, workspace: &Path) -> io::Result<()> {
    let mut locks = super::glob::find(kept, "**/kiln.lock")?;
    locks.extend(super::glob::find(kept, "**/*.kiln.lock")?);
    for path in locks {
        let target = workspace.join(&path);
        if target.symlink_metadata().is_ok() {
            continue;
        }
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::copy(kept.join(&path), target)?;
    }
    Ok(())
}
