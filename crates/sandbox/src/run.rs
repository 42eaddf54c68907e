//! The caller's side of a run.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{MemfdFlags, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::process::Signal;
use serde_json::Value;

use crate::call::{Call, wrong};
use crate::error::{Context, Error, ErrorKind, Result};
use crate::network::{self, Relay};
use crate::outer::Outer;
use crate::output::{Lines, Output};
use crate::terminal::{self, Bridge};
use crate::watch::{Nobody, Observer, Watch, Watcher};
use crate::wire::{self, FromCall, FromChild, Job, Receiver, Source, Start, ToChild};
use crate::{
    CancelToken, Door, IdMap, Limits, Mount, Network, Request, Root, Status, Stream, memory,
    program,
};

/// How long an init gets to end things in order before it is killed itself.
const GRACE: Duration = Duration::from_secs(5);
/// Reads from one stream before the others get their turn.
const READS_AT_ONCE: u32 = 16;
/// Bytes that a pipe holds; the kernel's default of 64 KiB means a change of process for each.
const PIPE_BYTES: usize = 512 << 10;
/// How often the size of the user's terminal is looked at.
const TERMINAL_TICK: Duration = Duration::from_millis(200);

/// Carries out requests. One for the whole program; runs may happen at once from several threads.
#[derive(Clone, Debug)]
pub struct Sandbox {
    ids: IdMap,
    /// `None`: a copy of this very program.
    program: Option<PathBuf>,
    /// Bounds of runs that say nothing of their own.
    limits: Limits,
    /// When all runs have to be over.
    until: Option<Instant>,
}

/// Standard input of a run.
#[derive(Clone, Debug, Default)]
pub enum Stdin {
    /// `/dev/null`.
    #[default]
    Null,
    /// These bytes, as a file in memory.
    Bytes(Vec<u8>),
    /// The caller's own.
    Inherit,
}

/// What connects a run with its caller. The callbacks run on the caller's thread, during [`Sandbox::run`].
pub struct Io<'a> {
    /// Standard input; not used with a terminal.
    pub stdin: Stdin,
    /// Takes lines, without their line end, as they come. Invalid UTF-8 is replaced, lines over 16 KiB are cut, and of
    /// a line that rewrites itself with carriage returns the last state counts.
    pub output: &'a mut dyn FnMut(Stream, &str),
    /// Takes the messages of [`crate::Say::say`]; [`crate::message()`] reads them.
    pub message: &'a mut dyn FnMut(Value),
    /// Descriptors to hand over, 200 at most: a program finds them at 10, 11, …, a function by the names in [`crate::Body::Call`].
    pub fds: Vec<OwnedFd>,
    /// Ends the run early.
    pub cancel: Option<&'a CancelToken>,
    /// The user's terminal. The program gets a terminal of its own, connected to it, as its standard files;
    /// `output` then takes no standard output. Needs [`Mount::Dev`].
    pub terminal: Option<BorrowedFd<'a>>,
    /// Who is told what a watched run accesses.
    pub observer: Option<Box<dyn Observer>>,
}

impl<'a> Io<'a> {
    /// No input, no descriptors, no cancellation.
    pub fn new(output: &'a mut dyn FnMut(Stream, &str), message: &'a mut dyn FnMut(Value)) -> Self {
        Io {
            stdin: Stdin::Null,
            output,
            message,
            fds: Vec::new(),
            cancel: None,
            terminal: None,
            observer: None,
        }
    }
}

/// How a run went.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// How the program or function ended. A function that reported an error has exited with 1.
    pub status: Status,
    /// What the function returned; `None` for programs, and where it was killed.
    pub value: Option<Result<Value, Error>>,
    /// Whether the kernel killed something for memory while an unsuccessful run went on.
    pub out_of_memory: bool,
    /// The largest resident set of a process of the run, in bytes.
    pub max_rss_bytes: u64,
    /// Wall-clock seconds.
    pub seconds: f64,
    /// CPU seconds of all its processes.
    pub cpu_seconds: f64,
    /// Bytes of output that were not passed on.
    pub dropped_output_bytes: u64,
    /// Whether the observer was told what the run accessed, from its beginning to its end.
    pub watched: bool,
}

