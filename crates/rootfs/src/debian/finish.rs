//! The last changes to a root before it becomes an image.

use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use kiln_sandbox::{Call, CallError, Mount, Root};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::kernels::{self, Kernels};
use super::secrets::{self, Secrets};
use super::sources::{AptSources, Installed, installed, write};
use crate::calls::{io_error, payload};
use crate::error::{Error, ErrorKind, Result};
use crate::run::{Extras, Place};

/// What the last step is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finish {
    /// The line for `/home` in `/etc/fstab`.
    pub home: Option<HomeMount>,
    /// apt's sources in the image; `None` where scripts have seen them already and may have changed them.
    pub sources: Option<AptSources>,
    /// The host name, where no kickstart command set one.
    pub hostname: String,
    /// The package whose kernel boots, if the definition names one.
    pub kernel: Option<String>,
}

/// What the last step found out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finished {
    /// Packages that the root has in the end.
    pub packages: Vec<Installed>,
    /// Keys and ids that every machine must have of its own.
    pub secrets: Secrets,
    /// Kernels, where there are several.
    pub kernels: Kernels,
}

/// How `/home` is mounted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HomeMount {
    /// The file system's UUID.
    pub uuid: String,
    /// Whether it takes the rest of the stick at the first boot.
    pub grow: bool,
}

/// Files that record when and where an image was made, and nothing that the image needs.
const FORGOTTEN: &[&str] = &[
    "/var/lib/dbus/machine-id",
    "/var/lib/systemd/random-seed",
    "/var/lib/systemd/credential.secret",
    "/var/cache/ldconfig/aux-cache",
    "/var/cache/debconf/config.dat-old",
    "/var/cache/debconf/templates.dat-old",
    "/var/lib/dpkg/available-old",
    "/var/lib/dpkg/diversions-old",
    "/var/lib/dpkg/statoverride-old",
    "/var/lib/dpkg/status-old",
    "/var/lib/dpkg/lock",
    "/var/lib/dpkg/lock-frontend",
    "/var/lib/dpkg/triggers/Lock",
    "/etc/.pwd.lock",
    "/etc/passwd-",
    "/etc/group-",
    "/etc/shadow-",
    "/etc/gshadow-",
    "/etc/subuid-",
    "/etc/subgid-",
    "/root/.bash_history",
    "/root/.wget-hsts",
];

/// Logs of the installation: they carry the clock and mean nothing to the image's users.
const LOGS: &[&str] = &[
    "/var/log/dpkg.log",
    "/var/log/alternatives.log",
    "/var/log/bootstrap.log",
    "/var/log/apt/history.log",
    "/var/log/apt/term.log",
];

/// Directories that are left, but emptied.
const EMPTIED: &[&str] = &["/var/lib/apt/lists", "/var/cache/apt/archives", "/var/tmp"];

/// Where the last step sees what packages made of the root, without what scripts, files and commands did.
const OF_PACKAGES: &str = "/run/kiln/packages";

/// Makes the last changes, and reads what the root has in the end. `packages` are the layers below that packages made, the top one first.
///
/// # Errors
/// The root cannot be changed.
pub fn finish(place: &Place<'_>, finish: &Finish, packages: Vec<PathBuf>) -> Result<Finished> {
    let extras = Extras {
        mounts: vec![Mount::Tree {
            target: OF_PACKAGES.to_owned(),
            tree: Root::Layers { lower: packages },
        }],
        ..Extras::default()
    };
    let payload = json!(finish);
    let (value, _) = place.call(super::FINISH, payload, extras, &mut |_| {})?;
    serde_json::from_value(value).map_err(|e| {
        Error::new(ErrorKind::Internal, "the last step gave an unknown answer").cause(e.to_string())
    })
}

