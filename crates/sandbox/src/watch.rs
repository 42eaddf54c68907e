//! Which files of the root a run accesses. What an access means to the program that makes it is the [`Observer`]'s business.
//!
//! A second filter hands every system call that names a path to a thread of the caller (seccomp_unotify(2)), which
//! tells the observer the path and lets the call go on. Nothing is decided by it, so it need not mind that the program could change the
//! path meanwhile: a program that does so to deceive only deceives itself.
//!
//! What cannot be seen makes what is told incomplete, never wrong: system calls of a foreign architecture, paths that are no
//! UTF-8, a process that ended while it was looked at.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use rustix::event::{PollFd, PollFlags};
use rustix::fs::{Mode, OFlags, ResolveFlags};
use serde::{Deserialize, Serialize};

use crate::error::{Context, Result};
use crate::seccomp::{self, PathCall};
use crate::sys::{self, Notification};

/// `PATH_MAX` of `linux/limits.h`, with its NUL byte.
const PATH_MAX: usize = 4096;

/// How a run is watched.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watch {
    /// Directories in which accesses are not told.
    pub ignored: Vec<String>,
    /// Whether a change of a file's attributes counts as opening it, as it does in an overlay, which copies the file for it.
    pub changes: bool,
}

impl Watch {
    fn ignores(&self, path: &str) -> bool {
        self.ignored.iter().any(|prefix| is_below(path, prefix))
    }
}

/// Takes note of what a watched run accesses. The run waits meanwhile.
pub trait Observer: Send {
    /// The run is about to access a path.
    fn accessed(&mut self, access: &PathAccess<'_>);
    /// An access cannot be told.
    fn incomplete(&mut self, why: String);
}

/// What a system call is about to do with a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessKind {
    /// Ask for attributes, existence or the target of a link.
    Status,
    /// Read its content, or get a way to it.
    Open,
    /// Execute it.
    Execute,
    /// List the names in it.
    List,
}

/// A system call of a watched run that is about a path.
pub struct PathAccess<'a> {
    /// Absolute in the root, as the run named it: links in it are not resolved.
    pub path: &'a str,
    /// What it does with it.
    pub kind: AccessKind,
    of: &'a Notification,
    call: PathCall,
}

impl PathAccess<'_> {
    /// Returns the thread that makes the call, as this process sees it.
    pub fn process(&self) -> u32 {
        self.of.process
    }

    /// Whether the call names its path from an open directory on.
    pub fn is_below_descriptor(&self) -> bool {
        let (PathCall::Open { at: Some(at), .. } | PathCall::Status { at: Some(at), .. }) =
            self.call
        else {
            return false;
        };
        self.of.arguments[usize::from(at)] as i32 != libc::AT_FDCWD
    }

    /// Returns the command line of what is about to be executed; `None` of another call, of more than `most` words, and where it
    /// cannot be read.
    pub fn command_line(&self, most: usize) -> Option<Vec<String>> {
        let PathCall::Execute { path, .. } = self.call else {
            return None;
        };
        let list = self.of.arguments[usize::from(path) + 1];
        let mut words = Vec::new();
        loop {
            let address = list + 8 * words.len() as u64;
            let word = sys::read_pointer(self.of.process, address).ok()?;
            if word == 0 {
                return Some(words);
            }
            let text = sys::read_path(self.of.process, word, PATH_MAX).ok()?;
            words.push(String::from_utf8(text).ok()?);
            if words.len() > most {
                return None;
            }
        }
    }

    /// Returns the working directory of the process.
    pub fn working_directory(&self) -> Option<String> {
        link(&self.proc("cwd")).ok()
    }

    /// Returns the program that the process runs now: executing another may have failed.
    pub fn program(&self) -> Option<String> {
        link(&self.proc("exe")).ok()
    }

    /// Returns the command line with which the process runs now.
    pub fn own_command_line(&self) -> Option<Vec<Vec<u8>>> {
        let line = std::fs::read(self.proc("cmdline")).ok()?;
        Some(line.split(|byte| *byte == 0).map(<[u8]>::to_vec).collect())
    }

    /// Returns the file whose code makes the call; `None` in doubt.
    pub fn caller(&self) -> Option<String> {
        let maps = std::fs::read_to_string(self.proc("maps")).ok()?;
        let mut mappings = maps.lines().filter_map(mapping);
        let here = mappings.find(|(start, end, _)| (*start..*end).contains(&self.of.instruction));
        here.map(|(_, _, file)| file.to_owned())
    }

    fn proc(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{name}", self.of.process))
    }
}

