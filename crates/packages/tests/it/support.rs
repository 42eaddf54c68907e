//! What the tests share.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, SystemTime};

use kiln_packages::debian::{Keys, Metadata, Repository, Universe};
use kiln_packages::{CancelToken, DownloadStore, Error, FetchOptions, Fetcher, Item};
use kiln_testkit::package::{Compression, Entry};
use kiln_testkit::{Key, Mirror, Package};
use tempfile::TempDir;

/// A signed repository on a mirror, and the directories of a user.
pub(crate) struct World {
    pub(crate) directory: TempDir,
    pub(crate) mirror: Mirror,
    pub(crate) key: Key,
}

pub(crate) const SUITE: &str = "stable";

/// Enough content that a fault in the middle is in the middle.
pub(crate) fn big(name: &str) -> Package {
    let noise: Vec<u8> = (0..300_000u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect();
    Package::new(name, "1.0")
        .entry(Entry::file("./usr/share/noise", noise))
        .compressed(Compression::None)
}

impl World {
    pub(crate) fn new() -> Self {
        World::of(kiln_testkit::Repository::new(
            SUITE,
            [big("big"), Package::new("small", "1.0")],
        ))
    }

    pub(crate) fn of(repository: kiln_testkit::Repository) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let key = Key::generate("Test <test@example.org>");
        let files = directory.path().join("mirror");
        repository.write(&files, &key);
        World {
            mirror: Mirror::of(files),
            directory,
            key,
        }
    }

    /// Writes another state of the repository.
    pub(crate) fn rewrite(&self, repository: &kiln_testkit::Repository) {
        repository.write(&self.path("mirror"), &self.key);
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn repository(&self) -> Repository {
        Repository {
            uri: self.mirror.url(),
            suite: SUITE.into(),
            components: vec!["main".into()],
            architecture: "amd64".into(),
            keys: Keys::Given {
                name: "test.asc".into(),
                bytes: self.key.public_armored(),
            },
            check_valid_until: true,
            origin: "lab.ks:7".into(),
        }
    }

    pub(crate) fn refresh(&self) -> Result<Metadata, Error> {
        self.refresh_with(&self.repository())
    }

    pub(crate) fn refresh_with(&self, repository: &Repository) -> Result<Metadata, Error> {
        let all = std::slice::from_ref(repository);
        kiln_packages::debian::refresh(&fetcher(), all, &self.path("metadata"), SystemTime::now())
    }

    pub(crate) fn universe(&self) -> Universe {
        Universe::read(&self.refresh().expect("good metadata")).expect("a good index")
    }

    pub(crate) fn store(&self) -> DownloadStore {
        DownloadStore::open(self.path("downloads")).expect("a store")
    }

    /// The package `big`, from metadata that was read before any fault.
    pub(crate) fn item(&self) -> Item {
        let universe = self.universe();
        let package = universe.best("big").expect("the package big");
        self.mirror.take_requests();
        Item {
            name: "big".into(),
            url: package.url(),
            size: package.size(),
            sha256: package.sha256(),
        }
    }
}

/// Impatient, so that faults do not take long.
pub(crate) fn options() -> FetchOptions {
    FetchOptions {
        connect_timeout: Duration::from_secs(10),
        stall_timeout: Duration::from_millis(1500),
        attempts: 3,
        backoff: Duration::from_millis(5),
        ..FetchOptions::default()
    }
}

pub(crate) fn fetcher() -> Fetcher {
    Fetcher::new(options(), CancelToken::new()).expect("a fetcher")
}

/// Runs an outsider. A missing one fails the test and says which.
pub(crate) fn run(program: &str, arguments: &[&str]) -> Output {
    let result = Command::new(program)
        .args(arguments)
        .env("LC_ALL", "C")
        .output();
    result.unwrap_or_else(|e| panic!("this test needs {program}: {e}"))
}

/// Runs an outsider that must succeed.
pub(crate) fn good(program: &str, arguments: &[&str]) -> String {
    let output = run(program, arguments);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}\n{text}{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    text
}

/// All files below a directory, sorted, relative.
pub(crate) fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut left = vec![directory.to_owned()];
    while let Some(at) = left.pop() {
        for entry in std::fs::read_dir(&at).into_iter().flatten().flatten() {
            match entry.file_type().expect("a file type").is_dir() {
                true => left.push(entry.path()),
                false => found.push(
                    entry
                        .path()
                        .strip_prefix(directory)
                        .expect("inside")
                        .to_owned(),
                ),
            }
        }
    }
    found.sort();
    found
}
