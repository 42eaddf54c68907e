//! What makes a root that is being made look to programs as a chroot does: nothing runs, nothing is started.
//!
//! The sandbox itself shows what chroot detection looks for (`/proc/1/root`, no `/run/systemd/system`), and `SYSTEMD_OFFLINE` is in
//! every environment. What is left are programs of systemd that want a running system all the same, and those that would make what Kiln
//! makes itself; daemons that packages start are their family's part.

use kiln_sandbox::Mount;

/// Stands in for a program that needs a running system, under its name.
const STAND_IN: &str = include_str!("offline.sh");
/// The programs that scripts are seen to call. A `dracut` without the version of a kernel would take the building machine's.
const PROGRAMS: [&str; 8] = [
    "dracut",
    "grub2-install",
    "grub2-mkconfig",
    "systemctl",
    "hostnamectl",
    "timedatectl",
    "localectl",
    "loginctl",
];
/// First in the `PATH` of scripts, and no package's.
const LOCAL: &str = "/usr/local/sbin";

/// A program that says that no system runs, in place of the real one.
pub(crate) fn stand_in(directory: &str, program: &str) -> Mount {
    Mount::File {
        target: format!("{directory}/{program}"),
        content: STAND_IN.as_bytes().to_vec(),
        mode: 0o755,
    }
}

/// For kickstart scripts in the root.
pub(crate) fn stand_ins() -> Vec<Mount> {
    PROGRAMS.map(|program| stand_in(LOCAL, program)).to_vec()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::process::Command;

    use super::*;

    /// Calls a stand-in beside programs that only repeat their words; returns its exit code and all that is said.
    fn call(words: &str) -> (Option<i32>, String) {
        let place = tempfile::tempdir().unwrap();
        for program in ["dracut", "grub2-mkconfig"] {
            symlink("/bin/echo", place.path().join(program)).unwrap();
        }
        let mut words = words.split(' ');
        let directories = format!("for dir in {}", place.path().display());
        let text = STAND_IN.replace("for dir in /usr/sbin /usr/bin /sbin /bin", &directories);
        assert_ne!(text, STAND_IN);
        let stand_in = place.path().join("stand-in");
        fs::create_dir(&stand_in).unwrap();
        let stand_in = stand_in.join(words.next().unwrap());
        fs::write(&stand_in, text).unwrap();
        let mut command = Command::new("/bin/sh");
        let output = command.arg(stand_in).args(words).output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(said).unwrap())
    }

    #[test]
    fn what_kiln_makes_itself_is_left_out_of_scripts() {
        for words in [
            "dracut -f",
            "dracut --force /boot/initramfs-6.1.img 6.1",
            "dracut --regenerate-all --force --add-drivers virtio",
        ] {
            let (code, said) = call(words);
            assert_eq!(code, Some(0), "{words}: {said}");
            assert!(
                said.starts_with("kiln: dracut: left out"),
                "{words}: {said}"
            );
        }
        let (code, said) = call("grub2-mkconfig -o /boot/grub2/grub.cfg");
        assert_eq!(code, Some(0), "{said}");
        assert!(said.contains("bootloader has --append"), "{said}");
        let (code, said) = call("grub2-install /dev/sda");
        assert_eq!(code, Some(127), "{said}");
        assert!(said.contains("(grub2-tools) is not in the root"), "{said}");
    }

    #[test]
    fn an_initramfs_for_another_place_is_made() {
        let (_, said) = call("dracut --list-modules");
        assert_eq!(said, "--list-modules\n");
        let (_, said) = call("dracut -f /srv/pxe.img 6.1");
        assert_eq!(said, "-f /srv/pxe.img 6.1\n");
    }
}
