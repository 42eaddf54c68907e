//! dnf's package manifests, `packages.manifest.yaml`: packages with their exact versions, and the repositories that have them
//! (libpkgmanifest, `document: rpm-package-manifest`).
//!
//! ```yaml
//! document: rpm-package-manifest
//! version: 0.2.0
//! data:
//!   repositories:
//!     - id: baseos
//!       metalink: "https://…"                   # or baseurl, mirrorlist
//!   packages:
//!     x86_64:
//!       - name: bash
//!         repo_id: baseos
//!         location: "Packages/bash-5.1.8-9.el9.x86_64.rpm"
//!         checksum: sha256:…
//!         size: 1234
//!         evr: "5.1.8-9.el9"
//! ```
//!
//! Versions before 0.2 had `repoid`, `url` and `nevra` instead; they are read, too. A manifest proves nothing: it is compared with what a
//! repository's metadata has.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Deserialize;

use super::version::Evr;
use crate::{Digest, Error, ErrorKind, Result};

const DOCUMENT: &str = "rpm-package-manifest";
/// What is written.
const VERSION: &str = "0.2.0";
/// The last version of which anything is known. Nothing is sure before the first one.
const NEWEST: u32 = 1;
/// Bound for the text; ten thousand packages have some 3 MB.
const MAX_TEXT: usize = 64 << 20;
const MAX_NODES: usize = 4 << 20;

/// A package of a manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pinned {
    /// Name.
    pub name: String,
    /// Epoch, version and release.
    pub evr: Evr,
    /// Architecture.
    pub arch: String,
    /// The id of its repository; `None` where the manifest does not say it.
    pub repository: Option<String>,
    /// Its SHA-256, where the manifest has one.
    pub sha256: Option<Digest>,
    /// Its size, where the manifest has one.
    pub size: Option<u64>,
    /// Where it is below its repository. Only written.
    pub location: String,
}

impl Pinned {
    /// `name-evr.arch`.
    pub fn nevra(&self) -> String {
        format!("{}-{}.{}", self.name, self.evr, self.arch)
    }
}

/// A repository of a manifest: its id, and how it is found (`baseurl`, `mirrorlist` or `metalink`, and the URL).
pub type Place = (String, (&'static str, String));

#[derive(Deserialize)]
struct Document {
    document: String,
    version: String,
    data: Data,
}

#[derive(Deserialize)]
struct Data {
    packages: Option<BTreeMap<String, Option<Vec<Entry>>>>,
}

#[derive(Deserialize)]
struct Entry {
    name: Option<String>,
    evr: Option<String>,
    nevra: Option<String>,
    #[serde(alias = "repoid")]
    repo_id: Option<String>,
    checksum: Option<String>,
    size: Option<u64>,
}

/// Reads the packages of a manifest that a machine of an architecture installs: those of `noarch` among them, sources not. `what` names
/// the file for messages.
///
/// # Errors
/// [`ErrorKind::Input`] with the line where there is one.
pub fn read(what: &str, text: &str, architecture: &str) -> Result<Vec<Pinned>> {
    let bad = |why: String| {
        Error::new(ErrorKind::Input, format!("{what} {why}"))
            .with_hint("`dnf manifest new` and `kiln lock --manifest` write such files.")
    };
    if text.len() > MAX_TEXT {
        return Err(bad(format!("has more than {MAX_TEXT} bytes")));
    }
    let document = parse(text).map_err(bad)?;
    if document.document != DOCUMENT {
        let said = document.document;
        return Err(bad(format!("is a {said:.40?}, not a {DOCUMENT}")));
    }
    let major = document.version.split('.').next().unwrap_or("");
    if !major.parse().is_ok_and(|major: u32| major <= NEWEST) {
        let said = document.version;
        return Err(bad(format!(
            "has the version {said:.20?}, which Kiln does not know"
        )));
    }
    let mut all: Vec<Pinned> = Vec::new();
    for (arch, entries) in document.data.packages.unwrap_or_else(BTreeMap::new) {
        if arch != architecture && arch != "noarch" {
            continue;
        }
        for entry in entries.into_iter().flatten() {
            all.push(pinned(entry, &arch).map_err(bad)?);
        }
    }
    all.sort_by(|a, b| (&a.name, &a.arch).cmp(&(&b.name, &b.arch)));
    match all.is_empty() {
        false => Ok(all),
        true => Err(bad(format!("has no package of {architecture}"))),
    }
}

fn parse(text: &str) -> Result<Document, String> {
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_nodes: MAX_NODES,
            max_events: 4 * MAX_NODES,
            max_depth: 16,
            max_aliases: 0,
            max_documents: 1,
        },
        duplicate_keys: serde_saphyr::options::DuplicateKeyPolicy::Error,
        with_snippet: false,
    };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        let line = error
            .location()
            .map_or(String::new(), |at| format!(" in line {}", at.line()));
        format!("is no package manifest{line}: {}", error.without_snippet())
    })
}

