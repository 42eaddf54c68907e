//! Package files that are to be installed: proven, and what later steps have to know of them.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::SystemTime;

use kiln_packages::rpm::{PackageFile, Repository};
use kiln_packages::{DownloadStore, LockedPackage};
use kiln_sandbox::Mount;
use serde::{Deserialize, Serialize};

use super::repositories::{keyring, of};
use crate::error::{Error, ErrorKind, Result};
use crate::family::Facts;

/// Where package files are seen inside a root.
const PACKAGES: &str = "/run/kiln/rpms";

/// A package file that is to be installed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Item {
    /// Its name.
    pub name: String,
    /// Epoch, version and release, as a lock has them.
    pub version: String,
    /// Its architecture.
    pub architecture: String,
    /// The verified file, below the download store's directory.
    pub file: PathBuf,
    /// When it was made, in seconds since 1970.
    pub built: i64,
    /// Who may have signed it: index into [`Items::keys`].
    pub key: usize,
    /// The module that it is of, and its stream.
    #[serde(default)]
    pub stream: Option<(String, String)>,
    /// Whether other versions of it stay where they are.
    #[serde(default)]
    pub install_only: bool,
}

#[cfg(test)]
impl Item {
    /// A package, for tests that read no file.
    pub(super) fn named(name: &str, version: &str) -> Self {
        Item {
            name: name.into(),
            version: version.into(),
            architecture: "x86_64".into(),
            file: "x".into(),
            built: 0,
            key: 0,
            stream: None,
            install_only: false,
        }
    }
}

/// Package files that are to be installed, and who may have signed them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Items {
    /// A name for messages, and certificates.
    pub keys: Vec<(String, Vec<u8>)>,
    /// The packages.
    pub items: Vec<Item>,
}

impl Item {
    /// `NAME-VERSION.ARCHITECTURE`, as rpm names it in messages.
    pub(super) fn nevra(&self) -> String {
        format!("{}-{}.{}", self.name, self.version, self.architecture)
    }

    /// Its path inside a root.
    pub(super) fn inside(&self) -> String {
        format!("{PACKAGES}/{}.rpm", self.nevra().replace(':', "%3a"))
    }

    fn read(
        package: &LockedPackage,
        downloads: &DownloadStore,
        repositories: &[Repository],
    ) -> Result<Self> {
        let proven = proven(package, downloads, repositories)?;
        let repository = of(repositories, package)?;
        let key = repositories.iter().position(|r| r.name == repository.name);
        Ok(Item {
            name: package.name.clone(),
            version: package.version.clone(),
            architecture: package.architecture.clone(),
            file: downloads.path(&package.sha256),
            built: proven.built(),
            key: key.unwrap_or(usize::MAX),
            stream: proven.stream(),
            install_only: proven.is_install_only(),
        })
    }
}

/// Opens a package's file, whose keys have to be its repository's, and which has to be what the lock says.
pub(super) fn proven(
    package: &LockedPackage,
    downloads: &DownloadStore,
    repositories: &[Repository],
) -> Result<PackageFile> {
    let path = downloads.path(&package.sha256);
    let named = |mut error: Error| {
        error.package = Some(package.describe());
        error
    };
    let failed = |e| Error::io(format!("opening {}", path.display()), &e);
    let file = std::fs::File::open(&path).map_err(failed)?;
    let keyring = keyring(repositories, package)?;
    let proven = PackageFile::verify_file(file, &package.describe(), &keyring, SystemTime::now())
        .map_err(|error| named(error.into()))?;
    let (name, evr, architecture) = proven.identity().map_err(|error| named(error.into()))?;
    // A path that leads out of the root is found before anything runs.
    proven.files().map_err(|error| named(error.into()))?;
    let found = (name, evr.to_string(), architecture);
    let said = (&package.name, &package.version, &package.architecture);
    match (&found.0, &found.1, &found.2) == said {
        true => Ok(proven),
        false => Err(named(Error::new(
            ErrorKind::Step,
            format!(
                "the file of {} is {}-{}.{}: its repository's metadata is wrong",
                package.describe(),
                found.0,
                found.1,
                found.2
            ),
        ))),
    }
}

/// Proves package files, and reads what later steps need.
pub(super) fn read(
    packages: &[&LockedPackage],
    downloads: &DownloadStore,
    repositories: &[Repository],
    threads: usize,
) -> Result<Items> {
    let next = AtomicUsize::new(0);
    let found: Mutex<Vec<(usize, Result<Item>)>> = Mutex::new(Vec::with_capacity(packages.len()));
    std::thread::scope(|scope| {
        for _ in 0..threads.clamp(1, packages.len().max(1)) {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(package) = packages.get(at) else {
                        break;
                    };
                    let item = Item::read(package, downloads, repositories);
                    found
                        .lock()
                        .unwrap_or_else(std::sync::PoisonError::into_inner)
                        .push((at, item));
                }
            });
        }
    });
    let mut found = found
        .into_inner()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    found.sort_by_key(|(at, _)| *at);
    let items = found.into_iter().map(|(_, item)| item);
    Ok(Items {
        keys: repositories.iter().map(|r| r.keys.clone()).collect(),
        items: items.collect::<Result<_>>()?,
    })
}

/// Items as the text that is kept.
pub(super) fn facts(items: &Items) -> Result<Facts> {
    let text = serde_json::to_vec(items).map_err(|e| {
        Error::new(ErrorKind::Internal, "what packages say cannot be noted").cause(e.to_string())
    })?;
    Ok(Facts::new(newest(&items.items), text))
}

fn newest(items: &[Item]) -> Option<i64> {
    items.iter().map(|item| item.built).max()
}

/// As [`facts`], of a text that was kept.
pub(super) fn recalled(text: Vec<u8>, packages: usize) -> Option<Facts> {
    let all: Items = serde_json::from_slice(&text).ok()?;
    (all.items.len() == packages).then(|| Facts::new(newest(&all.items), text))
}

/// What is in the text.
pub(super) fn items(facts: &Facts) -> Result<Items> {
    serde_json::from_slice(facts.text()).map_err(|e| {
        Error::new(
            ErrorKind::Internal,
            "what is noted of packages cannot be read",
        )
        .cause(e.to_string())
    })
}

/// Package files inside a root, under their names.
pub(super) fn mounts(items: &[Item]) -> Vec<Mount> {
    let bind = |item: &Item| Mount::Bind {
        source: item.file.clone(),
        target: item.inside(),
        writable: false,
    };
    items.iter().map(bind).collect()
}

/// Where a file is, for messages.
pub(super) fn label(path: &Path) -> String {
    path.file_stem().map_or_else(String::new, |name| {
        name.to_string_lossy().replace("%3a", ":")
    })
}
