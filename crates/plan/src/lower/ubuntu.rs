//! What is particular about Ubuntu's releases.

use super::Reasoned;
use crate::definition::SystemDefinition;
use crate::model::{Added, Target};
use crate::problem::Problem;

/// Releases whose repositories Kiln knows, and their numbers.
const RELEASES: &[(&str, &str)] = &[
    ("jammy", "22.04"),
    ("noble", "24.04"),
    ("resolute", "26.04"),
    ("stonking", "26.10"),
];

/// Releases whose support has ended and that are only in the archive of old releases.
const OLD: &[(&str, &str)] = &[
    ("trusty", "14.04"),
    ("xenial", "16.04"),
    ("eoan", "19.10"),
    ("groovy", "20.10"),
    ("hirsute", "21.04"),
    ("impish", "21.10"),
    ("kinetic", "22.10"),
    ("lunar", "23.04"),
    ("mantic", "23.10"),
    ("oracular", "24.10"),
    ("plucky", "25.04"),
    ("questing", "25.10"),
];

/// Releases whose free support has ended while their packages are still on the mirrors.
const PAID: &[(&str, &str)] = &[("bionic", "18.04"), ("focal", "20.04")];

/// Where the packages of old releases are.
const OLD_RELEASES: &str = "http://old-releases.ubuntu.com/ubuntu";
const MIRROR: &str = "http://archive.ubuntu.com/ubuntu";

/// What other releases are called that people may name, and is none.
const MOVING: &[&str] = &["lts", "latest", "devel", "rolling"];

/// Whether it is a target of Ubuntu's.
pub(super) fn has(target: &Target) -> bool {
    target.distribution == "ubuntu"
}

/// Whether a suite's name begins with that of a release of Ubuntu.
pub(super) fn has_suite(suite: &str) -> bool {
    let name = suite.split('-').next().unwrap_or(suite);
    let mut all = RELEASES.iter().chain(OLD).chain(PAID);
    all.any(|(release, _)| *release == name)
}

/// The components that are read of a suite whose URL is all that is said of it.
pub(super) const COMPONENTS: &[&str] = &["main", "restricted", "universe", "multiverse"];

/// What no build of this release could do.
pub(super) fn problem(said: &str) -> Option<Problem> {
    if RELEASES.iter().any(|(name, _)| *name == said) {
        return None;
    }
    let lower = said.to_lowercase();
    let find = |releases: &'static [(&'static str, &'static str)]| {
        let mut all = releases.iter();
        all.find(|(name, number)| *name == lower || *number == lower)
    };
    if let Some((name, _)) = find(RELEASES) {
        let message = format!("Ubuntu releases have names here: ubuntu:{said} is ubuntu:{name}");
        return Some(Problem::error(message).hint(format!("say ubuntu:{name}")));
    }
    if MOVING.contains(&lower.as_str()) {
        let message = format!("ubuntu:{said} would be another release one day, and another image");
        return Some(Problem::error(message).hint("name the release: ubuntu:noble"));
    }
    let by_hand = |name: &str, place: &str| {
        format!(
            "take a supported release, ubuntu:noble; or build it from there: `no-default-repositories = true` in [system] and a [[repository]] with url = \"{place}\", suite = \"{name}\" (and {name}-updates, {name}-security), components = [\"main\", \"universe\"]"
        )
    };
    if let Some((name, _)) = find(OLD) {
        let message = format!(
            "ubuntu:{said} is no longer supported, and has left the mirrors: it is on old-releases.ubuntu.com"
        );
        return Some(Problem::error(message).hint(by_hand(name, OLD_RELEASES)));
    }
    if let Some((name, _)) = find(PAID) {
        let message = format!(
            "ubuntu:{said} gets no more updates from the public archive, which still has it"
        );
        return Some(Problem::error(message).hint(by_hand(name, MIRROR)));
    }
    let known: Vec<&str> = RELEASES.iter().map(|(name, _)| *name).collect();
    let problem = Problem::error(format!(
        "Kiln does not know the repositories of ubuntu:{said}"
    ));
    Some(problem.hint(format!(
        "known are {}; for another give a [[repository]], and `no-default-repositories = true` in [system]",
        known.join(", ")
    )))
}

/// What every image needs of Ubuntu. live-boot, which is in universe, and not Ubuntu's own casper: casper takes no partition that
/// is a SquashFS, and makes a user who logs in by himself.
pub(super) fn system(definition: &SystemDefinition, target: &Target) -> Reasoned {
    let kernel = definition.kernel.clone();
    let kernel = kernel.unwrap_or_else(|| "linux-image-generic".to_owned());
    let mut packages = vec![
        (kernel, "the kernel ([system] kernel = …)"),
        ("systemd-sysv".to_owned(), "the init system"),
        ("udev".to_owned(), "device nodes and module loading"),
        // By name: since 25.10 a kernel would be content with dracut, for which live-boot has no part.
        ("initramfs-tools".to_owned(), "makes the initramfs"),
        (
            "live-boot".to_owned(),
            "finds the root on the stick and puts a RAM overlay over it",
        ),
        (
            "live-boot-initramfs-tools".to_owned(),
            "live-boot's part in the initramfs",
        ),
        // ubuntu-standard depends on this one, which conflicts with busybox.
        (
            "busybox-static".to_owned(),
            "the initramfs shell tools that live-boot needs",
        ),
        ("zstd".to_owned(), "compresses the initramfs"),
    ];
    if target.release == "noble" {
        packages.push((
            "usr-is-merged".to_owned(),
            "the root is merged-usr from the start",
        ));
    }
    packages
}

/// The firmware of an image that says nothing of it.
pub(super) const FIRMWARE: &str = "linux-firmware";

/// The package of the tool that lets /home grow, in all releases.
pub(super) const GROWS: &str = "fdisk";

/// What noble gets of [`system`], but this release does not ask for.
pub(super) fn absent(target: &Target) -> Vec<Added> {
    if target.release == "noble" {
        return Vec::new();
    }
    vec![Added {
        package: "usr-is-merged".to_owned(),
        why: "only noble is asked for it; the root is merged-usr all the same".to_owned(),
    }]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(release: &str) -> String {
        let problem = problem(release).expect("a problem");
        format!("{} [{}]", problem.message, problem.hints.join("; "))
    }

    #[test]
    fn releases_are_taken_by_their_names_and_others_are_told_where_they_are() {
        for (name, _) in RELEASES {
            assert!(problem(name).is_none(), "{name}");
        }
        assert!(said("24.04").contains("say ubuntu:noble"));
        assert!(said("Noble").contains("say ubuntu:noble"));
        assert!(said("lts").contains("another image"));
        let old = said("questing");
        assert!(old.contains("old-releases.ubuntu.com/ubuntu"), "{old}");
        assert!(old.contains("suite = \"questing\""), "{old}");
        let paid = said("focal");
        assert!(paid.contains("archive.ubuntu.com/ubuntu"), "{paid}");
        let unknown = said("zebra");
        assert!(unknown.contains("jammy, noble, resolute"), "{unknown}");
    }
}