fn pinned(entry: Entry, arch: &str) -> Result<Pinned, String> {
    let (name, evr) = match (entry.name, entry.evr, entry.nevra) {
        (Some(name), Some(evr), _) => (name, evr),
        (_, _, Some(nevra)) => split(&nevra, arch)
            .ok_or_else(|| format!("has {nevra:.200?}, which is no package of {arch}"))?,
        (name, ..) => {
            let name = name.unwrap_or_else(|| "one without a name".to_owned());
            return Err(format!(
                "does not say which version a package has: {name:.200?}"
            ));
        }
    };
    let bad = || format!("has the version {evr:.200?} of {name:.200?}, which is none");
    let (epoch, rest) = evr.split_once(':').unwrap_or(("0", &evr));
    let (version, release) = rest.split_once('-').ok_or_else(bad)?;
    let words = [name.as_str(), version, release];
    if !words.iter().all(|word| super::primary::is_word(word)) {
        return Err(bad());
    }
    // Other sums are not looked at: SHA-1 and MD5 say nothing, and of SHA-512 the metadata has none.
    let sum = entry
        .checksum
        .as_deref()
        .and_then(|sum| sum.split_once(':'));
    let sha256 = sum.filter(|(kind, _)| kind.eq_ignore_ascii_case("sha256"));
    let sha256 = sha256.map(|(_, digest)| digest.to_ascii_lowercase().parse());
    let sha256 = sha256
        .transpose()
        .map_err(|error| format!("has a bad checksum of {name}, {error}"))?;
    Ok(Pinned {
        evr: Evr {
            epoch: epoch.parse().map_err(|_| bad())?,
            version: version.to_owned(),
            release: release.to_owned(),
        },
        arch: arch.to_owned(),
        repository: entry.repo_id.filter(|id| !id.is_empty()),
        sha256,
        // Packages that were installed already have none in published manifests.
        size: entry.size.filter(|&size| size > 0),
        location: String::new(),
        name,
    })
}

/// `bash-0:5.2-3.x86_64` as a name and the rest.
fn split(nevra: &str, arch: &str) -> Option<(String, String)> {
    let rest = nevra.strip_suffix(arch)?.strip_suffix('.')?;
    let (rest, release) = rest.rsplit_once('-')?;
    let (name, version) = rest.rsplit_once('-')?;
    Some((name.to_owned(), format!("{version}-{release}")))
}

/// A manifest of these packages; the same ones always give the same text.
pub fn write(repositories: &[Place], packages: &[Pinned]) -> String {
    let mut text = format!("document: {DOCUMENT}\nversion: {VERSION}\ndata:\n  repositories:\n");
    for (id, (how, url)) in repositories {
        let _ = writeln!(
            text,
            "    - id: {}\n      {how}: {}",
            scalar(id),
            scalar(url)
        );
    }
    let mut by_arch: BTreeMap<&str, Vec<&Pinned>> = BTreeMap::new();
    for package in packages {
        by_arch.entry(&package.arch).or_default().push(package);
    }
    text.push_str("  packages:\n");
    for (arch, mut packages) in by_arch {
        packages.sort_by(|a, b| (&a.name, &a.repository).cmp(&(&b.name, &b.repository)));
        let _ = writeln!(text, "    {}:", scalar(arch));
        for package in packages {
            let _ = writeln!(text, "      - name: {}", scalar(&package.name));
            let mut line = |key: &str, value: Option<String>| {
                if let Some(value) = value {
                    let _ = writeln!(text, "        {key}: {value}");
                }
            };
            line("repo_id", package.repository.as_deref().map(scalar));
            line("location", Some(scalar(&package.location)));
            line(
                "checksum",
                package.sha256.map(|sha256| format!("sha256:{sha256}")),
            );
            line("size", package.size.map(|size| size.to_string()));
            line("evr", Some(scalar(&package.evr.to_string())));
        }
    }
    text
}

