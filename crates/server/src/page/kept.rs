//! What an attempt kept: manifests, lock files, records of failures, the artifacts of its events.
//!
//! Builds write these files; one that cannot be read as it should be shows nothing.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{Page, Query, attempt_of, find};
use crate::executor::request::{Artifact, Attempt, Event, FAILURES, What};
use crate::wire::error::{ApiError, Code};

/// Bytes of a kept file that are read.
const LONGEST: u64 = 16 << 20;
/// Directories below `kept/` that are looked through.
const DEEPEST: usize = 8;

/// `manifest.json` of a build, as far as the page shows it.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub(super) struct Manifest {
    pub(super) name: String,
    pub(super) image: String,
    pub(super) plan: String,
    pub(super) lock: String,
    pub(super) kernel: String,
    pub(super) packages: Vec<Package>,
    pub(super) steps: Vec<Timing>,
    pub(super) warnings: Vec<String>,
}

/// A package of an image.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(default)]
pub(super) struct Package {
    pub(super) name: String,
    pub(super) version: String,
    pub(super) architecture: String,
    pub(super) origin: String,
}

/// One of Kiln's steps.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Timing {
    pub(super) step: String,
    pub(super) seconds: f64,
    pub(super) cached: bool,
}

/// `failure.json`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Record {
    pub(super) failure: Failure,
    pub(super) steps: Vec<Timing>,
}

/// Why a step failed.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Failure {
    pub(super) kind: String,
    pub(super) message: String,
    pub(super) layer: Option<String>,
    pub(super) origin: Option<String>,
    pub(super) excerpt: Option<String>,
    pub(super) package: Option<String>,
    pub(super) command: Option<Vec<String>>,
    pub(super) status: Option<String>,
    pub(super) tail: Vec<String>,
    pub(super) causes: Vec<String>,
    pub(super) hints: Vec<String>,
}

/// A small file as text.
fn text(path: &Path) -> Option<String> {
    let mut bytes = Vec::new();
    let file = fs::File::open(path).ok()?;
    if !file.metadata().ok()?.is_file() {
        return None;
    }
    file.take(LONGEST).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

pub(super) fn read<T: serde::de::DeserializeOwned>(path: &Path) -> Option<T> {
    serde_json::from_str(&text(path)?).ok()
}

/// Files below a directory, by their names; links are not followed.
fn below(dir: &Path, depth: usize, found: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(dir) else {
        return;
    };
    for entry in entries.flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_file() => found.push(entry.path()),
            Ok(kind) if kind.is_dir() && depth < DEEPEST && entry.file_name() != FAILURES => {
                below(&entry.path(), depth + 1, found);
            }
            _ => {}
        }
    }
}

pub(super) fn named(attempt: &Attempt, fits: impl Fn(&str) -> bool) -> Vec<PathBuf> {
    let mut found = Vec::new();
    below(&attempt.kept(), 0, &mut found);
    let name = |path: &PathBuf| {
        path.file_name()
            .and_then(|name| name.to_str())
            .is_some_and(&fits)
    };
    found.retain(name);
    found.sort();
    found
}

fn is_lock(name: &str) -> bool {
    name == "kiln.lock" || name.ends_with(".kiln.lock")
}

/// The manifest of the image that an attempt made.
pub(super) fn manifest(attempt: &Attempt) -> Option<Manifest> {
    named(attempt, |name| name == "manifest.json")
        .iter()
        .find_map(|path| read(path))
}

/// Whether there is a lock file.
pub(super) fn has_lock(attempt: &Attempt) -> bool {
    !named(attempt, is_lock).is_empty()
}

/// Bytes of each package as it was downloaded, by name; without those that only build.
pub(super) fn sizes(attempt: &Attempt) -> BTreeMap<String, u64> {
    let mut sizes = BTreeMap::new();
    for path in named(attempt, is_lock).iter().take(1) {
        let mut layer = String::new();
        let Some(text) = text(path) else { continue };
        for line in text.lines() {
            let mut words = line.split(' ');
            match words.next() {
                Some("layer") => layer = words.next().unwrap_or("").to_owned(),
                Some("package") if layer != "tools" => {
                    let name = words.next().unwrap_or("").to_owned();
                    let size = words.find_map(|word| word.strip_prefix("size="));
                    let size = size.and_then(|size| size.parse().ok());
                    sizes.insert(name, size.unwrap_or(0));
                }
                _ => {}
            }
        }
    }
    sizes
}

/// Why steps of an attempt failed.
pub(super) fn failures(attempt: &Attempt) -> Vec<Record> {
    let mut found = Vec::new();
    below(&attempt.kept().join(FAILURES), 0, &mut found);
    found.sort();
    found.iter().filter_map(|path| read(path)).collect()
}

/// The files that an attempt made.
pub(super) fn artifacts(attempt: &Attempt) -> Vec<Artifact> {
    let Some(events) = text(&attempt.events()) else {
        return Vec::new();
    };
    let mut files =
        events.lines().filter_map(
            |line| match serde_json::from_str::<Event>(line).ok()?.what {
                What::Artifacts { files } => Some(files),
                _ => None,
            },
        );
    files.next_back().into_iter().flatten().collect()
}

/// A kept file, as it is: `manifest.json` or `kiln.lock`.
pub(super) fn file(page: &Page, id: &str, name: &str, query: &Query) -> Result<String, ApiError> {
    let record = find(page, id)?;
    let attempt = page.server.attempt(id, attempt_of(&record, query)?);
    let paths = match name {
        "manifest.json" => named(&attempt, |name| name == "manifest.json"),
        "kiln.lock" => named(&attempt, is_lock),
        _ => Vec::new(),
    };
    let found = paths.first().and_then(|path| text(path));
    found.ok_or_else(|| ApiError::new(Code::NotFound, format!("the attempt kept no {name:?}")))
}
