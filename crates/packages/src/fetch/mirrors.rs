//! Places with the same content: a repository's metadata says where they are, and package files are fetched from any of them.

use std::sync::{Arc, Mutex, PoisonError};

use super::Fetcher;
use super::attempt::pause;
use super::url::append;
use crate::{Error, ErrorKind, Result};

/// Places that are tried for one file.
const MOST: usize = 8;

/// What a fetcher was told of mirrors.
#[derive(Debug, Default)]
pub(super) struct Mirrors(Mutex<Vec<Group>>);

/// Base URLs with the same content, the one to be asked first in front.
#[derive(Debug)]
struct Group {
    bases: Vec<String>,
    /// Who fetches from there, where the repository has a proxy of its own.
    own: Option<Arc<Fetcher>>,
    /// `file:line` that brought the repository; empty for defaults.
    origin: String,
}

/// A way to a file.
#[derive(Debug)]
pub(crate) struct Way {
    /// Where it is.
    pub(crate) url: String,
    base: Option<String>,
    own: Option<Arc<Fetcher>>,
    /// `file:line` that brought the repository; empty where nothing did.
    pub(crate) origin: String,
}

impl Way {
    /// Who goes it.
    pub(crate) fn fetcher<'a>(&'a self, fetcher: &'a Fetcher) -> &'a Fetcher {
        self.own.as_deref().unwrap_or(fetcher)
    }
}

/// Whether a failure says nothing about other mirrors.
pub(crate) fn another_may_help(error: &Error) -> bool {
    use ErrorKind::{Cancelled, Internal, Io, Offline};
    !matches!(error.kind(), Cancelled | Internal | Io | Offline)
}

/// Whether a failure may be over when the same place is asked again. `asked` is how often it was.
fn may_pass(error: &Error, asked: u32) -> bool {
    use ErrorKind::{HashMismatch, Network, Refused, Stalled, Truncated};
    match error.kind() {
        Network | Refused | Stalled | Truncated => true,
        // What another place began may have been wrong.
        HashMismatch => asked < 2,
        _ => false,
    }
}

/// What asking places came to.
pub(crate) struct Asked<T> {
    /// What the first good one gave.
    pub(crate) found: Option<T>,
    /// The last failure of each of the others that were asked, in the order of the places.
    pub(crate) failures: Vec<Error>,
}

/// Asks places with the same content, the best first, until one gives what is wanted. One place alone is asked as often as the
/// options say. Several are asked once each, and again only when all have failed: one that stalls costs its time once. `ask` is told
/// how many tries in a row may bring nothing.
///
/// # Errors
/// A failure that says nothing about other places.
pub(crate) fn in_turn<P, T>(
    fetcher: &Fetcher,
    places: &[P],
    mut ask: impl FnMut(&P, u32) -> Result<T>,
) -> Result<Asked<T>> {
    let attempts = fetcher.options.attempts.max(1);
    let (rounds, tries) = match places.len() {
        0 | 1 => (1, attempts),
        _ => (attempts, 1),
    };
    let mut failures: Vec<Option<Error>> = places.iter().map(|_| None).collect();
    let mut found = None;
    for round in 0..rounds {
        if round > 0 {
            fetcher.cancel.sleep(pause(&fetcher.options, round))?;
        }
        for (place, failure) in places.iter().zip(&mut failures) {
            if failure
                .as_ref()
                .is_some_and(|error| !may_pass(error, round))
            {
                continue;
            }
            match ask(place, tries) {
                Ok(given) => {
                    *failure = None;
                    found = Some(given);
                    break;
                }
                Err(error) if !another_may_help(&error) => return Err(error),
                Err(error) => *failure = Some(error),
            }
        }
        let mut left = failures.iter().flatten();
        if found.is_some() || !left.any(|error| may_pass(error, round + 1)) {
            break;
        }
    }
    let failures = failures.into_iter().flatten().collect();
    Ok(Asked { found, failures })
}

impl Fetcher {
    /// Notes base URLs with the same content, the one to be asked first in front, who fetches from them, and the `file:line` that
    /// brought them.
    pub(crate) fn learn(&self, bases: &[String], own: Option<Arc<Fetcher>>, origin: &str) {
        let bases: Vec<String> = bases
            .iter()
            .map(|base| base.trim_end_matches('/').to_owned())
            .collect();
        let mut groups = self
            .mirrors
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        groups.retain(|group| !bases.iter().any(|base| group.bases.contains(base)));
        let origin = origin.to_owned();
        groups.push(Group { bases, own, origin });
    }

    /// Whether something was noted of one of these base URLs.
    pub(crate) fn knows(&self, bases: &[String]) -> bool {
        let groups = self
            .mirrors
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let mut known = groups.iter().flat_map(|group| &group.bases);
        known.any(|known| bases.iter().any(|base| base.trim_end_matches('/') == known))
    }

    /// The ways to a file, the best first: its URL, and where mirrors of the same repository have it.
    pub(crate) fn ways(&self, url: &str) -> Vec<Way> {
        let groups = self
            .mirrors
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let below = |base: &str| url.strip_prefix(base)?.strip_prefix('/');
        let of = |group: &Group| {
            group
                .bases
                .iter()
                .filter_map(|base| below(base))
                .min_by_key(|rest| rest.len())
                .map(str::to_owned)
        };
        let found = groups.iter().filter_map(|group| Some((group, of(group)?)));
        let Some((group, rest)) = found.min_by_key(|(_, rest)| rest.len()) else {
            return vec![Way {
                url: url.to_owned(),
                base: None,
                own: None,
                origin: String::new(),
            }];
        };
        let way = |base: &String| Way {
            url: append(base, &rest),
            base: Some(base.clone()),
            own: group.own.clone(),
            origin: group.origin.clone(),
        };
        group.bases.iter().take(MOST).map(way).collect()
    }

    /// Has a place asked last from now on that failed.
    pub(crate) fn demote(&self, way: &Way) {
        let Some(bad) = &way.base else {
            return;
        };
        let mut groups = self
            .mirrors
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        for group in groups.iter_mut() {
            if let Some(at) = group.bases.iter().position(|base| base == bad) {
                group.bases[at..].rotate_left(1);
            }
        }
    }
}
