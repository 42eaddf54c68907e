//! The sandbox child: this program, started again under [`MARK`].
//!
//! Three processes, each single-threaded until the body runs:
//!
//! 1. the **outer** one makes the namespaces, has its ids mapped by the parent, opens what is to be mounted with the
//!    caller's own rights, and waits;
//! 2. the **init** (pid 1 of the pid namespace) mounts, changes the root, reaps, and kills what a body leaves behind;
//! 3. the **body** executes the program or calls the function.
//!
//! Each has a parent-death signal, set anew after every change of credentials (which clears it), and the first two
//! hold the *lifeline*: a pipe whose other end only the caller's process has. It closes the race between fork and
//! `prctl`, and it does not depend on the caller's thread.

mod body;
mod capabilities;
mod cleanup;
mod dev;
mod head;
mod init;
mod mounts;
mod resolve;
mod sources;
mod tree;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags};
use rustix::fs::Mode;
use rustix::process::{PidfdFlags, Signal};
use rustix::thread::UnshareFlags;

use crate::error::{Context, Error, Result};
use crate::sys::{self, Fork};
use crate::wire::{self, FromChild, Job, MARK, Receiver, Start, ToChild};
use crate::{Function, Network, Request, network, remove};
use sources::Sources;

pub(crate) use capabilities::{drop_all_capabilities, drop_capabilities};

/// The descriptors that come with the start message.
struct Given {
    lifeline: OwnedFd,
    stdio: [OwnedFd; 3],
    call: OwnedFd,
    handed: Vec<OwnedFd>,
}

/// Has to be the first thing in `main`: if this process was started as the sandbox child, it runs the sandbox and
/// never returns. `functions` are what [`crate::Body::Call`] can name.
pub fn entry(functions: &[Function]) {
    if std::env::args_os().next().is_some_and(|name| name == MARK) {
        let code = match sys::take_stdin() {
            Ok(control) => outer(control, functions),
            Err(_) => 127,
        };
        sys::exit(code);
    }
}

fn outer(control: OwnedFd, functions: &[Function]) -> i32 {
    let Ok(spare) = control.try_clone() else {
        return 127;
    };
    let mut receiver = Receiver::new(control);
    match set_up(&mut receiver, functions) {
        Ok(()) => 0,
        Err(error) => {
            // If the parent is gone too there is nobody to tell.
            let _ = wire::send(spare.as_fd(), &FromChild::Failed(error), &[]);
            1
        }
    }
}

fn set_up(receiver: &mut Receiver, functions: &[Function]) -> Result<()> {
    let start: Start = receiver
        .receive()
        .doing("reading the request of a sandbox")?
        .ok_or_else(|| Error::internal("the sandbox got no request"))?;
    let given = take_given(receiver).doing("receiving descriptors")?;
    die_with_parent(given.lifeline.as_fd())?;
    rustix::process::setsid().doing("starting a session")?;
    rustix::process::chdir("/").doing("changing to /")?;
    rustix::process::umask(Mode::from_raw_mode(0o022));
    prefer_for_oom();
    match &start.job {
        Job::Run(request) => run(receiver, given, request, start.terminal, functions),
        Job::RemoveTrees(paths) => {
            make_user_namespace()?;
            become_root(receiver, given.lifeline.as_fd(), || Ok(()))?;
            remove::remove_all(paths)?;
            say(receiver, &FromChild::Done, &[])
        }
    }
}

fn take_given(receiver: &mut Receiver) -> std::io::Result<Given> {
    let mut next = || receiver.fd();
    let (lifeline, stdio, call) = (next()?, [next()?, next()?, next()?], next()?);
    Ok(Given {
        lifeline,
        stdio,
        call,
        handed: receiver.all_fds(),
    })
}

/// Makes the out-of-memory killer prefer what runs inside over the rest of the user's session. Raising one's own
/// score is always allowed; without it only the choice of the victim is worse.
fn prefer_for_oom() {
    let _ = std::fs::write("/proc/self/oom_score_adj", "300");
}