impl Outcome {
    /// What the function answered, taken out; `None` if it was ended before.
    pub fn answer<C: Call>(&mut self) -> Option<Result<C::Answer>> {
        let value = self.value.take()?;
        let read = |value| {
            serde_json::from_value(value)
                .map_err(|error| wrong::<C>("gave an unknown answer").because(error))
        };
        Some(value.and_then(read))
    }
}

impl Sandbox {
    /// Finds out which ids can be used, or says what is missing. Tries nothing else; [`crate::checks`] does.
    pub fn detect() -> Result<Sandbox> {
        Ok(Sandbox {
            ids: IdMap::detect()?,
            program: None,
            limits: Limits::default(),
            until: None,
        })
    }

    /// Uses another program than this one as the sandbox child. Its `main` has to begin with [`crate::entry`].
    #[must_use]
    pub fn with_program(mut self, program: PathBuf) -> Self {
        self.program = Some(program);
        self
    }

    /// The same for several runs that have these limits together: those of processes, memory and tmpfs mounts hold where a run
    /// says nothing else, and `seconds` is the time from now until which all of them have to be over.
    #[must_use]
    pub fn limited(&self, limits: Limits) -> Self {
        let until = limits
            .seconds
            .and_then(|seconds| Instant::now().checked_add(Duration::from_secs(seconds)));
        Sandbox {
            until,
            limits,
            ..self.clone()
        }
    }

    /// What [`Sandbox::limited`] was given.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The id maps of its runs.
    pub fn ids(&self) -> &IdMap {
        &self.ids
    }

    /// Carries out a request and returns when everything in it has ended. A program that fails is no error.
    ///
    /// The directories of an overlay are made if they are missing, owned by the namespace's root. Mount points that are
    /// missing in a writable root are made and, if still empty, removed at the end.
    pub fn run(&self, request: &Request, io: Io<'_>) -> Result<Outcome> {
        request.validate(io.fds.len())?;
        let request = self.settle(request)?;
        let limits = request.limits.clone();
        // Nothing is watched where nobody asks.
        let watch = request.watch.clone().unwrap_or_default();
        self.execute(Job::Run(Box::new(request)), &limits, watch, io)
    }

    /// Runs a relay, which is handed its interface, until it is cancelled or that is gone.
    fn serve(
        &self,
        request: &Request,
        fds: Vec<OwnedFd>,
        cancel: &CancelToken,
        say: &dyn Fn(&str),
    ) -> Result<()> {
        let mut output = |_: Stream, line: &str| say(line);
        let mut message = |message: Value| say(message.as_str().unwrap_or("(no text)"));
        let mut io = Io::new(&mut output, &mut message);
        io.fds = fds;
        io.cancel = Some(cancel);
        match self.run(request, io)?.value {
            Some(Err(error)) => Err(error),
            _ => Ok(()),
        }
    }

    /// Carries out a job that is no run.
    pub(crate) fn execute_job(&self, job: Job) -> Result<()> {
        let (mut output, mut message) = (|_: Stream, _: &str| {}, |_: Value| {});
        let io = Io::new(&mut output, &mut message);
        self.execute(job, &Limits::default(), Watch::default(), io)
            .map(drop)
    }

    fn execute(&self, job: Job, limits: &Limits, watch: Watch, mut io: Io<'_>) -> Result<Outcome> {
        if io.cancel.is_some_and(CancelToken::is_cancelled) {
            return Ok(outcome(Status::Cancelled, 0.0, 0));
        }
        let kills = memory::kills();
        let started = Instant::now();
        let observer = io.observer.take();
        let doors = match &job {
            Job::Run(request) => match &request.network {
                Network::Own { doors } => doors.clone(),
                Network::None | Network::Host => Vec::new(),
            },
            Job::RemoveTrees(_) => Vec::new(),
        };
        let mut run = Run::start(self, job, limits, io)?;
        run.doors = doors;
        (run.watch, run.observer) = (watch, observer);
        run.deadline = [run.deadline, self.until].into_iter().flatten().min();
        run.pump()?;
        let ended = run.finish()?;
        let unsuccessful = ended.status != Status::Exited(0);
        Ok(Outcome {
            out_of_memory: unsuccessful && memory::kills() > kills,
            seconds: started.elapsed().as_secs_f64(),
            ..ended
        })
    }

