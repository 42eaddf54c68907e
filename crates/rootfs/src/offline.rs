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
