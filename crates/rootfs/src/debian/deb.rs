//! Package files that are to be installed, and what their order depends on.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use kiln_packages::debian::{deb, relation};
use kiln_packages::{Digest, LockedPackage};
use serde::{Deserialize, Serialize};

use super::native::PoolItem;
use crate::error::{Error, ErrorKind, Result};
use crate::family::Facts;

/// Where packages are seen inside the root.
pub(super) const DEBS: &str = "/run/kiln/debs";

/// A package file that is to be installed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Deb {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its architecture (`all` for independent ones).
    pub architecture: String,
    /// The verified file, below the download store's directory.
    pub file: PathBuf,
    /// Whether nobody asked for it by name.
    pub auto: bool,
    /// Whether a system without it does not work.
    pub essential: bool,
    /// When it was made, in seconds since 1970.
    pub built: i64,
    /// Whether it satisfies what packages of other architectures depend on (`Multi-Arch: foreign`).
    pub foreign: bool,
    /// The field `Provides`.
    pub provides: String,
    /// The field `Pre-Depends`.
    pub pre_depends: String,
    /// The field `Depends`.
    pub depends: String,
}

impl Deb {
    /// Its path inside the root.
    pub(crate) fn inside(&self) -> String {
        format!("{DEBS}/{}.deb", self.key())
    }

    /// Its name for dpkg, where several architectures may have one of the name.
    pub(crate) fn label(&self) -> String {
        match self.architecture.as_str() {
            "all" => self.name.clone(),
            architecture => format!("{}:{architecture}", self.name),
        }
    }

    /// Its name in a pool.
    pub(crate) fn key(&self) -> String {
        key(&self.name, &self.version, &self.architecture)
    }

    /// The digest of its file, which is the name of files in the download store.
    ///
    /// # Errors
    /// It has none: an error of Kiln's own.
    pub(super) fn sha256(&self) -> Result<Digest> {
        let name = self.file.file_name().and_then(|name| name.to_str());
        let digest = name.and_then(|name| name.parse().ok());
        let message = || format!("{} is no file of the download store", self.file.display());
        digest.ok_or_else(|| Error::new(ErrorKind::Internal, message()))
    }

    fn read(package: &LockedPackage, file: PathBuf) -> Result<Deb> {
        let opened =
            File::open(&file).map_err(|e| Error::io(format!("reading {}", file.display()), &e))?;
        let label = format!("{} {}", package.name, package.version);
        let control = deb::Deb::of_file(opened, &label)
            .and_then(|d| d.control_of(&package.name, &package.version, &package.architecture))?;
        let field = |name: &str| control.field(name).unwrap_or("");
        Ok(Deb {
            name: package.name.clone(),
            version: package.version.clone(),
            architecture: package.architecture.clone(),
            auto: package.auto,
            essential: field("Essential") == "yes",
            built: built(&file)?,
            foreign: field("Multi-Arch") == "foreign",
            provides: field("Provides").to_owned(),
            pre_depends: field("Pre-Depends").to_owned(),
            depends: field("Depends").to_owned(),
            file,
        })
    }
}

/// `NAME_VERSION_ARCHITECTURE` as apt names package files.
fn key(name: &str, version: &str, architecture: &str) -> String {
    format!("{name}_{}_{architecture}", version.replace(':', "%3a"))
}

/// A package that is to be unpacked ahead of time. `file` is its verified file.
pub(super) fn pool_item(package: &LockedPackage, file: PathBuf) -> PoolItem {
    PoolItem {
        key: key(&package.name, &package.version, &package.architecture),
        file,
    }
}

/// When a package was made, in seconds since 1970: the time in the header of the archive's first member (deb(5), ar's decimal `mtime`
/// at byte 16 of the header).
///
/// # Errors
/// The file cannot be read.
pub(super) fn built(file: &Path) -> Result<i64> {
    let mut digits = [0; 12];
    let read = File::open(file).and_then(|f| f.read_exact_at(&mut digits, 8 + 16));
    read.map_err(|e| Error::io(format!("reading {}", file.display()), &e))?;
    Ok(String::from_utf8_lossy(&digits).trim().parse().unwrap_or(0))
}

/// Reads the control data of verified package files. `path` says where a package's file is.
///
/// # Errors
/// A file is missing or damaged.
pub(super) fn read_debs(
    packages: &[&LockedPackage],
    path: &(dyn Fn(&LockedPackage) -> PathBuf + Sync),
    threads: usize,
) -> Result<Vec<Deb>> {
    let next = AtomicUsize::new(0);
    let found: Mutex<Vec<(usize, Result<Deb>)>> = Mutex::new(Vec::with_capacity(packages.len()));
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(|| {
                while let (at, Some(package)) = {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    (at, packages.get(at))
                } {
                    let deb = Deb::read(package, path(package));
                    found
                        .lock()
                        .unwrap_or_else(std::sync::PoisonError::into_inner)
                        .push((at, deb));
                }
            });
        }
    });
    let mut found = found
        .into_inner()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    found.sort_by_key(|(at, _)| *at);
    found.into_iter().map(|(_, deb)| deb).collect()
}

/// When the newest of packages was made.
pub(super) fn newest(debs: &[Deb]) -> Option<i64> {
    debs.iter().map(|deb| deb.built).max()
}

/// The packages of a step, as they were noted.
pub(super) fn debs(facts: &Facts) -> Result<Vec<Deb>> {
    serde_json::from_slice(facts.text()).map_err(|e| {
        Error::new(
            ErrorKind::Internal,
            "what was noted of packages is not what Debian packages say",
        )
        .cause(e.to_string())
    })
}

/// Splits the lowest layer's packages: the essential ones with all that they depend on, which are unpacked without
/// dpkg, and the rest.
pub(super) fn bootstrap_split(debs: &[Deb]) -> (Vec<Deb>, Vec<Deb>) {
    let mut by_name: HashMap<&str, usize> = HashMap::new();
    for (index, deb) in debs.iter().enumerate() {
        for provided in relation::list(&deb.provides) {
            by_name.entry(provided.name).or_insert(index);
        }
    }
    for (index, deb) in debs.iter().enumerate() {
        by_name.insert(&deb.name, index);
    }
    let mut first = BTreeSet::new();
    let mut pending: Vec<usize> = debs
        .iter()
        .enumerate()
        .filter(|(_, d)| d.essential)
        .map(|(i, _)| i)
        .collect();
    while let Some(index) = pending.pop() {
        if first.insert(index) {
            let deb = &debs[index];
            let groups = relation::groups(&deb.pre_depends).chain(relation::groups(&deb.depends));
            pending.extend(groups.filter_map(|g| g.iter().find_map(|r| by_name.get(r.name))));
        }
    }
    let part = |wanted: bool| {
        debs.iter()
            .enumerate()
            .filter(|(i, _)| first.contains(i) == wanted)
            .map(|(_, d)| d.clone())
            .collect()
    };
    (part(true), part(false))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_essential_packages_bring_their_dependencies() {
        let deb = |name: &str, essential, depends: &str| Deb {
            name: name.into(),
            essential,
            depends: depends.into(),
            ..Deb::default()
        };
        let debs = [
            deb("bash", true, "libc6"),
            deb("libc6", false, "x | libgcc"),
            deb("libgcc", false, ""),
            deb("vim", false, "libc6"),
        ];
        let (first, rest) = bootstrap_split(&debs);
        assert_eq!(first.len(), 3);
        assert_eq!(rest[0].name, "vim");
    }
}
