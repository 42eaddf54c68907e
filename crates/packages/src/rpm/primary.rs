//! `primary.xml`: the packages of a repository.

use std::collections::HashMap;
use std::io::BufRead;

use super::href;
use super::version::Evr;
use super::xml::{self, Attributes, Take};
use crate::{Digest, Error, ErrorKind, Result};

/// How a capability's version is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flag {
    /// `<`
    Less,
    /// `<=`
    AtMost,
    /// `=`
    Equal,
    /// `>=`
    AtLeast,
    /// `>`
    Greater,
}

/// Something that a package provides or needs: a name, a path, a rich dependency in parentheses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capability {
    /// The name.
    pub name: String,
    /// How the version is to be, where one is said.
    pub version: Option<(Flag, Evr)>,
}

/// A package as the metadata has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Package {
    /// Name.
    pub name: String,
    /// Architecture: `x86_64`, `noarch`.
    pub arch: String,
    /// Epoch, version, release.
    pub evr: Evr,
    /// Where its file is, relative to the repository.
    pub href: String,
    /// Its file's size in bytes.
    pub size: u64,
    /// Its file's content.
    pub sha256: Option<Digest>,
    /// When it was made, in seconds since 1970.
    pub built: i64,
    /// What it provides, its own name among it.
    pub provides: Vec<Capability>,
    /// What it needs.
    pub requires: Vec<Capability>,
    /// What it suggests.
    pub suggests: Vec<Capability>,
    /// What it recommends: names, paths, rich dependencies.
    pub recommends: Vec<String>,
    /// Whether it comes by itself where some others are.
    pub supplements: bool,
    /// Those of its files that others ask for mostly: programs and configuration.
    pub files: Vec<String>,
}

impl Package {
    /// `bash-5.1.8-9.el9.x86_64`, with the epoch before the version where it is not 0.
    pub fn nevra(&self) -> String {
        format!("{}-{}.{}", self.name, self.evr, self.arch)
    }
}

/// Reads the packages. `what` names the document for messages.
///
/// # Errors
/// [`ErrorKind::Malformed`] with the byte where it is, [`ErrorKind::Io`].
pub(super) fn read(what: &str, input: impl BufRead) -> Result<Vec<Package>> {
    let mut reading = Reading::default();
    xml::read(what, input, &mut reading)?;
    if reading.promised != Some(reading.count) {
        let promised =
            reading
                .promised
                .map_or("does not say how many packages it has".to_owned(), |n| {
                    let s = if n == 1 { "" } else { "s" };
                    format!("says that it has {n} package{s}")
                });
        let message = format!("{what} {promised}, but it has {}", reading.count);
        return Err(Error::new(ErrorKind::Malformed, message).with_hint(
            "The repository itself is broken: tell its maintainers, or use another mirror.",
        ));
    }
    Ok(reading.packages)
}

#[derive(Default)]
struct Reading {
    packages: Vec<Package>,
    /// Digests by name, version and architecture.
    known: HashMap<String, Option<Digest>>,
    package: Package,
    promised: Option<u64>,
    count: u64,
    is_sha256: bool,
    checksum: String,
}

const PACKAGE: &str = "metadata/package";

impl Take for Reading {
    fn begin(&mut self, path: &str, attributes: &Attributes) -> Result<(), String> {
        let Some(rest) = path.strip_prefix(PACKAGE) else {
            match path {
                "metadata" => {
                    self.promised = attributes.get("packages").and_then(|n| n.parse().ok())
                }
                _ if !path.starts_with("metadata") => return Err("is no list of packages".into()),
                _ => {}
            }
            return Ok(());
        };
        let number = |name: &str| {
            attributes
                .get(name)
                .map_or(Ok(0), |n| n.parse())
                .map_err(|_| format!("has a bad number of {}: {name}", self.package.name))
        };
        match rest {
            "" => self.package = Package::default(),
            "/version" => self.package.evr = evr(attributes)?,
            "/checksum" => {
                self.checksum = attributes.get("type").unwrap_or("").to_owned();
                self.is_sha256 = self.checksum == "sha256";
            }
            "/size" => self.package.size = u64::try_from(number("package")?).unwrap_or(0),
            "/time" => self.package.built = number("build")?,
            "/location" => {
                if attributes.get("base").is_some() {
                    return Err(format!(
                        "has the package {}, which lies in another repository",
                        self.package.name
                    ));
                }
                let place = attributes.get("href").unwrap_or("");
                href::check(place)?;
                self.package.href = place.to_owned();
            }
            "/format/provides/entry" => self.package.provides.push(capability(attributes)?),
            "/format/requires/entry" => self.package.requires.push(capability(attributes)?),
            "/format/suggests/entry" => self.package.suggests.push(capability(attributes)?),
            "/format/recommends/entry" => {
                let name = attributes.get("name").map(str::to_owned);
                self.package.recommends.extend(name);
            }
            "/format/supplements/entry" => self.package.supplements = true,
            _ => {}
        }
        Ok(())
    }

