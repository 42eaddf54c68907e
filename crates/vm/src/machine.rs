//! One running QEMU: its process, its control connection and its serial ports.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::json;

use crate::agent;
use crate::blueprint::{self, Blueprint, Descriptors, Front};
use crate::error::{Error, Result};
use crate::qmp::{Event, Qmp, QmpError};
use crate::screen::Picture;
use crate::tools::{Flash, Tools};
use crate::work::WorkDir;

const MESSAGES: &str = "qemu.log";
const SCREEN: &str = "screen.ppm";
/// QEMU connects right after its start; firmware with megabytes of flash on a busy machine takes seconds.
const START_LIMIT: Duration = Duration::from_secs(60);
const COMMAND_LIMIT: Duration = Duration::from_secs(60);

/// What arrived since the last look.
#[derive(Default)]
pub(crate) struct Inputs {
    /// Bytes of the first serial port.
    pub(crate) serial: Vec<u8>,
    /// Bytes of the second serial port.
    pub(crate) agent: Vec<u8>,
    /// What QEMU tells.
    pub(crate) events: Vec<Event>,
    /// QEMU is gone.
    pub(crate) ended: Option<ExitStatus>,
}

/// A running machine. It is killed when the value goes, and by the kernel when this process or thread dies.
pub(crate) struct Machine {
    child: Child,
    qmp: Qmp,
    serial: Option<UnixStream>,
    agent: Option<UnixStream>,
    work: WorkDir,
}

impl Machine {
    /// Starts the machine in a working directory of its own.
    pub(crate) fn start(
        tools: &Tools,
        flash: Option<&Flash>,
        blueprint: &Blueprint<'_>,
        script: Option<&str>,
        work: WorkDir,
    ) -> Result<Machine> {
        prepare(&work, flash, script)?;
        let listen = |wanted: bool, name| wanted.then(|| work.listen(name)).transpose();
        let qmp = work.listen(blueprint::QMP)?;
        let serial = listen(blueprint.front.has_serial_socket(), blueprint::SERIAL)?;
        let agent = listen(blueprint.front == Front::Observed, blueprint::AGENT)?;
        let changes = blueprint.disk.overlay(&work)?;
        let mut child = Guard(Some(spawn(tools, blueprint, &changes, &work)?));
        let deadline = Instant::now() + START_LIMIT;
        let mut accept = |listener: &UnixListener| child.accept(listener, &work, deadline);
        let qmp = accept(&qmp)?;
        let serial = serial.as_ref().map(&mut accept).transpose()?;
        let agent = agent.as_ref().map(&mut accept).transpose()?;
        let qmp = Qmp::new(qmp, COMMAND_LIMIT).map_err(|e| child.died(&work, &e.to_string()))?;
        let child = child
            .0
            .take()
            .ok_or_else(|| Error::internal("QEMU's process was given away twice"))?;
        Ok(Machine {
            child,
            qmp,
            serial,
            agent,
            work,
        })
    }

    /// Waits for something to arrive, at most `timeout`.
    pub(crate) fn wait(&mut self, timeout: Duration) -> Result<Inputs> {
        self.sleep(timeout)?;
        let mut inputs = Inputs::default();
        drain(self.serial.as_mut(), &mut inputs.serial);
        drain(self.agent.as_mut(), &mut inputs.agent);
        loop {
            match self.qmp.event() {
                Ok(Some(event)) => inputs.events.push(event),
                Ok(None) => break,
                Err(QmpError::Closed) => {
                    inputs.ended = Some(self.reap()?);
                    break;
                }
                Err(e) => return Err(Error::internal("reading QEMU's events").cause(e)),
            }
        }
        Ok(inputs)
    }

    fn sleep(&self, timeout: Duration) -> Result<()> {
        let timeout = Timespec::try_from(timeout)
            .map_err(|_| Error::internal("a time-out beyond what the kernel takes"))?;
        let mut fds = vec![PollFd::new(&self.qmp, PollFlags::IN)];
        for port in [&self.serial, &self.agent].into_iter().flatten() {
            fds.push(PollFd::new(port, PollFlags::IN));
        }
        match poll(&mut fds, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(e) => Err(Error::internal("waiting for QEMU").cause(std::io::Error::from(e))),
        }
    }

