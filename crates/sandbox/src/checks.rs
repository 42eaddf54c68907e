//! What a machine has to have, for `kiln doctor`. Everything is looked at or really tried; nothing is changed.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::process::Resource;
use serde::Serialize;
use serde_json::Value;

use crate::call::Call;
use crate::ids;
use crate::network::own_network;
use crate::probe::{Nothing, Probe};
use crate::run::{Io, Sandbox};
use crate::{Body, Error, Limits, Network, Request, Root, Stream};

/// First kernel with overlays in user namespaces (5.11) and `mount_setattr` (5.12).
const OLDEST_KERNEL: (u32, u32) = (5, 12);

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// Works, but slower or not everywhere.
    Warn,
    /// Builds cannot run.
    Fail,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// Short and stable: `user-namespaces`.
    pub name: &'static str,
    /// How it came out.
    pub verdict: Verdict,
    /// What was found.
    pub detail: String,
    /// What to do, unless all is well.
    pub fix: Option<String>,
}

/// What is going to be needed.
#[derive(Clone, Debug)]
pub struct Needs<'a> {
    /// Where layers are stored; may be missing yet. The overlay is tried there.
    pub store: &'a Path,
    /// Directories, or their future places, with the bytes wanted on their file systems.
    pub space: &'a [(&'a Path, u64)],
    /// Bytes of memory wanted.
    pub memory_bytes: u64,
}

/// Looks at everything. `program` is what to start as sandbox child; `None` is this program, whose `main` then has
/// to begin with [`crate::entry`].
pub fn checks(needs: &Needs<'_>, program: Option<&Path>) -> Vec<Check> {
    let mut checks = vec![kernel(), user_namespaces()];
    if !rustix::process::geteuid().is_root() {
        checks.extend([
            unprivileged(),
            helpers(),
            range("subuid", true),
            range("subgid", false),
        ]);
    }
    checks.extend([
        seccomp(),
        overlay(needs.store, program),
        script_network(program),
        open_files(),
        processor(),
        kvm(),
        memory(needs.memory_bytes),
    ]);
    checks.extend(needs.space.iter().map(|(path, bytes)| space(path, *bytes)));
    checks
}

fn check(
    name: &'static str,
    verdict: Verdict,
    detail: impl Into<String>,
    fix: Option<String>,
) -> Check {
    Check {
        name,
        verdict,
        detail: detail.into(),
        fix,
    }
}

fn fine(name: &'static str, detail: impl Into<String>) -> Check {
    check(name, Verdict::Ok, detail, None)
}

fn fail(name: &'static str, detail: impl Into<String>, fix: impl Into<String>) -> Check {
    check(name, Verdict::Fail, detail, Some(fix.into()))
}

fn warn(name: &'static str, detail: impl Into<String>, fix: impl Into<String>) -> Check {
    check(name, Verdict::Warn, detail, Some(fix.into()))
}

fn refused(name: &'static str, error: &Error) -> Check {
    check(name, Verdict::Fail, error.to_string(), error.hint.clone())
}

fn sysctl(path: &str) -> Option<u64> {
    fs::read_to_string(Path::new("/proc/sys").join(path))
        .ok()?
        .trim()
        .parse()
        .ok()
}

