//! `cargo xtask equal-root --rpm`: Kiln's root of the generated RPM distribution against the one that `dnf --installroot` makes of the very
//! same packages.
//!
//! As of Debian's roots, only the kickstart's `%packages` matter. The real rpm is asked for all that it knows of both roots, and to verify
//! them; then every file is compared.

mod allowed;
mod database;

use std::path::{Path, PathBuf};

use super::{Closeness, compare, report, scan};
use crate::peer::disk::{Squashfs, partitions};
use crate::peer::{Leftovers, Options, afresh, build_command, definition, need_root, repository};
use crate::rpm::SETS;
use crate::rpm::dnf::{Dnf, streams};
use crate::rpm::served::{LAYER, Served};
use crate::{Result, prerequisites, process, workspace};
use allowed::ALLOWED;

/// Builds both roots below the target directory and compares them. The kickstart is one whose repository is `--url=URL`.
pub(crate) fn run(words: &[&str]) -> Result<()> {
    need_root("equal-root --rpm")?;
    let options = Options::parse(words)?;
    let desktop = || workspace::root().join(SETS).join("desktop.ks");
    let kickstart = options.definition.clone().unwrap_or_else(desktop);
    prerequisites::install()?;
    let work = workspace::target_directory()?.join("equal-root-rpm");
    let _leftovers = match options.keep {
        true => Leftovers::all(&work),
        false => Leftovers::new(&work, &[], ""),
    };
    let kiln = options.kiln()?;
    let served = Served::new(&work)?;
    let project = work.join("definition");
    served.define(&kickstart, &project)?;
    definition::keep_packages_only(&project)?;
    let cache = options.warm_cache(&kiln, &project, &work)?;
    let ours = ours(&kiln, &cache, &project, &work)?;
    let theirs = theirs(&served, &project, &work)?;
    judge(&ours, &theirs)
}

/// Kiln's root, out of its image.
fn ours(kiln: &Path, cache: &Path, project: &Path, work: &Path) -> Result<PathBuf> {
    let (root, output) = (work.join("kiln"), work.join("output"));
    afresh(&root)?;
    afresh(&output)?;
    let mut build = build_command(kiln, cache, project, &output);
    process::run(build.args(["--format", "raw"]))?;
    let image = output.join("disk.raw");
    let squashfs = Squashfs::find(&image, &partitions(&image)?)?;
    process::output(&mut squashfs.extract(&image, &root))?;
    Ok(root)
}

/// dnf's root of what the lock says.
fn theirs(served: &Served, project: &Path, work: &Path) -> Result<PathBuf> {
    let root = work.join("dnf");
    afresh(&root)?;
    let dnf = Dnf::new(served, &work.join("dnf-home"), project)?;
    let layer = project.join(LAYER);
    let text = std::fs::read_to_string(&layer)
        .map_err(|error| format!("reading {}: {error}", layer.display()))?;
    let mut what = streams(&text);
    let packages = repository::installed(&definition::lock_of(project)?)?;
    what.extend(packages.iter().map(repository::Package::nevra));
    process::output(&mut dnf.install(&root, &what)?)?;
    Ok(root)
}

/// rpm's view first, then every file.
fn judge(ours: &Path, theirs: &Path) -> Result<()> {
    let unequal = database::queries(ours, theirs)?;
    let (left, right) = (scan(ours)?, scan(theirs)?);
    println!(
        "A (Kiln) has {} entries, B (dnf) has {}",
        left.len(),
        right.len()
    );
    let mut differences = compare(ours, &left, theirs, &right, Closeness::Meaning)?;
    let owned = database::owners(ours, theirs, left.keys().filter(|p| right.contains_key(*p)))?;
    differences.extend(database::verification(ours, theirs)?);
    let reported = report(&differences, ALLOWED);
    let failed: Vec<String> = unequal
        .into_iter()
        .chain(owned)
        .chain(reported.err())
        .collect();
    match failed.is_empty() {
        true => Ok(()),
        false => Err(failed.join("\n")),
    }
}
