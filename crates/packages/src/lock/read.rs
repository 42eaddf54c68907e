//! Reading lock files, of which any byte may have been changed.

use std::collections::{BTreeMap, HashSet};
use std::time::SystemTime;

use super::{Lock, LockedPackage, LockedRepository, TOOLS};
use crate::Digest;
use crate::fetch::url::percent_decode;

/// Fields that every package has.
const PACKAGE: [&str; 6] = ["version", "architecture", "reason", "size", "sha256", "url"];
/// Fields that every repository has.
const REPOSITORY: [&str; 4] = ["url", "name", "date", "sha256"];

/// Reads a lock file. An error has the number of its line.
pub(super) fn lock(text: &str, facts: &[&str]) -> Result<Lock, (usize, String)> {
    let mut reading = Reading::new(facts);
    let mut last = 1;
    for (number, line) in lines(text) {
        last = number;
        reading.line(line).map_err(|why| (number, why))?;
    }
    reading.finish().map_err(|why| (last, why))
}

/// The number of the line that has a package.
pub(super) fn line_of(text: &str, facts: &[&str], package: &LockedPackage) -> Option<usize> {
    let mut reading = Reading::new(facts);
    lines(text).find_map(|(number, line)| {
        let before = reading.packages.len();
        reading.line(line).ok()?;
        let found = reading.packages.get(before) == Some(package);
        found.then_some(number)
    })
}

/// The number of the line that has a repository, counted from 0.
pub(super) fn line_of_repository(text: &str, facts: &[&str], at: usize) -> Option<usize> {
    let mut reading = Reading::new(facts);
    lines(text).find_map(|(number, line)| {
        reading.line(line).ok()?;
        (reading.repositories.len() > at).then_some(number)
    })
}

/// Lines that say something, with their numbers.
fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let numbered = text.lines().enumerate();
    numbered
        .map(|(at, line)| (at + 1, line.trim()))
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Format {
    One,
    Two,
}

struct Reading<'a> {
    facts: &'a [&'a str],
    format: Option<Format>,
    target: Option<String>,
    inputs: Option<Digest>,
    repositories: Vec<LockedRepository>,
    layers: Vec<String>,
    packages: Vec<LockedPackage>,
    /// Root (tools or image), name and architecture.
    seen: HashSet<(bool, String, String)>,
    /// Bytes of all packages.
    bytes: u64,
}

