//! Keeps daemons from being started by the packages that bring them.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use kiln_sandbox::{Call, Error, Mount, Say, Silence};
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps};
use serde::{Deserialize, Serialize};

use crate::calls::io_error;
use crate::error::Result;
use crate::offline::stand_in;
use crate::regular;
use crate::run::{Extras, Place};

/// First in the `PATH` of maintainer scripts. Kickstart scripts do not get it there: some write their `PATH` into a file.
pub(super) const OWN: &str = "/run/kiln/bin";

/// What `invoke-rc.d` and `deb-systemd-invoke` ask before they start a daemon; 101: forbidden by policy.
const POLICY: &str = "/usr/sbin/policy-rc.d";
const NO_DAEMONS: &str = "#!/bin/sh\nexit 101\n";
/// Who asks.
const ASKS: &str = "/usr/sbin/invoke-rc.d";

/// For maintainer scripts, together with [`path`].
pub(crate) fn for_packages() -> [Mount; 2] {
    let policy = Mount::File {
        target: POLICY.to_owned(),
        content: NO_DAEMONS.as_bytes().to_vec(),
        mode: 0o755,
    };
    [policy, stand_in(OWN, "systemctl")]
}

/// The `PATH` of maintainer scripts.
pub(crate) fn path(standard: &str) -> String {
    format!("{OWN}:{standard}")
}

/// Runs scripts, and sees to it that packages which they install start no daemon. The policy is a plain file: scripts of the field
/// write and remove it themselves, which a mount would refuse. One that the root has by itself is left alone.
///
/// # Errors
/// Those of `scripts`, or the file cannot be written or removed.
pub(super) fn without_daemons(
    place: &Place<'_>,
    scripts: &mut dyn FnMut() -> Result<()>,
) -> Result<()> {
    let call = |keep_out| place.call(&Daemons { keep_out }, (), Extras::default());
    let made = call(true)?;
    scripts()?;
    if made {
        call(false)?;
    }
    Ok(())
}

/// Makes or removes the policy; answers whether it did.
#[derive(Serialize, Deserialize)]
pub(crate) struct Daemons {
    keep_out: bool,
}

impl Call for Daemons {
    const NAME: &'static str = "debian.keep-daemons-out";
    type Handed = ();
    type Message = Silence;
    type Answer = bool;

    fn run(self, (): (), _: &Say<Silence>) -> std::result::Result<bool, Error> {
        let change = || change_policy(self.keep_out);
        keeping_time("/usr/sbin", change).map_err(|e| io_error(format!("changing {POLICY}"), &e))
    }
}

fn change_policy(keep_out: bool) -> io::Result<bool> {
    let policy = Path::new(POLICY);
    match (keep_out, policy.symlink_metadata()) {
        (true, Err(_)) if Path::new(ASKS).exists() => {
            regular::write(policy, NO_DAEMONS)?;
            fs::set_permissions(policy, fs::Permissions::from_mode(0o755))?;
            Ok(true)
        }
        // A script may have made one of its own, which stays.
        (false, Ok(_)) if regular::read(policy).is_ok_and(|c| c == NO_DAEMONS.as_bytes()) => {
            fs::remove_file(policy)?;
            Ok(true)
        }
        _ => Ok(false),
    }
}

/// A change in a directory that its modification time does not show.
fn keeping_time(directory: &str, change: impl FnOnce() -> io::Result<bool>) -> io::Result<bool> {
    let before = rustix::fs::stat(directory).ok();
    let changed = change()?;
    if let Some(before) = before.filter(|_| changed) {
        let times = Timestamps {
            last_access: Timespec {
                tv_sec: 0,
                tv_nsec: rustix::fs::UTIME_OMIT,
            },
            last_modification: Timespec {
                tv_sec: before.st_mtime,
                tv_nsec: before.st_mtime_nsec as _,
            },
        };
        rustix::fs::utimensat(CWD, directory, &times, AtFlags::empty())?;
    }
    Ok(changed)
}