    /// Makes paths absolute and free of links, and missing upper and work directories.
    fn settle(&self, request: &Request) -> Result<Request> {
        let mut request = request.clone();
        let limits = request.limits.or(&self.limits);
        request.limits = limits.fitted(memory::total());
        self.settle_root(&mut request.root)?;
        for mount in &mut request.mounts {
            match mount {
                Mount::Bind { source, .. } => resolve(source)?,
                Mount::Tree { tree, .. } => self.settle_root(tree)?,
                _ => {}
            }
        }
        Ok(request)
    }

    fn settle_root(&self, root: &mut Root) -> Result<()> {
        match root {
            Root::Dir { path, .. } => resolve(path),
            Root::Empty => Ok(()),
            Root::Layers { lower } => lower.iter_mut().try_for_each(resolve),
            Root::Overlay { lower, upper, work } => {
                lower.iter_mut().try_for_each(resolve)?;
                for path in [upper, work] {
                    if !path.exists() {
                        self.create_owned_dir(path, 0o755)?;
                    }
                    resolve(path)?;
                }
                Ok(())
            }
        }
    }
}

fn resolve(path: &mut PathBuf) -> Result<()> {
    *path = std::fs::canonicalize(&*path).doing_at("looking for", path)?;
    Ok(())
}

/// Something that prints.
struct Reader {
    fd: OwnedFd,
    lines: Lines,
    datagrams: bool,
    open: bool,
}

impl Reader {
    fn new(stream: Stream, fd: OwnedFd) -> Result<Reader> {
        rustix::io::ioctl_fionbio(&fd, true).doing("making a pipe not block")?;
        // Refused where the user has used up what pipes may hold, and for sockets.
        let _ = rustix::pipe::fcntl_setpipe_size(&fd, PIPE_BYTES);
        Ok(Reader {
            fd,
            lines: Lines::new(stream),
            datagrams: stream == Stream::Syslog,
            open: true,
        })
    }

    /// Reads what is there; false if there is nothing for now.
    fn read(&mut self, chunk: &mut [u8], output: &mut Output<'_>) -> bool {
        match rustix::io::read(&self.fd, &mut *chunk) {
            Ok(0) if !self.datagrams => {
                self.open = false;
                false
            }
            Ok(count) => {
                let bytes = &chunk[..count];
                if self.datagrams {
                    self.lines.datagram(bytes, output);
                } else {
                    self.lines.feed(bytes, output);
                }
                true
            }
            Err(Errno::INTR) => true,
            Err(Errno::AGAIN) => false,
            Err(_) => {
                self.open = false;
                false
            }
        }
    }
}

/// Why a run is being ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ending {
    TimedOut,
    Cancelled,
}

struct Run<'a> {
    outer: Outer,
    /// Closing it ends the run.
    lifeline: Option<OwnedFd>,
    sandbox: Sandbox,
    /// Of a network of the run's own.
    doors: Vec<Door>,
    relay: Option<Relay>,
    control: Receiver,
    call: Receiver,
    readers: Vec<Reader>,
    output: Output<'a>,
    message: &'a mut dyn FnMut(Value),
    cancel: Option<&'a CancelToken>,
    terminal: Option<BorrowedFd<'a>>,
    bridge: Option<Bridge<'a>>,
    deadline: Option<Instant>,
    init: Option<OwnedFd>,
    ready: bool,
    ending: Option<(Ending, Instant)>,
    failed: Option<Error>,
    ended: Option<Outcome>,
    value: Option<Result<Value, Error>>,
    chunk: Vec<u8>,
    watch: Watch,
    /// Who is told, until the watcher has it.
    observer: Option<Box<dyn Observer>>,
    watcher: Option<Watcher>,
}

