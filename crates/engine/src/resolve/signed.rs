//! Whether a lock may be believed: every package of it has to be in metadata that is signed with the definition's keys, with the
//! same size, content and place. A lock lies in a repository of texts, is merged and reviewed by people, and is the root's content.
//!
//! ```text
//! <cache>/signed/<repositories and keys>/<lines>       packages and repositories that signed metadata vouched for, a line each
//! <lock>.metadata/                                     signed metadata beside a lock, as in a vendored directory
//! ```
//! What was vouched for once stays so, whatever the repositories have later: their metadata is not needed again. Metadata is
//! looked for where it costs least: beside the lock, in the cache, in the network.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use kiln_packages::{Lock, LockedPackage, LockedRepository, Verdict};
use kiln_plan::{Hasher, Id, Plan};
use kiln_rootfs::family::{Metadata, World};

use crate::io::write_whole;
use crate::means::Session;
use crate::means::vendored::Vendored;
use crate::resolve::solve::Resolver;
use crate::{Failure, FailureKind};

/// Causes that a failure lists.
const SHOWN: usize = 5;
/// Clocks of mirror and builder may differ by this much.
const SKEW: Duration = Duration::from_secs(24 * 3600);

/// Where the signed metadata of a lock is kept, if it is.
pub(crate) fn kept_beside(lock: &Path) -> PathBuf {
    let mut path = OsString::from(lock);
    path.push(".metadata");
    path.into()
}

/// A package of a lock that no signed metadata has vouched for so far.
struct Doubt<'a> {
    package: &'a LockedPackage,
    verdict: Verdict,
}

/// Has signed metadata of the plan's repositories vouch for packages of a lock.
///
/// # Errors
/// Signed metadata contradicts one of them, or none has it and the request does not allow that; metadata cannot be had.
pub(crate) fn trust(
    session: &Session<'_>,
    plan: &Plan,
    lock: &Path,
    packages: &[&LockedPackage],
) -> Result<(), Failure> {
    let vouched = Vouched::of(session.store.root(), session.family.repositories_id(plan)?);
    let mut left = vouched.missing(packages);
    if left.is_empty() {
        return Ok(());
    }
    let mut found = Found::default();
    if let Some(directory) = kept(session, lock) {
        found.look(&mut left, plan, &directory, session)?;
    }
    if !left.is_empty() {
        found.look(&mut left, plan, &session.metadata, session)?;
    }
    if !left.is_empty() && !session.request.offline {
        judge(&mut left, &*fresh(session, plan, lock)?);
        found.any = true;
    }
    if left.is_empty() {
        vouched.remember(packages);
        return Ok(());
    }
    doubted(session, plan, lock, &left, &found)
}

/// Compares what a lock says of its repositories with the definition, and with signed metadata at hand: their dates are the image's
/// clock. Whether that metadata is the newest is nothing to a lock, so that none is fetched.
///
/// # Errors
/// A line is contradicted.
pub(crate) fn trust_repositories(
    session: &Session<'_>,
    plan: &Plan,
    path: &Path,
    lock: &Lock,
) -> Result<(), Failure> {
    let vouched = Vouched::of(session.store.root(), session.family.repositories_id(plan)?);
    let said = repository_lines(lock);
    let mut wrong = unplanned(&lock.repositories, &session.family.repositories(plan)?);
    if wrong.is_empty() && !vouched.has(&said) {
        let mut signed = Vec::new();
        let kept = kept(session, path);
        for directory in kept.iter().chain([&session.metadata]) {
            let (world, _) = session.family.kept_world(plan, directory, session.now)?;
            signed.extend(world.repositories());
        }
        wrong = contradicted(&lock.repositories, &signed, session.now);
        if wrong.is_empty() {
            vouched.note(&said);
        }
    }
    if wrong.is_empty() {
        return Ok(());
    }
    let shown = path.display();
    let text = fs::read_to_string(path).ok();
    let facts = session.family.lock_facts();
    let line = |at: Option<usize>| Lock::line_of_repository(text.as_ref()?, facts, at?);
    let place = |at| match line(at) {
        Some(line) => format!("{shown}:{line}"),
        None => shown.to_string(),
    };
    let wrong: Vec<_> = wrong
        .into_iter()
        .map(|(at, why)| (place(at), why))
        .collect();
    let message =
        format!("{shown} is not to be believed: what it says of its repositories is not so");
    Err(listed(FailureKind::Definition, message, &wrong)
        .hint("it was changed by hand or badly merged: see what changed it, then run `kiln lock`"))
}

/// What is wrong with a repository of a lock: its place among them, if it is there.
type Wrong = (Option<usize>, String);