fn say(receiver: &Receiver, message: &FromChild, fds: &[BorrowedFd<'_>]) -> Result<()> {
    wire::send(receiver.socket(), message, fds).doing("reporting to the parent")
}

/// Arms the parent-death signal, then makes sure that the caller was still there after it was armed.
fn die_with_parent(lifeline: BorrowedFd<'_>) -> Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .doing("arming the parent-death signal")?;
    let mut fds = [PollFd::from_borrowed_fd(lifeline, PollFlags::IN)];
    let now = rustix::event::Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    rustix::event::poll(&mut fds, Some(&now)).doing("looking whether the parent lives")?;
    if !fds[0].revents().is_empty() {
        sys::exit(1);
    }
    Ok(())
}

fn run(
    receiver: &mut Receiver,
    given: Given,
    request: &Request,
    terminal: Option<(u16, u16)>,
    functions: &[Function],
) -> Result<()> {
    // With the host's own rights, sources in directories that only root may enter can be opened; they are then
    // detached trees, which the new namespace may mount. Without them the caller's rights have to do.
    let early = open_with_host_rights(request)?;
    let ipv6 = matches!(request.network, Network::Own { .. }) && network::has_ipv6();
    make_user_namespace()?;
    let spaces =
        UnshareFlags::NEWNS | UnshareFlags::NEWPID | UnshareFlags::NEWIPC | UnshareFlags::NEWUTS;
    sys::unshare(spaces).map_err(no_rights_in_namespace)?;
    if request.network != Network::Host {
        sys::unshare(UnshareFlags::NEWNET).doing("making a network namespace")?;
    }
    // A kernel without control groups has nothing to hide.
    let _ = sys::unshare(UnshareFlags::NEWCGROUP);
    let (sources, tun) = become_root(receiver, given.lifeline.as_fd(), || {
        let sources = early.map_or_else(|| Sources::open(request), Ok)?;
        let tun = match request.network {
            Network::Own { .. } => Some(network::make_interface(ipv6)?),
            Network::None | Network::Host => None,
        };
        Ok((sources, tun))
    })?;
    if let Some(tun) = tun {
        // Only the relay has it from here on.
        say(receiver, &FromChild::Interface, &[tun.as_fd()])?;
    }
    fork_init(receiver, given, request, sources, terminal, functions)
}

fn open_with_host_rights(request: &Request) -> Result<Option<Sources>> {
    if sys::unshare(UnshareFlags::NEWNS).is_err() {
        return Ok(None);
    }
    mounts::make_private()?;
    Sources::open(request).map(Some)
}

fn make_user_namespace() -> Result<()> {
    sys::unshare(UnshareFlags::NEWUSER).map_err(|error| {
        let refused = match error.raw_os_error() {
            Some(libc::ENOSPC) => limit_reached("making a user namespace"),
            _ => Error::system("making a user namespace", error),
        };
        refused.hint("`kiln doctor` tells what forbids user namespaces here")
    })?;
    // newuidmap wants the process to belong to its caller, which /proc shows for dumpable processes only.
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::Dumpable)
        .doing("making the sandbox visible to newuidmap")
}

fn no_rights_in_namespace(error: std::io::Error) -> Error {
    let number = error.raw_os_error();
    let error = Error::system("making mount, pid, ipc and uts namespaces", error);
    match number {
        Some(libc::EPERM | libc::EACCES) => error.hint(
            "a security module takes all rights away in user namespaces; on Ubuntu: \
             `sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0`, or an AppArmor profile for kiln",
        ),
        Some(libc::ENOSPC) => limit_reached("making mount, pid, ipc and uts namespaces")
            .hint("raise the limits in /proc/sys/user (max_mnt_namespaces and others)"),
        _ => error,
    }
}

/// The kernel's number for this says that no space is left on a device, and means namespaces.
fn limit_reached(doing: &str) -> Error {
    Error::environment(doing).cause("the limit of such namespaces is reached")
}

/// Has the ids mapped and takes id 0. `before` runs with the ids mapped but still under the caller's identity,
/// supplementary groups included.
fn become_root<T>(
    receiver: &mut Receiver,
    lifeline: BorrowedFd<'_>,
    before: impl FnOnce() -> Result<T>,
) -> Result<T> {
    say(receiver, &FromChild::Unshared, &[])?;
    match receiver
        .receive::<ToChild>()
        .doing("waiting for the id maps")?
    {
        Some(ToChild::Mapped) => {}
        Some(ToChild::Kill) | None => sys::exit(1),
    }
    let result = before()?;
    let (uid, gid) = (rustix::process::Uid::ROOT, rustix::process::Gid::ROOT);
    rustix::thread::set_thread_groups(&[]).doing("dropping supplementary groups")?;
    rustix::thread::set_thread_res_gid(gid, gid, gid).doing("becoming group 0 of the namespace")?;
    rustix::thread::set_thread_res_uid(uid, uid, uid).doing("becoming user 0 of the namespace")?;
    die_with_parent(lifeline)?;
    Ok(result)
}

fn fork_init(
    receiver: &mut Receiver,
    given: Given,
    request: &Request,
    sources: Sources,
    terminal: Option<(u16, u16)>,
    functions: &[Function],
) -> Result<()> {
    match sys::fork().doing("starting the init of a sandbox")? {
        Fork::Child => {
            let code = init::main(receiver, given, request, sources, terminal, functions);
            sys::exit(code)
        }
        Fork::Parent(pid) => {
            // From here on these belong to the init alone; the pipes have to end with it.
            drop((given, sources));
            let pidfd =
                rustix::process::pidfd_open(pid, PidfdFlags::empty()).doing("opening the init")?;
            say(receiver, &FromChild::Init, &[pidfd.as_fd()])?;
            // The kernel lets the init go only after everything in its namespace is gone.
            sys::wait(Some(pid), true).doing("waiting for the init of a sandbox")?;
            Ok(())
        }
    }
}
