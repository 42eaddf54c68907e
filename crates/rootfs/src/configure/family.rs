//! What differs between distribution families.

use serde::{Deserialize, Serialize};

/// Whose conventions a root follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Family {
    /// Debian and what is made from it: dpkg, apt, `/etc/default`.
    Debian,
}

impl Family {
    /// The distribution's word for a group of another family (`wheel` gives `sudo`).
    pub(super) fn group(self, name: &str) -> &str {
        match (self, name) {
            (Family::Debian, "wheel") => "sudo",
            (Family::Debian, _) => name,
        }
    }

    /// The distribution's name of a service of another family (`sshd` gives `ssh`).
    pub(super) fn service(self, name: &str) -> &str {
        match (self, name) {
            (Family::Debian, "sshd") => "ssh",
            (Family::Debian, "crond") => "cron",
            (Family::Debian, "chronyd") => "chrony",
            (Family::Debian, "httpd") => "apache2",
            (Family::Debian, "ntpd") => "ntpsec",
            (Family::Debian, "nfs") => "nfs-kernel-server",
            (Family::Debian, "smb") => "smbd",
            (Family::Debian, "nmb") => "nmbd",
            (Family::Debian, "vmtoolsd") => "open-vm-tools",
            (Family::Debian, _) => name,
        }
    }

    /// The package that brings the account commands' administrator group.
    pub(super) fn sudo_package(self) -> &'static str {
        match self {
            Family::Debian => "sudo",
        }
    }
}
