//! A full disk, wherever a build meets it: told apart from other failures and explained here and nowhere else.
//!
//! The crates below pass on what the kernel says, programs of the target print it. Kiln's own words can be believed: all that it writes lies
//! in the cache or in the output directory. A program may as well have filled a tmpfs of its sandbox, or mean another machine's
//! disk, so its words count only while a disk of the build has next to nothing left. That is looked at as soon
//! as the words are there, because a step that failed gives back what it took.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use kiln_packages::Lock;
use rustix::fs::statvfs;
use rustix::io::Errno;

use crate::{Failure, FailureKind};
use kiln_packages::TOOLS;

/// A disk is full for programs that want to write a file in one piece, as dpkg does, while this or an eighth of it is left.
const LITTLE: u64 = 256 << 20;
/// It is full for everybody while this or a hundredth of it is left.
const NOTHING: u64 = 4 << 20;
/// Bytes in the cache for each byte of packages: the packages, their layers, compressed blocks of the image. It is 9 for
/// the minimal image, most of which is a kernel, and less than 6 for a desktop.
const IN_CACHE: f64 = 6.5;
/// Metadata and the tools root.
const IN_CACHE_ANYWAY: u64 = 400 << 20;
/// Bytes of one artifact for each byte of packages.
const IN_ARTIFACT: f64 = 1.1;
/// What fills the boot partition.
const IN_ARTIFACT_ANYWAY: u64 = 150 << 20;

/// What a program fills where no disk is full.
const IN_MEMORY: &str = "no disk of the build is full, but /tmp, /run and /dev/shm are in memory: `tmp-mib`, `run-mib` and `shm-mib` \
                         below `[limits]` in kiln.toml make them larger";

/// Which of a build's disks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Disk {
    /// The one that holds the cache.
    Cache,
    /// The one that holds the output directory.
    Output,
}

/// The disks of a build.
pub(crate) struct Space {
    cache: PathBuf,
    /// `None` of what makes no artifacts.
    output: Option<PathBuf>,
    /// The first disk that was seen full.
    seen: Mutex<Option<Disk>>,
    need: Mutex<Option<Need>>,
}

/// Bytes that a build takes in all.
#[derive(Clone, Copy)]
struct Need {
    cache: u64,
    output: u64,
}

impl Space {
    pub(crate) fn new(cache: &Path, output: Option<&Path>) -> Self {
        Space {
            cache: cache.to_owned(),
            output: output.map(Path::to_owned),
            seen: Mutex::default(),
            need: Mutex::default(),
        }
    }

    /// Notes what will be built, so that a failure can say how much room that takes.
    pub(crate) fn expect(&self, lock: &Lock, artifacts: usize) {
        let packages = lock.packages.iter().filter(|p| p.layer != TOOLS);
        let bytes = packages.map(|p| p.size).sum::<u64>() as f64;
        let need = Need {
            cache: (bytes * IN_CACHE) as u64 + IN_CACHE_ANYWAY,
            output: ((bytes * IN_ARTIFACT) as u64 + IN_ARTIFACT_ANYWAY) * artifacts as u64,
        };
        *self.need.lock().unwrap_or_else(PoisonError::into_inner) = Some(need);
    }

    /// Takes in a line that a program printed; the disk on which nobody can write any more, if the line says so and is right.
    pub(crate) fn listen(&self, line: &str) -> Option<Disk> {
        if !complains(line) {
            return None;
        }
        self.look();
        self.first(Left::is_nothing)
    }

    /// The disk that has next to nothing left, if there is one. Once seen, it stays the culprit.
    fn look(&self) -> Option<Disk> {
        let found = self.first(Left::is_little);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        *seen = seen.or(found);
        *seen
    }

    fn first(&self, is_full: impl Fn(&Left) -> bool) -> Option<Disk> {
        let output = self.output.as_deref().map(|path| (Disk::Output, path));
        let mut disks = [(Disk::Cache, &*self.cache)].into_iter().chain(output);
        let full = disks.find(|(_, path)| left(path).is_some_and(|left| is_full(&left)));
        full.map(|(disk, _)| disk)
    }

    /// Makes the failure of a full disk the environment's, and says what is needed and how to get it. Others stay as they are.
    pub(crate) fn explain(&self, failure: Failure) -> Failure {
        let of_program = failure.tail.iter().any(|line| complains(line));
        let own = [&failure.message].into_iter().chain(&failure.causes);
        let own = own.map(String::as_str).collect::<Vec<_>>().join("\n");
        if failure.disk_full || !(of_program || complains(&own)) {
            return failure;
        }
        let disk = match (self.named(&own), self.look()) {
            (Some(named), _) => named,
            (None, Some(seen)) => seen,
            (None, None) if complains(&own) => Disk::Cache,
            (None, None) => {
                let mut failure = failure;
                if !failure.hints.iter().any(|hint| hint == IN_MEMORY) {
                    failure.hints.push(IN_MEMORY.to_owned());
                }
                return failure;
            }
        };
        self.blame(disk, failure)
    }

    /// The disk whose directory a text names.
    fn named(&self, text: &str) -> Option<Disk> {
        let names = |path: &Path| text.contains(&*path.to_string_lossy());
        match &self.output {
            Some(output) if names(output) => Some(Disk::Output),
            _ => names(&self.cache).then_some(Disk::Cache),
        }
    }

