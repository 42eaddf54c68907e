//! Fetching and verifying the metadata of repositories, with a cache of what was verified.
//!
//! `current` in the cache directory has lines of `key value`: `repomd SHA256`, `signature SHA256` where the repository is signed,
//! and a `base URL` for each mirror, the one that was used first. Nothing there is trusted when it is used again: signatures are
//! verified and files hashed each time.

use std::collections::HashSet;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use super::comps::{self, Comps};
use super::filelists;
use super::mirrors::{self, Metalink};
use super::modules::{self, Modules};
use super::primary::{self, Package};
use super::repomd::{FILELISTS, Listed, MAX_FILE, Repomd};
use super::repository::{Proof, Repository, Source, url_of};
use crate::cache::{self, Directory, intact};
use crate::decompress::Compression;
use crate::digest::Hasher;
use crate::fetch::url::shown;
use crate::fetch::{Fetched, Wanted, in_turn};
use crate::openpgp::Signer;
use crate::{CancelToken, Digest, Error, ErrorKind, Fetcher, Result};

/// Bound for `repomd.xml`, its signature, and lists of mirrors.
const MAX_SMALL: u64 = 16 << 20;
/// Mirrors that are tried.
const MAX_MIRRORS: usize = 8;
/// What a directory says of its last good refresh.
const CURRENT: &str = "current";
const REPOMD: &str = "repodata/repomd.xml";

/// Verified metadata of all repositories, in the order they were given.
#[derive(Clone, Debug)]
pub struct Metadata {
    /// One for each repository.
    pub repositories: Vec<VerifiedRepository>,
    /// What the user should know although it was no reason to stop.
    pub warnings: Vec<String>,
}

/// A repository and its metadata.
#[derive(Clone, Debug)]
pub struct VerifiedRepository {
    /// The repository.
    pub repository: Repository,
    /// What `repomd.xml` says.
    pub repomd: Repomd,
    /// Its digest.
    pub release: Digest,
    /// Who signed it, if it has to be signed.
    pub signer: Option<Signer>,
    /// Base URLs, the one that was used first.
    pub bases: Vec<String>,
    /// The files that it lists, of [`super::repomd::KINDS`], and [`FILELISTS`] after [`add_filelists`]: kind and place.
    pub files: Vec<(String, PathBuf)>,
    /// The directory of all that is kept of it.
    directory: PathBuf,
    /// The shared lock on the directory of these files: none of them is removed while it is held.
    _held: Arc<File>,
}

impl VerifiedRepository {
    /// Reads its packages, but for those that the repository's filter leaves out.
    ///
    /// # Errors
    /// [`ErrorKind::Malformed`] with the byte where it is; [`ErrorKind::HashMismatch`] if a file is not what `repomd.xml` says.
    pub fn packages(&self) -> Result<Vec<Package>> {
        let mut all = self.read("primary", |what, input| primary::read(what, input))?;
        all.retain(|package| self.repository.filter.takes(package));
        Ok(all)
    }

    /// Reads its groups and environments; none where it has no list of them.
    ///
    /// # Errors
    /// As [`VerifiedRepository::packages`].
    pub fn comps(&self) -> Result<Comps> {
        match self.repomd.files.contains_key("group") {
            true => self.read("group", |what, input| comps::read(what, input)),
            false => Ok(Comps::default()),
        }
    }

    /// Reads its module streams; none where it has no list of them.
    ///
    /// # Errors
    /// As [`VerifiedRepository::packages`].
    pub fn modules(&self) -> Result<Modules> {
        match self.repomd.files.contains_key("modules") {
            true => self.read("modules", |what, input| modules::read(what, input)),
            false => Ok(Modules::default()),
        }
    }

    /// Finds which of its packages have one of these paths, by [`Package::sha256`]; none where it has no list of all files at hand.
    ///
    /// # Errors
    /// As [`VerifiedRepository::packages`].
    pub fn with_files(&self, wanted: &HashSet<String>) -> Result<Vec<(Digest, String)>> {
        match self.has(FILELISTS) {
            true => self.read(FILELISTS, |what, input| {
                filelists::find(what, input, wanted)
            }),
            false => Ok(Vec::new()),
        }
    }

    /// What is said of a file of a kind.
    pub fn listed(&self, kind: &str) -> Option<&Listed> {
        self.repomd.listed(kind)
    }