/// Repositories that only one of a lock and its definition has.
fn unplanned(locked: &[LockedRepository], planned: &[(String, String)]) -> Vec<Wrong> {
    let mut left: Vec<_> = planned.iter().collect();
    let mut wrong = Vec::new();
    for (at, repository) in locked.iter().enumerate() {
        let LockedRepository { uri, name, .. } = repository;
        match left.iter().position(|(u, n)| u == uri && n == name) {
            Some(found) => drop(left.swap_remove(found)),
            None => wrong.push((
                Some(at),
                format!(
                    "{uri} {name}: the definition has no such repository, or the lock has it twice"
                ),
            )),
        }
    }
    let lacking = |(uri, name): &(String, String)| {
        let why = format!("{uri} {name}: the definition has this repository, and the lock has not");
        (None, why)
    };
    wrong.extend(left.into_iter().map(lacking));
    wrong
}

/// Repositories whose date is not that of the signed metadata that a lock names by its digest, or is to come.
fn contradicted(
    locked: &[LockedRepository],
    signed: &[LockedRepository],
    now: SystemTime,
) -> Vec<Wrong> {
    let why = |repository: &LockedRepository| {
        let LockedRepository { date, release, .. } = repository;
        if signed
            .iter()
            .any(|s| s.release == *release && s.date != *date)
        {
            return Some("its date is not that of the signed metadata with its SHA-256");
        }
        (*date > now + SKEW).then_some("its date is to come")
    };
    let all = locked.iter().enumerate();
    all.filter_map(|(at, repository)| {
        let why = why(repository)?;
        let text = format!("{} {}: {why}", repository.uri, repository.name);
        Some((Some(at), text))
    })
    .collect()
}

/// The lines of a lock that tell of its repositories.
fn repository_lines(lock: &Lock) -> String {
    let text = lock.text();
    let lines = text.split_inclusive('\n');
    lines
        .filter(|line| line.starts_with("repository "))
        .collect()
}

/// Notes that a lock was made of signed metadata.
pub(crate) fn vouch(session: &Session<'_>, plan: &Plan, lock: &Lock) -> Result<(), Failure> {
    let vouched = Vouched::of(session.store.root(), session.family.repositories_id(plan)?);
    vouched.remember(&lock.packages.iter().collect::<Vec<_>>());
    vouched.note(&repository_lines(lock));
    Ok(())
}

/// The metadata beside the lock, in the cache. Damage is told, and the metadata left alone.
fn kept(session: &Session<'_>, lock: &Path) -> Option<PathBuf> {
    let directory = kept_beside(lock);
    if session.request.vendor.is_some() || !directory.is_dir() {
        return None;
    }
    let copied = Vendored::open(&directory).and_then(|kept| kept.metadata(&session.request.cache));
    let told = |failure: &Failure| {
        let hint = "`kiln lock --keep-metadata` makes it anew".to_owned();
        session
            .steps
            .warn_once(failure.message.clone(), None, Some(hint));
    };
    copied.inspect_err(told).ok()
}

/// Tells the fetcher where mirrors have what a lock names: a lock has one URL of each package. Nobody is asked.
///
/// # Errors
/// The definition has an address that cannot be used.
pub(crate) fn know_mirrors(session: &Session<'_>, plan: &Plan, lock: &Path) -> Result<(), Failure> {
    // A vendored directory has its own files.
    if session.vendored.is_some() || session.request.offline {
        return Ok(());
    }
    let kept = kept(session, lock);
    for directory in [&session.metadata].into_iter().chain(&kept) {
        let source = Metadata {
            fetcher: &session.fetcher,
            directory,
            now: session.now,
        };
        session.family.know_mirrors(plan, &source)?;
    }
    Ok(())
}

/// What the repositories have now.
fn fresh(session: &Session<'_>, plan: &Plan, lock: &Path) -> Result<Box<dyn World>, Failure> {
    let world = Resolver::of(session).world(plan).map_err(|failure| {
        let why = format!(
            "the packages of {} have to be in signed metadata, and none at hand has all of them",
            lock.display()
        );
        failure.cause(why)
    })?;
    Ok(world.read)
}