    /// A failure for which a full disk is to blame.
    pub(crate) fn blame(&self, disk: Disk, mut failure: Failure) -> Failure {
        let (what, path) = match (disk, &self.output) {
            (Disk::Output, Some(output)) => ("output directory", output),
            _ => ("cache", &self.cache),
        };
        let full = format!("the disk that holds the {what} is full: {}", path.display());
        failure
            .causes
            .insert(0, std::mem::replace(&mut failure.message, full));
        failure.kind = FailureKind::Environment;
        failure.disk_full = true;
        // Whatever was advised before was for another reason.
        failure.hints.clear();
        failure.hints.push(self.needed(disk, path));
        let advice = match disk {
            Disk::Cache => format!(
                "`kiln cache gc --keep-days 1 --cache-dir {0}` removes what no build has used since yesterday (0: whatever none uses now), \
                 `kiln cache du --cache-dir {0}` shows what takes how much; or choose another cache with --cache-dir DIR",
                path.display()
            ),
            Disk::Output => "free some space there, or choose another place with -o DIR".to_owned(),
        };
        failure.hints.push(advice);
        failure
    }

    /// What the disk has, and what the build wants of it.
    fn needed(&self, disk: Disk, path: &Path) -> String {
        let has = left(path).map_or_else(String::new, |left| {
            let inodes = match left.inodes {
                0 => " and no room for another file",
                _ => "",
            };
            format!(
                "the disk has {} left of {}{inodes}; ",
                size(left.bytes),
                size(left.total)
            )
        });
        let need = *self.need.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = need.map(|need| match disk {
            Disk::Cache => need.cache,
            Disk::Output => need.output,
        });
        match bytes {
            Some(bytes) => format!("{has}this build needs about {} there in all", size(bytes)),
            None => format!("{has}a small image needs about 1 GB there, a desktop 16 GB"),
        }
    }
}

/// What a disk has for this user.
#[derive(Clone, Copy)]
struct Left {
    bytes: u64,
    total: u64,
    inodes: u64,
}

impl Left {
    fn is_little(&self) -> bool {
        self.bytes < LITTLE.min(self.total / 8) || self.inodes == 0
    }

    fn is_nothing(&self) -> bool {
        self.bytes < NOTHING.min(self.total / 100) || self.inodes == 0
    }
}

/// `None` where it cannot be told.
fn left(path: &Path) -> Option<Left> {
    let there = path.ancestors().find(|path| path.exists())?;
    let found = statvfs(there).ok()?;
    let root = rustix::process::geteuid().is_root();
    let (blocks, inodes) = match root {
        true => (found.f_bfree, found.f_ffree),
        false => (found.f_bavail, found.f_favail),
    };
    Some(Left {
        bytes: blocks.saturating_mul(found.f_frsize),
        total: found.f_blocks.saturating_mul(found.f_frsize),
        // File systems that make inodes as they need them have none to count.
        inodes: if found.f_files == 0 { 1 } else { inodes },
    })
}

/// Whether a text has the kernel's words for a full disk, or for a quota that is used up.
fn complains(text: &str) -> bool {
    [Errno::NOSPC, Errno::DQUOT].iter().any(|error| {
        let words = crate::io::plain(&std::io::Error::from(*error));
        text.contains(&words)
    })
}

fn size(bytes: u64) -> String {
    match bytes {
        0..10_000_000_000 => format!("{} MB", bytes / 1_000_000),
        _ => format!("{} GB", bytes / 1_000_000_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: &str = "No space left on device";

    fn space(cache: &Path) -> Space {
        Space::new(cache, Some(Path::new("/nowhere/output")))
    }

    fn failed(kind: FailureKind, cause: &str) -> Failure {
        Failure::new(kind, "installing 2 packages failed").cause(cause)
    }

    #[test]
    fn our_own_words_are_believed() {
        let dir = tempfile::tempdir().expect("a directory");
        for (cause, what) in [
            (format!("writing a file: {FULL} (os error 28)"), "the cache"),
            ("Disk quota exceeded".to_owned(), "the cache"),
            (
                format!("/nowhere/output/.kiln-1/disk.raw: {FULL}"),
                "the output directory",
            ),
        ] {
            let failure = space(dir.path()).explain(failed(FailureKind::Step, &cause));
            assert_eq!(failure.kind.exit_code(), 3, "{failure:?}");
            assert!(failure.message.contains(what), "{failure:?}");
            assert_eq!(failure.causes[0], "installing 2 packages failed");
            assert!(failure.hints[0].contains("needs about"), "{failure:?}");
            let again = space(dir.path()).explain(failure.clone());
            assert_eq!(again.hints, failure.hints, "it is explained once");
        }
    }

    #[test]
    fn a_programs_words_count_while_a_disk_is_full() {
        let dir = tempfile::tempdir().expect("a directory");
        let roomy = space(dir.path());
        assert!(roomy.listen(&format!("cp: {FULL}")).is_none());
        let mut failure = failed(FailureKind::Step, "it ended");
        failure
            .tail
            .push(format!("cp: error writing '/tmp/x': {FULL}"));
        assert_eq!(roomy.explain(failure.clone()).kind, FailureKind::Step);
        *roomy.seen.lock().expect("a lock") = Some(Disk::Cache);
        assert_eq!(roomy.explain(failure).kind, FailureKind::Environment);
    }

    #[test]
    fn other_failures_stay_as_they_are() {
        let dir = tempfile::tempdir().expect("a directory");
        let failure = failed(FailureKind::Definition, "no package has this name");
        let same = space(dir.path()).explain(failure.clone());
        assert_eq!(same.message, failure.message);
        assert_eq!(same.kind, failure.kind);
    }
}
