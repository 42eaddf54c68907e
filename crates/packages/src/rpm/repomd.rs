//! `repomd.xml`: the files of a repository's metadata, with their digests.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::href;
use super::xml::{self, Attributes, Take};
use crate::{Digest, Result};

/// The kinds of files that are fetched: packages, groups, module streams.
pub const KINDS: &[&str] = &["primary", "group", "modules"];

/// The list of all files, which is fetched only when somebody needs more of them than `primary` has.
pub const FILELISTS: &str = "filelists";

/// Bound for a file of metadata that is read, packed and plain. The largest `primary` have some 250 MB.
pub(super) const MAX_FILE: u64 = 512 << 20;
/// The same for the list of all files, which is read without being kept. The largest have some 800 MB.
const MAX_FILELISTS: u64 = 2 << 30;

/// The year 10000 begins: no date of RFC 3339 is later.
const LAST_SECOND: u64 = 253_402_300_800;

/// What `repomd.xml` says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Repomd {
    /// The newest of its files was made then.
    pub date: Option<SystemTime>,
    /// Its files by kind: `primary`, `group`, `modules`.
    pub files: BTreeMap<String, Listed>,
    /// The list of all files of its packages, if it has one that can be used.
    pub filelists: Option<Listed>,
}

impl Repomd {
    /// A file of a kind.
    pub(super) fn listed(&self, kind: &str) -> Option<&Listed> {
        match kind {
            FILELISTS => self.filelists.as_ref(),
            kind => self.files.get(kind),
        }
    }
}

/// A file of metadata.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Where it is, relative to the repository.
    pub href: String,
    /// Its size in bytes.
    pub size: u64,
    /// Its content.
    pub sha256: Digest,
    /// Size and content without compression.
    pub open: Option<(u64, Digest)>,
}

impl Repomd {
    /// Reads it; `what` names it for messages.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Malformed`] with the byte where it is.
    pub fn read(what: &str, bytes: &[u8]) -> Result<Self> {
        let mut reading = Reading::default();
        xml::read(what, bytes, &mut reading)?;
        Ok(reading.repomd)
    }
}

/// A file on its way.
#[derive(Default)]
struct Data {
    kind: String,
    href: Option<String>,
    size: Option<u64>,
    sha256: Option<Digest>,
    open_size: Option<u64>,
    open_sha256: Option<Digest>,
    /// The names of its checksums that are of another kind.
    others: Vec<String>,
}

#[derive(Default)]
struct Reading {
    repomd: Repomd,
    data: Data,
    checksum: String,
}

impl Take for Reading {
    fn begin(&mut self, path: &str, attributes: &Attributes) -> Result<(), String> {
        match path {
            "repomd/data" => {
                let kind = attributes
                    .get("type")
                    .ok_or("has a file without a type")?
                    .to_owned();
                self.data = Data {
                    kind,
                    ..Data::default()
                };
            }
            "repomd/data/checksum" | "repomd/data/open-checksum" => {
                self.checksum = attributes.get("type").unwrap_or("").to_owned();
            }
            "repomd/data/location" => {
                if attributes.get("base").is_some() {
                    return Err("has a file that lies in another repository".into());
                }
                let place = attributes.get("href").ok_or("has a file without a place")?;
                href::check(place)?;
                self.data.href = Some(place.to_owned());
            }
            _ if !path.starts_with("repomd") => return Err("is no repomd.xml".into()),
            _ => {}
        }
        Ok(())
    }

    fn end(&mut self, path: &str, text: &str) -> Result<(), String> {
        let digest = |text: &str| {
            text.parse()
                .map_err(|error| format!("has a bad checksum, {error}"))
        };
        let is_sha256 = self.checksum == "sha256";
        match path {
            "repomd/data/checksum" if is_sha256 => self.data.sha256 = Some(digest(text)?),
            "repomd/data/checksum" => self.data.others.push(self.checksum.clone()),
            "repomd/data/open-checksum" if is_sha256 => self.data.open_sha256 = Some(digest(text)?),
            "repomd/data/size" => self.data.size = Some(size(text)?),
            "repomd/data/open-size" => self.data.open_size = Some(size(text)?),
            // Some tools write fractions of seconds.
            "repomd/data/timestamp" => {
                let seconds = text.split('.').next().and_then(|whole| whole.parse().ok());
                let seconds = seconds.filter(|&seconds: &u64| seconds < LAST_SECOND);
                let seconds =
                    seconds.ok_or_else(|| format!("has the bad timestamp {text:.40?}"))?;
                let time = UNIX_EPOCH + Duration::from_secs(seconds);
                self.repomd.date = self.repomd.date.max(Some(time));
            }
            "repomd/data" => return self.finish(),
            _ => {}
        }
        Ok(())
    }
}

impl Reading {
    /// Files of kinds that are never read may be described as they like.
    fn finish(&mut self) -> Result<(), String> {
        let data = std::mem::take(&mut self.data);
        if data.kind == FILELISTS {
            self.repomd.filelists = data.listed(MAX_FILELISTS).ok();
            return Ok(());
        }
        if !KINDS.contains(&data.kind.as_str()) {
            return Ok(());
        }
        let kind = data.kind.clone();
        let listed = data.listed(MAX_FILE)?;
        match self.repomd.files.insert(kind.clone(), listed) {
            None => Ok(()),
            Some(_) => Err(format!("has two files of the type {kind}")),
        }
    }
}

impl Data {
    /// The file, if all is said of it, and it has no more than so many bytes.
    fn listed(self, most: u64) -> Result<Listed, String> {
        let (kind, data) = (self.kind.clone(), self);
        let href = data
            .href
            .ok_or_else(|| format!("does not say where {kind} is"))?;
        let size = data
            .size
            .ok_or_else(|| format!("does not say how large {kind} is"))?;
        let sha256 = data.sha256.ok_or_else(|| {
            format!(
                "has no SHA-256 of {kind}, only {:?}: Kiln trusts no other",
                data.others
            )
        })?;
        let largest = size.max(data.open_size.unwrap_or(0));
        if largest > most {
            return Err(format!(
                "has {kind} with {largest} bytes; {most} is the most that Kiln reads"
            ));
        }
        let open = data.open_size.zip(data.open_sha256);
        Ok(Listed {
            href,
            size,
            sha256,
            open,
        })
    }
}

fn size(text: &str) -> Result<u64, String> {
    text.parse()
        .map_err(|_| format!("has the bad size {text:.40?}"))
}