pub(crate) fn finish_call(call: Call) -> Result<Value, CallError> {
    let finish: Finish = payload(&call)?;
    for path in FORGOTTEN.iter().chain(LOGS) {
        absent(fs::remove_file(path)).map_err(|e| io_error(format!("removing {path}"), &e))?;
    }
    for path in EMPTIED {
        empty(Path::new(path)).map_err(|e| io_error(format!("emptying {path}"), &e))?;
    }
    for cache in [
        "/var/cache/apt/pkgcache.bin",
        "/var/cache/apt/srcpkgcache.bin",
    ] {
        absent(fs::remove_file(cache)).map_err(|e| io_error(format!("removing {cache}"), &e))?;
    }
    identity(&finish).map_err(|e| io_error("setting the machine's identity", &e))?;
    let mut secrets = secrets::remove(Path::new("/"), Path::new(OF_PACKAGES))
        .map_err(|e| io_error("removing keys that every stick would share", &e))?;
    ssh_host_keys(&mut secrets).map_err(|e| io_error("removing the SSH host keys", &e))?;
    if let Some(sources) = &finish.sources {
        write(Path::new("/"), sources).map_err(|e| io_error("writing apt's sources", &e))?;
    }
    fstab(&finish).map_err(|e| io_error("writing /etc/fstab", &e))?;
    console_cache().map_err(|e| io_error("keeping the console's cached setup valid", &e))?;
    live_link().map_err(|e| io_error("making /live/filesystem.dir", &e))?;
    to_ram().map_err(|e| {
        io_error(
            "writing the initramfs script that copies the root to memory",
            &e,
        )
    })?;
    let kernels = kernels::choose(Path::new("/"), finish.kernel.as_deref())?;
    let packages =
        installed(Path::new("/")).map_err(|e| io_error("reading dpkg's database", &e))?;
    Ok(json!(Finished {
        packages,
        secrets,
        kernels
    }))
}

/// An empty machine-id: systemd makes one for each boot and does not take the boot for a first one.
fn identity(finish: &Finish) -> io::Result<()> {
    if Path::new("/etc").is_dir() {
        fs::write("/etc/machine-id", "")?;
    }
    let named = fs::read_to_string("/etc/hostname").is_ok_and(|name| !name.trim().is_empty());
    if !named {
        fs::write("/etc/hostname", format!("{}\n", finish.hostname))?;
    }
    let name = fs::read_to_string("/etc/hostname")?;
    if !Path::new("/etc/hosts").exists() {
        let name = name.trim();
        let text = format!(
            "127.0.0.1\tlocalhost\n127.0.1.1\t{name}\n::1\tlocalhost ip6-localhost ip6-loopback\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n"
        );
        fs::write("/etc/hosts", text)?;
    }
    Ok(())
}

/// Host keys that the package made would be the same on every stick, and known to all who have one. They are removed and
/// made at boot instead, unless the definition brought some.
fn ssh_host_keys(secrets: &mut Secrets) -> io::Result<()> {
    if !Path::new("/usr/sbin/sshd").exists() {
        return Ok(());
    }
    let place = secrets::Place {
        root: Path::new("/"),
        packages: Path::new(OF_PACKAGES),
    };
    let (mut own, mut made) = (Vec::new(), Vec::new());
    for entry in fs::read_dir("/etc/ssh")? {
        let path = entry?.path().to_string_lossy().into_owned();
        let is_key = path.ends_with("_key") || path.ends_with("_key.pub");
        if path.starts_with("/etc/ssh/ssh_host_") && is_key {
            match place.is_of_packages(&path)? {
                true => made.push(path),
                false => own.push(path),
            }
        }
    }
    for path in &made {
        fs::remove_file(path)?;
    }
    let has_own = own.iter().any(|path| path.ends_with("_key"));
    let (fate, gone) = match has_own {
        true => (&mut secrets.removed, made),
        false => (&mut secrets.remade, made),
    };
    fate.extend(gone);
    secrets.kept.retain(|path| !own.contains(path));
    secrets.kept.extend(own);
    secrets.shared.retain(|path| Path::new(path).exists());
    for list in [&mut secrets.remade, &mut secrets.removed, &mut secrets.kept] {
        list.sort();
    }
    if has_own {
        return Ok(());
    }
    let dir = "/etc/systemd/system/ssh.service.d";
    fs::create_dir_all(dir)?;
    // sshd's own unit tests its configuration in ExecStartPre, which fails without keys: so the keys go first. No RSA
    // key: it takes seconds on small machines, and nothing has needed one for ten years. Keys that are there stay.
    let text = "# Written by Kiln: every boot of the stick has host keys of its own.\n[Service]\nExecStartPre=\n\
                ExecStartPre=-/usr/bin/ssh-keygen -q -N \"\" -t ed25519 -f /etc/ssh/ssh_host_ed25519_key\n\
                ExecStartPre=-/usr/bin/ssh-keygen -q -N \"\" -t ecdsa -f /etc/ssh/ssh_host_ecdsa_key\n\
                ExecStartPre=/usr/sbin/sshd -t\n";
    fs::write(format!("{dir}/host-keys.conf"), text)
}

