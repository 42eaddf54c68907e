//! What the last step changes in a Debian root, beside what every root needs.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use kiln_sandbox::{Call, Error, Say, Silence};
use serde::{Deserialize, Serialize};

use super::kernels;
use super::sources::{installed, write};
use crate::calls::io_error;
use crate::error::Result;
use crate::finish::{Finish, Finished, absent, call, common, empty_all, forget};
use crate::regular;
use crate::run::Place;
use crate::secrets::Ways;

/// Files that record when and where packages were installed, and nothing that the image needs.
const FORGOTTEN: &[&str] = &[
    "/var/cache/debconf/config.dat-old",
    "/var/cache/debconf/templates.dat-old",
    "/var/lib/dpkg/available-old",
    "/var/lib/dpkg/diversions-old",
    "/var/lib/dpkg/statoverride-old",
    "/var/lib/dpkg/status-old",
    "/var/lib/dpkg/lock",
    "/var/lib/dpkg/lock-frontend",
    "/var/lib/dpkg/triggers/Lock",
    "/var/cache/apt/pkgcache.bin",
    "/var/cache/apt/srcpkgcache.bin",
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
const EMPTIED: &[&str] = &["/var/lib/apt/lists", "/var/cache/apt/archives"];

/// Debian's ways with keys.
const WAYS: Ways = Ways {
    ssh_service: "ssh",
    databases: &["/var/lib/dpkg", "/var/lib/apt"],
    brought,
};

/// The paths in dpkg's lists of the packages' files.
fn brought(root: &Path) -> io::Result<HashSet<String>> {
    let mut paths = HashSet::new();
    let entries = match fs::read_dir(root.join("var/lib/dpkg/info")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(paths),
        entries => entries?,
    };
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|ending| ending == "list") {
            let text = regular::read(path)?;
            paths.extend(String::from_utf8_lossy(&text).lines().map(str::to_owned));
        }
    }
    Ok(paths)
}

/// Makes the last changes, and reads what the root has in the end.
pub(super) fn finish(
    place: &Place<'_>,
    finish: &Finish,
    packages: Vec<PathBuf>,
) -> Result<Finished> {
    call(place, &FinishDebian(finish.clone()), packages)
}

/// Makes the last changes of a Debian root.
#[derive(Serialize, Deserialize)]
pub(crate) struct FinishDebian(Finish);

impl Call for FinishDebian {
    const NAME: &'static str = "debian.finish";
    type Handed = ();
    type Message = Silence;
    type Answer = Finished;

    fn run(self, (): (), _: &Say<Silence>) -> std::result::Result<Finished, Error> {
        last_changes(&self.0)
    }
}

fn last_changes(finish: &Finish) -> std::result::Result<Finished, Error> {
    forget(FORGOTTEN)?;
    forget(LOGS)?;
    empty_all(EMPTIED)?;
    let secrets = common(finish, &WAYS)?;
    if let Some(sources) = &finish.sources {
        write(Path::new("/"), sources).map_err(|e| io_error("writing apt's sources", &e))?;
    }
    console_cache().map_err(|e| io_error("keeping the console's cached setup valid", &e))?;
    live_link().map_err(|e| io_error("making /live/filesystem.dir", &e))?;
    to_ram().map_err(|e| {
        io_error(
            "writing the initramfs script that copies the root to memory",
            &e,
        )
    })?;
    manage_network().map_err(|e| io_error("telling NetworkManager what it manages", &e))?;
    let kernels = kernels::choose(Path::new("/"), finish.kernel.as_deref())?;
    let packages =
        installed(Path::new("/")).map_err(|e| io_error("reading dpkg's database", &e))?;
    Ok(Finished {
        packages,
        secrets,
        kernels,
    })
}

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

/// What Ubuntu's network-manager says that it leaves to others: all but wireless devices.
const UNMANAGED: &str = "NetworkManager/conf.d/10-globally-managed-devices.conf";
/// Where these others would have files that name devices.
const OTHER_NETWORKS: &[(&str, &str)] = &[
    ("/etc/netplan", "yaml"),
    ("/lib/netplan", "yaml"),
    ("/etc/systemd/network", "network"),
];

/// Where nobody else has the wired devices, NetworkManager has them: a file of the same name in /etc stands for that in /usr/lib.
/// With a file for netplan the devices are what that file makes them.
fn manage_network() -> io::Result<()> {
    let ours = Path::new("/etc").join(UNMANAGED);
    if !Path::new("/usr/lib").join(UNMANAGED).exists() || ours.symlink_metadata().is_ok() {
        return Ok(());
    }
    for (directory, ending) in OTHER_NETWORKS {
        let entries = match fs::read_dir(directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            entries => entries?,
        };
        for entry in entries {
            if entry?.path().extension().is_some_and(|e| e == *ending) {
                return Ok(());
            }
        }
    }
    if let Some(parent) = ours.parent() {
        fs::create_dir_all(parent)?;
    }
    let text = "# Written by Kiln: no file for netplan or networkd names a device, so NetworkManager manages all.\n";
    regular::write(ours, text)
}

/// Where the initramfs has the medium when the root was copied to memory; live-boot takes a directory as a medium too.
pub(super) const RAM_MEDIUM: &str = "/run/kiln-ram";

/// live-boot's own `toram` copies files, not partitions.
fn to_ram() -> io::Result<()> {
    let dir = "/usr/share/initramfs-tools/scripts/init-premount";
    if !Path::new("/usr/share/initramfs-tools").is_dir() {
        return Ok(());
    }
    fs::create_dir_all(dir)?;
    let path = format!("{dir}/kiln-toram");
    regular::write(&path, TO_RAM.replace("@MEDIUM@", RAM_MEDIUM))?;
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
