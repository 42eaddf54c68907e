//! Package files into a root without any program of the root: the first packages of all, and the tools root.

use std::path::{Path, PathBuf};

use kiln_packages::debian::unpack::{Owners, create_merged_usr, unpack_all};
use kiln_sandbox::{Call, Error, ErrorKind, Say, Silence};
use serde::{Deserialize, Serialize};

use super::deb::Deb;
use super::install::{filtered, package_mounts};
use super::native::extract_all;
use crate::calls::io_error;
use crate::error::Result;
use crate::family::InstallOptions;
use crate::run::{Extras, Place};

/// Unpacks package files into the root.
#[derive(Serialize, Deserialize)]
pub(crate) struct Unpack {
    /// Paths inside the root.
    files: Vec<PathBuf>,
    architecture: String,
    threads: usize,
}

/// Unpacks package files into an empty root as they are: no scripts run, and dpkg knows nothing of them.
///
/// # Errors
/// A package file is damaged, or the root cannot be written.
pub(super) fn unpack(
    place: &Place<'_>,
    downloads: &Path,
    debs: &[Deb],
    architecture: &str,
    threads: usize,
) -> Result<()> {
    let skeleton = Skeleton { merged: None };
    place.call(&skeleton, (), Extras::bare())?;
    let unpack = Unpack {
        files: debs.iter().map(|d| d.inside().into()).collect(),
        architecture: architecture.to_owned(),
        threads,
    };
    let extras = Extras {
        mounts: package_mounts(downloads, debs.iter()),
        ..Extras::default()
    };
    let total = debs.len() as u64;
    let mut hear = |done| place.reporter.progress(done, Some(total), None);
    place
        .call_and_hear(&unpack, (), extras, &mut hear)
        .map(|_| ())
}

/// Puts package files of the pool into an empty root as they are, without taking them out of the pool. As [`unpack`],
/// but what the path filters leave out is left out at once.
///
/// # Errors
/// The root cannot be written.
pub(super) fn extract(place: &Place<'_>, debs: &[Deb], architecture: &str) -> Result<()> {
    let merged = Some(architecture.to_owned());
    place.call(&Skeleton { merged }, (), Extras::bare())?;
    let keys: Vec<String> = debs.iter().map(Deb::key).collect();
    extract_all(place, &keys, Extras::default())
}

/// Takes out of an unpacked root what `options` may not want. dpkg has to unpack the same packages afterwards: it brings
/// back what is wanted, but leaves alone what it finds in the way of a path filter.
///
/// # Errors
/// The root cannot be changed.
pub(super) fn clear_filtered(place: &Place<'_>, options: &InstallOptions) -> Result<()> {
    let directories = filtered(options);
    if directories.is_empty() {
        return Ok(());
    }
    let directories = directories.into_iter().map(PathBuf::from).collect();
    place.call(&Clear { directories }, (), Extras::default())
}

/// Empties directories.
#[derive(Serialize, Deserialize)]
pub(crate) struct Clear {
    directories: Vec<PathBuf>,
}

impl Call for Clear {
    const NAME: &'static str = "debian.clear";
    type Handed = ();
    type Message = Silence;
    type Answer = ();

    fn run(self, (): (), _: &Say<Silence>) -> Result<(), Error> {
        let clear = |directory: &PathBuf| {
            clear(directory).map_err(|e| io_error(format!("clearing {}", directory.display()), &e))
        };
        self.directories.iter().try_for_each(clear)
    }
}

/// Removes what is in a directory.
fn clear(directory: &Path) -> std::io::Result<()> {
    let entries = match std::fs::read_dir(directory) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            std::fs::remove_dir_all(entry.path())?;
        } else {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

impl Call for Unpack {
    const NAME: &'static str = "debian.unpack";
    type Handed = ();
    type Message = u64;
    type Answer = ();

    fn run(self, (): (), say: &Say<u64>) -> Result<(), Error> {
        let root = Path::new("/");
        merged_usr(&self.architecture)?;
        let mut count = 0;
        let mut done = |_: &_| {
            count += 1;
            say.say(count);
        };
        unpack_all(
            &self.files,
            root,
            Owners::FromArchive,
            self.threads,
            &mut done,
        )
        .map(drop)
        .map_err(|e| Error::new(ErrorKind::Step, "unpacking packages").because(e))
    }
}

fn merged_usr(architecture: &str) -> Result<(), Error> {
    create_merged_usr(Path::new("/"), architecture)
        .map_err(|e| Error::new(ErrorKind::Step, "making the links of a merged /usr").because(e))
}

/// The places where runs mount something, and the links of a merged /usr.
#[derive(Serialize, Deserialize)]
pub(crate) struct Skeleton {
    /// The architecture, if the links of a merged /usr are to be made too.
    merged: Option<String>,
}

impl Call for Skeleton {
    const NAME: &'static str = "debian.skeleton";
    type Handed = ();
    type Message = Silence;
    type Answer = ();

    fn run(self, (): (), _: &Say<Silence>) -> Result<(), Error> {
        if let Some(architecture) = &self.merged {
            merged_usr(architecture)?;
        }
        let made = crate::skeleton::make(Path::new("/"));
        made.map_err(|e| io_error("making the mount points of a root", &e))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn clearing_leaves_the_directory_and_what_links_lead_to() {
        let top = tempfile::tempdir().unwrap();
        let (docs, other) = (top.path().join("doc"), top.path().join("other"));
        for made in [docs.join("bash/examples"), other.clone()] {
            std::fs::create_dir_all(made).unwrap();
        }
        std::fs::write(docs.join("bash/copyright"), "x").unwrap();
        std::fs::write(other.join("kept"), "x").unwrap();
        symlink(&other, docs.join("link")).unwrap();
        clear(&docs).unwrap();
        assert_eq!(docs.read_dir().unwrap().count(), 0);
        assert!(other.join("kept").exists());
        clear(&top.path().join("nowhere")).unwrap();
    }
}