impl<'a> Run<'a> {
    fn start(sandbox: &Sandbox, job: Job, limits: &Limits, io: Io<'a>) -> Result<Run<'a>> {
        let (control, control_child) = socket_pair()?;
        let (call, call_child) = socket_pair()?;
        let (lifeline_child, lifeline) = pipe()?;
        let (stdout, stdout_child) = pipe()?;
        let (stderr, stderr_child) = pipe()?;
        let stdin = open_stdin(io.stdin)?;
        let copy = stderr_child.try_clone().doing("copying a pipe")?;
        let program = sandbox.program.clone().map_or_else(program::sealed, Ok)?;
        let outer = Outer::spawn(&program, control_child, copy)?;
        let given = [
            &lifeline_child,
            &stdin,
            &stdout_child,
            &stderr_child,
            &call_child,
        ];
        let fds: Vec<BorrowedFd<'_>> = given.into_iter().chain(&io.fds).map(AsFd::as_fd).collect();
        let start = Start {
            job,
            terminal: io.terminal.map(terminal::size).transpose()?,
        };
        // A child that died early is reported by the end of the control stream.
        match wire::send(control.as_fd(), &start, &fds) {
            Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
                return Err(Error::system(
                    "handing the request to the sandbox child",
                    error,
                ));
            }
            _ => {}
        }
        Ok(Run {
            outer,
            lifeline: Some(lifeline),
            sandbox: sandbox.clone(),
            doors: Vec::new(),
            relay: None,
            control: Receiver::new(control),
            call: Receiver::new(call),
            readers: vec![
                Reader::new(Stream::Stdout, stdout)?,
                Reader::new(Stream::Stderr, stderr)?,
            ],
            output: Output::new(io.output, limits.output_bytes),
            message: io.message,
            cancel: io.cancel,
            terminal: io.terminal,
            bridge: None,
            deadline: limits
                .seconds
                .and_then(|seconds| Instant::now().checked_add(Duration::from_secs(seconds))),
            init: None,
            ready: false,
            ending: None,
            failed: None,
            ended: None,
            value: None,
            chunk: vec![0; PIPE_BYTES],
            watch: Watch::default(),
            observer: None,
            watcher: None,
        })
    }

    /// Serves everything until the outer process has ended, which it does last of all.
    fn pump(&mut self) -> Result<()> {
        loop {
            let woken = self.wait()?;
            self.end_if_due();
            if let Some(bridge) = &mut self.bridge {
                bridge.follow_size();
                if woken.user {
                    bridge.inward();
                }
                if woken.inside && !bridge.outward() {
                    self.bridge = None;
                }
            }
            // A limited number at a time, so that a flood on one stream does not silence the others.
            for reader in self.readers.iter_mut().filter(|reader| reader.open) {
                let mut turns = 0..READS_AT_ONCE;
                while turns.next().is_some() && reader.read(&mut self.chunk, &mut self.output) {}
            }
            if woken.control {
                self.listen()?;
            }
            if woken.call {
                self.hear_call()?;
            }
            if woken.outer {
                return self.drain();
            }
        }
    }

    fn wait(&self) -> Result<Woken> {
        let mut fds: Vec<PollFd<'_>> = Vec::with_capacity(10);
        let sides = self.bridge.as_ref().map(Bridge::fds);
        let slots = [
            Some(self.outer.pidfd.as_fd()),
            (!self.control.ended()).then(|| self.control.socket()),
            (!self.call.ended()).then(|| self.call.socket()),
            sides.and_then(|sides| sides.0),
            sides.map(|sides| sides.1),
            self.cancel
                .filter(|_| self.ending.is_none())
                .map(CancelToken::fd),
        ];
        let streams = self
            .readers
            .iter()
            .filter(|reader| reader.open)
            .map(|reader| Some(reader.fd.as_fd()));
        let mut indices = [None; 6];
        for (slot, fd) in slots.into_iter().chain(streams).enumerate() {
            if let Some(fd) = fd {
                if let Some(index) = indices.get_mut(slot) {
                    *index = Some(fds.len());
                }
                fds.push(PollFd::from_borrowed_fd(fd, PollFlags::IN));
            }
        }
        match rustix::event::poll(&mut fds, self.timeout().as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(Error::system("waiting for the sandbox", error)),
        }
        let woken = indices.map(|index| {
            index
                .and_then(|index| fds.get(index))
                .is_some_and(|fd| !fd.revents().is_empty())
        });
        let [outer, control, call, user, inside, _] = woken;
        Ok(Woken {
            outer,
            control,
            call,
            user,
            inside,
        })
    }

    fn timeout(&self) -> Option<Timespec> {
        let due = match self.ending {
            Some((_, since)) => Some(since + GRACE),
            None => self.deadline,
        };
        let until_due = due.map(|due| due.saturating_duration_since(Instant::now()));
        let tick = self.bridge.is_some().then_some(TERMINAL_TICK);
        let wait = [until_due, tick].into_iter().flatten().min()?;
        // Rounded up, so as not to spin in the last millisecond.
        Timespec::try_from(wait + Duration::from_millis(1)).ok()
    }

