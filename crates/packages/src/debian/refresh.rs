//! Fetching and verifying repository metadata, with a cache of what was verified.
//!
//! ```text
//! metadata/
//!   deb.debian.org_debian_bookworm-0123456789ab/    one directory per URL and suite
//!     lock                 locked (flock) by whoever refreshes
//!     current              what the last good refresh saw, replaced by rename; lines of `key value`:
//!                          `inline SHA256` or `detached SHA256` + `signature SHA256`, `modified HTTP-DATE`
//!     files/SHA256         InRelease (or Release and Release.gpg) and indices, by content; committed by rename
//!     files/SHA256.part    on its way
//! ```
//!
//! Nothing here is trusted when it is used again: signatures are verified and files hashed each time. A file below `files/` is
//! never changed, not even its times: apt takes an index whose time changes while it reads for another one, and knows
//! none of its packages. Whoever uses [`Metadata`] holds a shared lock (flock) on `files/`. What the current release does not list is garbage, and
//! goes with the next refresh that can lock `files/` alone.

use std::collections::HashSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::index;
pub use super::index::Index;
use super::release::Release;
use super::repository::{Keys, Repository};
use crate::cache::Directory;
use crate::fetch::Fetched;
use crate::fetch::url::shown;
use crate::openpgp::Signer;
use crate::{CancelToken, Digest, Error, ErrorKind, Fetcher, Result};

/// Bound for `InRelease`, `Release` and `Release.gpg`.
const MAX_RELEASE: u64 = 64 << 20;

/// Clocks of mirror and builder may differ by this much.
const CLOCK_SKEW: Duration = Duration::from_secs(24 * 3600);

/// Verified metadata of all repositories, in the order they were given.
#[derive(Clone, Debug)]
pub struct Metadata {
    /// One for each repository.
    pub repositories: Vec<VerifiedRepository>,
    /// What the user should know although it was no reason to stop.
    pub warnings: Vec<String>,
}

/// A repository whose signature was verified, and the indices that it vouches for.
#[derive(Clone, Debug)]
pub struct VerifiedRepository {
    /// The repository.
    pub repository: Repository,
    /// Content of its `Release`.
    pub release: Release,
    /// Digest of the file that was signed: `InRelease`, or `Release` where there is no `InRelease`.
    pub release_sha256: Digest,
    /// That file.
    pub release_file: PathBuf,
    /// `Release.gpg`, where there is no `InRelease`.
    pub signature_file: Option<PathBuf>,
    /// Who signed it.
    pub signer: Signer,
    /// Its package indices.
    pub indices: Vec<Index>,
    /// The shared lock on the directory of these files: none of them is removed while it is held.
    pub(super) _held: Arc<File>,
}

impl VerifiedRepository {
    /// Returns the file that names its release (`current` in the drawing above).
    pub fn current_file(&self) -> PathBuf {
        let files = self.release_file.parent().unwrap_or(&self.release_file);
        files.with_file_name("current")
    }

    /// Returns what apt keeps in `/var/lib/apt/lists`: the name there, and the file to copy. Indices that are not plain
    /// text get their compression's ending.
    pub fn apt_lists(&self) -> Vec<(String, &Path)> {
        let name = |file: &str| self.repository.apt_list_name(file);
        let mut lists = match &self.signature_file {
            None => vec![(name("InRelease"), self.release_file.as_path())],
            Some(signature) => {
                vec![
                    (name("Release"), self.release_file.as_path()),
                    (name("Release.gpg"), signature.as_path()),
                ]
            }
        };
        lists.extend(self.indices.iter().map(|index| {
            // A flat repository's Release may list `./Packages`, which apt calls `Packages`.
            let file = index.file_name();
            (name(file.trim_start_matches("./")), index.path())
        }));
        lists
    }
}

/// Fetches and verifies the metadata of all repositories, at the same time. What the cache in `directory` has
/// is used where `Release` still vouches for it. A fetcher in offline mode uses the cache only.
///
/// # Errors
/// [`ErrorKind::Unsigned`], [`ErrorKind::BadSignature`], [`ErrorKind::Expired`], [`ErrorKind::HashMismatch`],
/// [`ErrorKind::Input`] (keys, components, architecture), [`ErrorKind::Offline`], any network kind, [`ErrorKind::Io`].
pub fn refresh(
    fetcher: &Fetcher,
    repositories: &[Repository],
    directory: &Path,
    now: SystemTime,
) -> Result<Metadata> {
    let offline = fetcher.options().offline;
    each(repositories, |repository| {
        let mut cache = Cache::open(repository, directory, fetcher.cancel_token())?;
        match offline && !repository.uri.starts_with("file:") {
            true => cache.load(now),
            false => cache.refresh(fetcher, now),
        }
    })
}

