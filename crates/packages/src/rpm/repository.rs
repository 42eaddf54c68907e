//! Which repositories to use.

use crate::fetch::url::{append, shown};
use crate::openpgp::Keyring;
use crate::{Digest, Error, ErrorKind, Result};

/// Where a repository is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// At these URLs, all with the same content: the first that works is used.
    Base(Vec<String>),
    /// At the URLs that a plain list has.
    MirrorList(String),
    /// At the URLs that a metalink has, which also has the digest of the metadata.
    Metalink(String),
}

/// What proves a repository's metadata.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// `repomd.xml.asc`, by one of the repository's keys.
    Signature,
    /// Nothing of its own: each package that it leads to is signed.
    Packages,
}

/// An RPM repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repository {
    /// Its name in the definition: `baseos`.
    pub name: String,
    /// Where it is, with `$releasever` and the like as they were written.
    pub source: Source,
    /// What stands for `$releasever`, `$basearch` and the like, by name without the `$`.
    pub variables: Vec<(String, String)>,
    /// Who may sign packages, and metadata: a name for messages, and certificates as [`Keyring::read`] takes them.
    pub keys: (String, Vec<u8>),
    /// What proves its metadata.
    pub proof: Proof,
    /// `file:line` that brought it, for messages; empty for defaults.
    pub origin: String,
}

impl Repository {
    /// Reads the certificates.
    ///
    /// # Errors
    /// [`ErrorKind::Input`] if they cannot be read.
    pub fn keyring(&self) -> Result<Keyring> {
        let (name, bytes) = &self.keys;
        Keyring::read(name, bytes).map_err(|error| error.with_origin(&self.origin))
    }

    /// For people: its name, and where it is.
    pub fn describe(&self) -> String {
        let place = match &self.source {
            Source::Base(urls) => urls.first().map_or("", String::as_str),
            Source::MirrorList(url) | Source::Metalink(url) => url,
        };
        format!("{} ({})", self.name, shown(place))
    }

    /// The source with its variables replaced.
    ///
    /// # Errors
    /// [`ErrorKind::Input`] for a variable without a value, a URL of an unknown scheme, or no URL.
    pub(super) fn expanded(&self) -> Result<Source> {
        let url = |text: &String| self.expand(text);
        Ok(match &self.source {
            Source::Base(urls) if urls.is_empty() => return Err(self.bad("has no URL")),
            Source::Base(urls) => Source::Base(urls.iter().map(url).collect::<Result<_>>()?),
            Source::MirrorList(list) => Source::MirrorList(self.expand(list)?),
            Source::Metalink(list) => Source::Metalink(self.expand(list)?),
        })
    }

    /// Replaces `$name` and `${name}`.
    fn expand(&self, text: &str) -> Result<String> {
        let mut parts = text.split('$');
        let mut expanded = parts.next().unwrap_or("").to_owned();
        for part in parts {
            let braced = part.strip_prefix('{').and_then(|rest| rest.split_once('}'));
            let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
            let end = part.find(|c| !is_name(c)).unwrap_or(part.len());
            let (name, rest) = braced.unwrap_or(part.split_at(end));
            let known = self.variables.iter().find(|(known, _)| known == name);
            let (_, value) = known.ok_or_else(|| self.unknown_variable(name))?;
            expanded.push_str(value);
            expanded.push_str(rest);
        }
        let schemes = ["http://", "https://", "file:/"];
        match schemes.iter().any(|scheme| expanded.starts_with(scheme)) {
            true => Ok(expanded),
            false => Err(self.bad(&format!(
                "has {expanded:?}, which is no URL of a repository (http://, https:// or file:///)"
            ))),
        }
    }

    fn unknown_variable(&self, name: &str) -> Error {
        let known: Vec<String> = self
            .variables
            .iter()
            .map(|(n, _)| format!("${n}"))
            .collect();
        self.bad(&format!("has a URL with ${name}, which has no value"))
            .with_hint(format!("These have one: {}.", known.join(", ")))
    }

    fn bad(&self, why: &str) -> Error {
        let message = format!("the repository {} {why}", self.name);
        Error::new(ErrorKind::Input, message).with_origin(&self.origin)
    }

    /// Returns a directory name that is unique for the place and readable.
    pub(super) fn cache_name(&self) -> String {
        let place = format!(
            "rpm\0{}\0{:?}\0{:?}",
            self.name, self.source, self.variables
        );
        let fit = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
        let readable: String = self
            .name
            .chars()
            .map(|c| if fit(c) { c } else { '_' })
            .take(80)
            .collect();
        let digest = Digest::of(place.as_bytes()).to_string();
        format!(
            "rpm-{}-{}",
            readable.trim_matches(['.', '_']),
            &digest[..12]
        )
    }
}

/// The URL of a file of a repository at a base URL.
pub(super) fn url_of(base: &str, href: &str) -> String {
    append(base, href)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(url: &str) -> Repository {
        Repository {
            name: "baseos".into(),
            source: Source::Base(vec![url.into()]),
            variables: vec![
                ("releasever".into(), "9".into()),
                ("basearch".into(), "x86_64".into()),
            ],
            keys: ("test.asc".into(), Vec::new()),
            proof: Proof::Packages,
            origin: "lab.ks:3".into(),
        }
    }

    #[test]
    fn variables_are_replaced_or_named() {
        let good = at("https://h/$releasever/BaseOS/${basearch}/os/")
            .expanded()
            .expect("known");
        assert_eq!(
            good,
            Source::Base(vec!["https://h/9/BaseOS/x86_64/os/".into()])
        );
        for bad in ["https://h/$stream/x", "https://h/$", "/srv/x", "ftp://h/x"] {
            let error = at(bad).expanded().expect_err(bad);
            assert_eq!(
                (error.kind(), error.origin()),
                (ErrorKind::Input, Some("lab.ks:3")),
                "{bad}"
            );
        }
    }

    #[test]
    fn passwords_are_not_shown() {
        assert_eq!(
            at("https://me:secret@h/x").describe(),
            "baseos (https://h/x)"
        );
        assert!(!at("https://me:secret@h/x").cache_name().contains("secret"));
    }
}
