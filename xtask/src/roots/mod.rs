//! `cargo xtask equal-root A B`: are two root file systems the same, but for an explained list?
//!
//! Each side is a directory, or a SquashFS file that `unsquashfs` unpacks. Compared are names, types, permission
//! bits, owners, contents, link targets, device numbers, extended attributes and which names are one file. Times are
//! not: two installations never share them. Owners are compared by name, and a few files by what they say, because
//! numbers and order of both follow the order of installation.

mod allowed;
pub(crate) mod build;
mod canonical;
mod compare;
pub(crate) mod rpm;
mod scan;
pub(crate) mod unpack;

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::prerequisites::search_path;
use crate::{Result, process};

pub(crate) use allowed::{ALLOWED, Allowed};
pub(crate) use compare::{Aspect, Closeness, Difference, compare};
pub(crate) use scan::scan;

/// Compares two roots, prints what differs and what of it is explained, and fails if anything is left.
pub(crate) fn run(a: &Path, b: &Path) -> Result<()> {
    let (a, b) = (Root::open(a)?, Root::open(b)?);
    let (left, right) = (scan(a.path())?, scan(b.path())?);
    println!("A has {} entries, B has {}", left.len(), right.len());
    let differences = compare(a.path(), &left, b.path(), &right, Closeness::Meaning)?;
    report(&differences, allowed::ALLOWED)
}

/// Prints differences, explained ones by their reason only; fails if any is unexplained.
pub(crate) fn report(differences: &[Difference], list: &[Allowed]) -> Result<()> {
    let mut explained = vec![0_usize; list.len()];
    let mut unexplained = 0;
    for difference in differences {
        match allowed::explain(difference, list) {
            Some(entry) => explained[entry] += 1,
            None => {
                unexplained += 1;
                println!("  {difference}");
            }
        }
    }
    for (entry, count) in list.iter().zip(&explained).filter(|(_, count)| **count > 0) {
        println!(
            "  explained, {count} under {}: {}",
            entry.pattern, entry.reason
        );
    }
    println!(
        "{} differences, {unexplained} of them unexplained",
        differences.len()
    );
    if unexplained == 0 {
        Ok(())
    } else {
        Err(format!("{unexplained} differences have no explanation"))
    }
}

/// A root on disk; an unpacked SquashFS goes away with it.
struct Root {
    path: PathBuf,
    _unpacked: Option<TempDir>,
}

impl Root {
    fn open(path: &Path) -> Result<Root> {
        if path.is_dir() {
            return Ok(Root {
                path: path.to_path_buf(),
                _unpacked: None,
            });
        }
        if !rustix::process::geteuid().is_root() {
            return Err(format!(
                "{}: unpacking a SquashFS with its owners needs root",
                path.display()
            ));
        }
        let directory =
            TempDir::new().map_err(|error| format!("making a temporary directory: {error}"))?;
        let target = directory.path().join("root");
        let mut unsquashfs = Command::new("unsquashfs");
        let path_variable = std::env::join_paths(search_path()).unwrap_or_default();
        unsquashfs
            .env("PATH", path_variable)
            .args(["-no-progress", "-quiet", "-dest"])
            .arg(&target)
            .arg(path);
        process::output(&mut unsquashfs)?;
        Ok(Root {
            path: target,
            _unpacked: Some(directory),
        })
    }

    fn path(&self) -> &Path {
        &self.path
    }
}
