//! Packages that only install a snap: their scripts ask the snap store through a running snapd, which a root in the making has
//! not. Ubuntu has some under the names of the packages that they replaced.

use kiln_packages::debian::{Package, Universe};

/// Snaps where the archive had packages before, and what to do instead.
const INSTEAD: &[(&str, &str)] = &[
    (
        "firefox",
        "Mozilla has it in an apt repository of its own: add https://packages.mozilla.org/apt as a [[repository]], as examples/ubuntu-lab does",
    ),
    (
        "thunderbird",
        "Mozilla has it in an apt repository of its own: add https://packages.mozilla.org/apt as a [[repository]], as examples/ubuntu-lab does",
    ),
    (
        "chromium-browser",
        "take another browser, or a [[repository]] that has Chromium as a package",
    ),
];

/// Whether a version of a package is one that only installs a snap: Ubuntu gives these the upstream version `1snap1`.
pub(super) fn is_snap(package: &Package) -> bool {
    let version = package.version();
    let upstream = version.split_once(':').map_or(version, |(_, rest)| rest);
    upstream.starts_with("1snap1")
}

/// Whether no version of a package is anything but a snap.
pub(super) fn only_snap(universe: &Universe, name: &str) -> bool {
    let versions = universe.versions(name);
    !versions.is_empty() && versions.iter().all(is_snap)
}

/// Names and versions of all of them, for apt.
pub(super) fn all(universe: &Universe) -> Vec<(String, String)> {
    let all = universe.packages().iter();
    all.filter(|package| is_snap(package))
        .map(|package| (package.name().to_owned(), package.version().to_owned()))
        .collect()
}

/// What to do instead of asking for one.
pub(super) fn hint(name: &str) -> &'static str {
    let mut all = INSTEAD.iter();
    let known = all.find(|(snap, _)| *snap == name);
    known.map_or(
        "install the snap on the running system, or add a [[repository]] that has the program as a package",
        |(_, hint)| hint,
    )
}
