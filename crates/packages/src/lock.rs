//! `kiln.lock`: every package of an image, exactly. Made to be reviewed and merged line by line.
//!
//! ```text
//! # comments and empty lines are ignored
//! format 2
//! target debian:bookworm/amd64
//! inputs SHA256                                  of the requests that the answer is for
//! repository url=URL name=bookworm date=DATE sha256=SHA256
//!                                                DATE: RFC 3339, UTC; SHA256: of the signed metadata
//! layer base.ks                                  the packages that follow are this layer's
//! package NAME version=V architecture=A reason=auto|asked size=BYTES sha256=SHA256 url=URL
//! package bash version=5.1.8-9.el9 architecture=x86_64 reason=auto size=… sha256=… repository=baseos url=…
//! ```
//!
//! Layers are in the order of the definition, packages sorted by name. Fields are separated by one space and each is there
//! once, in any order; a space, a control character or `%` within a field is written as `%XX`. A family of distributions may
//! have facts of its own (`repository=` above): whoever reads a lock says which, and any other field is refused. The same
//! lock always gives the same bytes.
//!
//! Format 1 is still read. It had the fields of a package by their places, and no facts of a family:
//!
//! ```text
//! repository URL NAME DATE SHA256
//! NAME VERSION ARCHITECTURE SIZE SHA256 auto|asked URL
//! ```
//!
//! What is derived from a lock ([`Lock::id`]) or remembered of a package ([`LockedPackage::identity`]) is the same for both
//! formats: it is made of what format 1 wrote, with the facts after it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::SystemTime;

use crate::store::{DownloadStore, Item, OnProgress};
use crate::{Digest, Error, ErrorKind, Fetcher, Result};

mod read;
#[cfg(test)]
mod tests;
mod write;

/// The layer of the packages that resolve and install the others. They are a root of their own, so the image may have
/// the same packages again.
pub const TOOLS: &str = "tools";

/// What was decided for an image.
#[derive(Clone, Debug, PartialEq, Eq)]
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
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockedRepository {
    /// Base URL.
    pub uri: String,
    /// Its name below that: Debian's suite, an RPM repository's id.
    pub name: String,
    /// The date of its metadata; whole seconds.
    pub date: SystemTime,
    /// Digest of the signed metadata.
    pub release: Digest,
}

/// One package of the image.
#[derive(Clone, Debug, PartialEq, Eq)]
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
    /// What else its family of distributions has to know of it, by name.
    pub facts: BTreeMap<String, String>,
}

/// What the signed metadata of some repositories says of a locked package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The metadata has it: name, version, architecture, size, SHA-256 and place.
    Signed,
    /// The metadata has this version with something else: a sentence that says what.
    Differs(String),
    /// Nobody has this version.
    Unknown,
}

impl LockedPackage {
    /// Returns `name version architecture`.
    pub fn describe(&self) -> String {
        format!("{} {} {}", self.name, self.version, self.architecture)
    }

    /// Returns one line with everything that a lock says of it but its layer, with the end of the line; the same whatever the
    /// lock's format.
    pub fn identity(&self) -> String {
        write::identity(self)
    }

    /// Returns what the download store is to have.
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
    /// Returns the newest date of its repositories: the image's `SOURCE_DATE_EPOCH`.
    pub fn date(&self) -> Option<SystemTime> {
        self.repositories.iter().map(|r| r.date).max()
    }

    /// Digest of everything that it says, whatever format it was read from.
    pub fn id(&self) -> Digest {
        Digest::of(write::canonical(self).as_bytes())
    }

    /// Packages of one layer, in the file's order.
    pub fn of_layer<'a>(&'a self, layer: &'a str) -> impl Iterator<Item = &'a LockedPackage> {
        self.packages
            .iter()
            .filter(move |package| package.layer == layer)
    }

    /// Returns its text in the newest format: sorted, always the same bytes for the same lock.
    pub fn text(&self) -> String {
        write::text(self)
    }

    /// Reads a lock file of any format; `file` is its name for messages, `facts` are the names of fields that packages
    /// have beside the common ones.
    ///
    /// # Errors
    /// [`ErrorKind::Input`] with `file:line` as its origin.
    pub fn parse(file: &str, text: &str, facts: &[&str]) -> Result<Self> {
        read::lock(text, facts).map_err(|(line, why)| {
            let origin = format!("{file}:{line}");
            Error::new(ErrorKind::Input, format!("{origin}: {why}"))
                .with_origin(&origin)
                .with_hint(
                    "The lock file is damaged or wrongly merged: write it anew with `kiln lock`.",
                )
        })
    }

    /// Returns the number of the line of a lock file that has a package.
    pub fn line_of(text: &str, facts: &[&str], package: &LockedPackage) -> Option<usize> {
        read::line_of(text, facts, package)
    }

    /// Returns the number of the line of a lock file that has a repository, which is counted from 0.
    pub fn line_of_repository(text: &str, facts: &[&str], at: usize) -> Option<usize> {
        read::line_of_repository(text, facts, at)
    }
}

/// Has all packages in the store, verified; returns their paths in the same order.
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
