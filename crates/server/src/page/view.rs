//! What a build's page is made from.

use std::path::PathBuf;

use super::index::Note;
use super::{Page, kept};
use crate::executor::request::Attempt;
use crate::store::{AttemptRow, Record};

/// Everything that a build's page is made from.
pub(super) struct View<'a> {
    pub(super) page: &'a Page,
    pub(super) record: &'a Record,
    /// The attempt that is looked at.
    pub(super) number: u32,
    pub(super) attempt: Attempt,
    pub(super) attempts: Vec<AttemptRow>,
    /// Other builds, the newest first.
    pub(super) all: Vec<Record>,
    pub(super) log: Option<PathBuf>,
    pub(super) notes: Vec<Note>,
    pub(super) failures: Vec<kept::Record>,
}
