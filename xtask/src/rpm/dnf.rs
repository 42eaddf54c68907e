//! Debian's dnf, which installs into a directory as `dnf --installroot` does anywhere: with the rpm of the machine that it runs on.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::served::{RELEASE, Served};
use crate::Result;
use crate::peer::{afresh, definition, tool, trouble};

/// What dnf and rpm are told. Neither plugins nor repositories nor variables of this machine take part; rpm's database is where the
/// distribution has it, and what is mounted in the root while programs run there is nobody's to change.
const CONFIGURATION: &str = "\
[main]
gpgcheck=1
best=1
skip_if_unavailable=0
install_weak_deps=0
reposdir=/nonexistent
varsdir=/nonexistent
pluginpath=/nonexistent
module_platform_id=platform:el9
";
const MACROS: &str = "\
%_dbpath /var/lib/rpm
%_netsharedpath /proc:/sys:/dev
%__transaction_systemd_inhibit %{nil}
";

/// Gives the root `$1` what scriptlets and dracut find in a running system, and runs the rest.
const MOUNTS: &str = r#"root=$1; shift
mkdir -p "$root"/{dev,proc,run,sys}
mkdir -p -m 1777 "$root/tmp"
mount -t proc proc "$root/proc"
mount -t sysfs -o ro sys "$root/sys"
mount -t tmpfs -o mode=755 dev "$root/dev"
for name in null zero full random urandom tty; do
    : > "$root/dev/$name"
    mount --bind "/dev/$name" "$root/dev/$name"
done
mkdir "$root/dev/pts" "$root/dev/shm"
ln -s /proc/self/fd "$root/dev/fd"
for number in 0:stdin 1:stdout 2:stderr; do ln -s "fd/${number%:*}" "$root/dev/${number#*:}"; done
mount -t tmpfs -o mode=755 run "$root/run"
mount -t tmpfs -o mode=1777 tmp "$root/tmp"
exec "$@""#;

/// Installs without the kernel's own initramfs, which would take more time than all the rest: the one that boots is made of the finished
/// root, as Kiln's is. dnf says that all went well where a scriptlet failed, and says why only in its log.
const INSTALL: &str = r#"root=$1 release=$2
mapfile -t what < "$HOME/wanted"
masks=$root/etc/kernel/install.d
mkdir -p "$masks"
ln -s /dev/null "$masks/50-dracut.install"
dnf --quiet -c "$HOME/dnf.conf" --installroot="$root" --releasever="$release" --forcearch=x86_64 -y install "${what[@]}" > "$HOME/said"
rm "$masks/50-dracut.install"
if grep 'scriptlet failed' "$root/var/log/dnf.rpm.log"; then exit 1; fi"#;

/// A command that sees `root` with `/proc`, `/dev` and all that, in namespaces of its own; what it is to run is added to it.
pub(crate) fn around(root: &Path) -> Command {
    let mut command = tool("unshare");
    command.args(["--mount", "--pid", "--fork", "--kill-child"]);
    command.args(["--uts", "--ipc", "--net"]);
    command.args(["bash", "-euo", "pipefail", "-c", MOUNTS, "bash"]);
    command.arg(root);
    // It names a directory of this machine.
    command.env_remove("TMPDIR");
    command
}

/// dnf over the generated distribution.
pub(crate) struct Dnf {
    home: PathBuf,
}

impl Dnf {
    /// Writes what it is told into a directory that is made anew; of the definition's options of `%packages`, those that decide what of
    /// a package is unpacked.
    pub(crate) fn new(served: &Served, home: &Path, project: &Path) -> Result<Dnf> {
        afresh(home)?;
        let write = |name: &str, text: &str| {
            let file = home.join(name);
            fs::write(&file, text).map_err(trouble("writing", &file))
        };
        let docs = match definition::excludes_docs(project)? {
            true => "tsflags=nodocs\n",
            false => "",
        };
        let languages = definition::languages(project)?.map(|languages| {
            let languages = languages.replace(',', ":");
            format!("%_install_langs {languages}\n")
        });
        let text = format!(
            "{CONFIGURATION}{docs}cachedir=/var/cache/dnf\n[url]\nname=url\nbaseurl=file://{}\ngpgkey=file://{}\nrepo_gpgcheck=1\n",
            served.made.display(),
            served.key().display()
        );
        write("dnf.conf", &text)?;
        let macros = format!("{MACROS}{}", languages.unwrap_or_default());
        write(".rpmmacros", &macros)?;
        Ok(Dnf {
            home: home.to_owned(),
        })
    }

    /// Installs into the directory `root` what is said as dnf takes it.
    pub(crate) fn install(&self, root: &Path, what: &[String]) -> Result<Command> {
        let wanted = self.home.join("wanted");
        let lines: String = what.iter().map(|one| format!("{one}\n")).collect();
        fs::write(&wanted, lines).map_err(trouble("writing", &wanted))?;
        let mut command = around(root);
        command.args(["bash", "-euo", "pipefail", "-c", INSTALL, "bash"]);
        command.arg(root).arg(RELEASE);
        command.env("HOME", &self.home).env("LC_ALL", "C.UTF-8");
        Ok(command)
    }
}

/// The module streams that a kickstart asks for, as dnf takes them too.
pub(crate) fn streams(kickstart: &str) -> Vec<String> {
    let words = kickstart.lines().map(str::trim);
    let streams = words.filter(|line| line.starts_with('@') && line.contains(':'));
    streams.map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_streams_are_streams() {
        let text = "url --url=http://x:1/\n%packages\n@core\n@greeter:2.0/common\n-nano\n%end\n";
        assert_eq!(streams(text), ["@greeter:2.0/common"]);
    }
}
