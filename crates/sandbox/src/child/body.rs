//! The process that executes the program or calls the function.

use std::any::Any;
use std::ffi::CString;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::panic::AssertUnwindSafe;

use rustix::process::{Resource, Rlimit};

use super::capabilities::drop_capabilities;
use crate::call::Given;
use crate::error::{Context, Error, ErrorKind, Result};
use crate::wire::{self, FromCall};
use crate::{Body, Function, Limits, Mount, Request, network, probe, seccomp, sys};

/// Where descriptors that were handed over begin.
pub(crate) const FIRST_HANDED: RawFd = 10;
/// Everything is first moved up here, out of the way of the fixed numbers.
const HIGH: RawFd = 256;

const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Where a function's own two descriptors are: below the handed ones.
const CALL: RawFd = 3;
const STATUS: RawFd = 4;

/// Never returns: ends with the program's or the function's status.
pub(super) fn run(
    request: &Request,
    functions: &[Function],
    stdio: [OwnedFd; 3],
    terminal: Option<OwnedFd>,
    call: OwnedFd,
    handed: Vec<OwnedFd>,
    status: OwnedFd,
) -> ! {
    let error = match (prepare(request, stdio, terminal, &handed), &request.body) {
        (Err(error), _) => error,
        (Ok(()), Body::Exec { argv }) => exec(argv, request, &call),
        (
            Ok(()),
            Body::Call {
                function,
                payload,
                descriptors,
            },
        ) => {
            let found = find(functions, function);
            match found.and_then(|found| watched(request, &call).map(|()| found)) {
                Ok(function) => {
                    let (call, status) = match keep(&call, &status, handed.len()) {
                        Ok(kept) => kept,
                        Err(_) => sys::exit(127),
                    };
                    // The init waits for the end of this pipe, and a call has no exec that would close it.
                    drop(status);
                    let adopt =
                        |(number, name): (RawFd, &String)| (name.clone(), sys::adopt(number));
                    let handed = (FIRST_HANDED..).zip(descriptors).map(adopt).collect();
                    run_call(function, payload.clone(), handed, &call)
                }
                Err(error) => error,
            }
        }
    };
    let mut file = std::fs::File::from(status);
    // If the init cannot be told, it takes the exit status for the body's.
    let _ = serde_json::to_writer(&mut file, &error);
    sys::exit(127)
}

/// What the body wrote before it could start; `None` once the program runs.
pub(super) fn start_error(status: OwnedFd) -> Result<Option<Error>> {
    let mut text = Vec::new();
    std::fs::File::from(status)
        .read_to_end(&mut text)
        .doing("waiting for the body to start")?;
    if text.is_empty() {
        return Ok(None);
    }
    let error = serde_json::from_slice(&text);
    Ok(Some(error.unwrap_or_else(|_| {
        Error::internal("the body of a sandbox failed without saying why")
    })))
}

fn prepare(
    request: &Request,
    stdio: [OwnedFd; 3],
    terminal: Option<OwnedFd>,
    handed: &[OwnedFd],
) -> Result<()> {
    rustix::process::setsid().doing("starting a session for the body")?;
    if let Some(terminal) = &terminal {
        rustix::process::ioctl_tiocsctty(terminal).doing("taking the terminal")?;
    }
    let terminal = terminal.as_ref().map(|terminal| [terminal.as_fd(); 3]);
    arrange(
        terminal.unwrap_or_else(|| stdio.each_ref().map(AsFd::as_fd)),
        handed,
    )
    .doing("arranging descriptors")?;
    limit(&request.limits)?;
    rustix::process::chdir(&*request.cwd).map_err(|error| missing_cwd(&request.cwd, error))
}

fn find(functions: &[Function], name: &str) -> Result<Function> {
    let builtin = [
        Function::of::<probe::Nothing>(),
        Function::of::<probe::Probe>(),
        Function::of::<network::Carry>(),
    ];
    Function::find(&[functions, &builtin].concat(), name)
}

