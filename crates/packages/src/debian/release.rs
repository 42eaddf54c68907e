//! `Release` files (<https://wiki.debian.org/DebianRepository/Format>).

use std::collections::HashMap;
use std::time::SystemTime;

use super::control::field;
use crate::{Digest, Error, ErrorKind, Result};

/// A `Release` file's content. Only made from verified text.
#[derive(Clone, Debug)]
pub struct Release {
    /// `Origin`, `Label`, `Suite`, `Codename`: what the repository calls itself.
    pub origin: String,
    /// See [`Release::origin`].
    pub label: String,
    /// See [`Release::origin`].
    pub suite: String,
    /// See [`Release::origin`].
    pub codename: String,
    /// When it was made.
    pub date: SystemTime,
    /// Until when it may be used.
    pub valid_until: Option<SystemTime>,
    /// Whether files can be fetched by their hash.
    pub by_hash: bool,
    /// Architectures that the suite says to have.
    pub architectures: Vec<String>,
    /// Components that the suite says to have, without a leading `updates/`.
    pub components: Vec<String>,
    /// Whether `Architecture: all` packages are in an index of their own, not in that of each architecture.
    pub separate_all: bool,
    files: HashMap<String, Listed>,
}

/// A file that `Release` lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Bytes.
    pub size: u64,
    /// Content.
    pub sha256: Digest,
}

impl Release {
    /// Reads verified text. `what` names it in messages.
    ///
    /// # Errors
    /// [`ErrorKind::Malformed`] without a date or SHA-256 list, or with a bad line in either.
    pub fn parse(what: &str, text: &str) -> Result<Self> {
        let bad = |why: String| Error::new(ErrorKind::Malformed, format!("{what}: {why}"));
        let text = text.trim_matches('\n');
        let get = |name| field(text, name);
        let words = |name| {
            get(name)
                .unwrap_or("")
                .split_whitespace()
                .map(str::to_owned)
                .collect()
        };
        let date = get("Date").ok_or_else(|| bad("there is no Date".into()))?;
        let list = get("SHA256").ok_or_else(|| {
            bad("there are no SHA-256 sums".into())
                .with_hint("The repository is made by a tool that is too old; sums other than SHA-256 are not used.")
        })?;
        let components: Vec<String> = words("Components");
        let architectures: Vec<String> = words("Architectures");
        Ok(Release {
            origin: get("Origin").unwrap_or("").to_owned(),
            label: get("Label").unwrap_or("").to_owned(),
            suite: get("Suite").unwrap_or("").to_owned(),
            codename: get("Codename").unwrap_or("").to_owned(),
            date: time(date)
                .ok_or_else(|| bad(format!("the Date {:?} cannot be read", shortened(date))))?,
            valid_until: match get("Valid-Until") {
                None => None,
                Some(end) => Some(time(end).ok_or_else(|| {
                    bad(format!(
                        "the Valid-Until {:?} cannot be read",
                        shortened(end)
                    ))
                })?),
            },
            by_hash: get("Acquire-By-Hash") == Some("yes"),
            separate_all: architectures.iter().any(|a| a == "all")
                && get("No-Support-for-Architecture-all") != Some("Packages"),
            architectures,
            components: components
                .iter()
                .map(|c| c.trim_start_matches("updates/").to_owned())
                .collect(),
            files: files(list).map_err(bad)?,
        })
    }

    /// Returns a file by its path relative to the directory of `Release`.
    pub fn file(&self, path: &str) -> Option<Listed> {
        self.files.get(path).copied()
    }

    /// Contents of all files that it lists.
    pub fn digests(&self) -> impl Iterator<Item = Digest> {
        self.files.values().map(|listed| listed.sha256)
    }

    /// Returns whether any listed path begins so.
    pub fn has_prefix(&self, prefix: &str) -> bool {
        self.files.keys().any(|path| path.starts_with(prefix))
    }
}

/// What a message shows of a text that may have any length.
fn shortened(text: &str) -> String {
    match text.char_indices().nth(80) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

/// Lines of digest, size and path.
fn files(list: &str) -> Result<HashMap<String, Listed>, String> {
    let lines = list.lines().map(str::trim).filter(|line| !line.is_empty());
    lines
        .map(|line| {
            let bad = || format!("the SHA256 line {:?} cannot be read", shortened(line));
            let mut words = line.split_ascii_whitespace();
            let sha256 = words.next().and_then(|w| w.parse().ok()).ok_or_else(bad)?;
            let size = words.next().and_then(|w| w.parse().ok()).ok_or_else(bad)?;
            let path = words.next().ok_or_else(bad)?;
            Ok((path.to_owned(), Listed { size, sha256 }))
        })
        .collect()
}

/// `Sat, 11 Jul 2026 10:16:37 UTC`, an RFC 2822 date.
pub(super) fn time(text: &str) -> Option<SystemTime> {
    let text = text.trim();
    let utc = ["UTC", "Z"]
        .iter()
        .find_map(|zone| text.strip_suffix(zone))
        .map(|t| format!("{t}+0000"));
    let parsed = jiff::fmt::rfc2822::parse(utc.as_deref().unwrap_or(text)).ok()?;
    Some(parsed.timestamp().into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, UNIX_EPOCH};

    const SUM: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn dates() {
        let expected = Some(UNIX_EPOCH + Duration::from_secs(1_783_764_997));
        assert_eq!(time("Sat, 11 Jul 2026 10:16:37 UTC"), expected);
        assert_eq!(time("Sat, 11 Jul 2026 10:16:37 GMT"), expected);
        assert_eq!(time("Sat, 11 Jul 2026 12:16:37 +0200"), expected);
        assert_eq!(time("yesterday"), None);
    }

    #[test]
    fn reads_and_refuses() {
        let text = format!(
            "Date: Sat, 11 Jul 2026 10:16:37 UTC\nComponents: updates/main\nSHA256:\n {SUM} 0 main/x\n\n"
        );
        let release = Release::parse("Release", &text).expect("good");
        assert_eq!(release.components, ["main"]);
        assert_eq!(release.file("main/x").map(|f| f.size), Some(0));
        for (from, to) in [
            ("Date", "Dote"),
            ("Jul", "Foo"),
            (" 0 ", " x "),
            ("SHA256", "MD5Sum"),
            ("e3b0", "zzzz"),
        ] {
            let error = Release::parse("Release", &text.replacen(from, to, 1)).expect_err(from);
            assert_eq!(error.kind(), ErrorKind::Malformed);
        }
    }
}
