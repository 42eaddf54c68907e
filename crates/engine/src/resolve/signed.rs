//! Whether a lock may be believed: every package of it has to be in metadata that is signed with the definition's keys, with the
//! same size, content and place. A lock lies in a repository of texts, is merged and reviewed by people, and is the root's content.
//!
//! ```text
//! <cache>/signed/<repositories and keys>/<packages>    packages that signed metadata vouched for, a line each
//! <lock>.metadata/                                     signed metadata beside a lock, as in a vendored directory
//! ```
//! What was vouched for once stays so, whatever the repositories have later: their metadata is not needed again. Metadata is
//! looked for where it costs least: beside the lock, in the cache, in the network.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use kiln_packages::{Lock, LockedPackage, Verdict};
use kiln_plan::{Hasher, Id, Plan};
use kiln_rootfs::family::World;

use crate::io::write_whole;
use crate::means::Session;
use crate::means::vendored::Vendored;
use crate::resolve::solve::Resolver;
use crate::{Failure, FailureKind};

/// Causes that a failure lists.
const SHOWN: usize = 5;

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

/// Notes that packages were taken from signed metadata.
pub(crate) fn vouch(
    session: &Session<'_>,
    plan: &Plan,
    packages: &[LockedPackage],
) -> Result<(), Failure> {
    let vouched = Vouched::of(session.store.root(), session.family.repositories_id(plan)?);
    vouched.remember(&packages.iter().collect::<Vec<_>>());
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
            .warn(failure.message.clone(), None, Some(hint));
    };
    copied.inspect_err(told).ok()
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
        let text = lines(packages);
        if fs::read_to_string(self.file(&text)).is_ok_and(|known| known == text) {
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

    /// Remembering only saves time, so a failure is no error.
    fn remember(&self, packages: &[&LockedPackage]) {
        let text = lines(packages);
        let path = self.file(&text);
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
