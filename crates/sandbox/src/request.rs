//! What is to be run, as plain values that can be described, compared, stored and executed.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::watch::Watch;

/// How many descriptors can be handed over.
pub(crate) const MAX_HANDED: usize = 200;

/// One run in a sandbox of its own: new user, mount, pid, ipc, uts, cgroup and mostly network namespaces.
///
/// The root is entered by `pivot_root` in both kinds of [`Body`]; nothing of the host can be seen but the
/// mounts and the file descriptors that are handed over.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// The root file system.
    pub root: Root,
    /// Mounts below the root, in order.
    pub mounts: Vec<Mount>,
    /// What runs there.
    pub body: Body,
    /// The whole environment; nothing is inherited.
    pub env: Vec<(String, String)>,
    /// Working directory, absolute in the root.
    pub cwd: String,
    /// Network access.
    pub network: Network,
    /// Resource limits.
    pub limits: Limits,
    /// Host name inside.
    pub hostname: String,
    /// Whether set-id programs and file capabilities give nothing to a program that is run (`PR_SET_NO_NEW_PRIVS` in prctl(2)).
    pub no_new_privs: bool,
    /// How the program or function is watched, with all that it starts; `None`: it is not.
    pub watch: Option<Watch>,
}

impl Request {
    /// Refuses what no sandbox can be made of; `handed` is how many descriptors go with it.
    pub(crate) fn validate(&self, handed: usize) -> Result<()> {
        let absolute = |what: &str, path: &str| {
            if path.starts_with('/') && !path.contains('\0') {
                return Ok(());
            }
            Err(Error::internal(format!(
                "the {what} {path:?} of a sandbox is not an absolute path"
            )))
        };
        absolute("working directory", &self.cwd)?;
        for mount in &self.mounts {
            match mount {
                Mount::Proc | Mount::Sys | Mount::Dev => {}
                Mount::Tmpfs { target, .. }
                | Mount::Bind { target, .. }
                | Mount::Tree { target, .. }
                | Mount::File { target, .. }
                | Mount::Head { target, .. }
                | Mount::Symlink { target, .. } => absolute("mount point", target)?,
            }
        }
        if let Body::Call {
            function,
            descriptors,
            ..
        } = &self.body
            && descriptors.len() != handed
        {
            return Err(Error::internal(format!(
                "{handed} descriptors for `{function}` have {} names",
                descriptors.len()
            )));
        }
        if handed > MAX_HANDED {
            return Err(Error::internal(format!(
                "{} descriptors are too many to hand over",
                handed
            )));
        }
        if self.hostname.is_empty() || self.hostname.len() > 64 {
            return Err(Error::input(format!(
                "the host name {:?} is empty or longer than 64 bytes",
                self.hostname
            )));
        }
        Ok(())
    }
}

/// The root file system of a run. Paths are the host's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Root {
    /// A directory as it is.
    Dir {
        /// The directory.
        path: PathBuf,
        /// Whether it may be written.
        writable: bool,
    },
    /// Layers under a writable one.
    Overlay {
        /// Read-only layers, the top one first; may be empty (then `upper` is bound as it is).
        lower: Vec<PathBuf>,
        /// Receives every change.
        upper: PathBuf,
        /// The kernel's work directory, on the file system of `upper`.
        work: PathBuf,
    },
    /// Layers, read-only.
    Layers {
        /// The top one first.
        lower: Vec<PathBuf>,
    },
    /// Nothing at all, read-only: for a function that needs no file.
    Empty,
}

/// A mount below the root. Targets are absolute paths in the root, resolved inside it; missing ones are created
/// where the root is writable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Mount {
    /// A fresh procfs at `/proc` with the dangerous parts masked or read-only.
    Proc,
    /// Read-only sysfs at `/sys` (a bind of an empty read-only tree where the kernel refuses one).
    Sys,
    /// Minimal `/dev`: null zero full random urandom tty, pts, shm, fd, stdin, stdout, stderr, `/dev/log`, whose datagrams
    /// appear as [`Stream::Syslog`] lines, and `/dev/console` and `/dev/kmsg`, whose text appears as
    /// [`Stream::Console`] lines.
    Dev,
    /// An empty tmpfs.
    Tmpfs {
        /// Where.
        target: String,
        /// Permission bits of its root.
        mode: u32,
    },
    /// A host file or directory.
    Bind {
        /// On the host.
        source: PathBuf,
        /// In the root.
        target: String,
        /// Whether it may be written.
        writable: bool,
    },
    /// Another root, layers and all, at a place in this one.
    Tree {
        /// In the root.
        target: String,
        /// What is mounted there.
        tree: Root,
    },
    /// A file with given bytes, on no disk (a tmpfs file bound read-only to the target).
    File {
        /// In the root.
        target: String,
        /// Content.
        content: Vec<u8>,
        /// Permission bits.
        mode: u32,
    },
    /// No mount, but text at the head of a file while the run lasts. The file is a plain one for the run, which may change or
    /// replace it; what it leaves, without the text, is what the root has afterwards. A link in its place is put back
    /// if the run wrote nothing there.
    Head {
        /// In the root.
        target: String,
        /// Whole lines.
        text: String,
        /// Lines of the text that nobody else would write: if the run has left none of them, all that is there is the run's.
        marks: Vec<String>,
    },
    /// A symbolic link made inside an earlier tmpfs.
    Symlink {
        /// In the root.
        target: String,
        /// What the link says.
        to: String,
    },
}