/// Returns the metadata of the last good [`refresh`], verified again. An expired one is used with a warning.
///
/// # Errors
/// [`ErrorKind::Offline`] if it is not or not completely there; signature kinds; [`ErrorKind::Io`].
pub fn load_cached(
    repositories: &[Repository],
    directory: &Path,
    now: SystemTime,
) -> Result<Metadata> {
    let cancel = CancelToken::new();
    each(repositories, |repository| {
        Cache::open(repository, directory, &cancel)?.load(now)
    })
}

type Outcome = Result<(VerifiedRepository, Vec<String>)>;

fn each(
    repositories: &[Repository],
    work: impl Fn(&Repository) -> Outcome + Sync,
) -> Result<Metadata> {
    repositories.iter().try_for_each(Repository::check)?;
    let outcomes: Vec<Outcome> = std::thread::scope(|scope| {
        let work = &work;
        let run = |repository| scope.spawn(move || work(repository));
        let threads: Vec<_> = repositories.iter().map(run).collect();
        let panicked = || Error::new(ErrorKind::Internal, "reading repository metadata panicked");
        threads
            .into_iter()
            .map(|t| t.join().unwrap_or_else(|_| Err(panicked())))
            .collect()
    });
    let mut metadata = Metadata {
        repositories: Vec::new(),
        warnings: Vec::new(),
    };
    for (outcome, repository) in outcomes.into_iter().zip(repositories) {
        let (verified, warnings) =
            outcome.map_err(|error| error.with_origin(&repository.origin))?;
        metadata.repositories.push(verified);
        metadata.warnings.extend(warnings);
    }
    Ok(metadata)
}

/// What `current` says.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Current {
    release: Digest,
    /// `None`: the release is clear-signed.
    signature: Option<Digest>,
    modified: Option<String>,
}

impl Current {
    fn parse(text: &str) -> Option<Self> {
        let get = |key: &str| {
            text.lines()
                .find_map(|line| line.strip_prefix(key)?.strip_prefix(' '))
        };
        let digest = |key: &str| get(key).and_then(|value| value.parse().ok());
        let modified = get("modified").map(str::to_owned);
        match digest("inline") {
            Some(release) => Some(Current {
                release,
                signature: None,
                modified,
            }),
            None => Some(Current {
                release: digest("detached")?,
                signature: Some(digest("signature")?),
                modified,
            }),
        }
    }

    fn text(&self) -> String {
        let mut text = match self.signature {
            None => format!("inline {}\n", self.release),
            Some(signature) => format!("detached {}\nsignature {signature}\n", self.release),
        };
        if let Some(modified) = self
            .modified
            .as_deref()
            .filter(|m| !m.contains(['\n', '\r']))
        {
            text.push_str(&format!("modified {modified}\n"));
        }
        text
    }
}

/// Bytes of a release with its signature, not verified yet.
#[derive(Clone)]
struct Unverified {
    release: Vec<u8>,
    signature: Option<Vec<u8>>,
    modified: Option<String>,
}

/// The cache directory of one repository, locked.
struct Cache<'a> {
    repository: &'a Repository,
    directory: Directory,
    warnings: Vec<String>,
}

impl<'a> Cache<'a> {
    fn open(repository: &'a Repository, metadata: &Path, cancel: &CancelToken) -> Result<Self> {
        Ok(Cache {
            repository,
            directory: Directory::open(metadata.join(repository.cache_name()), cancel)?,
            warnings: Vec::new(),
        })
    }

    /// Online: what the mirror has now.
    fn refresh(&mut self, fetcher: &Fetcher, now: SystemTime) -> Outcome {
        let cached = self.cached();
        let mut seen = self.fetch_release(fetcher, cached.as_ref())?;
        let mut verified = self.verify(&seen, now, false)?;
        if let Some(newer) = self.newer_cached(cached, &verified, now) {
            (seen, verified) = newer;
        }
        verified.indices = match self.indices(fetcher, &verified) {
            Ok(indices) => indices,
            Err(error) if is_race(&error) => {
                // The mirror may have been updated between the two files: one more look, if Release changed.
                let again = self.fetch_release(fetcher, None)?;
                if again.release == seen.release {
                    return Err(error);
                }
                seen = again;
                verified = self.verify(&seen, now, false)?;
                self.indices(fetcher, &verified)?
            }
            Err(error) => return Err(error),
        };
        self.commit(&seen, &verified)?;
        Ok((verified, std::mem::take(&mut self.warnings)))
    }

