//! A small root to run in, and short ways to run.

use std::fs;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use kiln_sandbox::{
    Body, CancelToken, Io, Limits, Mount, Network, Outcome, Request, Root, Sandbox, Stdin, Stream,
};
use libtest_mimic::Failed;
use serde_json::Value;

/// One case's directory and root.
pub(crate) struct Fixture {
    /// Removed at the end.
    pub dir: tempfile::TempDir,
    /// For runs.
    pub sandbox: Sandbox,
}

/// What a run printed and returned.
#[derive(Debug)]
pub(crate) struct Seen {
    pub outcome: Outcome,
    pub lines: Vec<(Stream, String)>,
    pub messages: Vec<Value>,
}

/// What a run is connected with.
#[derive(Default)]
pub(crate) struct With<'a> {
    pub stdin: Stdin,
    pub fds: Vec<OwnedFd>,
    pub cancel: Option<&'a CancelToken>,
    pub terminal: Option<BorrowedFd<'a>>,
    pub observer: Option<Box<dyn kiln_sandbox::Observer>>,
}

impl Seen {
    pub(crate) fn text(&self, stream: Stream) -> String {
        let lines = self
            .lines
            .iter()
            .filter(|line| line.0 == stream)
            .map(|line| line.1.as_str());
        lines.collect::<Vec<_>>().join("\n")
    }

    pub(crate) fn stdout(&self) -> String {
        self.text(Stream::Stdout)
    }
}

