//! Children that do not outlive their parent, what they inherit, and what they cannot do.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::{Signal, getpid, getppid, set_parent_process_death_signal};

/// Makes the kernel send SIGKILL to the child of `command` as soon as the thread that spawns it ends, in
/// whatever way: SIGKILL of this process included.
///
/// The kernel watches the spawning *thread* (`PR_SET_PDEATHSIG` in prctl(2)), so spawn from a thread that waits
/// for the child. A child that starts programs of its own must do the same for them; exec of a set-id
/// program drops the protection.
///
/// # Errors
/// `Command::spawn` fails with `ESRCH` if this process died between fork and exec.
pub fn die_with_parent(command: &mut Command) {
    let parent = getpid();
    // SAFETY: the closure runs in the child between fork and exec, where only async-signal-safe work is allowed:
    // it makes two system calls, allocates nothing and takes no lock.
    unsafe {
        command.pre_exec(move || {
            set_parent_process_death_signal(Some(Signal::KILL))?;
            // The parent may have gone before the line above; then no signal will ever come.
            if getppid() == Some(parent) {
                Ok(())
            } else {
                Err(io::Error::from(rustix::io::Errno::SRCH))
            }
        });
    }
}

/// Makes the child of `command` inherit an open file under the number that is returned; other children do not get it.
///
/// # Errors
/// No descriptor is left.
pub fn hand_over(command: &mut Command, file: impl AsFd) -> io::Result<RawFd> {
    // The command owns its copy, so the number is this file's until the child has been started.
    let file = file.as_fd().try_clone_to_owned()?;
    let number = file.as_raw_fd();
    // SAFETY: the closure runs in the child between fork and exec, where only async-signal-safe work is allowed: it
    // makes one system call, allocates nothing and takes no lock.
    unsafe {
        command.pre_exec(move || {
            fcntl_setfd(&file, FdFlags::empty())?;
            Ok(())
        });
    }
    Ok(number)
}

/// Takes from the child of `command` what no program of a root may have: the capabilities that a [`crate::Body::Exec`] does not
/// have either, new privileges by set-id programs (`PR_SET_NO_NEW_PRIVS` in prctl(2)), and all descriptors but the standard ones.
/// For functions in the sandbox that start programs of the root. Since the function keeps a capability that the child lacks, the
/// child can neither trace it nor read its memory.
pub fn confine(command: &mut Command) {
    // SAFETY: the closure runs in the child between fork and exec, where only async-signal-safe work is allowed: it makes
    // system calls on values of its own stack, allocates nothing and takes no lock.
    unsafe {
        command.pre_exec(|| {
            rustix::thread::set_no_new_privs(true)?;
            // Without any, there is none to drop, nor the right to; this is an ordinary user's process outside of a sandbox.
            if !rustix::thread::capabilities(None)?.permitted.is_empty() {
                crate::child::drop_capabilities()?;
            }
            crate::sys::close_range(3, u32::MAX, true)
        });
    }
}
