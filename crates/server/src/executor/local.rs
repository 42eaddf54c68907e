//! Attempts on this machine: each is `kiln run-attempt DIR`, a process in a group of its own that outlives the server.
//!
//! Whoever holds the lock of `alive` in the attempt's directory is the agent: the server takes the lock, hands the open file to
//! the agent as its standard input and lets go of it. The kernel frees it with the agent's last process, so no number of a
//! process has to be trusted after a restart. A wish to stop is a file, `cancel`, that the agent looks for.

use std::fs::{File, TryLockError};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use super::Executor;
use super::request::Attempt;

/// This machine.
#[derive(Clone, Debug)]
pub struct Local {
    /// The program `kiln`.
    pub program: PathBuf,
    /// The whole environment of agents.
    pub env: Vec<(String, String)>,
}

/// The file that stands for a wish to stop.
pub(crate) fn wish(attempt: &Attempt) -> PathBuf {
    attempt.dir.join("cancel")
}

fn alive(attempt: &Attempt) -> PathBuf {
    attempt.dir.join("alive")
}

impl Executor for Local {
    fn start(&self, attempt: &Attempt) -> io::Result<()> {
        let lock = File::create(alive(attempt))?;
        lock.try_lock()?;
        let trouble = File::options()
            .create(true)
            .append(true)
            .open(attempt.dir.join("agent.txt"))?;
        let mut child = Command::new(&self.program)
            .arg("run-attempt")
            .arg(&attempt.dir)
            .current_dir(&attempt.dir)
            .env_clear()
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::from(lock))
            .stdout(Stdio::null())
            .stderr(Stdio::from(trouble))
            .process_group(0)
            .spawn()?;
        // Only so that the kernel forgets it: how it went stands in its files.
        std::thread::Builder::new()
            .name("agent".to_owned())
            .stack_size(64 << 10)
            .spawn(move || child.wait().map(drop))?;
        Ok(())
    }

    fn is_alive(&self, attempt: &Attempt) -> io::Result<bool> {
        let lock = match File::open(alive(attempt)) {
            Ok(lock) => lock,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        };
        match lock.try_lock_shared() {
            Ok(()) => Ok(false),
            Err(TryLockError::WouldBlock) => Ok(true),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    fn cancel(&self, attempt: &Attempt) -> io::Result<()> {
        File::create(wish(attempt)).map(drop)
    }
}
