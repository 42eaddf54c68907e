//! Places with the same content: a repository's metadata says where they are, and package files are fetched from any of them.

use std::sync::{Arc, Mutex, PoisonError};

use super::Fetcher;
use super::url::append;
use crate::{Error, ErrorKind};

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
}

/// A way to a file.
#[derive(Debug)]
pub(crate) struct Way {
    /// Where it is.
    pub(crate) url: String,
    base: Option<String>,
    own: Option<Arc<Fetcher>>,
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

impl Fetcher {
    /// Notes base URLs with the same content, the one to be asked first in front, and who fetches from them.
    pub(crate) fn learn(&self, bases: &[String], own: Option<Arc<Fetcher>>) {
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
        groups.push(Group { bases, own });
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
            }];
        };
        let way = |base: &String| Way {
            url: append(base, &rest),
            base: Some(base.clone()),
            own: group.own.clone(),
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
