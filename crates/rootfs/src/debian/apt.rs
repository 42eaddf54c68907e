//! Resolving with the target's own apt, in the tools root, from an empty state.

use std::path::PathBuf;

use kiln_sandbox::Mount;

use crate::error::{Error, ErrorKind, Result};
use crate::run::{Extras, Place};

/// apt's whole world lies below this.
const WORLD: &str = "/run/kiln/apt";

/// What apt is to decide.
#[derive(Clone, Debug, Default)]
pub(super) struct Question {
    /// `deb` lines of sources.list.
    pub sources: Vec<String>,
    /// Verified index files: the name below `lists/`, the host's file.
    pub lists: Vec<(String, PathBuf)>,
    /// Package names, or `name/suite` and `name=version`.
    pub install: Vec<String>,
    /// Names that must not be installed.
    pub exclude: Vec<String>,
    /// Versions of packages that must not be installed.
    pub refused: Vec<(String, String)>,
    /// Whether Recommends are installed too.
    pub recommends: bool,
    /// Debian architecture.
    pub architecture: String,
}

/// A package that apt chose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Choice {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its architecture.
    pub architecture: String,
}

/// Asks apt. `place` is over the tools root.
///
/// # Errors
/// apt finds no solution; its explanation is in the tail.
pub(super) fn resolve(place: &Place<'_>, question: &Question) -> Result<Vec<Choice>> {
    // Not `--simulate`, which looks at all packages again for each that it would install: that takes as long as the answer.
    let mut argv = vec!["apt-get", "--print-uris", "--assume-yes", "install", "--"];
    argv.extend(question.install.iter().map(String::as_str));
    let extras = Extras {
        mounts: world(question),
        env: vec![("APT_CONFIG".to_owned(), format!("{WORLD}/apt.conf"))],
        ..Extras::default()
    };
    let lines = place.lines_with(&argv, extras).map_err(no_solution)?;
    let mut choices = Vec::new();
    for line in lines.iter().filter(|line| line.starts_with('\'')) {
        let choice = parse_uri(line).ok_or_else(|| {
            Error::new(
                ErrorKind::Internal,
                format!("apt names a package in a way that Kiln does not know: {line}"),
            )
        })?;
        choices.push(choice);
    }
    if choices.is_empty() {
        return Err(Error::new(
            ErrorKind::Internal,
            "apt chose no package at all",
        ));
    }
    Ok(choices)
}

/// `'URI' NAME_VERSION_ARCHITECTURE.deb SIZE SHA256:DIGEST`, apt-get(8) `--print-uris`. The file is named as apt would keep it, with
/// `%` and two digits for what such names have no place for; its ending is that of the file in the repository.
fn parse_uri(line: &str) -> Option<Choice> {
    let (_, rest) = line.strip_prefix('\'')?.split_once("' ")?;
    let mut parts = rest.split(' ').next()?.split('_');
    let (name, version, last) = (parts.next()?, parts.next()?, parts.next()?);
    let (architecture, _) = last.split_once('.')?;
    parts.next().is_none().then_some(())?;
    Some(Choice {
        name: unquoted(name)?,
        version: unquoted(version)?,
        architecture: unquoted(architecture)?,
    })
}

fn unquoted(text: &str) -> Option<String> {
    let mut parts = text.split('%');
    let mut plain = parts.next()?.to_owned();
    for part in parts {
        let (digits, rest) = part.split_at_checked(2)?;
        plain.push(char::from(u8::from_str_radix(digits, 16).ok()?));
        plain.push_str(rest);
    }
    (!plain.is_empty()).then_some(plain)
}

fn world(question: &Question) -> Vec<Mount> {
    let mut mounts = vec![
        file(
            "apt.conf",
            configuration(&question.architecture, question.recommends),
        ),
        file(
            "etc/sources.list",
            question.sources.iter().map(|l| format!("{l}\n")).collect(),
        ),
        file("etc/preferences", preferences(question)),
        file("state/status", String::new()),
        file("state/extended_states", String::new()),
        file("etc/apt.conf.d/.keep", String::new()),
        file("etc/sources.list.d/.keep", String::new()),
        file("etc/preferences.d/.keep", String::new()),
        file("etc/auth.conf.d/.keep", String::new()),
        file("lists/partial/.keep", String::new()),
        file("cache/archives/partial/.keep", String::new()),
    ];
    mounts.extend(question.lists.iter().map(|(name, source)| Mount::Bind {
        source: source.clone(),
        target: format!("{WORLD}/lists/{name}"),
        writable: false,
    }));
    mounts
}

fn file(name: &str, text: String) -> Mount {
    Mount::File {
        target: format!("{WORLD}/{name}"),
        content: text.into_bytes(),
        mode: 0o644,
    }
}

