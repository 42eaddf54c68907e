//! Which repositories to use.

use super::primary::Package;
use crate::fetch::url::{append, shown};
use crate::glob;
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
    /// Of two equal packages the one of the lower cost is taken: whoever joins repositories takes them in this order.
    pub cost: i64,
    /// Which of its packages are looked at.
    pub filter: Filter,
    /// What its downloads go through instead of the fetcher's proxies; `_none_` for nothing.
    pub proxy: Option<String>,
    /// `file:line` that brought it, for messages; empty for defaults.
    pub origin: String,
}

/// Which packages of a repository are looked at, by globs over their names as dnf takes them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Only these; all if empty.
    pub include: Vec<String>,
    /// But not these, not even of the included ones.
    pub exclude: Vec<String>,
}

impl Filter {
    /// Whether it lets a package through.
    pub fn takes(&self, package: &Package) -> bool {
        let Filter { include, exclude } = self;
        if include.is_empty() && exclude.is_empty() {
            return true;
        }
        let forms = forms(package);
        let any = |globs: &[String]| {
            globs.iter().any(|glob| {
                let mut forms = forms.iter();
                forms.any(|form| glob::matches(glob.as_bytes(), form.as_bytes()))
            })
        };
        (include.is_empty() || any(include)) && !any(exclude)
    }
}

/// All that dnf lets a package be called: `bash`, `bash.x86_64`, `bash-5.1.8`, `bash-5.1.8-9.el9`, with the architecture, and with
/// the epoch before the version.
fn forms(package: &Package) -> Vec<String> {
    let Package {
        name, arch, evr, ..
    } = package;
    let (epoch, version, release) = (evr.epoch, &evr.version, &evr.release);
    let mut forms = vec![name.clone(), format!("{name}.{arch}")];
    for version in [version.clone(), format!("{epoch}:{version}")] {
        forms.push(format!("{name}-{version}"));
        forms.push(format!("{name}-{version}-{release}"));
        forms.push(format!("{name}-{version}-{release}.{arch}"));
    }
    forms
}

impl Repository {
    /// What a repository costs where nothing is said, as in dnf.
    pub const COST: i64 = 1000;

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
    pub fn expanded(&self) -> Result<Source> {
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
    use super::super::version::Evr;
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
            cost: Repository::COST,
            filter: Filter::default(),
            proxy: None,
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
    fn filters_know_the_forms_of_a_package() {
        let evr = Evr {
            epoch: 1,
            version: "5.1.8".into(),
            release: "9.el9".into(),
        };
        let bash = Package {
            name: "bash".into(),
            arch: "x86_64".into(),
            evr,
            ..Package::default()
        };
        let takes = |include: &[&str], exclude: &[&str]| {
            let of = |globs: &[&str]| globs.iter().map(|glob| (*glob).to_owned()).collect();
            let filter = Filter {
                include: of(include),
                exclude: of(exclude),
            };
            filter.takes(&bash)
        };
        for form in [
            "bash",
            "b*",
            "*.x86_64",
            "bash-5.1.8",
            "bash-5.*.el9",
            "bash-1:5.1.8-9.el9.x86_64",
        ] {
            assert!(takes(&[form], &[]) && !takes(&[], &[form]), "{form}");
            assert!(!takes(&[form], &["bash"]), "{form}");
        }
        assert!(takes(&[], &["bas", "*.i686", "bash-5.2*"]) && !takes(&["zsh"], &[]));
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