/// A text that no reader of YAML takes for a number, a date or a truth.
fn scalar(text: &str) -> String {
    const WORDS: [&str; 8] = ["y", "n", "yes", "no", "on", "off", "true", "false"];
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"._+-".contains(&b);
    let is_plain = text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.bytes().all(plain)
        && !WORDS.contains(&text.to_ascii_lowercase().as_str())
        && !text.eq_ignore_ascii_case("null");
    match is_plain {
        true => text.to_owned(),
        false => quoted(text),
    }
}

fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => quoted.push_str(&format!("\\U{:08X}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted + "\""
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENTRY: &str = "name: bash\n          repo_id: base\n          checksum: sha256:SUM\n          size: 7\n          evr: 1:5.2-3\n";

    fn manifest(entry: &str) -> String {
        let sum = Digest::of(b"x").to_string();
        let entry = entry.replace("SUM", &sum);
        format!(
            "document: rpm-package-manifest\nversion: 0.2.0\ndata:\n    packages:\n      x86_64:\n        - {entry}"
        )
    }

    #[test]
    fn both_forms_are_read() {
        let found = read("m", &manifest(ENTRY), "x86_64").expect("good");
        let old = manifest(
            "repoid: base\n          url: ''\n          checksum: md5:00\n          size: 0\n          nevra: bash-1:5.2-3.x86_64\n          srpm: x\n",
        );
        let other = read("m", &old, "x86_64").expect("good");
        assert_eq!(found[0].nevra(), "bash-1:5.2-3.x86_64");
        assert_eq!(found[0].sha256, Some(Digest::of(b"x")));
        let plain = Pinned {
            sha256: None,
            size: None,
            ..found[0].clone()
        };
        assert_eq!(other, [plain]);
        assert!(read("m", &manifest(ENTRY), "aarch64").is_err());
    }

    #[test]
    fn what_was_written_is_read() {
        let package = |name: &str, arch: &str| Pinned {
            name: name.to_owned(),
            evr: Evr {
                epoch: 0,
                version: "1e".into(),
                release: "5".into(),
            },
            arch: arch.to_owned(),
            repository: Some("no".to_owned()),
            sha256: Some(Digest::of(name.as_bytes())),
            size: Some(3),
            location: String::new(),
        };
        let packages = [package("on", "noarch"), package("zsh", "x86_64")];
        let places = [(
            "no".to_owned(),
            ("baseurl", "http://h/$basearch: x".to_owned()),
        )];
        let text = write(&places, &packages);
        assert_eq!(read("m", &text, "x86_64").expect("good"), packages);
        assert!(text.contains("evr: \"1e-5\""), "{text}");
    }

    #[test]
    fn others_are_refused_with_what_is_wrong() {
        for (from, to, says) in [
            (
                "rpm-package-manifest",
                "rpm-package-input",
                "not a rpm-package-manifest",
            ),
            ("0.2.0", "2.0.0", "has the version \"2.0.0\""),
            ("evr: 1:5.2-3", "evr: 1:5.2", "which is none"),
            ("evr: 1:5.2-3", "evr: x:5.2-3", "which is none"),
            ("evr: 1:5.2-3", "evr: 5.2-../3", "which is none"),
            ("evr: 1:5.2-3", "srpm: x", "does not say which version"),
            ("sha256:", "sha256:0", "bad checksum"),
            ("size: 7", "size: -7", "in line 9"),
            ("name: bash", "name: &a bash", ""),
            ("x86_64:", "i686:", "has no package of x86_64"),
            ("document:", "documents:", "is no package manifest"),
        ] {
            let text = manifest(ENTRY).replacen(from, to, 1);
            match read("m", &text, "x86_64") {
                Ok(_) => assert_eq!(says, "", "{text}"),
                Err(error) => {
                    assert!(error.to_string().contains(says), "{says:?}: {error}");
                    assert_eq!(error.kind(), ErrorKind::Input);
                }
            }
        }
    }
}