fn fstab(finish: &Finish) -> io::Result<()> {
    let old = fs::read_to_string("/etc/fstab").unwrap_or_default();
    // The installer's placeholder says that there is nothing.
    let keep = |line: &&str| !line.contains("UNCONFIGURED FSTAB");
    let mut text: String = old.lines().filter(keep).map(|l| format!("{l}\n")).collect();
    if let Some(home) = &finish.home {
        let grow = if home.grow { ",x-systemd.growfs" } else { "" };
        text += "# The stick's own /home; without it (a copied root, a damaged stick) the system still boots.\n";
        text += &format!(
            "UUID={} /home ext4 defaults,noatime,nofail,x-systemd.device-timeout=90s{grow} 0 2\n",
            home.uuid
        );
        if home.grow {
            grow_home(&home.uuid)?;
        }
    }
    if text != old {
        fs::write("/etc/fstab", text)
    } else {
        Ok(())
    }
}

/// A unit that lets the partition take what the stick has left, before it is checked and mounted; the file system follows by
/// `x-systemd.growfs`. systemd-repart needs to be told the disk: it would look for the root's, which is an overlay.
fn grow_home(uuid: &str) -> io::Result<()> {
    let device = format!("dev-disk-by\\x2duuid-{}", uuid.replace('-', "\\x2d"));
    let unit = GROW_UNIT
        .replace("@DEVICE@", &device)
        .replace("@UUID@", uuid);
    for dir in [
        "/usr/lib/kiln/repart.d",
        "/etc/systemd/system/home.mount.wants",
    ] {
        fs::create_dir_all(dir)?;
    }
    fs::write(
        "/usr/lib/kiln/repart.d/50-home.conf",
        "[Partition]\nType=home\n",
    )?;
    fs::write("/usr/lib/kiln/grow-home", GROW_HOME)?;
    fs::set_permissions("/usr/lib/kiln/grow-home", fs::Permissions::from_mode(0o755))?;
    fs::write("/etc/systemd/system/kiln-grow-home.service", unit)?;
    let link = "/etc/systemd/system/home.mount.wants/kiln-grow-home.service";
    absent(fs::remove_file(link))?;
    symlink("../kiln-grow-home.service", link)
}

const GROW_UNIT: &str = r"# Written by Kiln for `part /home --grow`.
[Unit]
Description=Let the /home partition take the rest of the stick
DefaultDependencies=no
Requires=@DEVICE@.device
After=@DEVICE@.device
Before=systemd-fsck@@DEVICE@.service home.mount

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/lib/kiln/grow-home @UUID@
";

