//! Process 1 of the pid namespace: mounts, starts the body, reaps, and ends everything.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::net::{AddressFamily, SocketType};
use rustix::process::{DumpableBehavior, Pid};
use rustix::pty::OpenptFlags;

use super::head::Head;
use super::mounts::Entered;
use super::sources::Sources;
use super::{Given, body, cleanup, die_with_parent, mounts, say};
use crate::error::{Context, Error, Result};
use crate::sys::{self, Fork};
use crate::usage::{self, Meter};
use crate::wire::{FromChild, Receiver, Source, ToChild};
use crate::{Function, Network, Request, seccomp};

pub(super) fn main(
    receiver: &mut Receiver,
    given: Given,
    request: &Request,
    sources: Sources,
    terminal: Option<(u16, u16)>,
    functions: &[Function],
) -> i32 {
    let result = die_with_parent(given.lifeline.as_fd())
        .and_then(|()| mounts::enter(request, sources))
        .and_then(|entered| {
            let result = supervise(receiver, given, request, &entered, terminal, functions);
            end_all();
            let restored = entered.heads.iter().try_for_each(Head::take_away);
            let result = result.and_then(|status| restored.map(|()| status));
            cleanup::take_back(&entered.mounted, &entered.created);
            result
        });
    let report = match result {
        Ok((status, over_memory)) => {
            let (cpu_seconds, max_rss_bytes) = sys::children_usage();
            FromChild::Exited {
                status,
                over_memory,
                cpu_seconds,
                max_rss_bytes,
            }
        }
        Err(error) => FromChild::Failed(error),
    };
    i32::from(say(receiver, &report, &[]).is_err())
}

/// Runs the body and returns its wait status, and whether it was ended for the memory that it took.
fn supervise(
    receiver: &mut Receiver,
    given: Given,
    request: &Request,
    entered: &Entered,
    terminal: Option<(u16, u16)>,
    functions: &[Function],
) -> Result<(i32, bool)> {
    let meter = Meter::new();
    prepare(request)?;
    let signals = sys::child_signals().doing("watching for ended processes")?;
    let terminal = terminal.map(open_terminal).transpose()?;
    sys::install_filter(&seccomp::program()).doing("installing the system call filter")?;
    announce(
        receiver,
        entered,
        terminal
            .as_ref()
            .map(|terminal| terminal.controller.as_fd()),
    )?;
    let (status_read, status_write) = pipe()?;
    let pid = match sys::fork().doing("starting the body")? {
        Fork::Child => {
            let user = terminal.map(|terminal| terminal.user);
            body::run(
                request,
                functions,
                given.stdio,
                user,
                given.call,
                given.handed,
                status_write,
            )
        }
        Fork::Parent(pid) => pid,
    };
    let Given { lifeline, .. } = given;
    drop((status_write, terminal));
    if let Some(error) = body::start_error(status_read)? {
        return Err(error);
    }
    let mut memory = Memory {
        meter,
        request,
        looked: Instant::now(),
        over: None,
    };
    wait_for_body(
        receiver,
        lifeline.as_fd(),
        signals.as_fd(),
        pid,
        &mut memory,
    )
}

/// What looks after a run's limit of memory.
struct Memory<'a> {
    meter: Meter,
    request: &'a Request,
    looked: Instant,
    /// Since when it was taken too much.
    over: Option<Instant>,
}

impl Memory<'_> {
    /// Looks if it is time to, and ends a run that takes too much: at once, or a moment after its largest namespace was made to stand
    /// still, so that the last lines of what runs in namespaces of its own are not lost.
    fn look(&mut self) {
        if let Some(since) = self.over {
            if since.elapsed() >= usage::DRAIN {
                sys::kill_all();
            }
            return;
        }
        if self.looked.elapsed() < usage::TICK {
            return;
        }
        if usage::is_over(&self.meter, self.request) {
            self.over = Some(Instant::now());
            if !usage::stop_largest(&self.meter) {
                sys::kill_all();
            }
        }
        self.looked = Instant::now();
    }
}

