//! Which generation of the language is read.

use serde::{Deserialize, Serialize};

/// A version of the kickstart language, named after the distribution release whose installer reads it.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub enum Version {
    /// Red Hat Enterprise Linux 8 and its rebuilds.
    #[serde(rename = "RHEL8")]
    Rhel8,
    /// Red Hat Enterprise Linux 9 and its rebuilds.
    #[serde(rename = "RHEL9")]
    Rhel9,
    /// Red Hat Enterprise Linux 10 and its rebuilds.
    #[serde(rename = "RHEL10")]
    Rhel10,
    /// Fedora 42.
    F42,
    /// Fedora 43.
    F43,
    /// Fedora 44.
    F44,
    /// Fedora 45, the newest.
    #[default]
    F45,
}

impl Version {
    /// Every version, oldest first within a family.
    pub const ALL: [Version; 7] = [
        Version::Rhel8,
        Version::Rhel9,
        Version::Rhel10,
        Version::F42,
        Version::F43,
        Version::F44,
        Version::F45,
    ];

    /// Reads a name such as `RHEL9` or `f44`; letter case does not matter, `DEVEL` is the newest.
    pub fn parse(name: &str) -> Option<Version> {
        if name.eq_ignore_ascii_case("DEVEL") {
            return Some(Version::default());
        }
        Version::ALL
            .into_iter()
            .find(|v| v.name().eq_ignore_ascii_case(name))
    }

    /// Reads the name of a version, or of one that is older than those known here: RHEL 7 and Fedora before 42 are read
    /// as the next version that is known. `None` for what is newer, and for what never was.
    pub fn nearest(name: &str) -> Option<Version> {
        let upper = name.to_ascii_uppercase();
        let older = match upper.strip_prefix('F').map(str::parse::<u32>) {
            Some(Ok(7..42)) => Some(Version::F42),
            _ if upper == "RHEL7" => Some(Version::Rhel8),
            _ => None,
        };
        Version::parse(name).or(older)
    }

    /// Returns the name as users write it.
    pub fn name(self) -> &'static str {
        match self {
            Version::Rhel8 => "RHEL8",
            Version::Rhel9 => "RHEL9",
            Version::Rhel10 => "RHEL10",
            Version::F42 => "F42",
            Version::F43 => "F43",
            Version::F44 => "F44",
            Version::F45 => "F45",
        }
    }

    /// The name that the flattener writes into `#version=`: the reference calls the newest `DEVEL`.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Version::F45 => "DEVEL",
            other => other.name(),
        }
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}
