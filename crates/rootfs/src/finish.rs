//! The last changes to a root before it becomes an image.

use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use kiln_sandbox::{Call, Mount, Root, Say, Silence};
use serde::{Deserialize, Serialize};

use crate::calls::io_error;
use crate::error::Result;
use crate::regular;
use crate::run::{Extras, Place};
use crate::secrets::{self, Secrets, Ways};

/// What the last step is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finish {
    /// The line for `/home` in `/etc/fstab`.
    pub home: Option<HomeMount>,
    /// Package sources of the image; `None` where scripts have seen them already and may have changed them.
    pub sources: Option<Sources>,
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

/// Where the package manager finds packages, in the image and in scripts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sources {
    /// File name in the package manager's directory of sources, content.
    pub files: Vec<(String, String)>,
    /// Key files that the sources name: absolute path, bytes.
    pub keys: Vec<(String, Vec<u8>)>,
}

/// A package that a root has.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Installed {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its architecture.
    pub architecture: String,
}

/// The kernels of a root.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kernels {
    /// Versions in their order, the lowest first; one where there is no choice.
    pub found: Vec<String>,
    /// The one that boots, where there is a choice.
    pub boots: Option<String>,
    /// Whether the definition decided.
    pub said: bool,
}

/// How `/home` is mounted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HomeMount {
    /// The file system's UUID.
    pub uuid: String,
    /// Whether it takes the rest of the stick at the first boot.
    pub grow: bool,
    /// Whether its partition is in a master boot record, which systemd-repart cannot change.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub mbr: bool,
}

