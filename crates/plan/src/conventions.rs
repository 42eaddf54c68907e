//! What definitions have to know of how distributions name and place things; how their packages are installed is a family's part,
//! in `kiln_rootfs`.

use serde::{Deserialize, Serialize};

/// Which packages a distribution is made of, and so whose conventions its roots follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Conventions {
    /// Debian and what is made from it: `.deb`, dpkg, apt, `/etc/default`.
    Debian,
    /// Fedora, Enterprise Linux and what is made from them: `.rpm`, dnf, `/etc/sysconfig`.
    Rpm,
}

/// Distributions by the names that `--distribution` takes.
pub(crate) const DISTRIBUTIONS: &[(&str, Conventions)] = &[
    ("debian", Conventions::Debian),
    ("ubuntu", Conventions::Debian),
    ("fedora", Conventions::Rpm),
    ("almalinux", Conventions::Rpm),
    ("rocky", Conventions::Rpm),
    ("centos", Conventions::Rpm),
    ("rhel", Conventions::Rpm),
];

/// Services that Debian calls otherwise.
const DEBIAN_SERVICES: &[(&str, &str)] = &[
    ("sshd", "ssh"),
    ("crond", "cron"),
    ("chronyd", "chrony"),
    ("httpd", "apache2"),
    ("ntpd", "ntpsec"),
    ("nfs", "nfs-kernel-server"),
    ("smb", "smbd"),
    ("nmb", "nmbd"),
    ("vmtoolsd", "open-vm-tools"),
];

/// Packages that commands need, by Debian's name and by the name that they have as RPMs; empty where an RPM root has it
/// anyway.
const RPM_PACKAGES: &[(&str, &str)] = &[
    ("ca-certificates", "ca-certificates"),
    ("chrony", "chrony"),
    ("console-setup", ""),
    ("firewalld", "firewalld"),
    ("keyboard-configuration", "kbd"),
    ("libteam-utils", "NetworkManager-team"),
    ("netbase", ""),
    ("network-manager", "NetworkManager"),
    ("nftables", "nftables"),
    ("openssh-server", "openssh-server"),
    ("passwd", "shadow-utils"),
    ("sudo", "sudo"),
    ("tzdata", "tzdata"),
    ("wpasupplicant", "NetworkManager-wifi"),
];

impl Conventions {
    /// The conventions of a distribution, if Kiln knows it.
    pub fn of(distribution: &str) -> Option<Conventions> {
        let mut known = DISTRIBUTIONS.iter();
        known
            .find(|(name, _)| *name == distribution)
            .map(|(_, conventions)| *conventions)
    }

    /// The word for the 64-bit PC.
    pub(crate) fn architecture(self) -> &'static str {
        match self {
            Conventions::Debian => "amd64",
            Conventions::Rpm => "x86_64",
        }
    }

    /// The distribution's word for a group of other conventions (`wheel` gives `sudo`).
    pub(crate) fn group(self, name: &str) -> &str {
        match (self, name) {
            (Conventions::Debian, "wheel") => "sudo",
            (Conventions::Rpm, "sudo") => "wheel",
            _ => name,
        }
    }

    /// The distribution's name of a service of other conventions (`sshd` gives `ssh`).
    pub(crate) fn service(self, name: &str) -> &str {
        let mut known = DEBIAN_SERVICES.iter();
        match self {
            Conventions::Debian => known.find(|(rpm, _)| *rpm == name).map_or(name, |(_, d)| d),
            Conventions::Rpm => known.find(|(_, d)| *d == name).map_or(name, |(rpm, _)| rpm),
        }
    }

    /// The package that Debian calls so; `None` where nothing is needed.
    pub(crate) fn package(self, debian: &str) -> Option<&str> {
        if self == Conventions::Debian {
            return Some(debian);
        }
        let known = RPM_PACKAGES.iter().find(|(name, _)| *name == debian);
        Some(known.map_or(debian, |(_, rpm)| rpm)).filter(|name| !name.is_empty())
    }

    /// The package that brings the account commands' administrator group.
    pub(crate) fn sudo_package(self) -> &'static str {
        "sudo"
    }

    /// The group whose members may act as root.
    pub(crate) fn administrators(self) -> &'static str {
        match self {
            Conventions::Debian => "sudo",
            Conventions::Rpm => "wheel",
        }
    }

    /// Where the locale is set.
    pub(crate) fn locale_file(self) -> &'static str {
        match self {
            Conventions::Debian => "/etc/default/locale",
            Conventions::Rpm => "/etc/locale.conf",
        }
    }

    /// Where the machine's own certificate authorities go, and the program that takes them up.
    pub(crate) fn anchors(self) -> (&'static str, &'static str) {
        match self {
            Conventions::Debian => ("/usr/local/share/ca-certificates", "update-ca-certificates"),
            Conventions::Rpm => ("/etc/pki/ca-trust/source/anchors", "update-ca-trust"),
        }
    }
}
