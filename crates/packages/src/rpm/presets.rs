//! The distributions' own repositories: where they are, who signs their packages, and what their programs need.
//!
//! The keys are data of `keys/rpm`, see there. Metadata of these distributions is not asked to be signed: their packages are, and the
//! metalinks of some have its digest.

use super::repository::Source;

/// The repositories of a release.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Preset {
    /// By name, those that are used unless others are said first.
    pub repositories: Vec<KnownRepository>,
    /// Who signs packages: a name for messages, and certificates.
    pub keys: (String, Vec<u8>),
    /// The level of x86-64 that programs need: 1, 2 or 3.
    pub level: u8,
    /// A sentence about a release that is no longer kept up: that it is, and where its archive is.
    pub ended: Option<String>,
}

/// A repository of a release.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownRepository {
    /// What dnf and Anaconda call it.
    pub name: &'static str,
    /// Where it is.
    pub source: Source,
    /// Whether it is used unless others are said.
    pub is_default: bool,
}

/// Some releases of a distribution.
struct Row {
    distribution: &'static str,
    releases: &'static [&'static str],
    repositories: &'static [(&'static str, Place, bool)],
    keys: &'static [(&'static str, &'static [u8])],
    level: u8,
}

#[derive(Clone, Copy)]
enum Place {
    Metalink(&'static str),
    List(&'static str),
    Base(&'static str),
}

macro_rules! keys {
    ($($name:literal),*) => {
        &[$(($name, include_bytes!(concat!("../../keys/rpm/", $name, ".asc")))),*]
    };
}

const STREAM: &[(&str, Place, bool)] = &[
    (
        "baseos",
        Place::Metalink(
            "https://mirrors.centos.org/metalink?repo=centos-baseos-$releasever-stream&arch=$basearch&protocol=https,http",
        ),
        true,
    ),
    (
        "appstream",
        Place::Metalink(
            "https://mirrors.centos.org/metalink?repo=centos-appstream-$releasever-stream&arch=$basearch&protocol=https,http",
        ),
        true,
    ),
    (
        "crb",
        Place::Metalink(
            "https://mirrors.centos.org/metalink?repo=centos-crb-$releasever-stream&arch=$basearch&protocol=https,http",
        ),
        false,
    ),
];

const ALMALINUX: &[(&str, Place, bool)] = &[
    (
        "baseos",
        Place::List("https://mirrors.almalinux.org/mirrorlist/$releasever/baseos"),
        true,
    ),
    (
        "appstream",
        Place::List("https://mirrors.almalinux.org/mirrorlist/$releasever/appstream"),
        true,
    ),
    (
        "extras",
        Place::List("https://mirrors.almalinux.org/mirrorlist/$releasever/extras"),
        true,
    ),
];

const ROCKY: &[(&str, Place, bool)] = &[
    (
        "baseos",
        Place::List(
            "https://mirrors.rockylinux.org/mirrorlist?arch=$basearch&repo=BaseOS-$releasever",
        ),
        true,
    ),
    (
        "appstream",
        Place::List(
            "https://mirrors.rockylinux.org/mirrorlist?arch=$basearch&repo=AppStream-$releasever",
        ),
        true,
    ),
    (
        "extras",
        Place::List(
            "https://mirrors.rockylinux.org/mirrorlist?arch=$basearch&repo=extras-$releasever",
        ),
        true,
    ),
];

const FEDORA: &[(&str, Place, bool)] = &[
    (
        "fedora",
        Place::Metalink(
            "https://mirrors.fedoraproject.org/metalink?repo=fedora-$releasever&arch=$basearch",
        ),
        true,
    ),
    (
        "updates",
        Place::Metalink(
            "https://mirrors.fedoraproject.org/metalink?repo=updates-released-f$releasever&arch=$basearch",
        ),
        true,
    ),
    (
        "updates-testing",
        Place::Metalink(
            "https://mirrors.fedoraproject.org/metalink?repo=updates-testing-f$releasever&arch=$basearch",
        ),
        false,
    ),
];

const RAWHIDE: &[(&str, Place, bool)] = &[(
    "rawhide",
    Place::Metalink("https://mirrors.fedoraproject.org/metalink?repo=rawhide&arch=$basearch"),
    true,
)];

/// `VAULT` stands for the directory of the release in the distribution's archive.
const ARCHIVED: &[(&str, Place, bool)] = &[
    ("baseos", Place::Base("VAULT/BaseOS/$basearch/os/"), true),
    (
        "appstream",
        Place::Base("VAULT/AppStream/$basearch/os/"),
        true,
    ),
    ("extras", Place::Base("VAULT/extras/$basearch/os/"), true),
];

/// Releases that are kept up.
const ROWS: &[Row] = &[
    row("centos", &["9"], STREAM, keys!("centos"), 2),
    row("centos", &["10"], STREAM, keys!("centos"), 3),
    row("almalinux", &["8"], ALMALINUX, keys!("almalinux-8"), 1),
    row("almalinux", &["9"], ALMALINUX, keys!("almalinux-9"), 2),
    row("almalinux", &["10"], ALMALINUX, keys!("almalinux-10"), 3),
    row("rocky", &["8"], ROCKY, keys!("rocky-8"), 1),
    row("rocky", &["9"], ROCKY, keys!("rocky-9"), 2),
    row("rocky", &["10"], ROCKY, keys!("rocky-10"), 3),
    row("fedora", &["43"], FEDORA, keys!("fedora-43"), 1),
    row("fedora", &["44"], FEDORA, keys!("fedora-44"), 1),
    row("fedora", &["45"], FEDORA, keys!("fedora-45"), 1),
    row(
        "fedora",
        &["rawhide"],
        RAWHIDE,
        keys!("fedora-45", "fedora-46"),
        1,
    ),
];

const fn row(
    distribution: &'static str,
    releases: &'static [&'static str],
    repositories: &'static [(&'static str, Place, bool)],
    keys: &'static [(&'static str, &'static [u8])],
    level: u8,
) -> Row {
    Row {
        distribution,
        releases,
        repositories,
        keys,
        level,
    }
}

