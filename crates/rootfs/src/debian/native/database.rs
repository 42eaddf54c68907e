//! dpkg's database, as far as it decides where a package's entries go.

use std::path::Path;

use super::paths::{Accounts, Diversions, Overrides, Owners};
use super::status::Status;
use super::triggers::Triggers;

/// dpkg's database, and what it says about paths.
pub(super) struct Database<'a> {
    pub(super) root: &'a Path,
    pub(super) status: Status,
    pub(super) owners: Owners,
    pub(super) triggers: Triggers,
    pub(super) diversions: Diversions,
    pub(super) accounts: Accounts,
    pub(super) overrides: Overrides,
}
