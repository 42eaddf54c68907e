//! `kiln.lock`: every package of an image, exactly. Made to be reviewed and merged line by line.
//!
//! ```text
//! # comments and empty lines are ignored
//! format 1
//! target debian:bookworm/amd64
//! inputs SHA256                                  of the requests that the answer is for
//! repository URL SUITE DATE SHA256               DATE: RFC 3339, UTC; SHA256: of the signed release file
//!
//! layer base.ks                                  the packages that follow are this layer's
//! NAME VERSION ARCHITECTURE SIZE SHA256 auto|asked URL
//! ```
//!
//! Layers are in the order of the definition, packages sorted by name. Fields are separated by one space; a space,
//! a control character or `%` within a field is written as `%XX`. The same lock always gives the same bytes.

use std::collections::HashSet;
use std::fmt::Write;
use std::path::PathBuf;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::fetch::url::percent_decode;
use crate::store::{DownloadStore, Item, OnProgress};
use crate::{Digest, Error, ErrorKind, Fetcher, Result};

/// The layer of the packages that resolve and install the others. They are a root of their own, so the image may have
/// the same packages again.
pub const TOOLS: &str = "tools";

/// The only version of the format so far.
const FORMAT: &str = "1";

const HEAD: &str = "\
# The exact packages of this image. Written by `kiln lock`; commit it, do not edit it.
";

/// What was decided for an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lock {
    /// `debian:bookworm/amd64`.
    pub target: String,
    /// Digest of the requests that were resolved: a lock whose inputs differ from the definition's is stale.
    pub inputs: Digest,
    /// The repositories as they were.
    pub repositories: Vec<LockedRepository>,
    /// Names of the layers, in order.
    pub layers: Vec<String>,
    /// All packages.
    pub packages: Vec<LockedPackage>,
}

/// A repository at the time of the lock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockedRepository {
    /// Base URL.
    pub uri: String,
    /// Suite.
    pub suite: String,
    /// Its release's date; whole seconds.
    pub date: SystemTime,
    /// Digest of the signed release file.
    pub release: Digest,
}

/// One package of the image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockedPackage {
    /// Name.
    pub name: String,
    /// Exact version.
    pub version: String,
    /// Architecture of the package.
    pub architecture: String,
    /// Where it was.
    pub url: String,
    /// Its content.
    pub sha256: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// The layer that brings it, one of [`Lock::layers`].
    pub layer: String,
    /// Whether only a dependency brought it.
    pub auto: bool,
}

impl LockedPackage {
    /// `name version architecture`.
    pub fn describe(&self) -> String {
        format!("{} {} {}", self.name, self.version, self.architecture)
    }

    /// Its line in the file, with the end of the line.
    pub fn line(&self) -> String {
        let mut text = String::new();
        self.write(&mut text);
        text
    }

    /// What the download store is to have.
    pub fn item(&self) -> Item {
        Item {
            name: format!("{} {}", self.name, self.version),
            url: self.url.clone(),
            size: self.size,
            sha256: self.sha256,
        }
    }
}

impl Lock {
    /// The newest date of its repositories: the image's `SOURCE_DATE_EPOCH`.
    pub fn date(&self) -> Option<SystemTime> {
        self.repositories.iter().map(|r| r.date).max()
    }

    /// Digest of its text.
    pub fn id(&self) -> Digest {
        Digest::of(self.text().as_bytes())
    }

    /// Packages of one layer, in the file's order.
    pub fn of_layer<'a>(&'a self, layer: &'a str) -> impl Iterator<Item = &'a LockedPackage> {
        self.packages
            .iter()
            .filter(move |package| package.layer == layer)
    }

    /// Its text: sorted, always the same bytes for the same lock.
    pub fn text(&self) -> String {
        let mut text = HEAD.to_owned();
        line(&mut text, &["format", FORMAT]);
        line(&mut text, &["target", &self.target]);
        line(&mut text, &["inputs", &self.inputs.to_string()]);
        for one in &self.repositories {
            let date = jiff::Timestamp::try_from(one.date).unwrap_or_default();
            let date = jiff::Timestamp::from_second(date.as_second()).unwrap_or_default();
            line(
                &mut text,
                &[
                    "repository",
                    &one.uri,
                    &one.suite,
                    &date.to_string(),
                    &one.release.to_string(),
                ],
            );
        }
        for layer in &self.layers {
            text.push('\n');
            line(&mut text, &["layer", layer]);
            let mut packages: Vec<&LockedPackage> = self.of_layer(layer).collect();
            packages.sort_by_key(|p| (&p.name, &p.architecture, &p.version));
            packages.iter().for_each(|package| package.write(&mut text));
        }
        text
    }