/// What runs inside.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Body {
    /// A program of the root. Descriptors that were handed over are at 10, 11, …
    Exec {
        /// Program and arguments; the program is looked up in the request's `PATH`.
        argv: Vec<String>,
    },
    /// A function of this very program, registered in [`crate::entry`], run as the namespace's root after
    /// `pivot_root`: Kiln's own code over the tree, with right owners and no way out of the root.
    Call {
        /// The registered name.
        function: String,
        /// Its argument.
        payload: serde_json::Value,
        /// Names of the descriptors that were handed over.
        descriptors: Vec<String>,
    },
}

/// Network access of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Network {
    /// A network namespace with a loopback only.
    #[default]
    None,
    /// A network namespace with a loopback, and a way to other machines: TCP and UDP, no ICMP. This machine cannot be reached by
    /// any of its addresses but through the doors, nor can link-local addresses and the metadata services of clouds;
    /// what is refused so becomes a line on [`Stream::Stderr`]. Needs what [`crate::own_network`] looks for.
    Own {
        /// What can be reached although it is closed.
        doors: Vec<Door>,
    },
    /// The host's network, with all that listens on its loopback and all its abstract sockets.
    Host,
}

/// An address inside that leads to another outside, whatever that is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Door {
    /// What the run connects to; no address of a real machine.
    pub inside: SocketAddr,
    /// Where that leads, as the host sees it.
    pub outside: SocketAddr,
    /// For messages: `the name server 127.0.0.53`.
    pub name: String,
}

/// Limits of a run. They are lowered where the host's hard limits are lower, never refused for that.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Open files.
    pub open_files: u64,
    /// Bytes of address space of each process, if limited.
    pub address_space: Option<u64>,
    /// Wall-clock seconds after which everything is killed.
    pub seconds: Option<u64>,
    /// Bytes of output after which the rest is counted, but neither kept nor passed on.
    pub output_bytes: u64,
    /// Processes and threads. `None`, here and below: what fits the machine ([`Limits::fitted`]).
    pub processes: Option<u64>,
    /// Bytes of memory that all processes have to themselves, with what is in the run's tmpfs mounts. A run that takes more is
    /// ended within a second.
    pub memory: Option<u64>,
    /// Bytes that `/tmp`, and any tmpfs that is not named below, can hold.
    pub tmp: Option<u64>,
    /// Bytes that `/run` can hold.
    pub run: Option<u64>,
    /// Bytes that `/dev/shm` can hold.
    pub shm: Option<u64>,
}

impl Limits {
    /// With what is not said taken from `other`.
    #[must_use]
    pub fn or(mut self, other: &Limits) -> Limits {
        self.address_space = self.address_space.or(other.address_space);
        self.processes = self.processes.or(other.processes);
        self.memory = self.memory.or(other.memory);
        self.tmp = self.tmp.or(other.tmp);
        self.run = self.run.or(other.run);
        self.shm = self.shm.or(other.shm);
        self
    }

    /// With what is not said as it fits a machine of `total` bytes of memory: seven eighths of it for a run, of which `/tmp` can
    /// hold a half of the machine's, `/dev/shm` a quarter, `/run` a sixteenth; a process for each 2 MiB, at least 1024, at most 16384.
    /// 0 bytes (unknown) limit nothing.
    #[must_use]
    pub fn fitted(self, total: u64) -> Limits {
        if total == 0 {
            return self;
        }
        self.or(&Limits {
            processes: Some((total >> 21).clamp(1 << 10, 16 << 10)),
            memory: Some(total / 8 * 7),
            tmp: Some(total / 2),
            run: Some(total / 16),
            shm: Some(total / 4),
            ..Limits::default()
        })
    }
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            open_files: 4096,
            address_space: None,
            seconds: None,
            output_bytes: 64 << 20,
            processes: None,
            memory: None,
            tmp: None,
            run: None,
            shm: None,
        }
    }
}

/// Where a line came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// A datagram to `/dev/log`.
    Syslog,
    /// Written to `/dev/console` or `/dev/kmsg`.
    Console,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// Exit code.
    Exited(i32),
    /// Killed by a signal of this number.
    Signaled(i32),
    /// Killed because `Limits::seconds` passed.
    TimedOut,
    /// Killed because it took more than `Limits::memory`.
    OverMemory,
    /// Killed because the caller cancelled.
    Cancelled,
}
