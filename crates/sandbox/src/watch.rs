//! Which files of the root a run has looked at.
//!
//! A second filter hands every system call that names a path to a thread of the caller (seccomp_unotify(2)), which
//! notes the path and lets the call go on. Nothing is decided by it, so it need not mind that the program could change the
//! path meanwhile: a program that does so to deceive only deceives itself.
//!
//! What cannot be seen makes the record incomplete, never wrong: system calls of a foreign architecture, paths that are no
//! UTF-8, a process that ended while it was looked at.

mod search;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use rustix::event::{PollFd, PollFlags};
use rustix::fs::{Mode, OFlags, ResolveFlags};
use serde::{Deserialize, Serialize};

use crate::error::{Context, Result};
use crate::seccomp::{self, PathCall};
use crate::sys::{self, Notification};
pub use search::{Affixes, Search};

/// `PATH_MAX` of `linux/limits.h`, with its NUL byte.
const PATH_MAX: usize = 4096;

/// Where the dynamic linker finds which file a library's name means (ld.so(8)).
pub const LINKER_CACHE: &str = "/etc/ld.so.cache";

/// Arguments of find(1) that are read: more of them are no search.
const ARGUMENTS: u64 = 64;

/// How a run is watched.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watch {
    /// Directories in which accesses are not noted.
    pub ignored: Vec<String>,
    /// What scripts are known to search for when they list a directory.
    pub globs: Vec<Glob>,
    /// Whether a change of a file's attributes counts as reading it, as it does in an overlay, which copies the file for it.
    pub changes: bool,
}

/// What a script searches for. Only of the process that runs the script, not of what it starts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Glob {
    /// The script, as it is started.
    pub script: String,
    /// The names, and the directory that is listed for them.
    pub search: Search,
}

/// What a run learned of a path, as a set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Access {
    /// Its content was read, or could have been.
    pub content: bool,
    /// The names in it were listed.
    pub names: bool,
    /// It was executed.
    pub executed: bool,
    /// The dynamic linker looked up names of libraries in it; only of [`LINKER_CACHE`].
    pub linked: bool,
}

/// What a run has looked at: every path whose existence, type, attributes, content or names it has asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trace {
    /// Absolute paths in the root, as the run named them: links in them are not resolved.
    pub paths: BTreeMap<String, Access>,
    /// Names that it has searched for.
    pub searches: BTreeSet<Search>,
    /// Why something may be missing here.
    pub incomplete: Option<String>,
}

impl Trace {
    /// Adds what another run has looked at.
    pub fn add(&mut self, other: &Trace) {
        for (path, access) in &other.paths {
            self.paths.entry(path.clone()).or_default().add(*access);
        }
        self.searches.extend(other.searches.iter().cloned());
        let incomplete = self.incomplete.take();
        self.incomplete = incomplete.or_else(|| other.incomplete.clone());
    }
}

impl Access {
    fn add(&mut self, other: Access) {
        self.content |= other.content;
        self.names |= other.names;
        self.executed |= other.executed;
        self.linked |= other.linked;
    }
}

/// Notes under way, for whoever cannot wait for the end of the run.
pub type SharedTrace = Arc<Mutex<Trace>>;

/// A note, or why it could not be taken.
type Note<T> = std::result::Result<T, String>;

/// The thread that takes the notes.
pub(crate) struct Watcher {
    thread: JoinHandle<Trace>,
    /// Closing it ends the thread: kernels before 5.9 do not tell that nobody is left who could notify.
    stop: OwnedFd,
}

