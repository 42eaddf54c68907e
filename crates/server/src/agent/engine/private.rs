//! An engine of a build's own: `podman system service` in Kiln's sandbox, with the workspace at `/workspace`.
//!
//! It is root of the sandbox's user namespace and of nothing else: its root is a directory of the attempt with the machine's
//! programs read-only, its images and containers lie there, its network is the sandbox's. Whatever a container is allowed, it has
//! no more than that. All of it ends with the agent, and mounts, processes and interfaces with it.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use kiln_sandbox::{
    Body, Call, CancelToken, Error, ErrorKind, Function, Io, Limits, Mount, Network, Request, Root,
    Sandbox, Say, Silence, Status, Stream,
};
use rustix::fs::OFlags;
use rustix::mount::{MountFlags, UnmountFlags};
use rustix::process::Resource;
use serde::{Deserialize, Serialize};

use super::api::Around;
use super::own::give;
use super::{front, limits};
use crate::agent::log::Log;

/// What the sandbox has to know of the engine.
pub const FUNCTIONS: &[Function] = &[Function::of::<Service>(), Function::of::<Load>()];

/// The engine.
pub(super) const PODMAN: &str = "/usr/bin/podman";
/// What starts its containers: the only one that can do without control groups.
pub(super) const CRUN: &str = "/usr/bin/crun";
/// Where the engine listens, as it sees it.
const SOCKET: &str = "/engine/docker.sock";
/// Where podman itself listens.
const BEHIND: &str = "/run/podman.sock";
/// What steps share besides the workspace, as the engine sees it.
const SHARED: &str = "/builder";
/// How long the engine may take to listen.
const PATIENCE: Duration = Duration::from_secs(20);
/// Open files of a process, and processes of a user, at most.
const MOST: u64 = 4096;
/// Lines of the engine's own that are kept for a message.
const LAST: usize = 12;

/// The engine's configuration but for its limits.
const CONTAINERS: &str = r#"[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "/runtime/crun"
[containers]
cgroups = "disabled"
log_driver = "k8s-file"
keyring = false
"#;
/// What podman takes for crun. Building an image does not heed `keyring = false`, and the sandbox refuses keyrings, which belong to no
/// namespace; nor does it know that there are no control groups.
const RUNTIME: &str = r#"#!/bin/sh
rest=$#
command=
while [ "$rest" -gt 0 ]; do
    word=$1
    shift
    set -- "$@" "$word"
    rest=$((rest - 1))
    case $command$word in
    create | run)
        command=$word
        set -- "$@" --no-new-keyring
        ;;
    esac
done
exec /usr/bin/crun --cgroup-manager=disabled "$@"
"#;
/// Where its images and containers are, as it sees them.
const GRAPH: &str = "/var/lib/containers/storage";
const STORAGE: &str = r#"[storage]
driver = "overlay"
graphroot = "/var/lib/containers/storage"
runroot = "/run/containers/storage"
"#;
const REGISTRIES: &str = "unqualified-search-registries = [\"docker.io\"]\n";
const POLICY: &str = r#"{"default":[{"type":"insecureAcceptAnything"}]}"#;
const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n";

/// What the engine has of the machine, if it is there: programs, and what they are configured with.
const PROGRAMS: [&str; 11] = [
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/etc/ssl",
    "/etc/pki",
    "/etc/ca-certificates",
    "/etc/alternatives",
];

/// What an engine is made of.
pub(super) struct Place {
    /// A directory for it alone.
    pub dir: PathBuf,
    /// The workspace.
    pub workspace: PathBuf,
    /// Its images and containers.
    pub storage: PathBuf,
    /// Images for all builds, which it begins with a copy of.
    pub images: PathBuf,
    /// What containers reach.
    pub network: Network,
    /// What makes names resolve.
    pub mounts: Vec<Mount>,
    /// Variables that name proxies.
    pub env: Vec<(String, String)>,
    /// Where lines go that are not a step's alone.
    pub log: Log,
    /// Bytes of memory that everything in it has together; `None`: what fits the machine.
    pub memory: Option<u64>,
}

