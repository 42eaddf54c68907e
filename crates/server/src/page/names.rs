//! What builds are called that were given a directory and no name: as the image that they made.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use super::{Page, ansi, history, kept};
use crate::store::Record;
use crate::wire::model::Status;

/// Names that are known at a time.
const KNOWN: usize = 4096;
/// Letters of a name.
const LONGEST: usize = 60;

/// Names of images by their builds; none for those that have no image.
#[derive(Debug, Default)]
pub(super) struct Names(Mutex<BTreeMap<String, Option<String>>>);

/// What a build is called: its definition's name, or its image's where the definition is the whole source.
pub(super) fn of(page: &Page, record: &Record) -> String {
    let build = &record.build;
    let name = history::name(record);
    if !matches!(name.as_str(), "." | "./" | "workspace") {
        return name;
    }
    let image = match build.status {
        Status::Success => of_image(page, record),
        _ => None,
    };
    let tag = build.tags.first().map(|tag| ansi::plain(tag));
    image.or(tag).unwrap_or_else(|| {
        let start: String = build.id.chars().take(8).collect();
        format!("source {start}")
    })
}

fn of_image(page: &Page, record: &Record) -> Option<String> {
    let id = &record.build.id;
    let known = || page.names.0.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(name) = known().get(id) {
        return name.clone();
    }
    let manifest = kept::manifest(&page.server.attempt(id, record.attempt));
    let name = manifest.map(|manifest| ansi::plain(&manifest.name));
    let name = name.filter(|name| !name.is_empty());
    let name = name.map(|name| name.chars().take(LONGEST).collect::<String>());
    let mut known = known();
    if known.len() >= KNOWN {
        known.clear();
    }
    known.insert(id.clone(), name.clone());
    name
}
