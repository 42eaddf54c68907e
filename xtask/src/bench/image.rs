//! `disk.tar.gz` against the tool that people use otherwise, and what the cases of images share.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::measure::measure;
use super::table::ratio_table;
use crate::peer::{Leftovers, tool, trouble};
use crate::{Result, process, workspace};

/// What `cargo xtask bench` says of it.
pub(super) const ABOUT_TARGZ: &str =
    "[DISK] disk.tar.gz against tar --sparse --gzip, and through pigz";

/// Packs a disk twice. Without an argument it is the one that `bench cold` left behind.
pub(super) fn targz(words: &[&str]) -> Result<()> {
    let disk = input(words, "bench/cold/output/disk.raw")?;
    let (work, _leftovers) = work_directory()?;
    let mine = work.join("kiln.tar.gz");
    let mut ours = Command::new(example("targz_peer")?);
    let kiln = measure(ours.arg(&disk).arg(&mine))?;
    for (name, program) in [("tar | gzip -6", "gzip -6"), ("tar | pigz -6", "pigz -6")] {
        let theirs = work.join("peer.tar.gz");
        let mut peer = tool("tar");
        peer.args(["--format=oldgnu", "--sparse", "-I", program, "-cf"]);
        peer.arg(&theirs);
        peer.arg("-C").arg(disk.parent().unwrap_or(Path::new(".")));
        peer.arg(disk.file_name().unwrap_or_default());
        let tar = measure(&mut peer)?;
        sizes(&mine, &theirs)?;
        let title = format!("bench tar.gz {}", disk.display());
        print!("{}", ratio_table(&title, ("kiln", kiln), (name, tar)));
    }
    Ok(())
}

pub(super) fn input(words: &[&str], default: &str) -> Result<PathBuf> {
    let path = match words {
        [] => workspace::target_directory()?.join(default),
        [path] => PathBuf::from(path),
        _ => return Err("one argument at most".to_owned()),
    };
    if path.exists() {
        Ok(path)
    } else {
        Err(format!(
            "{} is not there: run `cargo xtask bench cold` first, or name another",
            path.display()
        ))
    }
}

/// A place for images, which go when the case is over.
pub(super) fn work_directory() -> Result<(PathBuf, Leftovers)> {
    let work = workspace::target_directory()?.join("bench/image");
    fs::create_dir_all(&work).map_err(trouble("making", &work))?;
    let leftovers = Leftovers::new(&work, &[], "");
    Ok((work, leftovers))
}

/// A program of the image crate's examples, built for speed.
pub(super) fn example(name: &str) -> Result<PathBuf> {
    let build = ["build", "--release", "--locked", "--package", "kiln-image"];
    process::run(workspace::cargo().args(build).args(["--example", name]))?;
    Ok(workspace::target_directory()?
        .join("release/examples")
        .join(name))
}

pub(super) fn sizes(ours: &Path, peer: &Path) -> Result<()> {
    let size = |path: &Path| {
        let metadata = fs::metadata(path).map_err(trouble("reading", path))?;
        Ok::<u64, String>(metadata.len())
    };
    let (a, b) = (size(ours)?, size(peer)?);
    println!(
        "bytes: kiln {a}, peer {b}, ratio {:.3}",
        a as f64 / b as f64
    );
    Ok(())
}