/// The repositories of a release; `None` where Kiln knows none. A minor release (`9.4`) is what the archive keeps of it.
pub fn preset(distribution: &str, release: &str) -> Option<Preset> {
    let of = |release: &str| {
        ROWS.iter()
            .find(|row| row.distribution == distribution && row.releases.contains(&release))
    };
    if let Some(row) = of(release) {
        return Some(made(row.repositories, row.keys, row.level, None));
    }
    let major = release.split('.').next().unwrap_or(release);
    let vault = vault(distribution, release)?;
    let centos: &[(&str, &[u8])] = keys!("centos");
    let (keys, level) = match (distribution, major) {
        ("centos", "8") => (centos, 1),
        _ => of(major).map(|row| (row.keys, row.level))?,
    };
    let ended = format!(
        "{distribution}:{release} gets no updates any more, not even for security; its packages are in the archive, {vault}"
    );
    let mut preset = made(ARCHIVED, keys, level, Some(ended));
    for repository in &mut preset.repositories {
        if let Source::Base(urls) = &mut repository.source {
            urls.iter_mut()
                .for_each(|url| *url = url.replace("VAULT", &vault));
        }
    }
    Some(preset)
}

/// Where the archive has a release of the Enterprise Linux kind.
fn vault(distribution: &str, release: &str) -> Option<String> {
    let is_minor = release.contains('.');
    Some(match (distribution, release) {
        // The last one of CentOS Linux.
        ("centos", "8") => "https://vault.centos.org/8.5.2111".to_owned(),
        ("centos", release) if is_minor && release.starts_with("8.") => {
            format!("https://vault.centos.org/{release}")
        }
        ("almalinux", release) if is_minor => format!("https://vault.almalinux.org/{release}"),
        ("rocky", release) if is_minor => {
            format!("https://dl.rockylinux.org/vault/rocky/{release}")
        }
        _ => return None,
    })
}

/// Where the packages of a release without a preset are kept, for a hint.
pub fn archive(distribution: &str, release: &str) -> Option<String> {
    let oldest = ROWS.iter().filter(|row| row.distribution == distribution);
    let oldest = oldest
        .flat_map(|row| row.releases)
        .filter_map(|release| release.parse().ok())
        .min();
    let wanted: u32 = release.parse().ok()?;
    let ended = oldest.is_some_and(|oldest: u32| wanted < oldest);
    (ended && distribution == "fedora").then(|| {
        format!(
            "https://archives.fedoraproject.org/pub/archive/fedora/linux/releases/{release}/Everything/$basearch/os/"
        )
    })
}

/// The releases of a distribution that have repositories of their own here.
pub fn releases(distribution: &str) -> Vec<&'static str> {
    let rows = ROWS.iter().filter(|row| row.distribution == distribution);
    rows.flat_map(|row| row.releases).copied().collect()
}

fn made(
    repositories: &[(&'static str, Place, bool)],
    keys: &[(&str, &[u8])],
    level: u8,
    ended: Option<String>,
) -> Preset {
    let repositories = repositories
        .iter()
        .map(|&(name, place, is_default)| KnownRepository {
            name,
            source: match place {
                Place::Metalink(url) => Source::Metalink(url.to_owned()),
                Place::List(url) => Source::MirrorList(url.to_owned()),
                Place::Base(url) => Source::Base(vec![url.to_owned()]),
            },
            is_default,
        });
    let names: Vec<&str> = keys.iter().map(|(name, _)| *name).collect();
    let bytes: Vec<&[u8]> = keys.iter().map(|(_, bytes)| *bytes).collect();
    Preset {
        repositories: repositories.collect(),
        keys: (
            format!("Kiln's own of {}", names.join(" and ")),
            bytes.join(&b'\n'),
        ),
        level,
        ended,
    }
}