    /// Reads a lock file; `file` is its name for messages.
    ///
    /// # Errors
    /// [`ErrorKind::Input`] with `file:line` as its origin.
    pub fn parse(file: &str, text: &str) -> Result<Self> {
        let mut reading = Reading::default();
        let mut last = 1;
        for (number, raw) in text.lines().enumerate() {
            last = number + 1;
            let trimmed = raw.trim();
            if !trimmed.is_empty() && !trimmed.starts_with('#') {
                reading.line(trimmed).map_err(|why| at(file, last, why))?;
            }
        }
        reading.finish().map_err(|why| at(file, last, why))
    }
}

fn at(file: &str, line: usize, why: String) -> Error {
    let origin = format!("{file}:{line}");
    Error::new(ErrorKind::Input, format!("{origin}: {why}"))
        .with_origin(&origin)
        .with_hint("The lock file is damaged or wrongly merged: write it anew with `kiln lock`.")
}

impl LockedPackage {
    fn write(&self, text: &mut String) {
        let (size, sha256) = (self.size.to_string(), self.sha256.to_string());
        let how = if self.auto { "auto" } else { "asked" };
        line(
            text,
            &[
                &self.name,
                &self.version,
                &self.architecture,
                &size,
                &sha256,
                how,
                &self.url,
            ],
        );
    }
}

fn line(text: &mut String, fields: &[&str]) {
    for (at, field) in fields.iter().enumerate() {
        if at > 0 {
            text.push(' ');
        }
        for c in field.chars() {
            match c {
                '%' => text.push_str("%25"),
                c if c.is_whitespace() || c.is_control() => {
                    c.to_string().bytes().for_each(|byte| {
                        // Writing to a string cannot fail.
                        let _ = write!(text, "%{byte:02X}");
                    });
                }
                c => text.push(c),
            }
        }
    }
    text.push('\n');
}

/// Key words and names of packages cannot be confused: these have no fields enough to be a package.
#[derive(Default)]
struct Reading {
    format: bool,
    target: Option<String>,
    inputs: Option<Digest>,
    repositories: Vec<LockedRepository>,
    layers: Vec<String>,
    packages: Vec<LockedPackage>,
    /// Root (tools or image), name and architecture.
    seen: HashSet<(bool, String, String)>,
}

impl Reading {
    fn line(&mut self, line: &str) -> Result<(), String> {
        let fields: Vec<String> = line
            .split(' ')
            .map(|field| {
                String::from_utf8(percent_decode(field))
                    .map_err(|_| format!("{field:?} is not UTF-8"))
            })
            .collect::<Result<_, _>>()?;
        let fields: Vec<&str> = fields.iter().map(String::as_str).collect();
        if !self.format && fields[..1] != ["format"] {
            return Err("the file does not begin with a format line".into());
        }
        match fields[..] {
            ["format", FORMAT] if !self.format => self.format = true,
            ["format", other] => {
                return Err(format!(
                    "format {other} is not known to this version of Kiln, or is given twice"
                ));
            }
            ["target", target] => once(&mut self.target, target.to_owned(), "target")?,
            ["inputs", digest] => once(&mut self.inputs, digest_of(digest)?, "inputs")?,
            ["repository", uri, suite, date, release] => self.repositories.push(LockedRepository {
                uri: uri.to_owned(),
                suite: suite.to_owned(),
                date: date_of(date)?,
                release: digest_of(release)?,
            }),
            ["layer", layer] if self.layers.iter().any(|l| l == layer) => {
                return Err(format!("the layer {layer} is there twice"));
            }
            ["layer", layer] => self.layers.push(layer.to_owned()),
            [name, version, architecture, size, sha256, how, url] => {
                self.package([name, version, architecture, size, sha256, how, url])?;
            }
            _ => {
                return Err(format!(
                    "a line with {} fields is not understood: {line:?}",
                    fields.len()
                ));
            }
        }
        Ok(())
    }

    fn package(
        &mut self,
        [name, version, architecture, size, sha256, how, url]: [&str; 7],
    ) -> Result<(), String> {
        let layer = self
            .layers
            .last()
            .ok_or("a package before the first layer line")?
            .clone();
        if [name, version, architecture, url].contains(&"") {
            return Err("a field is empty".into());
        }
        let key = (layer == TOOLS, name.to_owned(), architecture.to_owned());
        if !self.seen.insert(key) {
            return Err(format!(
                "the package {name} ({architecture}) is there twice"
            ));
        }
        let auto = match how {
            "auto" => true,
            "asked" => false,
            other => return Err(format!("{other:?} should be auto or asked")),
        };
        self.packages.push(LockedPackage {
            name: name.to_owned(),
            version: version.to_owned(),
            architecture: architecture.to_owned(),
            url: url.to_owned(),
            sha256: digest_of(sha256)?,
            size: size
                .parse()
                .map_err(|_| format!("{size:?} is not a size in bytes"))?,
            layer,
            auto,
        });
        Ok(())
    }