    fn end_if_due(&mut self) {
        let now = Instant::now();
        match self.ending {
            None if self.cancel.is_some_and(CancelToken::is_cancelled) => {
                self.end(Ending::Cancelled)
            }
            None if self.deadline.is_some_and(|deadline| now >= deadline) => {
                self.end(Ending::TimedOut)
            }
            Some((_, since)) if now >= since + GRACE => self.kill(),
            _ => {}
        }
    }

    fn end(&mut self, ending: Ending) {
        self.ending = Some((ending, Instant::now()));
        let told = self.ready && wire::send(self.control.socket(), &ToChild::Kill, &[]).is_ok();
        if !told {
            self.kill();
        }
    }

    /// Ends the init, and with it its namespace. The outer process follows when the kernel is done with that; before there
    /// is an init, the outer process is all there is.
    fn kill(&mut self) {
        match &self.init {
            Some(init) => drop(rustix::process::pidfd_send_signal(init, Signal::KILL)),
            None => drop(rustix::process::pidfd_send_signal(
                &self.outer.pidfd,
                Signal::KILL,
            )),
        }
    }

    fn listen(&mut self) -> Result<()> {
        self.control.poll().doing("listening to the sandbox")?;
        while let Some(message) = self.control.take().doing("understanding the sandbox")? {
            match message {
                FromChild::Unshared => self.map_ids()?,
                FromChild::Interface => self.start_relay()?,
                FromChild::Init => self.init = Some(self.control.fd().doing("receiving the init")?),
                FromChild::Ready { sources } => self.connect(&sources)?,
                FromChild::Exited {
                    status,
                    cpu_seconds,
                    max_rss_bytes,
                    over_memory,
                } => {
                    let status = match over_memory {
                        true => Status::OverMemory,
                        false => exit_status(status),
                    };
                    self.ended = Some(outcome(status, cpu_seconds, max_rss_bytes));
                }
                FromChild::Done => self.ended = Some(outcome(Status::Exited(0), 0.0, 0)),
                FromChild::Failed(error) => self.failed = Some(error),
            }
        }
        Ok(())
    }

    fn start_relay(&mut self) -> Result<()> {
        let tun = self.control.fd().doing("receiving a network interface")?;
        let (log, log_relay) = pipe()?;
        self.readers.push(Reader::new(Stream::Stderr, log)?);
        let (request, fds) = network::relay_request(&self.doors, tun)?;
        let sandbox = self.sandbox.clone();
        self.relay = Some(Relay::start(log_relay, move |cancel, say| {
            sandbox.serve(&request, fds, cancel, say)
        })?);
        Ok(())
    }

    fn map_ids(&mut self) -> Result<()> {
        self.sandbox.ids.write(self.outer.child.id())?;
        match wire::send(self.control.socket(), &ToChild::Mapped, &[]) {
            Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(Error::system(
                "telling the sandbox that its ids are mapped",
                error,
            )),
            _ => Ok(()),
        }
    }

    fn connect(&mut self, sources: &[Source]) -> Result<()> {
        self.ready = true;
        for source in sources {
            let fd = self
                .control
                .fd()
                .doing("receiving a stream of the sandbox")?;
            match (source, self.terminal) {
                (Source::Lines(stream), _) => self.readers.push(Reader::new(*stream, fd)?),
                (Source::Terminal, Some(user)) => self.bridge = Some(Bridge::new(user, fd)?),
                (Source::Terminal, None) => {}
            }
        }
        Ok(())
    }

    fn hear_call(&mut self) -> Result<()> {
        self.call
            .poll()
            .doing("listening to a function in the sandbox")?;
        while let Some(message) = self
            .call
            .take()
            .doing("understanding a function in the sandbox")?
        {
            match message {
                FromCall::Message(value) => (self.message)(value),
                FromCall::Result(value) => self.value = Some(value),
                FromCall::Watch => {
                    let listener = self.call.fd().doing("receiving the watched system calls")?;
                    let observer = self.observer.take().unwrap_or_else(|| Box::new(Nobody));
                    self.watcher = Some(Watcher::start(listener, self.watch.clone(), observer)?);
                }
                FromCall::Unwatched(why) => {
                    if let Some(observer) = &mut self.observer {
                        observer.incomplete(why);
                    }
                }
            }
        }
        Ok(())
    }

