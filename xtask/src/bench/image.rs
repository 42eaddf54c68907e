//! The two writers that move the most bytes, each against the tool that people use otherwise.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::measure::measure;
use super::table::ratio_table;
use crate::peer::{need_root, tool, trouble};
use crate::{Result, process, workspace};

/// What `cargo xtask bench` says of it.
pub(super) const ABOUT_SQUASHFS: &str =
    "[TREE] the SquashFS writer against mksquashfs: zstd, level 3, blocks of 128 KiB";
/// What `cargo xtask bench` says of it.
pub(super) const ABOUT_TARGZ: &str = "[DISK] disk.tar.gz against tar --sparse --gzip";

/// Writes a tree twice. Without an argument it is the root that `bench cold` left behind.
pub(super) fn squashfs(words: &[&str]) -> Result<()> {
    need_root("bench squashfs")?;
    let tree = input(words, "bench/cold/peer")?;
    let work = work_directory()?;
    let mut ours = Command::new(example("squashfs_peer")?);
    ours.arg(&tree).args(["zstd:3", "--no-peer", "--keep"]);
    let kiln = measure(ours.arg(&work))?;
    let target = work.join("peer.squashfs");
    let _ = fs::remove_file(&target);
    let mut peer = tool("mksquashfs");
    peer.arg(&tree).arg(&target);
    peer.args(["-noappend", "-no-progress", "-quiet", "-comp", "zstd"]);
    peer.args(["-Xcompression-level", "3", "-b", "131072"]);
    let mksquashfs = measure(&mut peer)?;
    sizes(&work.join("kiln.squashfs"), &target)?;
    let title = format!("bench squashfs {}", tree.display());
    print!(
        "{}",
        ratio_table(&title, ("kiln", kiln), ("mksquashfs", mksquashfs))
    );
    Ok(())
}

/// Packs a disk twice. Without an argument it is the one that `bench cold` left behind.
pub(super) fn targz(words: &[&str]) -> Result<()> {
    let disk = input(words, "bench/cold/output/disk.raw")?;
    let work = work_directory()?;
    let (mine, theirs) = (work.join("kiln.tar.gz"), work.join("peer.tar.gz"));
    let mut ours = Command::new(example("targz_peer")?);
    let kiln = measure(ours.arg(&disk).arg(&mine))?;
    let mut peer = tool("tar");
    peer.args(["--format=oldgnu", "--sparse", "--gzip", "-cf"])
        .arg(&theirs);
    peer.arg("-C").arg(disk.parent().unwrap_or(Path::new(".")));
    peer.arg(disk.file_name().unwrap_or_default());
    let tar = measure(&mut peer)?;
    sizes(&mine, &theirs)?;
    let title = format!("bench tar.gz {}", disk.display());
    print!(
        "{}",
        ratio_table(&title, ("kiln", kiln), ("tar --gzip", tar))
    );
    Ok(())
}

fn input(words: &[&str], default: &str) -> Result<PathBuf> {
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

fn work_directory() -> Result<PathBuf> {
    let work = workspace::target_directory()?.join("bench/image");
    fs::create_dir_all(&work).map_err(trouble("making", &work))?;
    Ok(work)
}

/// A program of the image crate's examples, built for speed.
fn example(name: &str) -> Result<PathBuf> {
    let build = ["build", "--release", "--locked", "--package", "kiln-image"];
    process::run(workspace::cargo().args(build).args(["--example", name]))?;
    Ok(workspace::target_directory()?
        .join("release/examples")
        .join(name))
}

fn sizes(ours: &Path, peer: &Path) -> Result<()> {
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