    fn finish(self) -> Result<Lock, String> {
        if !self.format {
            return Err("the file does not begin with a format line".into());
        }
        Ok(Lock {
            target: self.target.ok_or("there is no target line")?,
            inputs: self.inputs.ok_or("there is no inputs line")?,
            repositories: self.repositories,
            layers: self.layers,
            packages: self.packages,
        })
    }
}

fn once<T>(slot: &mut Option<T>, value: T, what: &str) -> Result<(), String> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(format!("{what} is given twice")),
    }
}

fn digest_of(text: &str) -> Result<Digest, String> {
    text.parse().map_err(|e| format!("{text:?} is {e}"))
}

fn date_of(text: &str) -> Result<SystemTime, String> {
    let time: jiff::Timestamp = text
        .parse()
        .map_err(|_| format!("{text:?} is not a date such as 2026-07-11T10:16:37Z"))?;
    Ok(time.into())
}

/// Has all packages in the store, verified; gives their paths in the same order.
///
/// # Errors
/// As [`DownloadStore::obtain_all`].
pub fn download(
    fetcher: &Fetcher,
    store: &DownloadStore,
    packages: &[LockedPackage],
    progress: OnProgress,
) -> Result<Vec<PathBuf>> {
    let items: Vec<Item> = packages.iter().map(LockedPackage::item).collect();
    store.obtain_all(fetcher, &items, progress)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, UNIX_EPOCH};

    fn package(name: &str, layer: &str) -> LockedPackage {
        LockedPackage {
            name: name.into(),
            version: "1:2~a-3".into(),
            architecture: "amd64".into(),
            url: format!("http://h/pool/{name}_1%3a2.deb"),
            sha256: Digest::of(name.as_bytes()),
            size: 7,
            layer: layer.into(),
            auto: name.len() > 1,
        }
    }

    fn lock() -> Lock {
        Lock {
            target: "debian:bookworm/amd64".into(),
            inputs: Digest::of(b""),
            repositories: vec![LockedRepository {
                uri: "http://h/debian".into(),
                suite: "bookworm".into(),
                date: UNIX_EPOCH + Duration::from_secs(1_783_764_997),
                release: Digest::of(b"r"),
            }],
            layers: vec!["my base.ks".into(), "a.ks".into()],
            packages: vec![
                package("aa", "my base.ks"),
                package("b", "my base.ks"),
                package("zz", "a.ks"),
            ],
        }
    }

    #[test]
    fn text_is_readable_and_stable() {
        let mut shuffled = lock();
        shuffled.packages.reverse();
        let text = lock().text();
        assert_eq!(text, shuffled.text());
        assert!(
            text.contains("\nlayer my%20base.ks\naa 1:2~a-3 amd64 7 "),
            "{text}"
        );
        assert!(
            text.contains("repository http://h/debian bookworm 2026-07-11T10:16:37Z "),
            "{text}"
        );
        assert_eq!(Lock::parse("kiln.lock", &text).expect("own text"), lock());
    }

    #[test]
    fn the_image_may_have_a_package_of_the_tools() {
        let mut lock = lock();
        lock.layers.insert(0, TOOLS.into());
        lock.packages.insert(0, package("b", TOOLS));
        assert_eq!(
            Lock::parse("kiln.lock", &lock.text()).expect("own text"),
            lock
        );
    }

    #[test]
    fn errors_name_the_line() {
        let good = lock().text();
        for (from, to, line, words) in [
            ("format 1", "format 9", 2, "format 9"),
            ("format 1", "", 3, "does not begin"),
            ("target ", "torget ", 3, "not understood"),
            ("2026-07-11T", "soon", 5, "not a date"),
            (" amd64 7 ", " amd64 x ", 8, "size in bytes"),
            (" auto ", " maybe ", 8, "auto or asked"),
            ("layer a.ks", "layer my%20base.ks", 11, "twice"),
            ("\nb 1", "\naa 1", 9, "twice"),
        ] {
            let error = Lock::parse("kiln.lock", &good.replacen(from, to, 1)).expect_err(words);
            assert_eq!(
                error.origin(),
                Some(format!("kiln.lock:{line}").as_str()),
                "{error}"
            );
            assert!(error.to_string().contains(words), "{error}");
        }
        assert!(Lock::parse("l", "").is_err());
    }

    #[test]
    fn any_text_is_read_or_refused() {
        let good = lock().text();
        for cut in 0..good.len() {
            let _ = Lock::parse("l", &good[..cut]);
        }
    }
}
