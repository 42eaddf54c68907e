//! Package files into a root without any program of the root: the first packages of all, and the tools root.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use kiln_packages::debian::unpack::{Owners, create_merged_usr, unpack_all};
use kiln_sandbox::{Call, Error, ErrorKind};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::deb::Deb;
use super::install::{filtered, package_mounts};
use super::native::extract_all;
use crate::calls::{io_error, payload};
use crate::error::Result;
use crate::family::InstallOptions;
use crate::run::{Extras, Place};

pub(crate) const UNPACK: &str = "debian.unpack";
pub(crate) const SKELETON: &str = "debian.skeleton";
pub(crate) const CLEAR: &str = "debian.clear";

#[derive(Serialize, Deserialize)]
struct Unpack {
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
    place.call(
        SKELETON,
        Value::Null,
        Extras {
            bare: true,
            ..Extras::default()
        },
        &mut |_| {},
    )?;
    let files = debs.iter().map(|d| d.inside().into()).collect();
    let payload = json!(Unpack {
        files,
        architecture: architecture.to_owned(),
        threads
    });
    let extras = Extras {
        mounts: package_mounts(downloads, debs.iter()),
        ..Extras::default()
    };
    let total = debs.len() as u64;
    let mut message = |value: Value| {
        place
            .reporter
            .progress(value.as_u64().unwrap_or(0), Some(total), None)
    };
    place
        .call(UNPACK, payload, extras, &mut message)
        .map(|_| ())
}

/// Puts package files of the pool into an empty root as they are, without taking them out of the pool. As [`unpack`],
/// but what the path filters leave out is left out at once.
///
/// # Errors
/// The root cannot be written.
pub(super) fn extract(place: &Place<'_>, debs: &[Deb], architecture: &str) -> Result<()> {
    let bare = Extras {
        bare: true,
        ..Extras::default()
    };
    place.call(SKELETON, json!(architecture), bare, &mut |_| {})?;
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
    place
        .call(CLEAR, json!(directories), Extras::default(), &mut |_| {})
        .map(|_| ())
}

pub(crate) fn clear_call(call: Call) -> Result<Value, Error> {
    let directories: Vec<PathBuf> = payload(&call)?;
    for directory in &directories {
        clear(directory).map_err(|e| io_error(format!("clearing {}", directory.display()), &e))?;
    }
    Ok(Value::Null)
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

pub(crate) fn unpack_call(call: Call) -> Result<Value, Error> {
    let Unpack {
        files,
        architecture,
        threads,
    } = payload(&call)?;
    let root = Path::new("/");
    merged_usr(&architecture)?;
    let mut count = 0;
    unpack_all(&files, root, Owners::FromArchive, threads, &mut |_| {
        count += 1;
        call.emit(json!(count));
    })
    .map_err(|e| Error::new(ErrorKind::Step, "unpacking packages").because(e))?;
    Ok(Value::Null)
}

fn merged_usr(architecture: &str) -> Result<(), Error> {
    create_merged_usr(Path::new("/"), architecture)
        .map_err(|e| Error::new(ErrorKind::Step, "making the links of a merged /usr").because(e))
}

/// The places where runs mount something have to be there before the first run that does: what a run makes for its
/// mounts goes away with it. Owners and modes are those of Debian's base-files.
pub(crate) fn skeleton_call(call: Call) -> Result<Value, Error> {
    if let Some(architecture) = call.payload.as_str() {
        merged_usr(architecture)?;
    }
    let make = |(path, mode): &(&str, u32)| -> std::io::Result<()> {
        std::fs::create_dir_all(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(*mode))
    };
    let places = [
        ("/dev", 0o755),
        ("/proc", 0o755),
        ("/run", 0o755),
        ("/sys", 0o755),
        ("/tmp", 0o1777),
    ];
    places
        .iter()
        .try_for_each(make)
        .map_err(|e| io_error("making the mount points of a root", &e))?;
    Ok(Value::Null)
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