fn missing_cwd(cwd: &str, error: rustix::io::Errno) -> Error {
    Error::new(
        ErrorKind::Step,
        format!("changing to the working directory {cwd}"),
    )
    .because(std::io::Error::from(error))
}

/// Puts the standard files at 0, 1 and 2 and the handed ones at 10 and up; the rest goes away on exec.
fn arrange(stdio: [BorrowedFd<'_>; 3], handed: &[OwnedFd]) -> std::io::Result<()> {
    let up = |fd: BorrowedFd<'_>| rustix::io::fcntl_dupfd_cloexec(fd, HIGH);
    let stdio: Vec<OwnedFd> = stdio.into_iter().map(up).collect::<Result<_, _>>()?;
    let handed: Vec<OwnedFd> = handed
        .iter()
        .map(|fd| up(fd.as_fd()))
        .collect::<Result<_, _>>()?;
    sys::close_range(3, u32::MAX, true)?;
    for (number, fd) in (0..).zip(&stdio) {
        sys::place(fd.as_fd(), number)?;
    }
    for (number, fd) in (FIRST_HANDED..).zip(&handed) {
        sys::place(fd.as_fd(), number)?;
    }
    Ok(())
}

/// Closes all that a function has no use for: its copies of the init's socket to the caller and of the lifeline among them. What
/// remains is closed by exec. The owners of what is closed are never dropped: this process ends by `_exit`.
fn keep(call: &OwnedFd, status: &OwnedFd, handed: usize) -> std::io::Result<(OwnedFd, OwnedFd)> {
    let up = |fd: &OwnedFd| rustix::io::fcntl_dupfd_cloexec(fd, HIGH);
    let (high_call, high_status) = (up(call)?, up(status)?);
    sys::place(high_call.as_fd(), CALL)?;
    sys::place(high_status.as_fd(), STATUS)?;
    drop((high_call, high_status));
    let end = FIRST_HANDED as u32 + handed as u32;
    sys::close_range(STATUS as u32 + 1, FIRST_HANDED as u32 - 1, false)?;
    sys::close_range(end, u32::MAX, false)?;
    sys::close_range(CALL as u32, u32::MAX, true)?;
    Ok((sys::adopt(CALL), sys::adopt(STATUS)))
}

/// Lowers limits, as far as they are higher than asked for.
fn limit(limits: &Limits) -> Result<()> {
    let lower = |resource, wanted: u64| {
        let hard = rustix::process::getrlimit(resource)
            .maximum
            .unwrap_or(u64::MAX);
        let value = Some(wanted.min(hard)).filter(|value| *value != u64::MAX);
        rustix::process::setrlimit(
            resource,
            Rlimit {
                current: value,
                maximum: value,
            },
        )
    };
    lower(Resource::Core, 0).doing("limiting core dumps")?;
    lower(Resource::Nofile, limits.open_files.max(64)).doing("limiting open files")?;
    if let Some(processes) = limits.processes {
        lower(Resource::Nproc, processes).doing("limiting processes")?;
    }
    if let Some(bytes) = limits.address_space {
        lower(Resource::As, bytes).doing("limiting address space")?;
    }
    Ok(())
}

/// Has the body's accesses told from here on, if that was asked for. It runs all the same where the kernel refuses.
fn watched(request: &Request, call: &OwnedFd) -> Result<()> {
    let Some(watch) = &request.watch else {
        return Ok(());
    };
    // The init's copy, which this still is, keeps tracers out; the caller has to read the first path.
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::Dumpable)
        .doing("opening the body to its watcher")?;
    let (message, listener) = match sys::install_listener(&seccomp::watching(watch.changes)) {
        Ok(listener) => (FromCall::Watch, Some(listener)),
        Err(error) => (FromCall::Unwatched(error.to_string()), None),
    };
    let fds: Vec<BorrowedFd<'_>> = listener.iter().map(AsFd::as_fd).collect();
    wire::send(call.as_fd(), &message, &fds).doing("handing over the watched system calls")
}

