//! Sources from git: what a build says of one, and how a server reaches it.

use std::path::Path;

use kiln_git::{Credentials, Options, Resolved};
use serde::{Deserialize, Serialize};

use crate::wire::error::ApiError;
use crate::wire::model::{Build, GitSource, SourceProvenance};

/// A source that an attempt fetches.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GitTask {
    /// The repository's address.
    pub url: String,
    /// A branch, a tag, another reference or a commit; empty: the default branch.
    pub revision: String,
    /// The commit, if it is known already: the revision may have moved since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pin: Option<Pin>,
}

/// What a revision stood for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pin {
    /// The commit, in forty digits.
    pub commit: String,
    /// `refs/heads/NAME` or `refs/tags/NAME`, if it was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
}

impl From<Resolved> for Pin {
    fn from(found: Resolved) -> Self {
        Pin {
            commit: found.commit,
            reference: found.reference,
        }
    }
}

/// Checks what a build says; nothing is fetched yet. Whether a directory lies below the source, `is_below` says.
///
/// # Errors
/// What is wrong with it, as a client is told.
pub(crate) fn check(source: &GitSource, is_below: &dyn Fn(&str) -> bool) -> Result<(), ApiError> {
    let wrong = |field: &str, what: String| {
        ApiError::invalid(format!("invalid build.source.gitSource.{field}: {what}"))
    };
    kiln_git::check_url(&source.url).map_err(|what| wrong("url", what))?;
    kiln_git::check_revision(source.revision.as_deref().unwrap_or(""))
        .map_err(|what| wrong("revision", what))?;
    let dir = source.dir.as_deref().unwrap_or("");
    if Path::new(dir).is_absolute() || !is_below(dir) {
        return Err(wrong("dir", format!("{dir:?} is not below the source")));
    }
    Ok(())
}

/// Reads the file of credentials, if there is one.
///
/// # Errors
/// It cannot be read, or is none.
pub(crate) fn credentials(file: Option<&Path>) -> kiln_git::Result<Credentials> {
    file.map_or_else(|| Ok(Credentials::default()), Credentials::read)
}

/// How an attempt reaches a repository.
pub(crate) fn options<'a>(
    credentials: Credentials,
    from_elsewhere: bool,
    stop: &'a (dyn Fn() -> bool + 'a),
) -> Options<'a> {
    Options {
        only: from_elsewhere.then_some(kiln_sandbox::is_elsewhere),
        credentials,
        stop,
        ..Options::default()
    }
}

/// Writes down which commit a build is made of.
pub(crate) fn fetched(build: &mut Build, commit: &str) {
    let source = build.source.as_ref();
    let Some(source) = source.and_then(|source| source.git_source.clone()) else {
        return;
    };
    build.source_provenance = Some(SourceProvenance {
        resolved_git_source: Some(GitSource {
            revision: Some(commit.to_owned()),
            ..source
        }),
    });
}
