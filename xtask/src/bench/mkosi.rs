//! `bench warm --mkosi`: the tool itself in place of the least that it has to do.

use std::fs;
use std::path::Path;

use super::cold::level;
use super::measure::{Cost, measure, rest};
use crate::Result;
use crate::peer::disk::{Squashfs, partitions};
use crate::peer::mkosi::Mkosi;
use crate::peer::{definition, repository, trouble};

/// What `mkosi`, of this version, and `mksquashfs` need after one line of the last script has changed, and their names. `work` is
/// what `bench cold` left.
pub(super) fn one_line(version: u32, project: &Path, work: &Path) -> Result<(String, Cost)> {
    let packages = repository::installed(&definition::lock_of(project)?)?;
    let mirror = work.join("repository");
    repository::make(&packages, &work.join("cache/downloads"), &mirror)?;
    repository::add_suite(&mirror)?;
    let no_docs = definition::excludes_docs(project)?;
    let mkosi = Mkosi::prepare(version, &packages, &mirror, &work.join("mkosi"), no_docs)?;

    mkosi.mark(0)?;
    report("all of it, and the cache", measure(&mut mkosi.build())?);
    mkosi.root(0)?;
    // The image is replaced in every run; that somebody has to remove the old one does not count. The cache is in memory still.
    mkosi.forget_root()?;
    mkosi.mark(1)?;
    rest();
    let build = measure(&mut mkosi.build())?;
    report("one line", build);
    let root = mkosi.root(1)?;

    let image = work.join("output/disk.raw");
    let like = Squashfs::find(&image, &partitions(&image)?)?;
    let squashfs = work.join("mkosi.squashfs");
    let level = level(&work.join("output/manifest.json"));
    let compress = measure(&mut like.compress(&root, &squashfs, level.as_deref()))?;
    let size = fs::metadata(&squashfs).map_err(trouble("reading", &squashfs))?;
    report(&format!("mksquashfs, {} bytes", size.len()), compress);
    Ok((format!("{} + mksquashfs", mkosi.name()), build + compress))
}

fn report(what: &str, cost: Cost) {
    println!(
        "mkosi: {what}: {:.2} s, processors {:.2} s, peak {} MiB",
        cost.wall.as_secs_f64(),
        cost.cpu.as_secs_f64(),
        cost.peak_memory >> 20
    );
}