    /// Takes in what is still in the pipes. Nobody inside is left to fill them.
    fn drain(&mut self) -> Result<()> {
        // An outer process that was killed just after it forked leaves an init that does not know it: its parent's death signal was
        // not armed yet.
        self.lifeline = None;
        // It closes its pipe, the last one that is open.
        self.relay = None;
        for reader in &mut self.readers {
            while reader.open && reader.read(&mut self.chunk, &mut self.output) {}
            reader.lines.flush(&mut self.output);
        }
        while self.bridge.as_mut().is_some_and(Bridge::outward) {}
        while !self.control.ended() {
            wait_for_input(self.control.socket())?;
            self.listen()?;
        }
        while !self.call.ended() {
            wait_for_input(self.call.socket())?;
            self.hear_call()?;
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Outcome> {
        self.bridge = None;
        let status = self.outer.wait()?;
        let dropped_output_bytes = self.output.dropped();
        let base = match (self.ending, self.failed, self.ended) {
            (Some((ending, _)), _, ended) => {
                let status = match ending {
                    Ending::TimedOut => Status::TimedOut,
                    Ending::Cancelled => Status::Cancelled,
                };
                Outcome {
                    status,
                    ..ended.unwrap_or_else(|| outcome(status, 0.0, 0))
                }
            }
            (None, Some(error), _) => return Err(error),
            (None, None, Some(ended)) => ended,
            (None, None, None) => return Err(vanished(status)),
        };
        let watched = self.watcher.is_some_and(Watcher::finish);
        Ok(Outcome {
            value: self.value,
            dropped_output_bytes,
            watched,
            ..base
        })
    }
}

fn wait_for_input(socket: BorrowedFd<'_>) -> Result<()> {
    let mut fds = [PollFd::from_borrowed_fd(socket, PollFlags::IN)];
    match rustix::event::poll(&mut fds, None) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(Error::system("waiting for the end of the sandbox", error)),
    }
}

/// What there is to do.
struct Woken {
    outer: bool,
    control: bool,
    call: bool,
    user: bool,
    inside: bool,
}

fn outcome(status: Status, cpu_seconds: f64, max_rss_bytes: u64) -> Outcome {
    Outcome {
        status,
        value: None,
        out_of_memory: false,
        max_rss_bytes,
        seconds: 0.0,
        cpu_seconds,
        dropped_output_bytes: 0,
        watched: false,
    }
}

fn exit_status(raw: i32) -> Status {
    let status = ExitStatus::from_raw(raw);
    match (status.code(), status.signal()) {
        (Some(code), _) => Status::Exited(code),
        (None, signal) => Status::Signaled(signal.unwrap_or(libc::SIGKILL)),
    }
}

fn vanished(status: ExitStatus) -> Error {
    let error = Error::new(
        ErrorKind::Environment,
        "the sandbox was killed from outside",
    );
    let error = error.cause(format!("its first process ended with {status}"));
    error.hint("a lack of memory is the usual reason; the kernel's log tells")
}

fn socket_pair() -> Result<(OwnedFd, OwnedFd)> {
    rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )
    .doing("making a socket pair")
}

fn pipe() -> Result<(OwnedFd, OwnedFd)> {
    rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).doing("making a pipe")
}

fn open_stdin(stdin: Stdin) -> Result<OwnedFd> {
    match stdin {
        Stdin::Null => rustix::fs::open(
            "/dev/null",
            OFlags::RDONLY | OFlags::CLOEXEC,
            rustix::fs::Mode::empty(),
        )
        .doing("opening /dev/null"),
        Stdin::Inherit => std::io::stdin()
            .as_fd()
            .try_clone_to_owned()
            .doing("copying standard input"),
        Stdin::Bytes(bytes) => {
            let mut file = File::from(
                rustix::fs::memfd_create("stdin", MemfdFlags::CLOEXEC)
                    .doing("making a file in memory for the input")?,
            );
            let written = file
                .write_all(&bytes)
                .and_then(|()| file.seek(SeekFrom::Start(0)));
            written.doing("writing the input to memory")?;
            Ok(file.into())
        }
    }
}