    fn has(&self, kind: &str) -> bool {
        self.files.iter().any(|(known, _)| known == kind)
    }

    fn read<T>(
        &self,
        kind: &str,
        read: impl FnOnce(&str, BufReader<&mut dyn Read>) -> Result<T>,
    ) -> Result<T> {
        self.checked(kind, read)
            .map_err(|error| error.with_origin(&self.repository.origin))
    }

    fn checked<T>(
        &self,
        kind: &str,
        read: impl FnOnce(&str, BufReader<&mut dyn Read>) -> Result<T>,
    ) -> Result<T> {
        let found = self.files.iter().find(|(known, _)| known == kind);
        let (Some((_, path)), Some(listed)) = (found, self.listed(kind)) else {
            let message = format!("a repository without its {kind} was used");
            return Err(Error::new(ErrorKind::Internal, message));
        };
        let what = format!("{} of {}", listed.href, self.repository.describe());
        if !intact(path, listed.size, &listed.sha256)? {
            let message = format!("{} is damaged, or gone", path.display());
            return Err(Error::new(ErrorKind::HashMismatch, message).with_hint(
                "Run the command again with the network: the file is then fetched anew.",
            ));
        }
        let failed = |e| Error::io(format_args!("reading {}", path.display()), e);
        let reader = Compression::of_name(&listed.href).reader(File::open(path).map_err(failed)?);
        let mut checked = Checked::new(
            reader.map_err(failed)?,
            listed.open.map_or(MAX_FILE, |(size, _)| size),
        );
        let read = read(&what, BufReader::with_capacity(128 << 10, &mut checked))?;
        match listed.open.filter(|open| *open != checked.finish()) {
            None => Ok(read),
            Some((size, sha256)) => {
                let message = format!(
                    "{what} does not hold what repomd.xml promises: {size} bytes with the SHA-256 {sha256}"
                );
                Err(Error::new(ErrorKind::HashMismatch, message).with_hint(
                    "The repository itself is broken: tell its maintainers, or use another mirror.",
                ))
            }
        }
    }

    /// The files that [`load_cached`] needs to read it again: their paths in its directory, and where they are.
    pub fn kept(&self) -> Vec<(String, PathBuf)> {
        let (name, current) = (self.repository.cache_name(), self.directory.join(CURRENT));
        let said = std::fs::read_to_string(&current).ok();
        let digests = said
            .iter()
            .flat_map(|text| text.lines())
            .filter_map(|line| {
                let (key, digest) = line.split_once(' ')?;
                ["repomd", "signature"]
                    .contains(&key)
                    .then(|| digest.to_owned())
            });
        let listed = self.repomd.files.values();
        let all = digests.chain(listed.map(|listed| listed.sha256.to_string()));
        let files = all.map(|digest| {
            let path = self.directory.join("files").join(&digest);
            (format!("{name}/files/{digest}"), path)
        });
        std::iter::once((format!("{name}/{CURRENT}"), current.clone()))
            .chain(files)
            .collect()
    }

    /// The URL of a package's file.
    pub fn url(&self, package: &Package) -> String {
        url_of(self.bases.first().map_or("", String::as_str), &package.href)
    }
}

/// Counts and hashes what is read, and refuses more than was promised.
struct Checked<R> {
    inner: R,
    left: u64,
    size: u64,
    hasher: Hasher,
}

impl<R: Read> Checked<R> {
    fn new(inner: R, most: u64) -> Self {
        Checked {
            inner,
            left: most,
            size: 0,
            hasher: Hasher::default(),
        }
    }

    fn finish(self) -> (u64, Digest) {
        (self.size, self.hasher.finish())
    }
}

impl<R: Read> Read for Checked<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.inner.read(buffer)?;
        let more = || {
            std::io::Error::other(format!(
                "it has more than the {} bytes that it may have",
                self.size + self.left
            ))
        };
        self.left = self.left.checked_sub(read as u64).ok_or_else(more)?;
        self.size += read as u64;
        self.hasher.update(&buffer[..read]);
        Ok(read)
    }
}

