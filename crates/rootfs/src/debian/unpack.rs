//! Package files into a root without any program of the root: the first packages of all, and the tools root.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use kiln_packages::debian::deb::{Owners, create_merged_usr, unpack_all};
use kiln_sandbox::{Call, CallError, ErrorKind};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::deb::Deb;
use super::install::package_mounts;
use crate::calls::{io_error, payload};
use crate::error::Result;
use crate::run::{Extras, Place};

pub(crate) const UNPACK: &str = "debian.unpack";
pub(crate) const SKELETON: &str = "debian.skeleton";

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
pub fn unpack(
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

pub(crate) fn unpack_call(call: Call) -> Result<Value, CallError> {
    let Unpack {
        files,
        architecture,
        threads,
    } = payload(&call)?;
    let root = Path::new("/");
    create_merged_usr(root, &architecture).map_err(|e| {
        CallError::new(ErrorKind::Step, "making the links of a merged /usr").because(e)
    })?;
    let mut count = 0;
    unpack_all(&files, root, Owners::FromArchive, threads, &mut |_| {
        count += 1;
        call.emit(json!(count));
    })
    .map_err(|e| CallError::new(ErrorKind::Step, "unpacking packages").because(e))?;
    Ok(Value::Null)
}

/// The places where runs mount something have to be there before the first run that does: what a run makes for its
/// mounts goes away with it. Owners and modes are those of Debian's base-files.
pub(crate) fn skeleton_call(_: Call) -> Result<Value, CallError> {
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