impl Watcher {
    /// Serves `listener` until nobody is left who could notify.
    pub(crate) fn start(listener: OwnedFd, watch: Watch, trace: SharedTrace) -> Result<Self> {
        let (stopped, stop) =
            rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).doing("making a pipe")?;
        let mut notes = Notes {
            watch,
            trace,
            ..Notes::default()
        };
        let serve = move || {
            sys::wake_listener_fast(listener.as_fd());
            while let Some(notification) = next(&listener, &stopped) {
                notes.take(&notification);
                sys::let_go_on(listener.as_fd(), &notification);
            }
            std::mem::take(&mut *notes.trace())
        };
        Ok(Watcher {
            thread: std::thread::spawn(serve),
            stop,
        })
    }

    /// Ends it, when nobody runs any more.
    pub(crate) fn finish(self) -> Trace {
        drop(self.stop);
        self.thread.join().unwrap_or_else(|_| Trace {
            incomplete: Some("the thread that took notes panicked".to_owned()),
            ..Trace::default()
        })
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

#[derive(Default)]
struct Notes {
    watch: Watch,
    trace: SharedTrace,
    /// What processes run of which it is known what they search for.
    known: HashMap<u32, Known>,
}

/// A program of which it is known what it searches for.
enum Known {
    /// find(1).
    Find(Vec<Search>),
    /// A script, by its path.
    Script(String),
}

impl Notes {
    fn take(&mut self, notification: &Notification) {
        let Some(call) = seccomp::path_call(notification.arch, notification.number) else {
            let name = format!(
                "system call {} of architecture {:#x}",
                notification.number, notification.arch
            );
            self.incomplete(name);
            return;
        };
        let mut access = Access {
            content: matches!(call, PathCall::Open { .. } | PathCall::Execute { .. }),
            names: matches!(call, PathCall::List),
            executed: matches!(call, PathCall::Execute { .. }),
            linked: false,
        };
        match self.path(notification, call) {
            Ok(Some(path)) => {
                if access.executed {
                    self.executes(notification, call, &path);
                } else if self.is_search(notification, call, &path) {
                    return;
                }
                // Every program opens it, but for a few of its lines only.
                if path == LINKER_CACHE && access.content && is_linker(notification) {
                    (access.content, access.linked) = (false, true);
                }
                self.note(path, access);
            }
            Ok(None) => {}
            Err(why) => self.incomplete(why),
        }
    }

    /// Remembers what a process becomes.
    fn executes(&mut self, of: &Notification, call: PathCall, path: &str) {
        self.known.remove(&of.process);
        if self.watch.globs.iter().any(|glob| glob.script == path) {
            let script = Known::Script(path.to_owned());
            self.known.insert(of.process, script);
        } else if path.ends_with("/find")
            && let Some(searches) = searches_of(of, call)
        {
            self.known.insert(of.process, Known::Find(searches));
        }
    }

    /// Whether a look belongs to a search, which is noted instead.
    fn is_search(&mut self, of: &Notification, call: PathCall, path: &str) -> bool {
        let noted = match self.known.get(&of.process) {
            None => return false,
            Some(Known::Script(script)) => {
                let globs = self.watch.globs.iter();
                let mut globs =
                    globs.filter(|glob| glob.script == *script && call == PathCall::List);
                let glob = globs.find(|glob| glob.search.directory == path);
                let glob = glob.filter(|_| runs_script(of.process, script));
                glob.map(|glob| vec![glob.search.clone()])
            }
            // What it does to walk. What it needs to run at all it opens by whole paths.
            Some(Known::Find(searches)) => {
                let walks = call == PathCall::List || below_descriptor(of, call);
                (walks && is_find(of.process) && within(path, searches)).then(|| searches.clone())
            }
        };
        let is_search = noted.is_some();
        self.trace().searches.extend(noted.into_iter().flatten());
        is_search
    }

    fn trace(&self) -> MutexGuard<'_, Trace> {
        self.trace.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn incomplete(&mut self, why: String) {
        self.trace().incomplete.get_or_insert(why);
    }

    fn note(&mut self, path: String, access: Access) {
        self.trace().paths.entry(path).or_default().add(access);
    }

    /// The path that a call is about; `None` if it is none of the root's.
    fn path(&self, of: &Notification, call: PathCall) -> Note<Option<String>> {
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
        let unclear = self.is_ignored(&path) || path.split('/').any(|part| part == "..");
        if !unclear {
            return Some(path);
        }
        match resolved(process, &path) {
            Some(real) if self.is_ignored(&real) => None,
            Some(real) => Some(real),
            None if self.is_ignored(&path) => None,
            None => Some(path),
        }
    }

    fn is_ignored(&self, path: &str) -> bool {
        self.watch
            .ignored
            .iter()
            .any(|prefix| is_below(path, prefix))
    }
}

/// Whether a path is a directory or lies in it.
fn is_below(path: &str, directory: &str) -> bool {
    path.strip_prefix(directory)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || directory == "/")
}