fn prepare(request: &Request) -> Result<()> {
    // A process that is not dumpable cannot be traced by the body, though both are root of the same namespace.
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .doing("closing the init to tracers")?;
    rustix::system::sethostname(request.hostname.as_bytes()).doing("setting the host name")?;
    if request.network != Network::Host {
        let socket = rustix::net::socket(AddressFamily::INET, SocketType::DGRAM, None);
        let socket = socket.doing("opening a socket for the loopback interface")?;
        sys::loopback_up(socket.as_fd()).doing("bringing the loopback interface up")?;
    }
    Ok(())
}

struct Terminal {
    controller: OwnedFd,
    user: OwnedFd,
}

/// A pseudo terminal of the sandbox's own devpts, so that its name means something inside.
fn open_terminal((rows, columns): (u16, u16)) -> Result<Terminal> {
    let open = || -> rustix::io::Result<Terminal> {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let controller = rustix::pty::openpt(flags)?;
        rustix::pty::unlockpt(&controller)?;
        let user = rustix::pty::ioctl_tiocgptpeer(&controller, flags)?;
        let size = rustix::termios::Winsize {
            ws_row: rows,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        rustix::termios::tcsetwinsize(&controller, size)?;
        Ok(Terminal { controller, user })
    };
    open().map_err(|error| {
        Error::system("opening a pseudo terminal", error)
            .hint("a run with a terminal needs the mount `Dev`")
    })
}

fn announce(
    receiver: &Receiver,
    entered: &Entered,
    terminal: Option<BorrowedFd<'_>>,
) -> Result<()> {
    let streams = entered
        .streams
        .iter()
        .map(|(source, fd)| (*source, fd.as_fd()));
    let (sources, fds): (Vec<_>, Vec<_>) = streams
        .chain(terminal.map(|fd| (Source::Terminal, fd)))
        .unzip();
    say(receiver, &FromChild::Ready { sources }, &fds)
}

pub(super) fn pipe() -> Result<(OwnedFd, OwnedFd)> {
    rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).doing("making a pipe")
}

/// Reaps until the body itself has ended. Kills everything when the parent says so, and all including itself when
/// the parent is gone.
fn wait_for_body(
    receiver: &mut Receiver,
    lifeline: BorrowedFd<'_>,
    signals: BorrowedFd<'_>,
    body: Pid,
    memory: &mut Memory<'_>,
) -> Result<(i32, bool)> {
    let tick = Timespec::try_from(usage::TICK).map_err(|_| Error::internal("no such time"))?;
    loop {
        while let Ok(Some(ended)) = sys::wait(None, false) {
            if ended.pid == body.as_raw_nonzero().get() {
                return Ok((ended.status, memory.over.is_some()));
            }
        }
        let (parent_gone, message) = {
            let mut fds = [
                PollFd::from_borrowed_fd(signals, PollFlags::IN),
                PollFd::from_borrowed_fd(lifeline, PollFlags::IN),
                PollFd::from_borrowed_fd(receiver.socket(), PollFlags::IN),
            ];
            match rustix::event::poll(&mut fds, Some(&tick)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(Error::system("waiting for the body", error)),
            }
            (!fds[1].revents().is_empty(), !fds[2].revents().is_empty())
        };
        memory.look();
        let _ = rustix::io::read(signals, &mut [0u8; 1024][..]);
        if message {
            receiver.poll().doing("listening to the parent")?;
        }
        let killed = matches!(receiver.take(), Ok(Some(ToChild::Kill)));
        if parent_gone || receiver.ended() {
            sys::exit(1);
        }
        if killed {
            sys::kill_all();
        }
    }
}

/// Kills and reaps whatever is left, such as a daemon that a script started.
fn end_all() {
    sys::kill_all();
    while sys::wait(None, true).is_ok() {}
}