fn doubted(
    session: &Session<'_>,
    plan: &Plan,
    lock: &Path,
    left: &[Doubt<'_>],
    found: &Found,
) -> Result<(), Failure> {
    // The lock was read before; where its text is gone since, the file alone is named.
    let text = fs::read_to_string(lock).ok();
    let facts = session.family.lock_facts();
    let line = |package: &LockedPackage| Lock::line_of(text.as_ref()?, facts, package);
    let place = |package: &LockedPackage| match line(package) {
        Some(line) => format!("{}:{line}", lock.display()),
        None => lock.display().to_string(),
    };
    let mut wrong = Vec::new();
    let mut absent = Vec::new();
    for Doubt { package, verdict } in left {
        let name = package.describe();
        let foreign = session.family.outside(plan, package)?;
        match (verdict, foreign) {
            (Verdict::Differs(why), _) => wrong.push((place(package), format!("{name}: {why}"))),
            (_, Some(why)) => wrong.push((place(package), format!("{name}: {why}"))),
            (_, None) => absent.push((place(package), name)),
        }
    }
    let shown = lock.display();
    if !wrong.is_empty() {
        let message =
            format!("{shown} is not to be believed: the repositories do not have what it says");
        return Err(listed(FailureKind::Definition, message, &wrong).hint(
            "it was changed by hand or badly merged, or a repository made the same version again: see what changed it, then run `kiln lock`",
        ));
    }
    if session.request.allow_unsigned_lock {
        let names: Vec<&str> = absent.iter().map(|(_, name)| name.as_str()).collect();
        let message = format!(
            "no signed metadata at hand has {} of {shown}: what is installed is what the lock says, which nobody signed",
            names.join(", "),
        );
        let origin = absent.first().map(|(place, _)| place.clone());
        let hint =
            "allowed by --allow-unsigned-lock; `kiln lock` takes what the repositories have now";
        session.steps.warn(message, origin, Some(hint.to_owned()));
        return Ok(());
    }
    Err(found.refuse(lock, &absent, session.request.offline))
}

/// What was found on the way to a verdict.
#[derive(Default)]
struct Found {
    /// Whether there was any metadata.
    any: bool,
    /// Why some of it does not count.
    unfit: Vec<String>,
}

impl Found {
    /// Asks the metadata of a directory; what is not there, or not signed as it has to be, does not vouch for anything.
    fn look(
        &mut self,
        left: &mut Vec<Doubt<'_>>,
        plan: &Plan,
        directory: &Path,
        session: &Session<'_>,
    ) -> Result<(), Failure> {
        let (world, unfit) = session.family.kept_world(plan, directory, session.now)?;
        self.unfit.extend(unfit);
        self.any |= world.packages() > 0;
        judge(left, &*world);
        Ok(())
    }

    fn refuse(&self, lock: &Path, absent: &[(String, String)], offline: bool) -> Failure {
        let shown = lock.display();
        let allow =
            "--allow-unsigned-lock takes what the lock says, if you know better where it is from";
        let mut failure = if self.any {
            let message = format!("{shown} has packages that no signed metadata at hand has");
            listed(FailureKind::Definition, message, absent)
        } else {
            let message = format!(
                "{shown} cannot be verified: there is no signed metadata of its repositories at hand"
            );
            Failure::new(FailureKind::Environment, message)
        };
        failure.causes.extend(self.unfit.iter().cloned());
        match (offline, self.any) {
            (true, _) => failure.hint("build once with the network; what was verified once is remembered"),
            (false, _) => failure.hint("they have left the repositories, or were never there: run `kiln lock` to take what the repositories have now; `--keep-metadata` keeps what vouches for it"),
        }
        .hint(allow)
    }
}

fn listed(kind: FailureKind, message: String, all: &[(String, String)]) -> Failure {
    let mut failure = Failure::new(kind, message);
    failure.origin = all.first().map(|(place, _)| place.clone());
    for (place, what) in all.iter().take(SHOWN) {
        failure.causes.push(format!("{place}: {what}"));
    }
    if all.len() > SHOWN {
        failure
            .causes
            .push(format!("and {} more", all.len() - SHOWN));
    }
    failure
}

/// Keeps those that are still in doubt. A contradiction is not forgotten because older or newer metadata lacks the version.
fn judge(left: &mut Vec<Doubt<'_>>, world: &dyn World) {
    left.retain_mut(|doubt| match world.verdict(doubt.package) {
        Verdict::Signed => false,
        Verdict::Unknown => true,
        differs => {
            doubt.verdict = differs;
            true
        }
    });
}

/// Packages that metadata, signed with certain keys, has vouched for.
struct Vouched {
    directory: PathBuf,
}

impl Vouched {
    fn of(cache: &Path, repositories: Id) -> Self {
        Vouched {
            directory: cache.join("signed").join(repositories.to_string()),
        }
    }

    /// Those that are not among what was vouched for.
    fn missing<'p>(&self, packages: &[&'p LockedPackage]) -> Vec<Doubt<'p>> {
        if self.has(&lines(packages)) {
            return Vec::new();
        }
        let files = fs::read_dir(&self.directory)
            .into_iter()
            .flatten()
            .flatten();
        let known: Vec<String> = files
            .filter_map(|file| fs::read_to_string(file.path()).ok())
            .collect();
        let known: HashSet<&str> = known.iter().flat_map(|text| text.lines()).collect();
        let new = |package: &&&LockedPackage| !known.contains(package.identity().trim_end());
        packages
            .iter()
            .filter(new)
            .map(|package| Doubt {
                package,
                verdict: Verdict::Unknown,
            })
            .collect()
    }

    fn remember(&self, packages: &[&LockedPackage]) {
        self.note(&lines(packages));
    }

    /// Whether these lines were noted.
    fn has(&self, text: &str) -> bool {
        fs::read_to_string(self.file(text)).is_ok_and(|known| known == text)
    }

    /// Remembering only saves time, so a failure is no error.
    fn note(&self, text: &str) {
        let path = self.file(text);
        let _ =
            fs::create_dir_all(&self.directory).and_then(|()| write_whole(&path, text.as_bytes()));
    }

    fn file(&self, text: &str) -> PathBuf {
        let id = Hasher::new("packages.v1").text("lines", text).finish();
        self.directory.join(id.to_string())
    }
}

