//! Preconditions of a request: `ifGenerationMatch` and its kin.

use serde::{Deserialize, Serialize};

use super::error::{ApiError, Result};
use super::resource::Object;
use super::route::Query;

/// What must hold of the object that a request reads or replaces.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conditions {
    /// The generation that is there; 0 means that there is no object.
    pub generation: Option<i64>,
    /// A generation that must not be there.
    pub generation_not: Option<i64>,
    /// The version of the attributes.
    pub metageneration: Option<i64>,
    /// A version of the attributes that must not be there.
    pub metageneration_not: Option<i64>,
}

impl Conditions {
    /// There must be no object of that name yet.
    pub fn absent() -> Conditions {
        Conditions {
            generation: Some(0),
            ..Conditions::default()
        }
    }

    /// Reads a query's; `source` reads those about the object that is copied.
    pub(super) fn of_query(query: &Query, source: bool) -> Result<Conditions> {
        let number = |name: &str| {
            let infix = if source { "Source" } else { "" };
            query.number(&format!("if{infix}{name}"))
        };
        Ok(Conditions {
            generation: number("GenerationMatch")?,
            generation_not: number("GenerationNotMatch")?,
            metageneration: number("MetagenerationMatch")?,
            metageneration_not: number("MetagenerationNotMatch")?,
        })
    }

    /// Checks them before something is written.
    ///
    /// # Errors
    /// One does not hold (412).
    pub(super) fn check(&self, found: Option<&Object>) -> Result<()> {
        match self.broken(found) {
            Some((name, _)) => Err(ApiError::precondition(format!(
                "At least one of the pre-conditions you specified did not hold: {name}"
            ))),
            None => Ok(()),
        }
    }

    /// Checks them before something is read: the caller who has that very version is told so.
    ///
    /// # Errors
    /// One does not hold (412 or 304).
    pub(super) fn check_read(&self, found: &Object) -> Result<()> {
        match self.broken(Some(found)) {
            Some((_, true)) => Err(ApiError::not_modified()),
            _ => self.check(Some(found)),
        }
    }

    /// The first that does not hold, and whether it is one of those that must not match.
    fn broken(&self, found: Option<&Object>) -> Option<(&'static str, bool)> {
        let generation = found.map_or(0, |object| object.generation);
        let metageneration = found.map_or(0, |object| object.metageneration);
        let unlike = |wanted: Option<i64>, is: i64| wanted.is_some_and(|wanted| wanted != is);
        let like = |unwanted: Option<i64>, is: i64| unwanted == Some(is);
        if unlike(self.generation, generation) {
            return Some(("ifGenerationMatch", false));
        }
        if unlike(self.metageneration, metageneration) {
            return Some(("ifMetagenerationMatch", false));
        }
        if like(self.generation_not, generation) {
            return Some(("ifGenerationNotMatch", true));
        }
        like(self.metageneration_not, metageneration).then_some(("ifMetagenerationNotMatch", true))
    }
}