fn within(path: &str, searches: &[Search]) -> bool {
    let mut directories = searches.iter().map(|search| search.directory.as_str());
    directories.any(|directory| is_below(path, directory))
}

/// Whether a call names its path from an open directory on.
fn below_descriptor(of: &Notification, call: PathCall) -> bool {
    let (PathCall::Open { at: Some(at), .. } | PathCall::Status { at: Some(at), .. }) = call else {
        return false;
    };
    of.arguments[usize::from(at)] as i32 != libc::AT_FDCWD
}

/// Whether the program that a process meant to run is the one that runs: executing it may have failed.
fn is_find(process: u32) -> bool {
    let program = link(&PathBuf::from(format!("/proc/{process}/exe")));
    program.is_ok_and(|program| program.ends_with("/find"))
}

/// The same of a script: its interpreter has it as the first argument (execve(2)).
fn runs_script(process: u32, script: &str) -> bool {
    let line = std::fs::read(format!("/proc/{process}/cmdline"));
    line.is_ok_and(|line| line.split(|byte| *byte == 0).nth(1) == Some(script.as_bytes()))
}

/// What the command line of find(1) that a process is about to run searches for.
fn searches_of(of: &Notification, call: PathCall) -> Option<Vec<Search>> {
    let PathCall::Execute { path, .. } = call else {
        return None;
    };
    let list = of.arguments[usize::from(path) + 1];
    let mut arguments = Vec::new();
    loop {
        let address = list + 8 * arguments.len() as u64;
        let argument = sys::read_pointer(of.process, address).ok()?;
        if argument == 0 {
            break;
        }
        let text = sys::read_path(of.process, argument, PATH_MAX).ok()?;
        arguments.push(String::from_utf8(text).ok()?);
        if arguments.len() as u64 > ARGUMENTS {
            return None;
        }
    }
    let at = link(&PathBuf::from(format!("/proc/{}/cwd", of.process))).ok()?;
    search::of_find(&arguments, &at)
}

/// Whether a call was made by the code of the dynamic linker. In doubt it was not.
fn is_linker(of: &Notification) -> bool {
    let Ok(maps) = std::fs::read_to_string(format!("/proc/{}/maps", of.process)) else {
        return false;
    };
    let here = maps
        .lines()
        .filter_map(mapping)
        .find(|(start, end, _)| (*start..*end).contains(&of.instruction));
    here.is_some_and(|(_, _, file)| {
        let name = file.rsplit('/').next().unwrap_or(file);
        name.starts_with("ld-linux") || name.starts_with("ld-2.")
    })
}

/// Start, end and file of a line of `/proc/PID/maps` (proc_pid_maps(5)).
fn mapping(line: &str) -> Option<(u64, u64, &str)> {
    let (range, rest) = line.split_once(' ')?;
    let (start, end) = range.split_once('-')?;
    let address = |text| u64::from_str_radix(text, 16).ok();
    Some((address(start)?, address(end)?, rest.split_once('/')?.1))
}

fn link(path: &Path) -> Note<String> {
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
        let notes = Notes {
            watch: Watch {
                ignored: vec!["/run".to_owned()],
                ..Watch::default()
            },
            ..Notes::default()
        };
        assert!(notes.is_ignored("/run") && notes.is_ignored("/run/x"));
        assert!(!notes.is_ignored("/runs"));
    }
}
