//! The tools root: a throw-away root with the target's own tools, unpacked without running anything of it.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use kiln_packages::openpgp::Keyring;
use kiln_packages::rpm::unpack::{Owners, unpack};
use kiln_packages::rpm::{Package, PackageFile, closure};
use kiln_sandbox::{Call, Error, ErrorKind, Say};
use serde::{Deserialize, Serialize};

use super::facts::{Item, Items, label, mounts};
use crate::calls::io_error;
use crate::error::Result;
use crate::run::{Extras, Place};

/// What Kiln runs from the tools root, with all that it needs: the resolver, and rpm itself.
const PROGRAMS: &[&str] = &[
    "filesystem",
    "bash",
    "coreutils",
    "/sbin/ldconfig",
    "rpm",
    "python3-dnf",
];
/// For `%pre` and `%post --nochroot` scripts, where the repositories have them.
const SHELL: &[&str] = &["findutils", "gawk", "grep", "sed", "util-linux"];
/// Packages that only bring files: boot loaders. What they depend on is not wanted.
const LOADERS: &[&str] = &["grub2-pc-modules", "grub2-efi-x64", "shim-x64"];

/// What the tools root may be made of.
pub(super) fn roots() -> Vec<&'static str> {
    [PROGRAMS, SHELL].concat()
}

/// The packages of the tools root: indices in ascending order. `origin` says where the repository of a package is named.
///
/// # Errors
/// The repositories lack one of them.
pub(super) fn tools<'a>(
    packages: &'a [Package],
    architecture: &str,
    origin: &dyn Fn(usize) -> &'a str,
) -> Result<Vec<usize>> {
    let is_there = |name: &&&str| packages.iter().any(|package| package.name == **name);
    let roots: Vec<&str> = PROGRAMS
        .iter()
        .chain(SHELL.iter().filter(is_there))
        .copied()
        .collect();
    let mut found = closure(packages, architecture, &roots, origin)?;
    for name in LOADERS {
        let is_it = |package: &Package| {
            package.name == *name || package.provides.iter().any(|c| c.name == *name)
        };
        let all = packages
            .iter()
            .enumerate()
            .filter(|(_, package)| is_it(package));
        let newest = all.max_by(|(_, a), (_, b)| a.evr.compare(&b.evr));
        found.extend(newest.map(|(at, _)| at));
    }
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

/// Unpacks package files into an empty root as they are: no scripts run, and rpm knows nothing of them.
///
/// # Errors
/// A package file is damaged, or the root cannot be written.
pub(super) fn unpack_tools(place: &Place<'_>, all: &Items) -> Result<()> {
    let items = &all.items;
    let call = UnpackTools {
        files: items
            .iter()
            .map(|item| (item.inside().into(), item.key))
            .collect(),
        keys: all.keys.clone(),
        now: now(),
    };
    let extras = Extras {
        mounts: mounts(items),
        ..Extras::default()
    };
    super::install::skeleton(place, &[])?;
    let total = items.len() as u64;
    let mut hear = |done| place.reporter.progress(done, Some(total), None);
    let unpacked = place.call_and_hear(&call, (), extras, &mut hear);
    unpacked.map_err(|error| named(error, items))?;
    // Without the cache, programs find only the libraries that lie where the loader looks anyway.
    place.exec(&["/sbin/ldconfig"], Extras::default())?;
    Ok(())
}

/// The same error, with the package that its words are about.
fn named(mut error: crate::error::Error, items: &[Item]) -> crate::error::Error {
    let is_named = |item: &&Item| {
        let nevra = item.nevra();
        error.causes.iter().any(|cause| cause.contains(&nevra))
    };
    // One name may be the end of another.
    let package = items
        .iter()
        .filter(is_named)
        .max_by_key(|item| item.nevra().len());
    let package = package.map(Item::nevra);
    error.package = error.package.or(package);
    error
}

fn now() -> u64 {
    let since = std::time::SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

/// Unpacks package files into the root, each proven again.
#[derive(Serialize, Deserialize)]
pub(crate) struct UnpackTools {
    /// Paths inside the root, and which of the keys may have signed each.
    files: Vec<(PathBuf, usize)>,
    /// Who may have signed them.
    keys: Vec<(String, Vec<u8>)>,
    /// Seconds since 1970.
    now: u64,
}

impl Call for UnpackTools {
    const NAME: &'static str = "rpm.unpack-tools";
    type Handed = ();
    type Message = u64;
    type Answer = ();

    fn run(self, (): (), say: &Say<u64>) -> std::result::Result<(), Error> {
        let failed = |e: kiln_packages::Error| {
            Error::new(ErrorKind::Step, "unpacking the build tools").because(e)
        };
        let rings = self
            .keys
            .iter()
            .map(|(name, bytes)| Keyring::read(name, bytes));
        let rings: Vec<Keyring> = rings
            .collect::<kiln_packages::Result<_>>()
            .map_err(failed)?;
        let now = UNIX_EPOCH + Duration::from_secs(self.now);
        let mut packages = Vec::with_capacity(self.files.len());
        for (path, key) in &self.files {
            let file = File::open(path)
                .map_err(|e| io_error(format!("opening {}", path.display()), &e))?;
            let ring = rings.get(*key).ok_or_else(|| {
                Error::new(
                    ErrorKind::Internal,
                    format!("{} has no key", path.display()),
                )
            })?;
            packages.push(PackageFile::verify_file(file, &label(path), ring, now).map_err(failed)?);
        }
        let mut count = 0;
        let mut done = || {
            count += 1;
            say.say(count);
        };
        unpack(&packages, Path::new("/"), Owners::FromArchive, &mut done).map_err(failed)?;
        Ok(())
    }
}