/// Fetches and verifies the metadata of all repositories, at the same time. What the cache in `directory` has is used where
/// `repomd.xml` still lists it. A fetcher in offline mode uses the cache only.
///
/// # Errors
/// [`ErrorKind::Unsigned`], [`ErrorKind::BadSignature`], [`ErrorKind::HashMismatch`], [`ErrorKind::Malformed`], [`ErrorKind::Input`],
/// [`ErrorKind::Offline`], any network kind, [`ErrorKind::Io`].
pub fn refresh(
    fetcher: &Fetcher,
    repositories: &[Repository],
    directory: &Path,
    now: SystemTime,
) -> Result<Metadata> {
    let offline = fetcher.options().offline;
    each(repositories, |repository| {
        let mut cache = Cache::open(repository, directory, fetcher.cancel_token())?;
        let own = through(fetcher, repository)?.map(Arc::new);
        let way = own.as_deref().unwrap_or(fetcher);
        let outcome = match offline
            && !matches!(&cache.source, Source::Base(urls) if urls.iter().all(|u| u.starts_with("file:")))
        {
            true => cache.load(now),
            false => cache.refresh(way, now),
        };
        if let Ok((verified, _)) = &outcome {
            fetcher.learn(&verified.bases, own.clone(), &repository.origin);
        }
        outcome
    })
}

/// Fetches and verifies the lists of all files of verified repositories, for whoever needs more of them than `primary` has. A repository
/// without such a list stays without. Offline, what is not at hand is left out, and told among the warnings.
///
/// # Errors
/// As [`refresh`].
pub fn add_filelists(fetcher: &Fetcher, metadata: &mut Metadata, directory: &Path) -> Result<()> {
    let add = |verified: &mut VerifiedRepository| -> Result<Vec<String>> {
        let listed = verified.repomd.filelists.clone();
        let Some(listed) = listed.filter(|_| !verified.has(FILELISTS)) else {
            return Ok(Vec::new());
        };
        let repository = verified.repository.clone();
        let mut cache = Cache::open(&repository, directory, fetcher.cancel_token())?;
        let own = through(fetcher, &repository)?;
        match cache.obtain(own.as_ref().unwrap_or(fetcher), &verified.bases, &listed) {
            Ok(path) => verified.files.push((FILELISTS.to_owned(), path)),
            Err(error) if error.kind() == ErrorKind::Offline => cache.warnings.push(format!(
                "the list of all files of {} is not at hand, but dependencies are on some of them",
                repository.describe()
            )),
            Err(error) => return Err(error.with_origin(&repository.origin)),
        }
        Ok(cache.warnings)
    };
    let outcomes: Vec<Result<Vec<String>>> = std::thread::scope(|scope| {
        let add = &add;
        let all = metadata.repositories.iter_mut();
        let threads: Vec<_> = all
            .map(|verified| scope.spawn(move || add(verified)))
            .collect();
        let joined = threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|_| Err(panicked())));
        joined.collect()
    });
    for warnings in outcomes {
        metadata.warnings.extend(warnings?);
    }
    Ok(())
}

fn panicked() -> Error {
    Error::new(ErrorKind::Internal, "reading repository metadata panicked")
}

/// Tells a fetcher where mirrors have the same files, without asking anybody: those that the repositories name themselves, and those
/// that a good [`refresh`] in `directory` saw. What it knows already stays.
///
/// # Errors
/// [`ErrorKind::Input`] for an address or a proxy that cannot be used.
pub fn know_mirrors(
    fetcher: &Fetcher,
    repositories: &[Repository],
    directory: &Path,
) -> Result<()> {
    for repository in repositories {
        let bases = match repository.expanded()? {
            Source::Base(urls) => urls,
            Source::MirrorList(_) | Source::Metalink(_) => {
                let current = directory.join(repository.cache_name()).join(CURRENT);
                let text = std::fs::read_to_string(current).unwrap_or_else(|_| String::new());
                values(&text, "base").map(str::to_owned).collect()
            }
        };
        if !bases.is_empty() && !fetcher.knows(&bases) {
            let own = through(fetcher, repository)?.map(Arc::new);
            fetcher.learn(&bases, own, &repository.origin);
        }
    }
    Ok(())
}

/// What [`CURRENT`] says of a key.
fn values<'a>(text: &'a str, key: &'a str) -> impl Iterator<Item = &'a str> {
    text.lines()
        .filter_map(move |line| line.strip_prefix(key)?.strip_prefix(' '))
}

/// The fetcher that goes through the repository's proxy, where it has one.
fn through(fetcher: &Fetcher, repository: &Repository) -> Result<Option<Fetcher>> {
    let proxy = repository.proxy.as_deref();
    let own = proxy.map(|proxy| fetcher.through(&repository.describe(), proxy));
    own.transpose()
}