impl Fixture {
    pub(crate) fn new() -> Result<Fixture, Failed> {
        let dir = tempfile::tempdir()?;
        let fixture = Fixture {
            dir,
            sandbox: Sandbox::detect()?,
        };
        fixture.make_base()?;
        Ok(fixture)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn make_base(&self) -> Result<(), Failed> {
        let busybox = ["/bin/busybox", "/usr/bin/busybox"]
            .map(Path::new)
            .into_iter()
            .find(|path| path.exists());
        let busybox = busybox.ok_or("busybox is missing (Debian: apt install busybox-static)")?;
        let base = self.path("base");
        for name in ["", "bin", "dev", "proc", "sys", "tmp", "etc", "run", "root"] {
            fs::create_dir(base.join(name))?;
        }
        copy(busybox, &base.join("bin/busybox"))?;
        let applets = "sh cat echo id ls sleep chown chmod mkdir rm rmdir touch logger yes head seq mount umount \
                       readlink stat kill true false ln env grep tty stty setsid hostname mv wc dd ulimit unshare nc";
        for name in applets.split_ascii_whitespace() {
            symlink("busybox", base.join("bin").join(name))?;
        }
        self.give_to_root_inside(&base)
    }

    /// Makes the namespace's root the owner of a tree.
    pub(crate) fn give_to_root_inside(&self, path: &Path) -> Result<(), Failed> {
        let ids = self.sandbox.ids();
        let owner = format!(
            "{}:{}",
            ids.host_uid(0).unwrap_or(0),
            ids.host_gid(0).unwrap_or(0)
        );
        let status = std::process::Command::new("chown")
            .arg("-hR")
            .arg(owner)
            .arg(path)
            .status()?;
        check(status.success(), || format!("chown: {status}"))
    }

    /// The base under a fresh writable layer.
    pub(crate) fn root(&self) -> Root {
        Root::Overlay {
            lower: vec![self.path("base")],
            upper: self.path("upper"),
            work: self.path("work"),
        }
    }

    pub(crate) fn request(&self, body: Body) -> Request {
        Request {
            root: self.root(),
            mounts: vec![
                Mount::Proc,
                Mount::Sys,
                Mount::Dev,
                Mount::Tmpfs {
                    target: "/tmp".into(),
                    mode: 0o1777,
                },
            ],
            body,
            env: vec![("PATH".into(), "/bin".into())],
            cwd: "/".into(),
            network: Network::None,
            limits: Limits {
                seconds: Some(60),
                ..Limits::default()
            },
            hostname: "kiln".into(),
            no_new_privs: false,
            watch: None,
        }
    }

    pub(crate) fn script(&self, script: &str) -> Request {
        self.request(Body::Exec {
            argv: vec!["sh".into(), "-c".into(), script.into()],
        })
    }

    pub(crate) fn call(&self, function: &str, payload: Value) -> Request {
        self.request(Body::Call {
            function: function.into(),
            payload,
            descriptors: Vec::new(),
        })
    }

    /// A call that is handed one file.
    pub(crate) fn call_with_file(&self, function: &str, payload: Value) -> Request {
        self.request(Body::Call {
            function: function.into(),
            payload,
            descriptors: vec!["files".into()],
        })
    }

    pub(crate) fn run(&self, request: &Request) -> Result<Seen, Failed> {
        self.run_with(request, With::default())
    }

    pub(crate) fn run_with(&self, request: &Request, with: With<'_>) -> Result<Seen, Failed> {
        Ok(self.try_run(request, with)?)
    }

    pub(crate) fn try_run(
        &self,
        request: &Request,
        with: With<'_>,
    ) -> Result<Seen, kiln_sandbox::Error> {
        let (mut lines, mut messages) = (Vec::new(), Vec::new());
        let mut output = |stream: Stream, line: &str| lines.push((stream, line.to_owned()));
        let mut message = |value: Value| messages.push(value);
        let mut io = Io::new(&mut output, &mut message);
        io.stdin = with.stdin;
        io.fds = with.fds;
        io.cancel = with.cancel;
        io.terminal = with.terminal;
        io.observer = with.observer;
        let outcome = self.sandbox.run(request, io)?;
        Ok(Seen {
            outcome,
            lines,
            messages,
        })
    }

    /// Runs a script that has to succeed and returns what it printed to its standard output.
    pub(crate) fn output_of(&self, script: &str) -> Result<String, Failed> {
        let seen = self.run(&self.script(script))?;
        check(
            seen.outcome.status == kiln_sandbox::Status::Exited(0),
            || format!("{script}: {seen:?}"),
        )?;
        Ok(seen.stdout())
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        // Layers belong to ids that the test's user may not be.
        let names = ["upper", "work"].map(|name| self.path(name));
        let _ = self.sandbox.remove_trees(&names);
    }
}

/// Copies a program by another process: a descriptor for writing that some thread's child inherits for a moment would
/// make executing the copy fail with ETXTBSY.
pub(crate) fn copy(from: &Path, to: &Path) -> Result<(), Failed> {
    let status = std::process::Command::new("cp")
        .arg(from)
        .arg(to)
        .status()?;
    check(status.success(), || {
        format!("cp {} {}: {status}", from.display(), to.display())
    })
}

pub(crate) fn check(fine: bool, otherwise: impl FnOnce() -> String) -> Result<(), Failed> {
    if fine {
        Ok(())
    } else {
        Err(otherwise().into())
    }
}

/// The mounts that this process sees, one a line (proc_pid_mountinfo(5)).
pub(crate) fn mounts() -> Result<String, Failed> {
    Ok(fs::read_to_string("/proc/self/mountinfo")?)
}

/// Fails if a mount has appeared that a sandbox could have made: over `/`, an overlay, or of something in the directory
/// for temporary files. Others may come and go on a machine that does other things as well.
pub(crate) fn no_new_mounts(before: &str) -> Result<(), Failed> {
    let temporary = std::env::temp_dir();
    let ours = |line: &&str| {
        let fields: Vec<&str> = line.split(' ').collect();
        let at = |index: usize| fields.get(index).copied().unwrap_or_default();
        at(4) == "/" || line.contains(" - overlay ") || Path::new(at(3)).starts_with(&temporary)
    };
    let after = mounts()?;
    let new = after
        .lines()
        .filter(|line| !before.lines().any(|old| old == *line))
        .find(ours);
    check(new.is_none(), || {
        format!("a mount has appeared: {}", new.unwrap_or_default())
    })
}

pub(crate) fn equal<T: PartialEq + std::fmt::Debug>(seen: T, wanted: T) -> Result<(), Failed> {
    check(seen == wanted, || {
        format!("seen:   {seen:?}\nwanted: {wanted:?}")
    })
}

/// A user with id ranges: name, user id, group id.
pub(crate) fn ordinary_user() -> Result<(String, u32, u32), Failed> {
    let owners = |path: &str| -> Vec<String> {
        let text = fs::read_to_string(path).unwrap_or_default();
        text.lines()
            .filter_map(|line| line.split(':').next().map(str::to_owned))
            .collect()
    };
    let (users, groups) = (owners("/etc/subuid"), owners("/etc/subgid"));
    let passwd = fs::read_to_string("/etc/passwd")?;
    let found = passwd.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let [name, _, uid, gid, ..] = fields.as_slice() else {
            return None;
        };
        let fits = *name != "root"
            && users.iter().any(|user| user == name)
            && groups.iter().any(|group| group == name);
        fits.then_some(((*name).to_owned(), uid.parse().ok()?, gid.parse().ok()?))
    });
    found.ok_or_else(|| {
        "no user has ranges in /etc/subuid and /etc/subgid (make one: cargo xtask prerequisites)".into()
    })
}
