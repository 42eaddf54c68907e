//! `cargo xtask equal-root [DEF]`: Kiln's root of a definition against the one that `mmdebstrap` makes of the same
//! packages.
//!
//! Only the definition's `%packages` matter here, so everything else is taken out of a copy. Both sides read the same
//! package files from the local disk. Kiln's root is taken from the image that it made, with `unsquashfs`.

use std::path::Path;
use std::process::Command;

use super::{ALLOWED, Allowed, Closeness, compare, report, scan};
use crate::peer::disk::{Squashfs, partitions};
use crate::peer::{Options, afresh, build_command, definition, mmdebstrap, need_root, repository};
use crate::{Result, process, workspace};

/// Why something stays when both roots are gone.
pub(super) const PACKAGES: &str =
    "packages for the next run; `--keep` keeps both roots, `--warm CACHE` neither";

/// Builds both roots below the target directory, compares them and lets dpkg judge both.
pub(crate) fn run(words: &[&str]) -> Result<()> {
    need_root("equal-root")?;
    let options = Options::parse(words)?;
    let minimal = || workspace::root().join("examples/minimal.ks");
    let source = options.definition.clone().unwrap_or_else(minimal);
    let work = workspace::target_directory()?.join("equal-root");
    let _leftovers = options.leftovers(&work, &[], PACKAGES);
    let kiln = options.kiln()?;
    let project = definition::copy(&source, &work.join("definition"))?;
    definition::keep_packages_only(&project)?;
    let cache = options.warm_cache(&kiln, &project, &work)?;
    let (ours, theirs, output) = (
        work.join("kiln"),
        work.join("mmdebstrap"),
        work.join("output"),
    );
    for directory in [&ours, &theirs, &output] {
        afresh(directory)?;
    }
    process::run(&mut build_command(&kiln, &cache, &project, &output))?;
    let image = output.join("disk.raw");
    let squashfs = Squashfs::find(&image, &partitions(&image)?)?;
    process::output(&mut squashfs.extract(&image, &ours))?;

    let packages = repository::installed(&definition::lock_of(&project)?)?;
    let mirror = work.join("repository");
    repository::make(&packages, &cache.join("downloads"), &mirror)?;
    let no_docs = definition::excludes_docs(&project)?;
    process::run(&mut mmdebstrap::command(
        &packages, &mirror, &theirs, no_docs,
    ))?;
    judge(
        ("Kiln", &ours),
        ("mmdebstrap", &theirs),
        Closeness::Meaning,
        ALLOWED,
    )
}

/// dpkg's own view first, then every file. A is the first root, B the second; each has the name of who made it.
pub(crate) fn judge(
    (our_name, ours): (&str, &Path),
    (their_name, theirs): (&str, &Path),
    closeness: Closeness,
    list: &[Allowed],
) -> Result<()> {
    let (left, right) = (installed(ours)?, installed(theirs)?);
    let only = |a: &str, b: &str| -> Vec<String> {
        let there: std::collections::BTreeSet<&str> = b.lines().collect();
        let missing = a.lines().filter(|line| !there.contains(line));
        missing.map(str::to_owned).collect()
    };
    println!("dpkg-query: {} packages in A", left.lines().count());
    if left != right {
        return Err(format!(
            "dpkg-query tells the roots apart\n  only A: {:?}\n  only B: {:?}",
            only(&left, &right),
            only(&right, &left)
        ));
    }
    for root in [ours, theirs] {
        let said = process::output(dpkg(root).arg("--audit"))?;
        if !said.trim().is_empty() {
            return Err(format!(
                "dpkg --audit complains about {}:\n{said}",
                root.display()
            ));
        }
    }
    // Both sides may lack what the definition excludes; what only one side lacks is in the comparison of files.
    let (a, b) = (verified(ours)?, verified(theirs)?);
    println!(
        "dpkg --verify: {} lines for A, {} for B",
        a.lines().count(),
        b.lines().count()
    );
    for line in only(&a, &b) {
        println!("  only A: {line}");
    }
    for line in only(&b, &a) {
        println!("  only B: {line}");
    }
    let (left, right) = (scan(ours)?, scan(theirs)?);
    println!(
        "A ({our_name}) has {} entries, B ({their_name}) has {}",
        left.len(),
        right.len()
    );
    report(&compare(ours, &left, theirs, &right, closeness)?, list)
}

fn dpkg(root: &Path) -> Command {
    let mut command = crate::peer::tool("dpkg");
    command.arg("--root").arg(root);
    command
}

fn installed(root: &Path) -> Result<String> {
    let mut query = crate::peer::tool("dpkg-query");
    query.arg(format!("--admindir={}/var/lib/dpkg", root.display()));
    query.args(["--show", "--showformat"]);
    query.arg("${db:Status-Abbrev} ${binary:Package} ${Version} ${Architecture}\n");
    process::output(&mut query)
}

/// dpkg's comparison of the files with its database; it ends with an error where it finds something.
fn verified(root: &Path) -> Result<String> {
    let output = dpkg(root).arg("--verify").output();
    let output = output.map_err(|error| format!("dpkg could not be started: {error}"))?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