/// Returns the metadata of the last good [`refresh`], verified again.
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
    let outcomes: Vec<Outcome> = std::thread::scope(|scope| {
        let work = &work;
        let run = |repository| scope.spawn(move || work(repository));
        let threads: Vec<_> = repositories.iter().map(run).collect();
        let outcomes = threads
            .into_iter()
            .map(|t| t.join().unwrap_or_else(|_| Err(panicked())));
        outcomes.collect()
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

/// `repomd.xml` with its signature, and the mirrors, the one that had it first.
#[derive(Clone)]
struct Seen {
    repomd: Vec<u8>,
    signature: Option<Vec<u8>>,
    bases: Vec<String>,
}

/// The cache directory of one repository, locked.
struct Cache<'a> {
    repository: &'a Repository,
    source: Source,
    directory: Directory,
    warnings: Vec<String>,
}

impl<'a> Cache<'a> {
    fn open(repository: &'a Repository, metadata: &Path, cancel: &CancelToken) -> Result<Self> {
        Ok(Cache {
            repository,
            source: repository.expanded()?,
            directory: Directory::open(metadata.join(repository.cache_name()), cancel)?,
            warnings: Vec::new(),
        })
    }

    /// Online: what the mirrors have now.
    fn refresh(&mut self, fetcher: &Fetcher, now: SystemTime) -> Outcome {
        let (mut seen, mut verified) = self.fetch(fetcher, now)?;
        if let Some(newer) = self.newer_cached(&verified, now) {
            (seen, verified) = newer;
        }
        verified.files = match self.files(fetcher, &verified) {
            Ok(files) => files,
            Err(error) if is_race(&error) => {
                // The mirrors may have been updated between the two files: one more look, if repomd.xml changed.
                let (again, reread) = self.fetch(fetcher, now)?;
                if again.repomd == seen.repomd {
                    return Err(error);
                }
                (seen, verified) = (again, reread);
                self.files(fetcher, &verified)?
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
        let mut verified = self.verify("the cached repomd.xml", &cached, now)?;
        for (kind, listed) in &verified.repomd.files {
            let path = self.directory.path(&listed.sha256);
            if !intact(&path, listed.size, &listed.sha256)? {
                return Err(absent());
            }
            verified.files.push((kind.clone(), path));
        }
        Ok((verified, std::mem::take(&mut self.warnings)))
    }

    /// What was seen last, if it is there and undamaged.
    fn cached(&self) -> Option<Seen> {
        let text = self.directory.current()?;
        let read = |key| {
            self.directory
                .read(&values(&text, key).next()?.parse().ok()?)
        };
        Some(Seen {
            repomd: read("repomd")?,
            signature: read("signature"),
            bases: values(&text, "base").map(str::to_owned).collect(),
        })
    }

    /// A mirror that is behind must not take back what was seen before, such as a security update.
    fn newer_cached(
        &mut self,
        fetched: &VerifiedRepository,
        now: SystemTime,
    ) -> Option<(Seen, VerifiedRepository)> {
        let cached = self.cached()?;
        let verified = self.verify("the cached repomd.xml", &cached, now).ok()?;
        if verified.repomd.date <= fetched.repomd.date {
            return None;
        }
        self.warnings.push(format!(
            "the mirror of {} is behind: its metadata is older than what was seen before, which is used",
            self.repository.describe()
        ));
        Some((cached, verified))
    }

    /// The base URLs, and what a metalink says beside them.
    fn mirrors(&self, fetcher: &Fetcher) -> Result<(Vec<String>, Option<Metalink>)> {
        let get = |url: &str| small(fetcher, url, fetcher.options().attempts);
        match &self.source {
            Source::Base(urls) => Ok((urls.clone(), None)),
            Source::MirrorList(url) => {
                let bytes = get(url)?;
                // Kickstarts in the wild name metalinks so, and dnf lets them.
                if mirrors::is_metalink(&bytes) {
                    let metalink = mirrors::read_metalink(&shown(url), &bytes)?;
                    return Ok((metalink.bases.clone(), Some(metalink)));
                }
                let text = String::from_utf8_lossy(&bytes);
                Ok((mirrors::read_list(&shown(url), &text)?, None))
            }
            Source::Metalink(url) => {
                let metalink = mirrors::read_metalink(&shown(url), &get(url)?)?;
                Ok((metalink.bases.clone(), Some(metalink)))
            }
        }
    }

    /// `repomd.xml` of the first mirror that has a good one. One that a metalink calls former is taken if there is no other.
    fn fetch(&mut self, fetcher: &Fetcher, now: SystemTime) -> Result<(Seen, VerifiedRepository)> {
        let (bases, metalink) = self.mirrors(fetcher)?;
        let mut former = None;
        let tried: Vec<usize> = (0..bases.len().min(MAX_MIRRORS)).collect();
        let asked = in_turn(fetcher, &tried, |&at, tries| {
            let mut order = bases.clone();
            order[..=at].rotate_right(1);
            let url = url_of(&bases[at], REPOMD);
            let found = self.fetch_from(fetcher, &url, order, now, tries)?;
            match age(&url, &found.1.release, metalink.as_ref())? {
                Age::Current => Ok(found),
                Age::Former => {
                    former.get_or_insert(found);
                    Err(behind(&url))
                }
            }
        })?;
        if let Some(found) = asked.found {
            self.warn_of(&asked.failures);
            return Ok(found);
        }
        match former {
            Some(found) => {
                self.warn_of(&asked.failures);
                self.warnings.push(format!(
                    "all mirrors of {} are behind what its metalink says",
                    self.repository.describe()
                ));
                Ok(found)
            }
            None => Err(self.none(REPOMD, asked.failures)),
        }
    }

    fn fetch_from(
        &self,
        fetcher: &Fetcher,
        url: &str,
        bases: Vec<String>,
        now: SystemTime,
        tries: u32,
    ) -> Result<(Seen, VerifiedRepository)> {
        let repomd = small(fetcher, url, tries)?;
        let signature = match self.repository.proof {
            Proof::Packages => None,
            Proof::Signature => Some(
                small(fetcher, &format!("{url}.asc"), tries)
                    .map_err(|error| self.no_signature(error))?,
            ),
        };
        let seen = Seen {
            repomd,
            signature,
            bases,
        };
        let verified = self.verify(&shown(url), &seen, now)?;
        Ok((seen, verified))
    }

    fn no_signature(&self, error: Error) -> Error {
        if error.kind() != ErrorKind::NotFound {
            return error;
        }
        let message = format!(
            "{} is not signed: it has no repomd.xml.asc",
            self.repository.describe()
        );
        Error::new(ErrorKind::Unsigned, message)
            .with_source(error)
            .with_hint("Do not ask for signed metadata where the distribution signs packages only.")
    }

    /// Checks the signature, before anything is read of it.
    fn verify(&self, what: &str, seen: &Seen, now: SystemTime) -> Result<VerifiedRepository> {
        let signer = match (self.repository.proof, &seen.signature) {
            (Proof::Packages, _) => None,
            (Proof::Signature, Some(signature)) => {
                let keyring = self.repository.keyring()?;
                Some(keyring.verify_detached(what, &seen.repomd, signature, now)?)
            }
            (Proof::Signature, None) => {
                return Err(Error::new(
                    ErrorKind::Unsigned,
                    format!("{what} is not signed"),
                ));
            }
        };
        let repomd = Repomd::read(what, &seen.repomd)?;
        if !repomd.files.contains_key("primary") {
            let message = format!("{what} lists no packages (no file of the type primary)");
            return Err(Error::new(ErrorKind::Malformed, message));
        }
        Ok(VerifiedRepository {
            repository: self.repository.clone(),
            repomd,
            release: Digest::of(&seen.repomd),
            signer,
            bases: seen.bases.clone(),
            files: Vec::new(),
            directory: self.directory.path_of_all().to_owned(),
            _held: self.directory.held(),
        })
    }

    fn files(
        &mut self,
        fetcher: &Fetcher,
        verified: &VerifiedRepository,
    ) -> Result<Vec<(String, PathBuf)>> {
        let all = verified.repomd.files.iter();
        all.map(|(kind, listed)| Ok((kind.clone(), self.obtain(fetcher, &verified.bases, listed)?)))
            .collect()
    }

    /// A listed file, of the first mirror that has it.
    fn obtain(&mut self, fetcher: &Fetcher, bases: &[String], listed: &Listed) -> Result<PathBuf> {
        let path = self.directory.path(&listed.sha256);
        if intact(&path, listed.size, &listed.sha256)? {
            return Ok(path);
        }
        let tried = &bases[..bases.len().min(MAX_MIRRORS)];
        let asked = in_turn(fetcher, tried, |base, tries| {
            let url = url_of(base, &listed.href);
            let wanted = Wanted {
                url: &url,
                size: listed.size,
                sha256: listed.sha256,
            };
            cache::fetch(fetcher, &wanted, self.directory.files(), tries)
        })?;
        match asked.found {
            Some(path) => {
                self.warn_of(&asked.failures);
                Ok(path)
            }
            None => Err(self.none(&listed.href, asked.failures)),
        }
    }

    fn warn_of(&mut self, failures: &[Error]) {
        let about = |error: &Error| {
            format!(
                "a mirror of {} was passed over: {error}",
                self.repository.name
            )
        };
        self.warnings.extend(failures.iter().map(about));
    }

    /// The one failure, or all of them.
    fn none(&self, file: &str, mut failures: Vec<Error>) -> Error {
        if failures.len() == 1 {
            let error = failures.remove(0);
            if file != REPOMD || error.kind() != ErrorKind::NotFound {
                return error;
            }
            // A wrong address, not a step that failed.
            let message = format!(
                "{} is not a repository: it has no {REPOMD}",
                self.repository.describe()
            );
            return Error::new(ErrorKind::Input, message)
                .with_source(error)
                .with_hint("Check the URL, and the release.");
        }
        let kind = failures.first().map_or(ErrorKind::Network, Error::kind);
        let why: Vec<String> = failures.iter().map(Error::to_string).collect();
        let message = format!(
            "no mirror of {} has a good {file}: {}",
            self.repository.describe(),
            why.join("; ")
        );
        Error::new(kind, message)
            .with_hint("Try again later, or give another mirror with --baseurl.")
    }

    /// Stores what was seen, then makes it the current one, then removes garbage.
    fn commit(&self, seen: &Seen, verified: &VerifiedRepository) -> Result<()> {
        self.directory.keep(&seen.repomd)?;
        let mut text = format!("repomd {}\n", verified.release);
        let mut used: HashSet<Digest> = verified
            .repomd
            .files
            .values()
            .chain(&verified.repomd.filelists)
            .map(|listed| listed.sha256)
            .collect();
        used.insert(verified.release);
        if let Some(bytes) = &seen.signature {
            self.directory.keep(bytes)?;
            used.insert(Digest::of(bytes));
            text.push_str(&format!("signature {}\n", Digest::of(bytes)));
        }
        seen.bases
            .iter()
            .for_each(|base| text.push_str(&format!("base {base}\n")));
        self.directory.set_current(&text)?;
        self.directory.remove_garbage(&used)
    }
}

enum Age {
    Current,
    Former,
}

/// What a metalink says of a mirror's `repomd.xml`.
fn age(url: &str, found: &Digest, metalink: Option<&Metalink>) -> Result<Age> {
    match metalink {
        None => Ok(Age::Current),
        Some(metalink) if metalink.current == *found => Ok(Age::Current),
        Some(metalink) if metalink.former.contains(found) => Ok(Age::Former),
        Some(metalink) => {
            let message = format!(
                "{} is not what the metalink promises: it should have the SHA-256 {}, but has {found}",
                shown(url),
                metalink.current
            );
            Err(Error::new(ErrorKind::HashMismatch, message))
        }
    }
}

/// A mirror that would do if no other was there. It will not catch up while this waits.
fn behind(url: &str) -> Error {
    let message = format!("{} is behind what its metalink says", shown(url));
    Error::new(ErrorKind::Expired, message)
}

fn small(fetcher: &Fetcher, url: &str, tries: u32) -> Result<Vec<u8>> {
    match fetcher.bytes_of(url, MAX_SMALL, None, tries)? {
        Fetched::New { bytes, .. } => Ok(bytes),
        // No time was given, so a server that says so is broken.
        Fetched::NotModified => {
            let message = format!("{} answers \"not modified\" unasked", shown(url));
            Err(Error::new(ErrorKind::Refused, message))
        }
    }
}

/// Whether a file that does not fit `repomd.xml` can come from an update in between.
fn is_race(error: &Error) -> bool {
    use ErrorKind::{HashMismatch, NotFound, Truncated};
    matches!(error.kind(), HashMismatch | NotFound | Truncated)
}