/// Files that record when and where an image was made, and nothing that the image needs.
const FORGOTTEN: &[&str] = &[
    "/var/lib/dbus/machine-id",
    "/var/lib/systemd/random-seed",
    "/var/lib/systemd/credential.secret",
    "/var/cache/ldconfig/aux-cache",
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

/// Directories that are left, but emptied.
const EMPTIED: &[&str] = &["/var/tmp"];

/// Where the last step sees what packages made of the root, without what scripts, files and commands did.
const OF_PACKAGES: &str = "/run/kiln/packages";

/// The changes that every root needs, for families that have no function of their own inside the root. `packages` are the layers
/// below that packages made, the top one first.
///
/// # Errors
/// The root cannot be changed.
pub fn finish(place: &Place<'_>, finish: &Finish, packages: Vec<PathBuf>) -> Result<Secrets> {
    call(place, &FinishRoot(finish.clone()), packages)
}

/// Calls a function that makes the last changes.
pub(crate) fn call<C: Call<Handed = (), Message = Silence>>(
    place: &Place<'_>,
    finish: &C,
    packages: Vec<PathBuf>,
) -> Result<C::Answer> {
    let extras = Extras {
        mounts: vec![Mount::Tree {
            target: OF_PACKAGES.to_owned(),
            tree: Root::Layers { lower: packages },
        }],
        ..Extras::default()
    };
    place.call(finish, (), extras)
}

/// Makes the changes that every root needs.
#[derive(Serialize, Deserialize)]
pub(crate) struct FinishRoot(Finish);

impl Call for FinishRoot {
    const NAME: &'static str = "rootfs.finish";
    type Handed = ();
    type Message = Silence;
    type Answer = Secrets;

    fn run(self, (): (), _: &Say<Silence>) -> Result<Secrets, kiln_sandbox::Error> {
        common(&self.0, &Ways::COMMON)
    }
}

/// The changes that every root needs, inside of it.
pub(crate) fn common(finish: &Finish, ways: &Ways) -> Result<Secrets, kiln_sandbox::Error> {
    forget(FORGOTTEN)?;
    empty_all(EMPTIED)?;
    identity(finish).map_err(|e| io_error("setting the machine's identity", &e))?;
    let mut secrets = secrets::remove(Path::new("/"), Path::new(OF_PACKAGES), ways)
        .map_err(|e| io_error("removing keys that every stick would share", &e))?;
    ssh_host_keys(ways, &mut secrets).map_err(|e| io_error("removing the SSH host keys", &e))?;
    fstab(finish).map_err(|e| io_error("writing /etc/fstab", &e))?;
    Ok(secrets)
}

/// Removes files, as far as they are there.
pub(crate) fn forget(paths: &[&str]) -> Result<(), kiln_sandbox::Error> {
    let remove = |path: &&str| {
        absent(fs::remove_file(path)).map_err(|e| io_error(format!("removing {path}"), &e))
    };
    paths.iter().try_for_each(remove)
}

/// Empties directories, as far as they are there.
pub(crate) fn empty_all(paths: &[&str]) -> Result<(), kiln_sandbox::Error> {
    let empty =
        |path: &&str| empty(Path::new(path)).map_err(|e| io_error(format!("emptying {path}"), &e));
    paths.iter().try_for_each(empty)
}

/// An empty machine-id: systemd makes one for each boot and does not take the boot for a first one.
fn identity(finish: &Finish) -> io::Result<()> {
    if Path::new("/etc").is_dir() {
        regular::write("/etc/machine-id", "")?;
    }
    let named = regular::text("/etc/hostname").is_ok_and(|name| !name.trim().is_empty());
    if !named {
        regular::write("/etc/hostname", format!("{}\n", finish.hostname))?;
    }
    let name = regular::text("/etc/hostname")?;
    if !Path::new("/etc/hosts").exists() {
        let name = name.trim();
        let text = format!(
            "127.0.0.1\tlocalhost\n127.0.1.1\t{name}\n::1\tlocalhost ip6-localhost ip6-loopback\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n"
        );
        regular::write("/etc/hosts", text)?;
    }
    Ok(())
}

/// Host keys that the package made would be the same on every stick, and known to all who have one. They are removed and
/// made at boot instead, unless the definition brought some.
fn ssh_host_keys(ways: &Ways, secrets: &mut Secrets) -> io::Result<()> {
    if !Path::new("/usr/sbin/sshd").exists() {
        return Ok(());
    }
    let trees = secrets::Trees {
        root: Path::new("/"),
        packages: Path::new(OF_PACKAGES),
    };
    let (mut own, mut made) = (Vec::new(), Vec::new());
    for entry in fs::read_dir("/etc/ssh")? {
        let path = entry?.path().to_string_lossy().into_owned();
        let is_key = path.ends_with("_key") || path.ends_with("_key.pub");
        if path.starts_with("/etc/ssh/ssh_host_") && is_key {
            match trees.is_of_packages(&path)? {
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
    let dir = format!("/etc/systemd/system/{}.service.d", ways.ssh_service);
    fs::create_dir_all(&dir)?;
    // sshd's own unit tests its configuration in ExecStartPre, which fails without keys: so the keys go first. No RSA
    // key: it takes seconds on small machines, and nothing has needed one for ten years. Keys that are there stay.
    let text = "# Written by Kiln: every boot of the stick has host keys of its own.\n[Service]\nExecStartPre=\n\
                ExecStartPre=-/usr/bin/ssh-keygen -q -N \"\" -t ed25519 -f /etc/ssh/ssh_host_ed25519_key\n\
                ExecStartPre=-/usr/bin/ssh-keygen -q -N \"\" -t ecdsa -f /etc/ssh/ssh_host_ecdsa_key\n\
                ExecStartPre=/usr/sbin/sshd -t\n";
    regular::write(format!("{dir}/host-keys.conf"), text)
}

fn fstab(finish: &Finish) -> io::Result<()> {
    // Somebody's comment may be of any encoding.
    let old = match regular::read("/etc/fstab") {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        read => read?,
    };
    // The installer's placeholder says that there is nothing.
    let placeholder = b"UNCONFIGURED FSTAB";
    let mut text = Vec::new();
    for line in old.split_inclusive(|byte| *byte == b'\n') {
        if !line
            .windows(placeholder.len())
            .any(|part| part == placeholder)
        {
            text.extend(line);
        }
    }
    if text.last().is_some_and(|byte| *byte != b'\n') {
        text.push(b'\n');
    }
    if let Some(home) = &finish.home {
        let grow = if home.grow { ",x-systemd.growfs" } else { "" };
        text.extend(b"# The stick's own /home; without it (a copied root, a damaged stick) the system still boots.\n");
        text.extend(format!(
            "UUID={} /home ext4 defaults,noatime,nofail,x-systemd.device-timeout=90s{grow} 0 2\n",
            home.uuid
        ).bytes());
        if home.grow {
            grow_home(home)?;
        }
    }
    if text != old {
        regular::write("/etc/fstab", text)
    } else {
        Ok(())
    }
}

/// A unit that lets the partition take what the stick has left, before it is checked and mounted; the file system follows by
/// `x-systemd.growfs`. systemd-repart needs to be told the disk: it would look for the root's, which is an overlay.
fn grow_home(home: &HomeMount) -> io::Result<()> {
    let uuid = &home.uuid;
    let device = format!("dev-disk-by\\x2duuid-{}", uuid.replace('-', "\\x2d"));
    let unit = GROW_UNIT
        .replace("@DEVICE@", &device)
        .replace("@UUID@", uuid);
    for dir in ["/usr/lib/kiln", "/etc/systemd/system/home.mount.wants"] {
        fs::create_dir_all(dir)?;
    }
    let how = if home.mbr {
        GROW_BY_SFDISK.to_owned()
    } else if !Path::new("/usr/bin/systemd-repart").exists() {
        // The table's copy at the end of the disk moves first.
        format!(
            "sfdisk --quiet --no-reread --no-tell-kernel --relocate gpt-bak-std \"/dev/${{above##*/}}\"\n{GROW_BY_SFDISK}"
        )
    } else {
        fs::create_dir_all("/usr/lib/kiln/repart.d")?;
        regular::write(
            "/usr/lib/kiln/repart.d/50-home.conf",
            "[Partition]\nType=home\n",
        )?;
        GROW_BY_REPART.to_owned()
    };
    regular::write("/usr/lib/kiln/grow-home", format!("{GROW_HOME}{how}"))?;
    fs::set_permissions("/usr/lib/kiln/grow-home", fs::Permissions::from_mode(0o755))?;
    regular::write("/etc/systemd/system/kiln-grow-home.service", unit)?;
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
"#;
const GROW_BY_REPART: &str = r#"exec systemd-repart --dry-run=no --definitions=/usr/lib/kiln/repart.d "/dev/${above##*/}"
"#;
/// The kernel reads no table of a disk that is in use, so it is told of the one partition.
const GROW_BY_SFDISK: &str = r#"number=$(cat "$here/partition")
echo ', +' | sfdisk --quiet --no-reread --no-tell-kernel --force -N "$number" "/dev/${above##*/}"
exec partx --update --nr "$number" "/dev/${above##*/}"
"#;

pub(crate) fn absent(result: io::Result<()>) -> io::Result<()> {
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

/// Removes what is in a directory, but neither the directory nor a `partial/` in it.
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
