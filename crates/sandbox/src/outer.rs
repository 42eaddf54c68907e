//! The sandbox child as its caller has it.

use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags};

use crate::error::{Context, Error, Result};
use crate::wire::MARK;

/// The outer process; killed and reaped when this goes.
pub(crate) struct Outer {
    pub(crate) child: Child,
    pub(crate) pidfd: OwnedFd,
}

impl Outer {
    /// Starts it on the calling thread, which its parent-death signal is tied to and which waits for its end.
    pub(crate) fn spawn(program: &Path, control: OwnedFd, stderr: OwnedFd) -> Result<Outer> {
        let mut child = Command::new(program)
            .arg0(MARK)
            .env_clear()
            .stdin(control)
            .stdout(Stdio::null())
            .stderr(stderr)
            .spawn()
            .doing_at("starting the sandbox child", program)?;
        let opened = i32::try_from(child.id())
            .ok()
            .and_then(Pid::from_raw)
            .ok_or(Errno::SRCH);
        match opened.and_then(|pid| rustix::process::pidfd_open(pid, PidfdFlags::empty())) {
            Ok(pidfd) => Ok(Outer { child, pidfd }),
            Err(error) => {
                let _ = child.kill().and_then(|()| child.wait().map(drop));
                Err(Error::system("watching the sandbox child", error))
            }
        }
    }

    pub(crate) fn wait(&mut self) -> Result<ExitStatus> {
        self.child.wait().doing("waiting for the sandbox child")
    }
}

impl Drop for Outer {
    fn drop(&mut self) {
        // Both fail where it has ended and was waited for already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
