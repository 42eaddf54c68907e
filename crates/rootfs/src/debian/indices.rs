//! The verified indices of Debian repositories, and what they answer.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::SystemTime;

use kiln_packages::debian::{
    Keys, Metadata, Package, Repository, Universe, VerifiedRepository, load_cached, verdict,
};
use kiln_packages::{ErrorKind, LockedPackage, LockedRepository, TOOLS, Verdict};
use kiln_plan::Plan;

use super::outline::{self, Outline};
use super::requests::collect;
use super::solve::{Solved, solve};
use super::tools::tools;
use crate::error::Result;
use crate::family::World;
use crate::requests::Requests;
use crate::run::Place;

/// Repositories as they were verified, and all packages of them.
pub struct Indices {
    metadata: Metadata,
    /// Read when somebody needs more than the outline.
    universe: OnceLock<Universe>,
    /// What an earlier build noted of the same indices.
    outline: Option<Outline>,
    architecture: String,
}

impl Indices {
    /// Reads the indices of verified repositories.
    ///
    /// # Errors
    /// An index is malformed.
    pub fn read(metadata: Metadata, architecture: &str) -> Result<Self> {
        let universe = Universe::read(&metadata)?;
        Ok(Indices {
            metadata,
            universe: universe.into(),
            outline: None,
            architecture: architecture.to_owned(),
        })
    }

    /// As [`Indices::read`], unless `directory` has a note about the same indices: then they are read when they are needed.
    ///
    /// # Errors
    /// As [`Indices::read`].
    pub fn outlined(metadata: Metadata, architecture: &str, directory: &Path) -> Result<Self> {
        let note = outline::place(directory, &metadata, architecture);
        if let Some(outline) = Outline::recall(&note) {
            return Ok(Indices {
                metadata,
                universe: OnceLock::new(),
                outline: Some(outline),
                architecture: architecture.to_owned(),
            });
        }
        let indices = Indices::read(metadata, architecture)?;
        // Whoever needs what the repositories lack is told why.
        if let (Ok(tools), true) = (indices.tools(), indices.universe()?.warnings().is_empty()) {
            let packages = indices.packages();
            Outline { packages, tools }.remember(&note);
        }
        Ok(indices)
    }

    fn universe(&self) -> Result<&Universe> {
        if let Some(universe) = self.universe.get() {
            return Ok(universe);
        }
        let read = Universe::read(&self.metadata)?;
        Ok(self.universe.get_or_init(|| read))
    }

    /// Reads what a directory has of repositories. What is not there, or not signed as it has to be, does not count; why the latter
    /// does not is told.
    pub(super) fn kept(
        repositories: &[Repository],
        directory: &Path,
        now: SystemTime,
        architecture: &str,
    ) -> (Self, Vec<String>) {
        let mut metadata = Metadata {
            repositories: Vec::new(),
            warnings: Vec::new(),
        };
        let mut unfit = Vec::new();
        for repository in repositories {
            match load_cached(std::slice::from_ref(repository), directory, now) {
                Ok(one) => metadata.repositories.extend(one.repositories),
                Err(error) if error.kind() == ErrorKind::Offline => {}
                Err(error) => unfit.push(error.to_string()),
            }
        }
        let universe = Universe::read(&metadata).unwrap_or_else(|error| {
            unfit.push(error.to_string());
            Universe::default()
        });
        let indices = Indices {
            metadata,
            universe: universe.into(),
            outline: None,
            architecture: architecture.to_owned(),
        };
        (indices, unfit)
    }
}

impl World for Indices {
    fn repositories(&self) -> Vec<LockedRepository> {
        let all = self.metadata.repositories.iter();
        all.map(|verified| LockedRepository {
            uri: verified.repository.uri.clone(),
            name: verified.repository.suite.clone(),
            date: verified.release.date,
            release: verified.release_sha256,
        })
        .collect()
    }

    fn packages(&self) -> usize {
        match (&self.outline, self.universe.get()) {
            (Some(outline), _) => outline.packages,
            (None, universe) => universe.map_or(0, Universe::len),
        }
    }

    fn warnings(&self) -> Vec<String> {
        let all = self.metadata.warnings.iter();
        let read = self.universe.get().map_or(&[][..], Universe::warnings);
        all.chain(read).cloned().collect()
    }

    fn verdict(&self, package: &LockedPackage) -> Verdict {
        match self.universe() {
            Ok(universe) => verdict(universe, package),
            Err(error) => Verdict::Differs(format!("its index cannot be read: {error}")),
        }
    }

    fn files(&self) -> Vec<(String, PathBuf)> {
        let all = self.metadata.repositories.iter();
        all.flat_map(files).collect()
    }

    fn keys(&self) -> Vec<(String, Vec<u8>)> {
        let all = self.metadata.repositories.iter();
        all.flat_map(|verified| keys_of(&verified.repository))
            .collect()
    }

    fn tools(&self) -> Result<Vec<LockedPackage>> {
        if let Some(outline) = &self.outline {
            return Ok(outline.tools.clone());
        }
        let packages = tools(self.universe()?)?;
        Ok(packages.iter().map(|p| locked(p, TOOLS, true)).collect())
    }

    fn requests(&self, plan: &Plan) -> Result<Requests> {
        collect(plan, self.universe()?)
    }

    fn solve(&self, place: &Place<'_>, requests: &Requests) -> Result<Vec<LockedPackage>> {
        let (universe, metadata) = (self.universe()?, &self.metadata);
        let solved = solve(place, universe, metadata, requests, &self.architecture)?;
        let locked = |s: &Solved| locked(&s.package, &requests.layers[s.layer].0, s.auto);
        Ok(solved.iter().map(locked).collect())
    }
}

fn locked(package: &Package, layer: &str, auto: bool) -> LockedPackage {
    LockedPackage {
        name: package.name().to_owned(),
        version: package.version().to_owned(),
        architecture: package.architecture().to_owned(),
        url: package.url(),
        sha256: package.sha256(),
        size: package.size(),
        layer: layer.to_owned(),
        auto,
        facts: BTreeMap::new(),
    }
}

/// The files of a repository's metadata, under the names that `kiln_packages` looks for.
fn files(verified: &VerifiedRepository) -> impl Iterator<Item = (String, PathBuf)> {
    let name = verified.repository.cache_name();
    let current = (format!("{name}/current"), verified.current_file());
    let indices = verified.indices.iter().map(|index| index.path());
    let files = std::iter::once(verified.release_file.as_path())
        .chain(verified.signature_file.as_deref())
        .chain(indices);
    let files = files.filter_map(move |file| {
        let content = file.file_name()?.to_string_lossy();
        Some((format!("{name}/files/{content}"), file.to_owned()))
    });
    std::iter::once(current).chain(files)
}

fn keys_of(repository: &Repository) -> Vec<(String, Vec<u8>)> {
    match &repository.keys {
        Keys::Builtin(archive) => {
            let of = archive.name().to_lowercase();
            let name = |name| format!("{of}-archive-{name}.gpg");
            let all = archive.files();
            all.map(|(key, bytes)| (name(key), bytes.to_vec()))
                .collect()
        }
        Keys::Given { name: from, bytes } => {
            let file = Path::new(from).file_name().map(OsStr::to_string_lossy);
            let file = file
                .as_deref()
                .unwrap_or("key")
                .replace([':', '\n', '\\'], "_");
            vec![(format!("{}-{file}", repository.cache_name()), bytes.clone())]
        }
    }
}