fn kernel() -> Check {
    let uname = rustix::system::uname();
    let release = uname.release().to_string_lossy().into_owned();
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map_while(|part| part.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version >= OLDEST_KERNEL {
        return fine("kernel", format!("Linux {release}"));
    }
    let (major, minor) = OLDEST_KERNEL;
    let detail = format!("Linux {release} is older than {major}.{minor}");
    fail(
        "kernel",
        detail,
        "start a newer kernel; overlays in user namespaces came with it",
    )
}

fn user_namespaces() -> Check {
    const NAME: &str = "user-namespaces";
    if !Path::new("/proc/self/ns/user").exists() {
        return fail(
            NAME,
            "the kernel has no user namespaces",
            "start a kernel with CONFIG_USER_NS=y",
        );
    }
    match sysctl("user/max_user_namespaces") {
        Some(0) => {
            let fix = "sudo sysctl user.max_user_namespaces=15000";
            fail(NAME, "user.max_user_namespaces is 0", fix)
        }
        Some(most) => fine(NAME, format!("up to {most}")),
        None => fine(NAME, "present"),
    }
}

/// Settings of distributions that keep ordinary users out.
fn unprivileged() -> Check {
    const NAME: &str = "unprivileged-user-namespaces";
    if sysctl("kernel/unprivileged_userns_clone") == Some(0) {
        let fix = "sudo sysctl kernel.unprivileged_userns_clone=1";
        return fail(NAME, "kernel.unprivileged_userns_clone is 0", fix);
    }
    if sysctl("kernel/apparmor_restrict_unprivileged_userns") == Some(1) {
        let detail = "AppArmor lets only programs with a profile use user namespaces \
                      (kernel.apparmor_restrict_unprivileged_userns is 1)";
        let fix = "if the overlay check fails: sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0, \
                   or an AppArmor profile for kiln with the rule `userns,`";
        return warn(NAME, detail, fix);
    }
    fine(NAME, "allowed")
}

fn range(name: &'static str, users: bool) -> Check {
    match ids::check_range(users) {
        Ok(count) => fine(name, format!("{count} ids for this user")),
        Err(error) => refused(name, &error),
    }
}

fn helpers() -> Check {
    const NAME: &str = "newuidmap";
    for helper in ["newuidmap", "newgidmap"] {
        let path = match ids::find_helper(helper) {
            Ok(path) => path,
            Err(error) => return refused(NAME, &error),
        };
        if !is_privileged(&path) {
            let detail = format!(
                "{} is neither set-user-id root nor has it capabilities",
                path.display()
            );
            return fail(NAME, detail, format!("sudo chmod u+s {}", path.display()));
        }
    }
    fine(
        NAME,
        "newuidmap and newgidmap are installed with their rights",
    )
}

fn is_privileged(path: &Path) -> bool {
    let set_user_id = fs::metadata(path).is_ok_and(|data| data.permissions().mode() & 0o4000 != 0);
    let mut space = [0u8; 64];
    set_user_id
        || rustix::fs::getxattr(path, "security.capability", &mut space[..])
            .is_ok_and(|length| length > 0)
}

fn seccomp() -> Check {
    // A kernel without filters has no such file.
    let actions = fs::read_to_string("/proc/sys/kernel/seccomp/actions_avail");
    let mut actions = actions
        .iter()
        .flat_map(|actions| actions.split_ascii_whitespace());
    if actions.any(|action| action == "errno") {
        return fine("seccomp", "filters are available");
    }
    fail(
        "seccomp",
        "the kernel has no system call filters",
        "start a kernel with CONFIG_SECCOMP_FILTER=y",
    )
}

/// Builds a sandbox with an overlay where the store is, and changes files in it as an installation would.
fn overlay(store: &Path, program: Option<&Path>) -> Check {
    const NAME: &str = "overlay";
    let mut sandbox = match Sandbox::detect() {
        Ok(sandbox) => sandbox,
        Err(error) => return refused(NAME, &error),
    };
    if let Some(program) = program {
        sandbox = sandbox.with_program(program.to_owned());
    }
    let place = existing(store);
    let dir = place.join(format!(".kiln-probe-{}", std::process::id()));
    let result = try_overlay(&sandbox, &dir);
    let removed = sandbox.remove_trees(std::slice::from_ref(&dir));
    match result.and(removed) {
        Ok(()) => fine(NAME, format!("works in {}", place.display())),
        Err(error) => {
            let fix = error
                .hint
                .clone()
                .or_else(|| Some("put the store on ext4, xfs or btrfs".to_owned()));
            check(
                NAME,
                Verdict::Fail,
                format!("in {}: {error}", place.display()),
                fix,
            )
        }
    }
}

fn try_overlay(sandbox: &Sandbox, dir: &Path) -> Result<(), Error> {
    fs::create_dir(dir).map_err(|error| Error::at("making", dir, error))?;
    let lower = dir.join("lower");
    for path in [&lower, &lower.join("dir")] {
        sandbox.create_owned_dir(path, 0o755)?;
    }
    let file = lower.join("dir/file");
    fs::write(&file, "x").map_err(|error| Error::at("writing", &file, error))?;
    let owner = (sandbox.ids().host_uid(0), sandbox.ids().host_gid(0));
    std::os::unix::fs::lchown(&file, owner.0, owner.1)
        .map_err(|error| Error::at("changing the owner of", &file, error))?;
    let root = Root::Overlay {
        lower: vec![lower],
        upper: dir.join("upper"),
        work: dir.join("work"),
    };
    try_call(sandbox, root, Network::None, &Probe)
}

/// Calls a function of this crate in a sandbox.
fn try_call<C: Call<Handed = ()>>(
    sandbox: &Sandbox,
    root: Root,
    network: Network,
    call: &C,
) -> Result<(), Error> {
    let (body, _) = Body::call(call, ())?;
    let request = Request {
        root,
        mounts: Vec::new(),
        body,
        env: Vec::new(),
        cwd: "/".to_owned(),
        network,
        limits: Limits {
            seconds: Some(60),
            ..Limits::default()
        },
        hostname: "kiln-probe".to_owned(),
        no_new_privs: true,
        watch: None,
    };
    let (mut output, mut message) = (|_: Stream, _: &str| {}, |_: Value| {});
    let outcome = sandbox.run(&request, Io::new(&mut output, &mut message))?;
    match outcome.value {
        Some(Ok(_)) => Ok(()),
        Some(Err(error)) => Err(error),
        None => Err(Error::environment(format!(
            "the trial in a sandbox ended early: {:?}",
            outcome.status
        ))),
    }
}

/// Makes a network as scripts get it.
fn script_network(program: Option<&Path>) -> Check {
    const NAME: &str = "script-network";
    let without = "scripts of a kickstart have no network, unless a build says --network host";
    let tried = own_network().and_then(|()| {
        let mut sandbox = Sandbox::detect()?;
        if let Some(program) = program {
            sandbox = sandbox.with_program(program.to_owned());
        }
        let network = Network::Own { doors: Vec::new() };
        try_call(&sandbox, Root::Empty, network, &Nothing)
    });
    match tried {
        Ok(()) => fine(NAME, "scripts get a network of their own"),
        Err(error) => {
            let detail = format!("{error}; {without}");
            check(NAME, Verdict::Warn, detail, error.hint)
        }
    }
}

/// The path, or the nearest directory above it that exists.
fn existing(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    path.ancestors()
        .find(|path| path.is_dir())
        .unwrap_or(Path::new("/"))
        .to_owned()
}

fn open_files() -> Check {
    let wanted = Limits::default().open_files;
    match rustix::process::getrlimit(Resource::Nofile).maximum {
        Some(most) if most < wanted => {
            let detail = format!("at most {most} open files, {wanted} would be better");
            warn(
                "open-files",
                detail,
                "raise the hard limit (`nofile` in /etc/security/limits.conf)",
            )
        }
        Some(most) => fine("open-files", format!("up to {most}")),
        None => fine("open-files", "no limit"),
    }
}

/// Builds run the target's programs.
fn processor() -> Check {
    const NAME: &str = "processor";
    match crate::processor_level() {
        3.. => fine(NAME, "x86-64-v3: it runs the programs of every release"),
        level => {
            let detail = format!(
                "x86-64-v{level}: releases whose programs are made for newer processors, as those of Enterprise Linux 10 \
                 are, cannot be built or booted here; `kiln plan` says what a release needs"
            );
            let fix = "use a machine whose processor has AVX2; a virtual one may need that of its host (-cpu host)";
            warn(NAME, detail, fix)
        }
    }
}

fn kvm() -> Check {
    const NAME: &str = "kvm";
    let slow = "`kiln boot` and `kiln test` use software emulation, which is many times slower";
    match rustix::fs::open("/dev/kvm", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        .map_err(io::Error::from)
    {
        Ok(_) => fine(NAME, "/dev/kvm can be used"),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            let fix = "sudo usermod -aG kvm $USER, then log in again";
            warn(
                NAME,
                format!("/dev/kvm is closed to this user; {slow}"),
                fix,
            )
        }
        Err(_) => {
            let fix = "switch virtualisation on in the firmware, or use a machine that has it";
            warn(NAME, format!("there is no usable /dev/kvm; {slow}"), fix)
        }
    }
}

fn memory(wanted: u64) -> Check {
    match crate::memory::available() {
        0 => warn(
            "memory",
            "/proc/meminfo tells nothing about available memory",
            "mount /proc",
        ),
        available if available < wanted => {
            let detail = format!(
                "{} available, {} wanted",
                mebibytes(available),
                mebibytes(wanted)
            );
            warn("memory", detail, "close other programs or add swap")
        }
        available => fine("memory", format!("{} available", mebibytes(available))),
    }
}

fn space(path: &Path, wanted: u64) -> Check {
    const NAME: &str = "disk-space";
    let place = existing(path);
    match rustix::fs::statvfs(&place) {
        Ok(stat) => {
            let free = stat.f_bavail.saturating_mul(stat.f_frsize);
            let detail = format!("{} free for {}", mebibytes(free), path.display());
            if free >= wanted {
                return fine(NAME, detail);
            }
            let detail = format!("{detail}, {} wanted", mebibytes(wanted));
            fail(
                NAME,
                detail,
                "free some space, `kiln cache gc`, or choose another directory",
            )
        }
        Err(error) => fail(
            NAME,
            format!("looking at {}: {error}", place.display()),
            "make the directory readable",
        ),
    }
}

fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", bytes >> 20)
}