/// Executes the program. Returns only on failure.
fn exec(argv: &[String], request: &Request, call: &OwnedFd) -> Error {
    let env = &request.env;
    let Some(program) = argv.first() else {
        return Error::input("the command is empty");
    };
    let path = env
        .iter()
        .find(|(name, _)| name == "PATH")
        .map_or(DEFAULT_PATH, |(_, value)| value);
    let candidates: Vec<String> = if program.contains('/') {
        vec![program.clone()]
    } else {
        path.split(':')
            .filter(|dir| !dir.is_empty())
            .map(|dir| format!("{dir}/{program}"))
            .collect()
    };
    let variables: Vec<String> = env
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    let (candidates, argv, env) = match (
        c_strings(&candidates),
        c_strings(argv),
        c_strings(&variables),
    ) {
        (Ok(candidates), Ok(argv), Ok(env)) => (candidates, argv, env),
        (Err(error), _, _) | (_, Err(error), _) | (_, _, Err(error)) => return error,
    };
    if let Err(error) = watched(request, call) {
        return error;
    }
    for mount in &request.mounts {
        // What the init has read of it belongs to what the program accesses.
        if let Mount::Head { target, .. } = mount {
            drop(std::fs::File::open(target));
        }
    }
    if let Err(error) = drop_capabilities() {
        return Error::system("dropping capabilities", error);
    }
    if request.no_new_privs
        && let Err(error) = rustix::thread::set_no_new_privs(true)
    {
        return Error::system("ruling out new privileges", error);
    }
    sys::reset_signals(false);
    for candidate in &candidates {
        let error = sys::exec(candidate, &argv, &env);
        if candidate
            .to_str()
            .is_ok_and(|path| std::fs::symlink_metadata(path).is_ok())
        {
            return cannot_run(program, candidate, error);
        }
    }
    let missing = std::io::Error::from_raw_os_error(libc::ENOENT);
    let error = Error::new(ErrorKind::Step, format!("running {program}")).because(missing);
    if program.contains('/') {
        error
    } else {
        error.cause(format!("it was looked for in {path}"))
    }
}

fn cannot_run(program: &str, path: &CString, error: std::io::Error) -> Error {
    let hint = match error.raw_os_error() {
        Some(libc::ENOENT) => {
            Some("the file is there, but its interpreter (first line) or loader is not in the root")
        }
        Some(libc::ENOEXEC) => {
            Some("it is no program of this architecture, or a script without a `#!` line")
        }
        Some(libc::EACCES) => Some("it is not executable, or its mount forbids execution"),
        _ => None,
    };
    let message = if program.contains('/') {
        format!("running {program}")
    } else {
        format!("running {program} ({})", path.to_string_lossy())
    };
    let error = Error::new(ErrorKind::Step, message).because(error);
    match hint {
        Some(hint) => error.hint(hint),
        None => error,
    }
}

fn c_strings(texts: &[String]) -> Result<Vec<CString>> {
    let c_string = |text: &String| {
        CString::new(text.as_str()).map_err(|_| Error::input(format!("{text:?} holds a NUL byte")))
    };
    texts.iter().map(c_string).collect()
}

fn run_call(
    function: Function,
    payload: serde_json::Value,
    handed: Vec<(String, OwnedFd)>,
    socket: &OwnedFd,
) -> ! {
    sys::reset_signals(true);
    let code = match socket.try_clone() {
        Ok(copy) => {
            let given = Given {
                payload,
                handed,
                socket: copy,
            };
            let result = std::panic::catch_unwind(AssertUnwindSafe(|| function.run(given)));
            let result = result.unwrap_or_else(|panic| Err(panicked(panic.as_ref())));
            let code = i32::from(result.is_err());
            match wire::send(socket.as_fd(), &FromCall::Result(result), &[]) {
                Ok(()) => code,
                Err(_) => 126,
            }
        }
        Err(_) => 126,
    };
    sys::exit(code)
}

fn panicked(panic: &(dyn Any + Send)) -> Error {
    let text = panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned());
    Error::new(ErrorKind::Internal, "a function in the sandbox panicked").cause(text)
}