impl<'a> Reading<'a> {
    fn new(facts: &'a [&'a str]) -> Self {
        Reading {
            facts,
            format: None,
            target: None,
            inputs: None,
            repositories: Vec::new(),
            layers: Vec::new(),
            packages: Vec::new(),
            seen: HashSet::new(),
            bytes: 0,
        }
    }

    fn line(&mut self, line: &str) -> Result<(), String> {
        if line.contains(char::is_control) {
            return Err(format!("there is a control character in {line:?}"));
        }
        let words: Vec<&str> = line.split(' ').collect();
        let Some(format) = self.format else {
            return self.begin(&words);
        };
        match (format, &words[..]) {
            (_, ["format", _]) => Err("the format is given twice".into()),
            (_, ["target", target]) => once(&mut self.target, decoded(target)?, "target"),
            (_, ["inputs", digest]) => once(&mut self.inputs, digest_of(digest)?, "inputs"),
            (_, ["layer", layer]) => self.layer(decoded(layer)?),
            (Format::One, ["repository", uri, name, date, release]) => {
                self.repository([uri, name, date, release])
            }
            (Format::One, [name, version, architecture, size, sha256, reason, url]) => {
                let common = [version, architecture, reason, size, sha256, url].map(|f| *f);
                self.package(name, common, BTreeMap::new())
            }
            (Format::Two, ["repository", fields @ ..]) => {
                let mut named = Fields::read(fields)?;
                let common = named.take(REPOSITORY)?;
                named.end(&REPOSITORY, &[])?;
                self.repository(common)
            }
            (Format::Two, ["package", name, fields @ ..]) => {
                let mut named = Fields::read(fields)?;
                let common = named.take(PACKAGE)?;
                let facts = named.facts(self.facts)?;
                named.end(&PACKAGE, self.facts)?;
                self.package(name, common, facts)
            }
            (_, words) => Err(format!(
                "a line with {} fields is not understood: {line:?}",
                words.len()
            )),
        }
    }

    fn begin(&mut self, words: &[&str]) -> Result<(), String> {
        self.format = Some(match words {
            ["format", "1"] => Format::One,
            ["format", "2"] => Format::Two,
            ["format", other] => {
                return Err(format!(
                    "format {other} is not known to this version of Kiln"
                ));
            }
            _ => return Err("the file does not begin with a format line".into()),
        });
        Ok(())
    }

    fn layer(&mut self, layer: String) -> Result<(), String> {
        if self.layers.contains(&layer) {
            return Err(format!("the layer {layer} is there twice"));
        }
        self.layers.push(layer);
        Ok(())
    }

    fn repository(&mut self, [url, name, date, release]: [&str; 4]) -> Result<(), String> {
        self.repositories.push(LockedRepository {
            uri: value("url", url)?,
            name: value("name", name)?,
            date: date_of(date)?,
            release: digest_of(release)?,
        });
        Ok(())
    }

    fn package(
        &mut self,
        name: &str,
        [version, architecture, reason, size, sha256, url]: [&str; 6],
        facts: BTreeMap<String, String>,
    ) -> Result<(), String> {
        let layer = self
            .layers
            .last()
            .ok_or("a package before the first layer line")?
            .clone();
        let package = LockedPackage {
            name: value("name", name)?,
            version: value("version", version)?,
            architecture: value("architecture", architecture)?,
            url: value("url", url)?,
            sha256: digest_of(sha256)?,
            size: size_of(size)?,
            layer,
            auto: match reason {
                "auto" => true,
                "asked" => false,
                other => return Err(format!("{other:?} should be auto or asked")),
            },
            facts,
        };
        self.bytes = self
            .bytes
            .checked_add(package.size)
            .ok_or("the sizes of all packages are more than any disk has")?;
        let LockedPackage {
            name, architecture, ..
        } = &package;
        let key = (package.layer == TOOLS, name.clone(), architecture.clone());
        if !self.seen.insert(key) {
            return Err(format!(
                "the package {name} ({architecture}) is there twice"
            ));
        }
        self.packages.push(package);
        Ok(())
    }

    fn finish(self) -> Result<Lock, String> {
        if self.format.is_none() {
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

/// The named fields of a line, as they stand there.
struct Fields<'t>(BTreeMap<&'t str, &'t str>);

impl<'t> Fields<'t> {
    fn read(fields: &[&'t str]) -> Result<Self, String> {
        let mut named = BTreeMap::new();
        for field in fields {
            let (name, value) = field
                .split_once('=')
                .ok_or_else(|| format!("{field:?} is no field such as size=7"))?;
            if named.insert(name, value).is_some() {
                return Err(format!("the field {name:?} is there twice"));
            }
        }
        Ok(Fields(named))
    }

    /// The values of fields that have to be there.
    fn take<const N: usize>(&mut self, names: [&str; N]) -> Result<[&'t str; N], String> {
        let mut values = [""; N];
        for (value, name) in values.iter_mut().zip(names) {
            *value = self
                .0
                .remove(name)
                .ok_or_else(|| format!("the field {name} is missing"))?;
        }
        Ok(values)
    }

    /// Those of a family that are there.
    fn facts(&mut self, names: &[&str]) -> Result<BTreeMap<String, String>, String> {
        let mut facts = BTreeMap::new();
        for name in names {
            if let Some(text) = self.0.remove(*name) {
                facts.insert((*name).to_owned(), value(name, text)?);
            }
        }
        Ok(facts)
    }

    /// Nothing else is there.
    fn end(self, common: &[&str], facts: &[&str]) -> Result<(), String> {
        let Some((name, _)) = self.0.first_key_value() else {
            return Ok(());
        };
        let known = [common, facts].concat().join(", ");
        Err(format!(
            "the field {name:?} is not known to this version of Kiln; known are {known}"
        ))
    }
}

fn decoded(text: &str) -> Result<String, String> {
    String::from_utf8(percent_decode(text)).map_err(|_| format!("{text:?} is not UTF-8"))
}

/// A text that is not empty, and fit to be shown.
fn value(name: &str, text: &str) -> Result<String, String> {
    let value = decoded(text)?;
    if value.is_empty() {
        return Err(format!("the field {name} is empty"));
    }
    if value.contains(char::is_control) {
        return Err(format!("there is a control character in {name}: {value:?}"));
    }
    Ok(value)
}

fn once<T>(slot: &mut Option<T>, value: T, what: &str) -> Result<(), String> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(format!("{what} is given twice")),
    }
}

fn size_of(text: &str) -> Result<u64, String> {
    // `parse` alone would take a sign.
    let size = text.parse().ok().filter(|_| !text.starts_with('+'));
    size.ok_or_else(|| format!("{text:?} is not a size in bytes"))
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