/// An engine that runs.
pub(in crate::agent) struct Engine {
    socket: OwnedFd,
    cancel: CancelToken,
    thread: Option<JoinHandle<()>>,
    said: Arc<Mutex<Vec<String>>>,
}

impl Engine {
    pub(super) fn start(place: &Place) -> io::Result<Engine> {
        let sandbox = Sandbox::detect().map_err(io::Error::other)?;
        place.lay_out(&sandbox)?;
        // Nobody changes the images of all builds while they are copied.
        let images = File::open(&place.images)?;
        images.lock_shared()?;
        let (body, _) = Body::call(&Service(place.environment()), ()).map_err(io::Error::other)?;
        let request = place.request(body);
        let cancel = CancelToken::new()?;
        let said = Arc::new(Mutex::new(Vec::new()));
        let thread = {
            let (cancel, said, log) = (cancel.clone(), Arc::clone(&said), place.log.clone());
            // The sandbox ends with the thread that has started it.
            thread::Builder::new()
                .name("engine".to_owned())
                .spawn(move || serve(&sandbox, &request, &cancel, &said, &log))?
        };
        let mut engine = Engine {
            // Replaced at once, or given back with the error.
            socket: File::open("/dev/null")?.into(),
            cancel,
            thread: Some(thread),
            said,
        };
        engine.socket = engine.wait(&place.dir.join("socket/docker.sock"))?;
        Ok(engine)
    }