    /// QEMU closed its control connection, so it has ended or is about to.
    fn reap(&mut self) -> Result<ExitStatus> {
        let deadline = Instant::now() + Duration::from_secs(5);
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait().map_err(waiting)? {
                return Ok(status);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        self.child
            .kill()
            .and_then(|()| self.child.wait())
            .map_err(waiting)
    }

    /// Sends bytes to the second serial port. They are few; a guest that does not read them loses them.
    pub(crate) fn tell(&mut self, bytes: &[u8]) {
        if let Some(agent) = &mut self.agent {
            let _ = agent.write_all(bytes);
        }
    }

    /// The screen as a binary PPM.
    fn screen(&mut self) -> std::result::Result<Vec<u8>, QmpError> {
        self.qmp
            .command("screendump", json!({"filename": SCREEN}))?;
        std::fs::read(self.work.file(SCREEN))
            .map_err(|e| QmpError::Malformed(format!("the screen dump: {e}")))
    }

    /// The screen, if QEMU can tell.
    pub(crate) fn picture(&mut self) -> Option<Picture> {
        Picture::from_ppm(&self.screen().ok()?).ok()
    }

    /// How long QEMU's busiest-kept thread has waited for a processor of the host so far.
    pub(crate) fn waited(&self) -> Duration {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.child.id()));
        let waited = |task: std::fs::DirEntry| -> Option<u64> {
            let stat = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
            stat.split_whitespace().nth(1)?.parse().ok()
        };
        Duration::from_nanos(
            tasks
                .into_iter()
                .flatten()
                .flatten()
                .filter_map(waited)
                .max()
                .unwrap_or(0),
        )
    }

    /// Requests to the disk since power-on.
    pub(crate) fn disk_requests(&mut self) -> std::result::Result<u64, QmpError> {
        let stats = self.qmp.command("query-blockstats", json!({}))?;
        let count = |device: &serde_json::Value| {
            ["rd_operations", "wr_operations"]
                .iter()
                .filter_map(|name| device["stats"][name].as_u64())
                .sum::<u64>()
        };
        Ok(stats.as_array().into_iter().flatten().map(count).sum())
    }

    /// As in `running` or `internal-error`.
    pub(crate) fn status(&mut self) -> std::result::Result<String, QmpError> {
        let status = self.qmp.command("query-status", json!({}))?;
        match status["status"].as_str() {
            Some(status) => Ok(status.to_owned()),
            None => Err(QmpError::Malformed(status.to_string())),
        }
    }

    /// Where the VNC socket is.
    pub(crate) fn vnc_socket(&self) -> PathBuf {
        self.work.file(blueprint::VNC)
    }

    /// Lets in whoever knows the password. VNC takes 8 characters of it (RFC 6143, section 7.2.2).
    pub(crate) fn set_vnc_password(&mut self, password: &str) -> std::result::Result<(), QmpError> {
        let arguments = json!({"protocol": "vnc", "password": password});
        self.qmp.command("set_password", arguments).map(|_| ())
    }

    /// Where VNC listens, as in `127.0.0.1:5901`.
    pub(crate) fn vnc_address(&mut self) -> std::result::Result<String, QmpError> {
        let info = self.qmp.command("query-vnc", json!({}))?;
        Ok(format!(
            "{}:{}",
            info["host"].as_str().unwrap_or("?"),
            info["service"].as_str().unwrap_or("?")
        ))
    }

    /// What QEMU wrote to stderr, without the warnings that are known to mean nothing.
    pub(crate) fn messages(&self) -> String {
        messages(&self.work)
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn waiting(e: std::io::Error) -> Error {
    Error::internal("waiting for QEMU to end").cause(e)
}

/// Puts the files that the command line names into the working directory.
fn prepare(work: &WorkDir, flash: Option<&Flash>, script: Option<&str>) -> Result<()> {
    work.write(blueprint::SERCON_FILE, &blueprint::SERCON)?;
    work.write(blueprint::AGENT_FILE, agent::SCRIPT.as_bytes())?;
    if let Some(script) = script {
        // QEMU refuses an empty table.
        work.write(blueprint::SCRIPT_FILE, format!("{script}\n").as_bytes())?;
    }
    if let Some(flash) = flash {
        let content = std::fs::read(&flash.variables)
            .map_err(|e| Error::file("reading the firmware", &flash.variables, e))?;
        work.write(blueprint::VARIABLES, &content)?;
    }
    Ok(())
}

fn spawn(
    tools: &Tools,
    blueprint: &Blueprint<'_>,
    changes: &File,
    work: &WorkDir,
) -> Result<Child> {
    let log = work.file(MESSAGES);
    let stderr = File::create(&log).map_err(|e| Error::file("writing", &log, e))?;
    let mut command = Command::new(&tools.qemu);
    let mut hand_over = |file| {
        kiln_sandbox::hand_over(&mut command, file)
            .map_err(|e| Error::internal("handing a file to QEMU").cause(e))
    };
    let descriptors = Descriptors {
        image: hand_over(&blueprint.disk.file)?,
        changes: hand_over(changes)?,
    };
    command
        .args(blueprint.arguments(descriptors)?)
        .current_dir(work.path())
        .env("TMPDIR", work.path())
        .stderr(stderr);
    match blueprint.front {
        Front::Serial | Front::Curses => {}
        // A group of its own: Ctrl-C in the terminal is for us, and we end QEMU.
        _ => {
            command
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .process_group(0);
        }
    }
    kiln_sandbox::die_with_parent(&mut command);
    command
        .spawn()
        .map_err(|e| Error::file("starting", &tools.qemu, e))
}

/// The process while it is not yet a [`Machine`].
struct Guard(Option<Child>);

impl Guard {
    fn accept(
        &mut self,
        listener: &UnixListener,
        work: &WorkDir,
        deadline: Instant,
    ) -> Result<UnixStream> {
        while Instant::now() < deadline {
            match listener.accept() {
                Ok((stream, _)) => {
                    stream
                        .set_nonblocking(true)
                        .map_err(|e| Error::internal("preparing a socket").cause(e))?;
                    return Ok(stream);
                }
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                Err(e) => return Err(Error::internal("waiting for QEMU to connect").cause(e)),
            }
            if let Some(child) = &mut self.0
                && let Some(status) = child.try_wait().map_err(waiting)?
            {
                return Err(self.died(work, &status.to_string()));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Err(self.died(work, "it did not connect within a minute"))
    }

    fn died(&self, work: &WorkDir, how: &str) -> Error {
        let said = messages(work);
        let said = if said.is_empty() {
            String::new()
        } else {
            format!(": {said}")
        };
        Error::environment(format!("QEMU did not start ({how}){said}"))
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Up to 5 lines of QEMU's stderr.
fn messages(work: &WorkDir) -> String {
    let text = read_some(&work.file(MESSAGES), 16 << 10);
    // QEMU warns about the name that SeaBIOS itself defines for its serial console.
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| !line.contains("etc/sercon-port") && !line.is_empty())
        .collect();
    lines[lines.len().saturating_sub(5)..].join("; ")
}

fn read_some(path: &Path, limit: u64) -> String {
    let mut bytes = Vec::new();
    if let Ok(file) = File::open(path) {
        let _ = file.take(limit).read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Takes all that a port holds, a bounded amount at a time.
fn drain(port: Option<&mut UnixStream>, into: &mut Vec<u8>) {
    let Some(port) = port else {
        return;
    };
    let mut chunk = [0; 16384];
    while into.len() < 1 << 20 {
        match port.read(&mut chunk) {
            Ok(count) if count > 0 => into.extend(chunk.iter().take(count)),
            _ => break,
        }
    }
}
