//! What is particular about Debian's releases, and where another distribution of its format has its own.

use super::{Reasoned, ubuntu};
use crate::definition::SystemDefinition;
use crate::disk::PartitionTable;
use crate::model::{Added, Target};
use crate::problem::Problem;

/// The architecture whose boot loaders an image has, and whose programs the building machine can run.
const ARCHITECTURE: &str = "amd64";

/// Releases whose repositories Kiln knows, and their numbers.
const RELEASES: &[(&str, &str)] = &[
    ("bullseye", "11"),
    ("bookworm", "12"),
    ("trixie", "13"),
    ("sid", ""),
    ("unstable", ""),
];

/// Names that mean another release with time, and what they mean when this program was made.
const MOVING: &[(&str, &str)] = &[
    ("oldoldstable", "bullseye"),
    ("oldstable", "bookworm"),
    ("stable", "trixie"),
];

const LEFT: &str = "it has left the mirrors";

/// Releases that left the mirrors, and the next one, which has none of its own yet.
const OTHERS: &[(&str, &str, &str)] = &[
    ("jessie", "8", LEFT),
    ("stretch", "9", LEFT),
    ("buster", "10", LEFT),
    ("forky", "14", "it is not released"),
    ("testing", "", "it is not released"),
];

/// What no build of this target could do, if there is such a thing. `defaults` says whether the release's own repositories are wanted.
pub(super) fn problem(target: &Target, defaults: bool) -> Option<Problem> {
    if target.architecture != ARCHITECTURE {
        let of = if ubuntu::has(target) {
            "Ubuntu"
        } else {
            "Debian"
        };
        let message = format!(
            "{of} images are made for {ARCHITECTURE}, not for {}",
            target.architecture
        );
        let hint = format!("drop `architecture`, or say {ARCHITECTURE}");
        return Some(Problem::error(message).hint(hint));
    }
    let said = target.release.as_str();
    if defaults && ubuntu::has(target) {
        return ubuntu::problem(said);
    }
    if !defaults || RELEASES.iter().any(|(name, _)| *name == said) {
        return None;
    }
    let number = said.split('.').next().unwrap_or(said);
    let lower = said.to_lowercase();
    let named = RELEASES
        .iter()
        .find(|(name, n)| *n == number || *name == lower);
    let moving = MOVING.iter().find(|(name, _)| *name == lower);
    let problem = if let Some((name, _)) = named {
        let message = format!("Debian releases have names here: debian:{said} is debian:{name}");
        Problem::error(message).hint(format!("say debian:{name}"))
    } else if let Some((_, means)) = moving {
        let message = format!("debian:{said} would be another release one day, and another image");
        Problem::error(message).hint(format!("name the release: debian:{means}"))
    } else {
        unknown(said, number, &lower)
    };
    Some(problem)
}

fn unknown(said: &str, number: &str, lower: &str) -> Problem {
    let mut others = OTHERS.iter();
    let why = others.find(|(name, n, _)| *name == lower || *n == number);
    let known: Vec<&str> = RELEASES.iter().map(|(name, _)| *name).collect();
    let hint = match why {
        // The archive's Release files are as old as the release.
        Some((name, _, LEFT)) => format!(
            "; its packages are in the archive: [[repository]] url = \"http://archive.debian.org/debian\", suite = \"{name}\", \
             components = [\"main\"], its key as signed-by, check-valid-until = false"
        ),
        _ => "; for another give a [[repository]] with its key".to_owned(),
    };
    let why = why.map_or_else(String::new, |(_, _, why)| format!(": {why}"));
    Problem::error(format!(
        "Kiln does not know the repositories of debian:{said}{why}"
    ))
    .hint(format!(
        "known are {}{hint}, and `no-default-repositories = true` in [system]",
        known.join(", ")
    ))
}

/// The components that are read of a suite whose URL is all that is said of it: those of Debian's own images, and `main` of
/// anybody else's suite.
pub(super) fn components(suite: &str) -> &'static [&'static str] {
    let name = suite.split('-').next().unwrap_or(suite);
    let release = MOVING.iter().find(|(moving, _)| *moving == name);
    let release = release.map_or(name, |(_, release)| *release);
    match release {
        "bullseye" => &["main", "contrib", "non-free"],
        _ if ubuntu::has_suite(suite) => ubuntu::COMPONENTS,
        known if RELEASES.iter().any(|(name, _)| *name == known) => {
            &["main", "contrib", "non-free-firmware"]
        }
        _ => &["main"],
    }
}

/// What every image needs of Debian.
pub(super) fn system(definition: &SystemDefinition, target: &Target) -> Reasoned {
    if ubuntu::has(target) {
        return ubuntu::system(definition, target);
    }
    let kernel = definition.kernel.clone();
    let kernel = kernel.unwrap_or_else(|| format!("linux-image-{}", target.architecture));
    let mut packages = vec![
        (kernel, "the kernel ([system] kernel = …)"),
        ("systemd-sysv".to_owned(), "the init system"),
        ("udev".to_owned(), "device nodes and module loading"),
        ("initramfs-tools".to_owned(), "makes the initramfs"),
        (
            "live-boot".to_owned(),
            "finds the root on the stick and puts a RAM overlay over it",
        ),
        (
            "live-boot-initramfs-tools".to_owned(),
            "live-boot's part in the initramfs",
        ),
        (
            "busybox".to_owned(),
            "the initramfs shell tools that live-boot needs",
        ),
        ("zstd".to_owned(), "compresses the initramfs"),
    ];
    let missing = absent(target);
    packages.push((
        "usr-is-merged".to_owned(),
        "the root is merged-usr from the start",
    ));
    packages.retain(|(package, _)| missing.iter().all(|absent| absent.package != *package));
    packages
}

/// The firmware of an image that says nothing of it.
pub(super) fn firmware(target: &Target) -> &'static str {
    match ubuntu::has(target) {
        true => ubuntu::FIRMWARE,
        false => "firmware-linux-free",
    }
}

/// The package of the tool that lets /home grow; none where systemd brings it itself. systemd-repart knows GPT alone, bullseye
/// has none, and from trixie on it is a package of its own.
pub(super) fn grows(target: &Target, table: PartitionTable) -> Option<(String, &'static str)> {
    let package = match (table, target.release.as_str()) {
        _ if ubuntu::has(target) => ubuntu::GROWS,
        (PartitionTable::Mbr, _) | (PartitionTable::Gpt, "bullseye") => "fdisk",
        (PartitionTable::Gpt, "bookworm") => return None,
        (PartitionTable::Gpt, _) => "systemd-repart",
    };
    let why = "lets the /home partition grow at the first boot";
    Some((package.to_owned(), why))
}

/// What other releases get of [`system`], but this one does not have, and why that is right.
pub(super) fn absent(target: &Target) -> Vec<Added> {
    if ubuntu::has(target) {
        return ubuntu::absent(target);
    }
    let absent = |package: &str, why: &str| Added {
        package: package.to_owned(),
        why: why.to_owned(),
    };
    match target.release.as_str() {
        "bullseye" => vec![absent(
            "usr-is-merged",
            "bullseye has no such package and asks for none; the root is merged-usr all the same",
        )],
        _ => Vec::new(),
    }
}
