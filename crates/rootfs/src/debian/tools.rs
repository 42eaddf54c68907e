//! The tools root: a throw-away root with the target's own tools, unpacked without running anything of it.

use kiln_packages::debian::relation::groups;
use kiln_packages::debian::{Package, Universe, closure};

use crate::error::{Error, Result};

/// Programs that Kiln runs from the tools root, with all that they need, beside the essential packages: apt resolves, and
/// the shell tools are for `%pre` and `%post --nochroot` scripts.
pub(super) const PROGRAMS: &[&str] = &["apt", "mawk"];

/// Packages that only bring files: boot loaders. What they depend on is not wanted.
pub(super) const FILES: &[&str] = &["grub-pc-bin", "grub-efi-amd64-signed", SHIM, HELPERS];

const SHIM: &str = "shim-signed";
/// What the firmware's loader needs beside itself. Where its package does not depend on this one, it brings that.
const HELPERS: &str = "shim-helpers-amd64-signed";

/// The packages of the tools root, sorted by name.
///
/// # Errors
/// The repositories lack one of them.
pub(super) fn tools(universe: &Universe) -> Result<Vec<Package>> {
    let mut roots: Vec<String> = PROGRAMS.iter().map(|&p| p.to_owned()).collect();
    roots.extend(
        universe
            .latest()
            .filter(|p| p.is_essential())
            .map(|p| p.name().to_owned()),
    );
    let mut packages: Vec<Package> = closure(universe, &roots)?.into_iter().cloned().collect();
    for name in FILES {
        if *name == HELPERS && universe.best(name).is_none() && !needs_helpers(universe) {
            continue;
        }
        let package = universe.best(name).ok_or_else(|| {
            Error::definition(format!("no repository has the boot loader package {name}")).hint(
                "the component `main` of the distribution has it; is it among the repositories?",
            )
        })?;
        if !packages.iter().any(|p| p.name() == *name) {
            packages.push(package.clone());
        }
    }
    packages.sort_by(|a, b| a.name().cmp(b.name()));
    Ok(packages)
}

fn needs_helpers(universe: &Universe) -> bool {
    universe.best(SHIM).is_some_and(|shim| {
        let mut all = groups(shim.depends()).flatten();
        all.any(|relation| relation.name == HELPERS)
    })
}