    /// Offline: what was seen last.
    fn load(&mut self, now: SystemTime) -> Outcome {
        let absent = || {
            let message = format!(
                "there is no complete cached metadata of {}",
                self.repository.describe()
            );
            Error::new(ErrorKind::Offline, message)
                .with_hint("Build once with the network, or without --offline.")
        };
        let cached = self.cached().ok_or_else(absent)?;
        let mut verified = self.verify(&cached, now, true)?;
        for name in index::names(self.repository, &verified.release)? {
            let found = index::cached(&verified.release, &name, self.directory.files())?;
            verified.indices.push(found.ok_or_else(absent)?);
        }
        Ok((verified, std::mem::take(&mut self.warnings)))
    }

    /// The last seen release, if its files are there and undamaged.
    fn cached(&self) -> Option<Unverified> {
        let current = Current::parse(&self.directory.current()?)?;
        let read = |digest: Digest| self.directory.read(&digest);
        let signature = match current.signature {
            Some(digest) => Some(read(digest)?),
            None => None,
        };
        Some(Unverified {
            release: read(current.release)?,
            signature,
            modified: current.modified,
        })
    }

    /// `InRelease`, or `Release` and `Release.gpg` where there is none.
    fn fetch_release(&self, fetcher: &Fetcher, cached: Option<&Unverified>) -> Result<Unverified> {
        let get = |file: &str, since: Option<&str>| {
            fetcher.bytes(&self.repository.release_url(file), MAX_RELEASE, since)
        };
        let since = cached
            .filter(|c| c.signature.is_none())
            .and_then(|c| c.modified.as_deref());
        match (get("InRelease", since), cached) {
            (Ok(Fetched::New { bytes, modified }), _) => {
                return Ok(Unverified {
                    release: bytes,
                    signature: None,
                    modified,
                });
            }
            (Ok(Fetched::NotModified), Some(cached)) => return Ok(cached.clone()),
            (Err(error), _) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let release = get("Release", None).map_err(|error| self.no_release(error))?;
        let signature = get("Release.gpg", None).map_err(|error| self.no_signature(error))?;
        match (release, signature) {
            (Fetched::New { bytes: release, .. }, Fetched::New { bytes, .. }) => Ok(Unverified {
                release,
                signature: Some(bytes),
                modified: None,
            }),
            // No time was given, so a server that says so is broken.
            _ => Err(Error::new(
                ErrorKind::Refused,
                format!("{} answers \"not modified\" unasked", self.repository.uri),
            )),
        }
    }

    fn no_release(&self, error: Error) -> Error {
        if error.kind() != ErrorKind::NotFound {
            return error;
        }
        let message = format!(
            "{} is not a repository: it has neither InRelease nor Release",
            self.repository.describe()
        );
        // A wrong address or suite, not a step that failed.
        Error::new(ErrorKind::Input, message)
            .with_source(error)
            .with_hint(format!(
                "Looked for {}. Check the URL and the suite.",
                shown(&self.repository.release_url("InRelease"))
            ))
    }

    fn no_signature(&self, error: Error) -> Error {
        if error.kind() != ErrorKind::NotFound {
            return error;
        }
        let message = format!(
            "{} is not signed (it has neither InRelease nor Release.gpg); Kiln uses signed repositories only",
            self.repository.describe()
        );
        Error::new(ErrorKind::Unsigned, message).with_source(error).with_hint(
            "Sign the repository (`gpg --clearsign -o InRelease Release`) and give its public key as its signing key.",
        )
    }

    /// Signature, suite and dates. `lenient`: an expired release is a warning.
    fn verify(
        &mut self,
        seen: &Unverified,
        now: SystemTime,
        lenient: bool,
    ) -> Result<VerifiedRepository> {
        let repository = self.repository;
        let file = if seen.signature.is_some() {
            "Release"
        } else {
            "InRelease"
        };
        let what = shown(&repository.release_url(file));
        let keyring = repository.keys.keyring()?;
        let (text, signer) = match &seen.signature {
            None => keyring.verify_clearsigned(&what, &seen.release, now)?,
            Some(signature) => {
                let signer = keyring.verify_detached(&what, &seen.release, signature, now)?;
                (String::from_utf8_lossy(&seen.release).into_owned(), signer)
            }
        };
        let release = Release::parse(&what, &text)?;
        self.check_name(&what, &release)?;
        self.check_dates(&what, &release, now, lenient)?;
        let release_sha256 = Digest::of(&seen.release);
        let path = |digest: Digest| self.directory.path(&digest);
        Ok(VerifiedRepository {
            repository: repository.clone(),
            release,
            release_sha256,
            release_file: path(release_sha256),
            signature_file: seen
                .signature
                .as_deref()
                .map(|bytes| path(Digest::of(bytes))),
            signer,
            indices: Vec::new(),
            _held: self.directory.held(),
        })
    }

    /// A mirror must not pass one signed suite off as another.
    fn check_name(&mut self, what: &str, release: &Release) -> Result<()> {
        let wanted = self.repository.suite.trim_end_matches("/updates");
        let names = [release.suite.as_str(), release.codename.as_str()]
            .map(|n| n.trim_end_matches("/updates"));
        if self.repository.is_flat() || names.contains(&wanted) || names == ["", ""] {
            return Ok(());
        }
        let message = format!(
            "{what} is the release file of another suite: {} ({})",
            names[0], names[1]
        );
        match self.repository.keys {
            Keys::Builtin(_) => Err(Error::new(ErrorKind::BadSignature, message).with_hint(
                "The mirror is wrongly set up or tampers with the archive: use another one.",
            )),
            Keys::Given { .. } => {
                self.warnings.push(message);
                Ok(())
            }
        }
    }

    fn check_dates(
        &mut self,
        what: &str,
        release: &Release,
        now: SystemTime,
        lenient: bool,
    ) -> Result<()> {
        if release.date > now + CLOCK_SKEW {
            let message = format!(
                "{what} is from the future: it was made on {}",
                date(release.date)
            );
            return Err(Error::new(ErrorKind::Expired, message)
                .with_hint(format!("Set this machine's clock; it says {}.", date(now))));
        }
        let Some(end) = release
            .valid_until
            .filter(|&end| end < now && self.repository.check_valid_until)
        else {
            return Ok(());
        };
        let message = format!("{what} has expired: it was valid until {}", date(end));
        if lenient {
            self.warnings.push(message);
            return Ok(());
        }
        Err(Error::new(ErrorKind::Expired, message).with_hint(format!(
            "The mirror is no longer updated (use another one), it is a snapshot (switch the Valid-Until check off for it), or this machine's clock is wrong: it says {}.",
            date(now)
        )))
    }

    /// A mirror that is behind must not take back what was seen before, such as a security update.
    fn newer_cached(
        &mut self,
        cached: Option<Unverified>,
        fetched: &VerifiedRepository,
        now: SystemTime,
    ) -> Option<(Unverified, VerifiedRepository)> {
        let cached = cached?;
        let verified = self.verify(&cached, now, false).ok()?;
        if verified.release.date <= fetched.release.date {
            return None;
        }
        self.warnings.push(format!(
            "the mirror of {} is behind: it serves the release of {}, while the one of {} was seen before and is used",
            self.repository.describe(),
            date(fetched.release.date),
            date(verified.release.date)
        ));
        Some((cached, verified))
    }

    fn indices(&self, fetcher: &Fetcher, verified: &VerifiedRepository) -> Result<Vec<Index>> {
        let names = index::names(self.repository, &verified.release)?;
        let one = |name: &String| {
            index::obtain(
                fetcher,
                self.repository,
                &verified.release,
                name,
                self.directory.files(),
            )
        };
        names.iter().map(one).collect()
    }

    /// Stores the release, then makes it the current one, then removes garbage.
    fn commit(&self, seen: &Unverified, verified: &VerifiedRepository) -> Result<()> {
        self.directory.keep(&seen.release)?;
        if let Some(bytes) = &seen.signature {
            self.directory.keep(bytes)?;
        }
        let current = Current {
            release: verified.release_sha256,
            signature: seen.signature.as_deref().map(Digest::of),
            modified: seen.modified.clone(),
        };
        self.directory.set_current(&current.text())?;
        let mut used: HashSet<Digest> = verified.release.digests().collect();
        used.insert(current.release);
        used.extend(current.signature);
        self.directory.remove_garbage(&used)
    }
}

/// Whether an index that does not fit its release can come from an update in between.
fn is_race(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::HashMismatch | ErrorKind::NotFound | ErrorKind::Truncated
    )
}

/// For people, in UTC.
fn date(time: SystemTime) -> String {
    jiff::Timestamp::try_from(time)
        .map(|t| t.to_string())
        .unwrap_or_else(|_| "an unknown time".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn current_survives_a_round_trip() {
        let (a, b) = (Digest::of(b"a"), Digest::of(b"b"));
        for (signature, modified) in [
            (None, None),
            (Some(b), Some("Sat, 11 Jul 2026 10:16:37 GMT".to_owned())),
        ] {
            let current = Current {
                release: a,
                signature,
                modified,
            };
            assert_eq!(Current::parse(&current.text()), Some(current));
        }
        assert_eq!(Current::parse("inline x\n"), None);
    }
}