/// apt.conf(5). The indices were verified before apt sees them, so they are trusted here.
fn configuration(architecture: &str, recommends: bool) -> String {
    format!(
        "Dir \"{WORLD}\";\n\
         Dir::State \"{WORLD}/state\";\nDir::State::lists \"{WORLD}/lists\";\nDir::State::status \"{WORLD}/state/status\";\n\
         Dir::Cache \"{WORLD}/cache\";\nDir::Cache::pkgcache \"\";\nDir::Cache::srcpkgcache \"\";\n\
         Dir::Etc \"{WORLD}/etc\";\nDir::Etc::trusted \"/dev/null\";\nDir::Etc::trustedparts \"/nonexistent\";\n\
         Dir::Log \"/tmp\";\n\
         Dir::Bin::methods \"/usr/lib/apt/methods\";\nDir::Bin::solvers \"/usr/lib/apt/solvers\";\nDir::Bin::dpkg \"/usr/bin/dpkg\";\n\
         APT::Architecture \"{architecture}\";\nAPT::Architectures {{ \"{architecture}\"; }};\n\
         APT::Install-Recommends \"{recommends}\";\nAPT::Install-Suggests \"false\";\n\
         APT::Sandbox::User \"root\";\nAPT::Get::AllowUnauthenticated \"true\";\n\
         Acquire::Languages \"none\";\nAPT::Cmd::Disable-Script-Warning \"true\";\nquiet \"1\";\n"
    )
}

fn preferences(question: &Question) -> String {
    let names = question.exclude.iter();
    let names = names.map(|name| pin(name, "release *"));
    let versions = question.refused.iter();
    let versions = versions.map(|(name, version)| pin(name, &format!("version {version}")));
    names.chain(versions).collect()
}

/// apt_preferences(5): a negative priority is never installed, not even as a dependency.
fn pin(name: &str, what: &str) -> String {
    format!("Package: {name}\nPin: {what}\nPin-Priority: -1\n\n")
}

fn no_solution(mut error: Error) -> Error {
    if error.kind != ErrorKind::Step {
        return error;
    }
    // The command line lists every package; apt's explanation is what helps.
    error.command = None;
    if !is_unsolvable(&error.tail) {
        error.message = "apt, which chooses the packages, failed".to_owned();
        error
            .hints
            .push("what it said is above: the packages may well fit together".to_owned());
        return error;
    }
    error.kind = ErrorKind::Definition;
    error.message =
        "the packages that the definition asks for cannot be installed together".to_owned();
    error.causes.extend(unmet(&error.tail));
    error.hints.push("apt's explanation is above; drop one of the packages, or the exclusion that stands in the way".to_owned());
    error
}

/// Whether apt says that there is no solution, rather than that something is in its way.
fn is_unsolvable(tail: &[String]) -> bool {
    let says = |line: &String| {
        line.starts_with("E: Unable to correct problems")
            || line.starts_with("E: Unable to locate package")
            || line.contains("has no installation candidate")
            || line.contains("unmet dependencies")
            || line.contains("was not found")
    };
    tail.iter().any(says) || !unmet(tail).is_empty()
}

/// The lines of apt's explanation: `name : Depends: other but it is not installable`.
fn unmet(tail: &[String]) -> Vec<String> {
    let explains = |line: &&String| {
        line.contains(" : ")
            && (line.contains("Depends:")
                || line.contains("Conflicts:")
                || line.contains("Breaks:")
                || line.contains("but it is not"))
    };
    tail.iter()
        .filter(explains)
        .map(|line| line.trim().to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_conflict_is_called_one() {
        let failed = |line: &str| {
            let mut error = Error::new(ErrorKind::Step, "apt-get failed");
            error.tail = vec!["Reading package lists...".to_owned(), line.to_owned()];
            no_solution(error).kind
        };
        for line in [
            "E: Unable to correct problems, you have held broken packages.",
            "E: Package 'a' has no installation candidate",
            " a : Depends: b but it is not installable",
        ] {
            assert_eq!(failed(line), ErrorKind::Definition, "{line}");
        }
        for line in [
            "E: Can't find a source to download version '1' of 'a:amd64'",
            "E: Write error - write (28: No space left on device)",
        ] {
            assert_eq!(failed(line), ErrorKind::Step, "{line}");
        }
    }

    #[test]
    fn uris_name_packages() {
        let line = |file: &str| format!("'http://host/pool/x.deb' {file} 12 SHA256:0a");
        let choice = |name: &str, version: &str, architecture: &str| Choice {
            name: name.into(),
            version: version.into(),
            architecture: architecture.into(),
        };
        for (file, expected) in [
            (
                "libc6_2.36-9+deb12u10_amd64.deb",
                Some(choice("libc6", "2.36-9+deb12u10", "amd64")),
            ),
            (
                "vim_2%3a9.0.1378-2_all.deb",
                Some(choice("vim", "2:9.0.1378-2", "all")),
            ),
            ("odd_1%5f2_amd64.deb", Some(choice("odd", "1_2", "amd64"))),
            ("odd_1_amd64.ddeb", Some(choice("odd", "1", "amd64"))),
            ("odd_1_2_amd64.deb", None),
            ("odd_1%zz_amd64.deb", None),
            ("odd_1%3_amd64.deb", None),
            ("odd_amd64.deb", None),
            ("_1_amd64.deb", None),
            ("odd_1_amd64", None),
        ] {
            assert_eq!(parse_uri(&line(file)), expected, "{file}");
        }
        assert_eq!(parse_uri("Inst libc6 (2.36 Debian:12 [amd64])"), None);
    }
}