    fn end(&mut self, path: &str, text: &str) -> Result<(), String> {
        match path.strip_prefix(PACKAGE) {
            Some("/name") => self.package.name = text.to_owned(),
            Some("/arch") => self.package.arch = text.to_owned(),
            Some("/checksum") if self.is_sha256 => {
                let digest = text.parse().map_err(|error| {
                    format!("has a bad checksum of {}, {error}", self.package.name)
                });
                self.package.sha256 = Some(digest?);
            }
            Some("/format/file") => self.package.files.push(text.to_owned()),
            Some("") => return self.finish(),
            _ => {}
        }
        Ok(())
    }
}

impl Reading {
    fn finish(&mut self) -> Result<(), String> {
        let package = std::mem::take(&mut self.package);
        self.count += 1;
        let name = &package.name;
        let words = [
            name,
            &package.arch,
            &package.evr.version,
            &package.evr.release,
        ];
        if let Some(bad) = words.iter().find(|word| !is_word(word)) {
            return Err(format!(
                "has the package {name:.80?} with {bad:.80?}, which is no name, version or architecture"
            ));
        }
        if package.arch == "src" || package.arch == "nosrc" {
            return Ok(());
        }
        if package.sha256.is_none() {
            return Err(format!(
                "has no SHA-256 of {name}, only {:?}: Kiln trusts no other",
                self.checksum
            ));
        }
        if package.href.is_empty() || package.size == 0 {
            return Err(format!("does not say where {name} is, or how large"));
        }
        match self.known.insert(package.nevra(), package.sha256) {
            Some(other) if other != package.sha256 => {
                return Err(format!(
                    "has {} twice, with different content",
                    package.nevra()
                ));
            }
            Some(_) => {}
            None => self.packages.push(package),
        }
        Ok(())
    }
}

/// What goes into file names and onto command lines.
pub(super) fn is_word(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 256
        && !text.starts_with(['-', '.'])
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-._+~^".contains(&b))
}

fn evr(attributes: &Attributes) -> Result<Evr, String> {
    let text = |name: &str| attributes.get(name).unwrap_or("").to_owned();
    let epoch = attributes
        .get("epoch")
        .filter(|epoch| !epoch.is_empty())
        .unwrap_or("0");
    Ok(Evr {
        epoch: epoch
            .parse()
            .map_err(|_| format!("has the bad epoch {epoch:.40?}"))?,
        version: text("ver"),
        release: text("rel"),
    })
}

fn capability(attributes: &Attributes) -> Result<Capability, String> {
    let name = attributes
        .get("name")
        .ok_or("has a dependency without a name")?
        .to_owned();
    let flag = match attributes.get("flags") {
        None => None,
        Some("LT") => Some(Flag::Less),
        Some("LE") => Some(Flag::AtMost),
        Some("EQ") => Some(Flag::Equal),
        Some("GE") => Some(Flag::AtLeast),
        Some("GT") => Some(Flag::Greater),
        Some(other) => {
            return Err(format!(
                "has a dependency on {name:.80} with the flag {other:.20?}"
            ));
        }
    };
    let version = flag
        .map(|flag| evr(attributes).map(|evr| (flag, evr)))
        .transpose()?;
    Ok(Capability { name, version })
}