/// For a run that is watched by nobody.
pub(crate) struct Nobody;

impl Observer for Nobody {
    fn accessed(&mut self, _: &PathAccess<'_>) {}

    fn incomplete(&mut self, _: String) {}
}

/// Something that was read of a process, or why it could not be.
type Read<T> = std::result::Result<T, String>;

/// The thread that serves the watched calls.
pub(crate) struct Watcher {
    thread: JoinHandle<()>,
    /// Closing it ends the thread: kernels before 5.9 do not tell that nobody is left who could notify.
    stop: OwnedFd,
}

impl Watcher {
    /// Serves `listener` until nobody is left who could notify.
    pub(crate) fn start(
        listener: OwnedFd,
        watch: Watch,
        observer: Box<dyn Observer>,
    ) -> Result<Self> {
        let (stopped, stop) =
            rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).doing("making a pipe")?;
        let mut notes = Notes { watch, observer };
        let serve = move || {
            sys::wake_listener_fast(listener.as_fd());
            while let Some(notification) = next(&listener, &stopped) {
                notes.take(&notification);
                sys::let_go_on(listener.as_fd(), &notification);
            }
        };
        Ok(Watcher {
            thread: std::thread::spawn(serve),
            stop,
        })
    }

    /// Ends it, when nobody runs any more. Whether the observer was told all the time.
    pub(crate) fn finish(self) -> bool {
        drop(self.stop);
        self.thread.join().is_ok()
    }
}

fn next(listener: &OwnedFd, stopped: &OwnedFd) -> Option<Notification> {
    loop {
        let mut fds = [
            PollFd::new(listener, PollFlags::IN),
            PollFd::new(stopped, PollFlags::IN),
        ];
        match rustix::event::poll(&mut fds, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => return None,
        }
        let events = fds[0].revents();
        if events.contains(PollFlags::IN) {
            // A process that was killed since takes its notification along.
            if let Ok(notification) = sys::receive_notification(listener.as_fd()) {
                return Some(notification);
            }
        } else if !events.is_empty() || !fds[1].revents().is_empty() {
            return None;
        }
    }
}

struct Notes {
    watch: Watch,
    observer: Box<dyn Observer>,
}

impl Notes {
    fn take(&mut self, notification: &Notification) {
        let Some(call) = seccomp::path_call(notification.arch, notification.number) else {
            let name = format!(
                "system call {} of architecture {:#x}",
                notification.number, notification.arch
            );
            self.observer.incomplete(name);
            return;
        };
        match self.path(notification, call) {
            Ok(Some(path)) => self.observer.accessed(&PathAccess {
                path: &path,
                kind: kind_of(call),
                of: notification,
                call,
            }),
            Ok(None) => {}
            Err(why) => self.observer.incomplete(why),
        }
    }

    /// The path that a call is about; `None` if it is none of the root's.
    fn path(&self, of: &Notification, call: PathCall) -> Read<Option<String>> {
        let (directory, argument) = match call {
            PathCall::List => (Some(of.arguments[0]), None),
            PathCall::Open { at, path }
            | PathCall::Execute { at, path }
            | PathCall::Status { at, path } => (
                at.map(|index| of.arguments[usize::from(index)]),
                Some(of.arguments[usize::from(path)]),
            ),
        };
        let named = match argument {
            None | Some(0) => String::new(),
            Some(address) => match sys::read_path(of.process, address, PATH_MAX) {
                Ok(bytes) => String::from_utf8(bytes).map_err(|e| {
                    format!(
                        "a path that is no UTF-8: {:?}",
                        String::from_utf8_lossy(e.as_bytes())
                    )
                })?,
                // The kernel will refuse the call for the same reason, or the process is gone.
                Err(error)
                    if matches!(
                        error.raw_os_error(),
                        Some(libc::EFAULT | libc::ENAMETOOLONG | libc::ESRCH)
                    ) =>
                {
                    return Ok(None);
                }
                Err(error) => {
                    return Err(format!("reading a path of process {}: {error}", of.process));
                }
            },
        };
        let process = PathBuf::from(format!("/proc/{}", of.process));
        let base = if named.starts_with('/') {
            link(&process.join("root"))?
        } else {
            match directory {
                // AT_FDCWD, an `int`: the upper half of the register means nothing.
                Some(fd) if fd as i32 != libc::AT_FDCWD => {
                    // Statuses of descriptors (`fstat`) say nothing new: somebody has opened them.
                    if named.is_empty()
                        && !matches!(call, PathCall::List | PathCall::Execute { .. })
                    {
                        return Ok(None);
                    }
                    link(&process.join(format!("fd/{}", fd as i32)))?
                }
                _ => link(&process.join("cwd"))?,
            }
        };
        Ok(self.in_root(&process, join(&base, &named)))
    }

