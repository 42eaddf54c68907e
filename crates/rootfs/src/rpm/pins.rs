//! Packages that a manifest of dnf's pins, found in the metadata. The metadata says what they are; a manifest that says otherwise is refused.

use std::collections::HashMap;

use kiln_packages::rpm::Package;
use kiln_packages::rpm::manifest::{Pinned, read};

use crate::error::{Error, Result};
use crate::requests::Wanted;

/// The packages of a manifest.
pub(super) struct Pins {
    /// Its name, for messages.
    what: String,
    /// Indices in the metadata, in ascending order.
    pub(super) packages: Vec<usize>,
}

/// What metadata has.
pub(super) struct Known<'a> {
    pub(super) packages: &'a [Package],
    /// For each package the index of its repository.
    pub(super) of: &'a [usize],
    /// Their names.
    pub(super) repositories: &'a [&'a str],
}

impl Pins {
    /// What they add to the requests.
    pub(super) fn wanted(&self, packages: &[Package]) -> Vec<Wanted> {
        let wanted = |&at: &usize| Wanted {
            form: full(&packages[at]),
            ..Wanted::new(&packages[at].name, &self.what)
        };
        self.packages.iter().map(wanted).collect()
    }
}

/// `bash-0:5.1.8-9.el9.x86_64`: as dnf takes one package, and no other.
pub(super) fn full(package: &Package) -> String {
    let Package {
        name, arch, evr, ..
    } = package;
    let (epoch, version, release) = (evr.epoch, &evr.version, &evr.release);
    format!("{name}-{epoch}:{version}-{release}.{arch}")
}

/// Finds the packages of a manifest, and says what the user should know of it.
///
/// # Errors
/// It is no manifest; it has packages that no repository has, or that the metadata has otherwise: all of them are named.
pub(super) fn pinned(
    what: &str,
    text: &str,
    architecture: &str,
    known: &Known<'_>,
) -> Result<(Pins, Vec<String>)> {
    let wanted = read(what, text, architecture)?;
    let mut by_name: HashMap<(&str, &str), Vec<usize>> = HashMap::new();
    for (at, package) in known.packages.iter().enumerate() {
        let name = (package.name.as_str(), package.arch.as_str());
        by_name.entry(name).or_default().push(at);
    }
    let (mut packages, mut wrong, mut unsure) = (Vec::new(), Vec::new(), 0);
    for pinned in &wanted {
        let same = by_name.get(&(pinned.name.as_str(), pinned.arch.as_str()));
        match find(pinned, same.map_or(&[], Vec::as_slice), known) {
            Ok(at) => packages.push(at),
            Err(why) => wrong.push(why),
        }
        unsure += usize::from(pinned.sha256.is_none());
    }
    if let Some((first, others)) = wrong.split_first() {
        let mut error = Error::definition(format!("{what} cannot be used: {first}"))
            .hint("the signed metadata says what a package is: write the manifest anew");
        error.others = others.to_vec();
        return Err(error);
    }
    packages.sort_unstable();
    packages.dedup();
    let mut warnings = Vec::new();
    if unsure > 0 {
        warnings.push(format!(
            "{what} has no SHA-256 of {unsure} of its {} packages: the repositories' metadata alone says what they are",
            wanted.len()
        ));
    }
    let what = what.to_owned();
    Ok((Pins { what, packages }, warnings))
}

/// The package that is meant, among those of its name: of the repository that the manifest names, if there is one that is called so.
fn find(pinned: &Pinned, same: &[usize], known: &Known<'_>) -> std::result::Result<usize, String> {
    let nevra = pinned.nevra();
    let repository = |at: usize| known.repositories[known.of[at]];
    let said = pinned.repository.as_deref();
    let said = said.filter(|said| known.repositories.contains(said));
    let mut versions = same.iter().copied().filter(|&at| {
        known.packages[at].evr == pinned.evr && said.is_none_or(|said| said == repository(at))
    });
    let Some(at) = versions.next() else {
        return Err(match said {
            None => format!("it pins {nevra}, which no repository has"),
            Some(said) => format!("it pins {nevra}, which {said} has not"),
        });
    };
    let package = &known.packages[at];
    if let Some(sha256) = pinned
        .sha256
        .filter(|sha256| package.sha256 != Some(*sha256))
    {
        let ours = package
            .sha256
            .map_or("none".to_owned(), |sha256| sha256.to_string());
        return Err(format!(
            "it says that {nevra} has the SHA-256 {sha256}, but the metadata of {} has {ours}",
            repository(at)
        ));
    }
    match pinned.size.filter(|&size| size != package.size) {
        None => Ok(at),
        Some(size) => Err(format!(
            "it says that {nevra} has {size} bytes, but the metadata of {} has {}",
            repository(at),
            package.size
        )),
    }
}
