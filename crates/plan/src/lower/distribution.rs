//! Which distribution and release are meant, and in which version of the language kickstarts for them are written.

use kiln_kickstart::{Version, nearest};

use super::is_name;
use crate::conventions::{Conventions, DISTRIBUTIONS};
use crate::model::Distribution;
use crate::problem::Problem;

/// A distribution and its release, as they were named.
pub(super) struct Named<'a> {
    pub(super) distribution: &'a str,
    pub(super) release: &'a str,
    pub(super) conventions: Conventions,
    /// The language of the release's own installer: a file for Enterprise Linux 8 may use what later versions removed.
    pub(super) language: Version,
    /// Said where that language is not known, and the nearest is taken.
    pub(super) note: Option<Problem>,
}

/// Distributions under names that people write, and what Kiln calls them or what they are made of.
const MEANT: &[(&str, &str)] = &[
    ("alma", "almalinux"),
    ("bazzite", "fedora"),
    ("centos-stream", "centos"),
    ("centosstream", "centos"),
    ("el", "rhel"),
    ("kali", "debian"),
    ("kubuntu", "ubuntu"),
    ("linuxmint", "ubuntu"),
    ("lubuntu", "ubuntu"),
    ("mint", "ubuntu"),
    ("nobara", "fedora"),
    ("ol", "rhel"),
    ("oracle", "rhel"),
    ("oraclelinux", "rhel"),
    ("redhat", "rhel"),
    ("rockylinux", "rocky"),
    ("ultramarine", "fedora"),
    ("xubuntu", "ubuntu"),
];

/// Reads `DISTRIBUTION:RELEASE`.
///
/// # Errors
/// The distribution or the release is unknown; the hint names the nearest that are known.
pub(super) fn read<'a>(said: &'a str, further: &[Distribution]) -> Result<Named<'a>, Problem> {
    let (distribution, release) = said.split_once(':').unwrap_or((said, ""));
    let known = further.iter().find(|known| known.name == distribution);
    let known = known.map(|known| known.conventions);
    let is_further = known.is_some();
    let Some(conventions) = known.or_else(|| Conventions::of(distribution)) else {
        return Err(unknown_distribution(distribution, release));
    };
    let mut named = Named {
        distribution,
        release,
        conventions,
        language: Version::default(),
        note: None,
    };
    if release.is_empty() {
        let problem = Problem::error(format!("`{said}` names no release"));
        return Err(problem.hint(format!("say for example {}", example(distribution))));
    }
    let well_formed = is_name(release);
    match conventions {
        Conventions::Debian if well_formed => return Ok(named),
        // The caller knows its releases.
        Conventions::Rpm if well_formed && is_further => return Ok(named),
        Conventions::Rpm if well_formed && release == "rawhide" && distribution == "fedora" => {
            return Ok(named);
        }
        _ => {}
    }
    let language = number(release)
        .filter(|_| well_formed)
        .zip(prefix(distribution))
        .and_then(|(major, prefix)| Version::nearest(&format!("{prefix}{major}")));
    let Some(language) = language else {
        return Err(unknown_release(distribution, release));
    };
    named.language = language;
    let own = number(release).is_some_and(|major| Some(major) == number_of(language));
    if !own {
        named.note = Some(read_as_another(said, language));
    }
    Ok(named)
}

/// The number of a release, without that of the minor one; `None` for what is no number.
fn number(release: &str) -> Option<u32> {
    let parts = release.split('.');
    let numeric = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    match parts.clone().all(numeric) {
        true => release.split('.').next()?.parse().ok(),
        false => None,
    }
}

/// The release that a version of the language is named after.
fn number_of(language: Version) -> Option<u32> {
    let name = language.name();
    name.trim_start_matches(|c: char| !c.is_ascii_digit())
        .parse()
        .ok()
}

/// What the names of the versions of a distribution's language begin with; `None` where its installer reads no kickstart.
fn prefix(distribution: &str) -> Option<&'static str> {
    match (Conventions::of(distribution)?, distribution) {
        (Conventions::Debian, _) => None,
        (Conventions::Rpm, "fedora") => Some("F"),
        (Conventions::Rpm, _) => Some("RHEL"),
    }
}

/// The releases of a distribution whose language is known.
fn releases(distribution: &str) -> Vec<u32> {
    let Some(prefix) = prefix(distribution) else {
        return Vec::new();
    };
    let of = |v: &Version| {
        v.name()
            .strip_prefix(prefix)
            .is_some_and(|n| n.parse::<u32>().is_ok())
    };
    Version::ALL
        .into_iter()
        .filter(of)
        .filter_map(number_of)
        .collect()
}

fn example(distribution: &str) -> String {
    match releases(distribution).last() {
        _ if distribution == "debian" => "debian:bookworm".to_owned(),
        _ if distribution == "ubuntu" => "ubuntu:noble".to_owned(),
        Some(release) => format!("{distribution}:{release}"),
        None => distribution.to_owned(),
    }
}

fn read_as_another(said: &str, language: Version) -> Problem {
    let message = format!(
        "the kickstart language of {said} is not known; its files are read as those of {language}, the nearest"
    );
    let hint = format!(
        "what {language} has removed or does not know yet is an error: say it in its words"
    );
    Problem::warning(message).hint(hint)
}

fn unknown_distribution(name: &str, release: &str) -> Problem {
    let lower = name.to_lowercase();
    let mut meant = MEANT.iter();
    let names = || DISTRIBUTIONS.iter().map(|(name, _)| *name);
    let near = meant
        .find(|(other, _)| *other == lower)
        .map(|(_, name)| *name)
        .or_else(|| nearest(&lower, names()));
    let known = names().map(example).collect::<Vec<_>>().join(", ");
    let problem = Problem::error(format!("no distribution is known as `{name}`"));
    problem.hint(match near {
        Some(near) => match read(&format!("{near}:{release}"), &[]) {
            Ok(_) => format!("the nearest known is {near}:{release}"),
            Err(_) => format!("the nearest known is {}", example(near)),
        },
        None => format!("known are for example {known}"),
    })
}

fn unknown_release(distribution: &str, release: &str) -> Problem {
    let known = releases(distribution);
    let digits: String = release
        .chars()
        .skip_while(|c| !c.is_ascii_digit())
        .take_while(char::is_ascii_digit)
        .collect();
    let near = digits
        .parse::<u32>()
        .ok()
        .and_then(|wanted| known.iter().copied().min_by_key(|k| k.abs_diff(wanted)));
    let all: Vec<String> = known.iter().map(u32::to_string).collect();
    let problem = Problem::error(format!(
        "no release of {distribution} is known as `{release}`"
    ));
    problem.hint(match near.or(known.last().copied()) {
        Some(near) => format!(
            "the nearest known is {distribution}:{near}; known are {}",
            all.join(", ")
        ),
        None => format!("say for example {}", example(distribution)),
    })
}