fn lines(packages: &[&LockedPackage]) -> String {
    packages.iter().map(|package| package.identity()).collect()
}

#[cfg(test)]
mod tests {
    use kiln_packages::Digest;

    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn repository(name: &str, date: u64, release: &str) -> LockedRepository {
        LockedRepository {
            uri: "http://192.0.2.1/debian".to_owned(),
            name: name.to_owned(),
            date: at(date),
            release: Digest::of(release.as_bytes()),
        }
    }

    #[test]
    fn a_lock_has_the_repositories_of_its_definition_and_each_once() {
        let (stable, updates) = (repository("stable", 7, "a"), repository("updates", 8, "b"));
        let planned: Vec<(String, String)> = [&stable, &updates]
            .map(|r| (r.uri.clone(), r.name.clone()))
            .into();
        let wrong = |locked: &[&LockedRepository]| {
            let locked: Vec<_> = locked.iter().map(|r| (*r).clone()).collect();
            unplanned(&locked, &planned)
        };
        assert_eq!(wrong(&[&updates, &stable]), []);
        let other = LockedRepository {
            uri: "http://192.0.2.2/debian".to_owned(),
            ..stable.clone()
        };
        let found = wrong(&[&updates, &other]);
        assert_eq!(
            found.iter().map(|w| w.0).collect::<Vec<_>>(),
            [Some(1), None]
        );
        assert!(found[0].1.contains("192.0.2.2") && found[1].1.contains("stable"));
        assert_eq!(wrong(&[&stable, &updates, &updates])[0].0, Some(2));
    }

    #[test]
    fn a_date_is_that_of_the_signed_metadata() {
        let now = at(1_000_000);
        let signed = [repository("stable", 7, "a")];
        let wrong = |locked: LockedRepository| contradicted(&[locked], &signed, now).pop();
        assert_eq!(wrong(repository("stable", 7, "a")), None);
        let (_, why) = wrong(repository("stable", 9, "a")).expect("another date");
        assert!(why.contains("stable: its date is not that of"), "{why}");
        // Its metadata is gone, as that of most locks.
        assert_eq!(wrong(repository("stable", 5, "older")), None);
        let (_, why) = wrong(repository("stable", 1_100_000, "newer")).expect("to come");
        assert!(why.contains("to come"), "{why}");
    }

    /// Offline with nothing at hand, whoever reads it is told what helps, and it is no mistake of the definition.
    #[test]
    fn a_lock_without_metadata_is_refused_by_what_is_missing() {
        let lock = Path::new("lab/kiln.lock");
        let absent = [("lab/kiln.lock:7".to_owned(), "nano 7.2 amd64".to_owned())];
        for (any, offline, kind, said, advice) in [
            (
                false,
                true,
                FailureKind::Environment,
                "cannot be verified",
                "with the network",
            ),
            (
                false,
                false,
                FailureKind::Environment,
                "cannot be verified",
                "run `kiln lock`",
            ),
            (
                true,
                true,
                FailureKind::Definition,
                "no signed metadata",
                "with the network",
            ),
            (
                true,
                false,
                FailureKind::Definition,
                "no signed metadata",
                "run `kiln lock`",
            ),
        ] {
            let found = Found {
                any,
                unfit: vec!["a signature is missing".to_owned()],
            };
            let failure = found.refuse(lock, &absent, offline);
            assert_eq!(failure.kind, kind);
            assert!(failure.message.contains(said), "{failure:?}");
            assert!(failure.hints[0].contains(advice), "{failure:?}");
            assert!(failure.hints[1].contains("--allow-unsigned-lock"));
            assert!(failure.causes.contains(&found.unfit[0]), "{failure:?}");
            let named = failure.origin.as_deref() == Some("lab/kiln.lock:7");
            assert_eq!(named, any);
        }
    }
}