    /// Waits until the engine listens. The socket is held from then on, so that no step can put another in its place.
    fn wait(&self, path: &Path) -> io::Result<OwnedFd> {
        let began = Instant::now();
        loop {
            let flags = OFlags::PATH | OFlags::NOFOLLOW;
            let opened = File::options()
                .read(true)
                .custom_flags(flags.bits().cast_signed())
                .open(path);
            if let Ok(socket) = opened {
                let name = format!("/proc/self/fd/{}", socket.as_raw_fd());
                if UnixStream::connect(name).is_ok() {
                    return Ok(socket.into());
                }
            }
            let ended = self.thread.as_ref().is_none_or(JoinHandle::is_finished);
            if ended || began.elapsed() > PATIENCE {
                return Err(io::Error::other(format!(
                    "the container engine did not start: {}",
                    self.said()
                )));
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Where it listens, as this process sees it.
    pub(super) fn socket(&self) -> String {
        format!("/proc/self/fd/{}", self.socket.as_raw_fd())
    }

    /// Whether it has ended by itself, or does so before long if it does not answer; what it said last.
    pub(super) fn ends_within(&self, patience: Duration) -> Option<String> {
        let began = Instant::now();
        loop {
            if self.thread.as_ref().is_none_or(JoinHandle::is_finished) {
                return Some(self.said());
            }
            if began.elapsed() > patience || UnixStream::connect(self.socket()).is_ok() {
                return None;
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn said(&self) -> String {
        let said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        said.join("\n")
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.cancel.cancel();
        // A thread that panicked has ended too.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// The volume of a step's output. Volumes of a build's own have another beginning.
fn volume(step: usize) -> String {
    format!("output-{step}")
}

/// Where a step's output for programs is, below the engine's directory.
pub(super) fn output(step: usize) -> String {
    format!("storage/volumes/{}/_data/output", volume(step))
}

/// What a step has of an engine of the build's own.
pub(super) fn around(step: usize) -> Around {
    Around {
        binds: vec![
            "/workspace:/workspace".to_owned(),
            format!("{SOCKET}:/var/run/docker.sock"),
            format!("{SHARED}/home:/builder/home"),
            format!("{}:/builder/outputs", volume(step)),
            "/dev/log:/dev/log".to_owned(),
        ],
        volumes: "build-".to_owned(),
        scripts: "/scripts".to_owned(),
        network: Some("host".to_owned()),
        labels: HashMap::new(),
        dropped: None,
        most: None,
    }
}

fn serve(
    sandbox: &Sandbox,
    request: &Request,
    cancel: &CancelToken,
    said: &Mutex<Vec<String>>,
    log: &Log,
) {
    let keep = |line: String| {
        let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.len() == LAST {
            said.remove(0);
        }
        said.push(line);
    };
    let mut output = |stream: Stream, line: &str| {
        let shown = match stream {
            Stream::Syslog => format!("syslog: {line}"),
            Stream::Console => format!("console: {line}"),
            _ if line.starts_with("kiln: network: ") => line.to_owned(),
            _ => return keep(line.to_owned()),
        };
        // A log that cannot be written ends the step that notices it.
        let _ = log.line(&shown);
    };
    let mut message = |value| {
        if let Ok(line) = kiln_sandbox::message::<Service>(value) {
            // As above.
            let _ = log.line(&line);
        }
    };
    let mut io = Io::new(&mut output, &mut message);
    io.cancel = Some(cancel);
    match sandbox.run(request, io) {
        Err(error) => keep(error.to_string()),
        Ok(outcome) => match (outcome.status, outcome.value) {
            (Status::OverMemory, _) => keep(too_much(request)),
            (_, Some(Err(error))) => keep(error.to_string()),
            (status, _) => keep(format!("it ended: {status:?}")),
        },
    }
}

/// What is said of containers that took too much memory.
fn too_much(request: &Request) -> String {
    match request.limits.memory {
        Some(limit) => format!(
            "all containers were ended: together they took more than the {} MiB of memory that a build has on this server (`kiln serve --build-memory`)",
            limit >> 20
        ),
        None => "all containers were ended: together they took more than seven eighths of the machine's memory".to_owned(),
    }
}

impl Place {
    /// Makes the directories and files of the engine's root.
    pub(super) fn lay_out(&self, sandbox: &Sandbox) -> io::Result<()> {
        let own = |name: &str| -> io::Result<PathBuf> {
            let path = self.dir.join(name);
            if !path.exists() {
                sandbox
                    .create_owned_dir(&path, 0o755)
                    .map_err(io::Error::other)?;
            }
            Ok(path)
        };
        give(&self.workspace, sandbox)?;
        for name in ["tmp", "home", "socket", "shared", "shared/home"] {
            own(name)?;
        }
        for path in [&self.storage, &self.images] {
            if !path.exists() {
                sandbox
                    .create_owned_dir(path, 0o755)
                    .map_err(io::Error::other)?;
            }
        }
        let root = own("root")?;
        let etc = root.join("etc");
        if etc.exists() {
            return Ok(());
        }
        own("root/etc")?;
        let containers = etc.join("containers");
        fs::create_dir(&containers)?;
        let (files, processes) = (most(Resource::Nofile), most(Resource::Nproc));
        let config = format!(
            "{CONTAINERS}default_ulimits = [\"nofile={files}:{files}\", \"nproc={processes}:{processes}\"]\n"
        );
        let runtime = own("root/runtime")?.join("crun");
        for (path, text) in [
            (runtime.clone(), RUNTIME),
            (containers.join("containers.conf"), config.as_str()),
            (containers.join("storage.conf"), STORAGE),
            (containers.join("registries.conf"), REGISTRIES),
            (containers.join("policy.json"), POLICY),
            (etc.join("passwd"), PASSWD),
            (etc.join("group"), "root:x:0:\n"),
            (etc.join("hosts"), "127.0.0.1 localhost\n::1 localhost\n"),
        ] {
            fs::write(path, text)?;
        }
        fs::set_permissions(&runtime, fs::Permissions::from_mode(0o755))?;
        for name in ["bin", "sbin", "lib", "lib32", "lib64", "libx32"] {
            if let Ok(to) = fs::read_link(Path::new("/").join(name)) {
                symlink(to, root.join(name))?;
            }
        }
        Ok(())
    }

    /// The environment of podman.
    fn environment(&self) -> Vec<(String, String)> {
        let mut env = self.env.clone();
        let own = [
            (
                "PATH",
                "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            ),
            ("HOME", "/root"),
            ("TMPDIR", "/var/tmp"),
            ("LANG", "C.UTF-8"),
        ];
        env.extend(own.map(|(name, value)| (name.to_owned(), value.to_owned())));
        env
    }

    /// The sandbox of the engine, or of what fills its store.
    pub(super) fn request(&self, body: Body) -> Request {
        Request {
            root: Root::Dir {
                path: self.dir.join("root"),
                writable: true,
            },
            mounts: self.all_mounts(),
            body,
            env: Vec::new(),
            cwd: "/".to_owned(),
            network: self.network.clone(),
            limits: Limits {
                output_bytes: u64::MAX,
                open_files: most(Resource::Nofile),
                processes: Some(most(Resource::Nproc)),
                memory: self.memory,
                ..Limits::default()
            },
            hostname: "build".to_owned(),
            no_new_privs: false,
            watch: None,
        }
    }

    fn all_mounts(&self) -> Vec<Mount> {
        let tmpfs = |target: &str, mode| Mount::Tmpfs {
            target: target.to_owned(),
            mode,
        };
        let mut mounts = vec![
            Mount::Proc,
            Mount::Sys,
            Mount::Dev,
            bind("/dev/net/tun".into(), "/dev/net/tun", true),
            tmpfs("/run", 0o755),
            tmpfs("/tmp", 0o1777),
        ];
        // Links among them are laid out as such.
        let is_dir = |path: &&&str| fs::symlink_metadata(path).is_ok_and(|found| found.is_dir());
        let programs = PROGRAMS.iter().filter(is_dir);
        mounts.extend(programs.map(|path| bind(path.into(), path, false)));
        let ours = |name: &str, target: &str| bind(self.dir.join(name), target, true);
        mounts.extend([
            bind(self.storage.clone(), GRAPH, true),
            ours("tmp", "/var/tmp"),
            ours("home", "/root"),
            ours("socket", "/engine"),
            ours("shared", SHARED),
            bind(self.workspace.clone(), "/workspace", true),
            bind(self.images.clone(), "/images", false),
        ]);
        let scripts = self.dir.join("scripts");
        if scripts.is_dir() {
            mounts.push(bind(scripts, "/scripts", false));
        }
        mounts.extend(self.mounts.iter().cloned());
        mounts
    }
}

/// What containers are limited to: no more than what this process is.
fn most(what: Resource) -> u64 {
    let hard = rustix::process::getrlimit(what).maximum;
    hard.map_or(MOST, |hard| hard.min(MOST))
}

fn bind(source: PathBuf, target: &str, writable: bool) -> Mount {
    Mount::Bind {
        source,
        target: target.to_owned(),
        writable,
    }
}

/// The engine, inside: everything that the sandbox's root may do, it may.
#[derive(Serialize, Deserialize)]
struct Service(Vec<(String, String)>);

impl Call for Service {
    const NAME: &'static str = "kiln-server/engine";
    type Handed = ();
    type Message = String;
    type Answer = ();

    fn run(self, (): (), say: &Say<String>) -> Result<(), Error> {
        let failed = |what: &str, error: io::Error| {
            Error::new(ErrorKind::Environment, what.to_owned()).because(error)
        };
        uncover().map_err(|error| failed("preparing /proc and /sys for containers", error))?;
        copy_images().map_err(|error| failed("copying the images of all builds", error))?;
        let started = Command::new(PODMAN)
            .env_clear()
            .envs(self.0)
            .args(["system", "service", "--time=0"])
            .arg(format!("unix://{BEHIND}"))
            .spawn();
        let mut podman = started.map_err(|error| failed("starting podman", error))?;
        let ended = |status: ExitStatus| {
            Error::new(ErrorKind::Environment, format!("podman ended: {status}"))
        };
        let waiting = |error| failed("waiting for podman", error);
        while UnixStream::connect(BEHIND).is_err() {
            if let Some(status) = podman.try_wait().map_err(waiting)? {
                return Err(ended(status));
            }
            thread::sleep(Duration::from_millis(20));
        }
        // An earlier engine of this attempt has left its own.
        let _ = fs::remove_file(SOCKET);
        let listener = UnixListener::bind(SOCKET);
        let listener = listener.map_err(|error| failed("listening for steps", error))?;
        let (limited, first) = mpsc::channel();
        let front = thread::Builder::new().name("front".to_owned());
        front
            .spawn(move || front::serve(&listener, Path::new(BEHIND), &limited))
            .map_err(|error| failed("listening for steps", error))?;
        let (limits, say) = (
            thread::Builder::new().name("limits".to_owned()),
            say.clone(),
        );
        limits
            .spawn(move || limits::watch(Path::new(BEHIND), &first, &say))
            .map_err(|error| failed("looking after limits of containers", error))?;
        Err(ended(podman.wait().map_err(waiting)?))
    }
}

/// Puts images of an archive into the store, inside.
#[derive(Serialize, Deserialize)]
pub(super) struct Load(Vec<(String, String)>);

impl Load {
    pub(super) fn new(place: &Place) -> Self {
        Load(place.environment())
    }
}

kiln_sandbox::handed! {
    pub(super) struct Archive {
        archive: File,
    }
}

impl Archive {
    pub(super) fn new(archive: File) -> Self {
        Archive { archive }
    }
}

impl Call for Load {
    const NAME: &'static str = "kiln-server/load-images";
    type Handed = Archive;
    type Message = Silence;
    type Answer = ();

    fn run(self, archive: Archive, _: &Say<Silence>) -> Result<(), Error> {
        let failed = |what: &str, error: io::Error| {
            Error::new(ErrorKind::Environment, what.to_owned()).because(error)
        };
        uncover().map_err(|error| failed("preparing /proc and /sys for podman", error))?;
        let status = Command::new(PODMAN)
            .env_clear()
            .envs(self.0)
            .arg("load")
            .stdin(archive.archive)
            .status()
            .map_err(|error| failed("starting podman", error))?;
        if status.success() {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Step,
            format!("podman did not take the archive: {status}"),
        ))
    }
}

/// Makes the images of all builds this engine's own, and takes their place away before a stranger's program runs: whoever is root in the
/// sandbox could make it writable, and its files belong to that root.
fn copy_images() -> io::Result<()> {
    if !Path::new(GRAPH).join("overlay-images").exists() {
        let copied = Command::new("/bin/cp")
            .env_clear()
            .args(["-a", "--reflink=auto", "/images/.", GRAPH])
            .status()?;
        if !copied.success() {
            return Err(io::Error::other(format!("cp: {copied}")));
        }
    }
    Ok(rustix::mount::unmount("/images", UnmountFlags::DETACH)?)
}

/// Takes away what covers parts of `/proc`: the kernel gives containers one of their own only where one is whole. Nothing that it
/// covers is open to the root of this user namespace.
fn uncover() -> io::Result<()> {
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(4));
    let mut points: Vec<&str> = points.filter(|point| point.starts_with("/proc/")).collect();
    points.reverse();
    for point in points {
        rustix::mount::unmount(point, UnmountFlags::DETACH)?;
    }
    // An empty place for control groups, which a user namespace has none of.
    rustix::mount::mount(
        "tmpfs",
        "/sys/fs/cgroup",
        "tmpfs",
        MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC,
        None,
    )?;
    Ok(())
}