    /// What lies in directories that are nobody's business may still be a link to something that is.
    fn in_root(&self, process: &Path, path: String) -> Option<String> {
        // Pipes, sockets and deleted directories are no paths.
        if !path.starts_with('/') {
            return None;
        }
        let unclear = self.watch.ignores(&path) || path.split('/').any(|part| part == "..");
        if !unclear {
            return Some(path);
        }
        match resolved(process, &path) {
            Some(real) if self.watch.ignores(&real) => None,
            Some(real) => Some(real),
            None if self.watch.ignores(&path) => None,
            None => Some(path),
        }
    }
}

fn kind_of(call: PathCall) -> AccessKind {
    match call {
        PathCall::Status { .. } => AccessKind::Status,
        PathCall::Open { .. } => AccessKind::Open,
        PathCall::Execute { .. } => AccessKind::Execute,
        PathCall::List => AccessKind::List,
    }
}

/// Whether a path is a directory or lies in it.
fn is_below(path: &str, directory: &str) -> bool {
    path.strip_prefix(directory)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || directory == "/")
}

/// Start, end and file of a line of `/proc/PID/maps` (proc_pid_maps(5)).
fn mapping(line: &str) -> Option<(u64, u64, &str)> {
    let (range, rest) = line.split_once(' ')?;
    let (start, end) = range.split_once('-')?;
    let address = |text| u64::from_str_radix(text, 16).ok();
    Some((address(start)?, address(end)?, rest.split_once('/')?.1))
}

fn link(path: &Path) -> Read<String> {
    let target =
        std::fs::read_link(path).map_err(|e| format!("reading {}: {e}", path.display()))?;
    target
        .into_os_string()
        .into_string()
        .map_err(|name| format!("a path that is no UTF-8: {name:?}"))
}

/// Joins without resolving anything but `.` and empty parts.
fn join(base: &str, named: &str) -> String {
    let mut path = String::with_capacity(base.len() + named.len() + 1);
    for part in base.split('/').chain(named.split('/')) {
        if !part.is_empty() && part != "." {
            path.push('/');
            path.push_str(part);
        }
    }
    if path.is_empty() && base.starts_with('/') {
        path.push('/');
    }
    if base.starts_with('/') || base.is_empty() {
        path
    } else {
        String::new()
    }
}

/// The path with all links followed, as the process itself would.
fn resolved(process: &Path, path: &str) -> Option<String> {
    let root = File::open(process.join("root")).ok()?;
    let inside = path.trim_start_matches('/');
    let found = rustix::fs::openat2(
        &root,
        if inside.is_empty() { "." } else { inside },
        OFlags::PATH | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::IN_ROOT,
    )
    .ok()?;
    link(&PathBuf::from(format!(
        "/proc/self/fd/{}",
        std::os::fd::AsRawFd::as_raw_fd(&found)
    )))
    .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_joined_but_not_resolved() {
        assert_eq!(join("/", "/usr//bin/./sh"), "/usr/bin/sh");
        assert_eq!(join("/usr/lib", "../bin/sh"), "/usr/lib/../bin/sh");
        assert_eq!(join("/", ""), "/");
        assert_eq!(join("/chroot", "/etc/passwd"), "/chroot/etc/passwd");
        assert_eq!(join("pipe:[12]", ""), "");
    }

    #[test]
    fn mappings_have_a_range_and_a_file() {
        let line = "7f10c8a4d000-7f10c8a73000 r-xp 00001000 00:1f 42   /usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2";
        let (start, end, file) = mapping(line).expect("a mapping");
        assert_eq!((start, end), (0x7f10_c8a4_d000, 0x7f10_c8a7_3000));
        assert!(file.ends_with("ld-linux-x86-64.so.2"));
        assert_eq!(
            mapping("7ffe1000-7ffe2000 rw-p 00000000 00:00 0   [stack]"),
            None
        );
    }

    #[test]
    fn ignored_directories_end_at_a_slash() {
        let watch = Watch {
            ignored: vec!["/run".to_owned()],
            ..Watch::default()
        };
        assert!(watch.ignores("/run") && watch.ignores("/run/x"));
        assert!(!watch.ignores("/runs"));
    }
}