const GROW_HOME: &str = r#"#!/bin/sh
# Written by Kiln for `part /home --grow`: grows the last partition of the stick to its end, once.
set -eu
partition=$(readlink -f "/dev/disk/by-uuid/$1")
here=/sys/class/block/${partition##*/}
[ -e "$here/partition" ] || exit 0
above=$(readlink -f "$here/..")
# In sectors of 512 bytes: less than 64 MiB is not worth writing a partition table for.
free=$(($(cat "$above/size") - $(cat "$here/start") - $(cat "$here/size")))
[ "$free" -gt 131072 ] || exit 0
[ "$(cat "$above/ro")" = 0 ] || exit 0
exec systemd-repart --dry-run=no --definitions=/usr/lib/kiln/repart.d "/dev/${above##*/}"
"#;

/// What the console's cached setup is made from.
const CONSOLE_SOURCES: &[&str] = &["/etc/default/keyboard", "/etc/default/console-setup"];

/// console-setup's boot script takes its cache only if it is newer than its sources (`test -nt`), which equal times in
/// an image never are; it then computes the fonts anew at each boot, and that fails while the desktop takes the screen.
/// So where the cache is the newer one here, the sources get the time of their package.
fn console_cache() -> io::Result<()> {
    let modified = |path: &str| fs::metadata(path).and_then(|m| m.modified());
    let (Ok(cached), Ok(package)) = (
        modified("/etc/console-setup/cached_setup_terminal.sh"),
        modified("/bin/setupcon"),
    ) else {
        return Ok(());
    };
    for source in CONSOLE_SOURCES {
        match modified(source) {
            Ok(time) if package < time && time < cached => {
                fs::File::options()
                    .write(true)
                    .open(source)?
                    .set_modified(package)?;
            }
            Ok(_) => {}
            other => absent(other.map(|_| ()))?,
        }
    }
    Ok(())
}

/// live-boot takes a partition for a live medium if it finds `/live/*.dir` on it; the link makes the partition's
/// own root that directory.
fn live_link() -> io::Result<()> {
    fs::create_dir_all("/live")?;
    match symlink("..", "/live/filesystem.dir") {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

/// Where the initramfs has the medium when the root was copied to memory; live-boot takes a directory as a medium too.
pub const RAM_MEDIUM: &str = "/run/kiln-ram";

/// live-boot's own `toram` copies files, not partitions.
fn to_ram() -> io::Result<()> {
    let dir = "/usr/share/initramfs-tools/scripts/init-premount";
    if !Path::new("/usr/share/initramfs-tools").is_dir() {
        return Ok(());
    }
    fs::create_dir_all(dir)?;
    let path = format!("{dir}/kiln-toram");
    fs::write(&path, TO_RAM.replace("@MEDIUM@", RAM_MEDIUM))?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))
}

/// Copies the root's partition into a tmpfs where there is memory for it and 256 MiB more, else mounts it at the same place.
const TO_RAM: &str = r#"#!/bin/sh
# Written by Kiln: `kiln.toram=PARTUUID` on the kernel command line copies the root to memory.
case "$1" in prereqs) echo udev; exit 0 ;; esac
for word in $(cat /proc/cmdline); do
    case "$word" in kiln.toram=*) uuid="${word#kiln.toram=}" ;; esac
done
[ -n "$uuid" ] || exit 0
device="/dev/disk/by-partuuid/$uuid"
tries=0
while [ ! -b "$device" ] && [ "$tries" -lt 60 ]; do
    sleep 1
    tries=$((tries + 1))
done
if [ ! -b "$device" ]; then
    echo "kiln: no partition $uuid after 60 seconds: is the stick plugged in?"
    exit 0
fi
medium=@MEDIUM@
mkdir -p "$medium"
need=$(($(blockdev --getsize64 "$device") / 1024))
free=$(awk '/^MemAvailable:/ { print $2 }' /proc/meminfo)
if [ "$free" -gt "$((need + 262144))" ]; then
    echo "kiln: copying $((need / 1024)) MiB to memory"
    mount -t tmpfs -o "size=$((need + 1024))k,mode=755" tmpfs "$medium"
    mkdir "$medium/live"
    if dd if="$device" of="$medium/live/filesystem.squashfs" bs=4M; then
        exit 0
    fi
    umount "$medium"
else
    echo "kiln: $((free / 1024)) MiB of memory are free, $((need / 1024 + 256)) are needed: running from the stick"
fi
modprobe squashfs
mount -t squashfs -o ro "$device" "$medium"
"#;

fn absent(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(e)
            if matches!(
                e.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            Ok(())
        }
        other => other,
    }
}

/// Removes what is in a directory, but neither the directory nor the lock files and `partial/` of apt in it.
fn empty(dir: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) => return absent(Err(e)),
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            if entry.file_name() == "partial" {
                empty(&entry.path())?;
            } else {
                fs::remove_dir_all(entry.path())?;
            }
        } else {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}
