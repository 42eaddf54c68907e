//! `cargo xtask rpm-distribution --set SET --out DIR`: an RPM distribution that boots, without an RPM mirror.
//!
//! The work is done by `kiln_testkit::distribution`, which tests call, too. Here is what a developer would have to type: where package
//! files of Debian's may be at hand already, and where what was built is kept.

use std::path::PathBuf;

use crate::{Result, prerequisites, process, workspace};

pub(crate) fn run(words: &[&str]) -> Result<()> {
    let ["--set", set @ ("small" | "base" | "desktop"), "--out", out] = words else {
        return Err(
            "usage: cargo xtask rpm-distribution --set small|base|desktop --out DIR".into(),
        );
    };
    prerequisites::install()?;
    make(set, out.as_ref())
}

/// Makes a set of it in a directory.
pub(super) fn make(set: &str, out: &std::path::Path) -> Result<()> {
    let target = workspace::target_directory()?;
    // With --workspace, so that what others compiled is used.
    let mut build = workspace::cargo();
    build.args([
        "build",
        "--quiet",
        "--locked",
        "--workspace",
        "--bin",
        "rpm-distribution",
    ]);
    process::run(&mut build)?;
    let mut make = std::process::Command::new(target.join("debug/rpm-distribution"));
    make.args(["--set", set, "--out"]).arg(out).arg("--cache");
    make.arg(target.join("rpm-distribution"));
    for store in stores(&target) {
        make.arg("--store").arg(store);
    }
    process::run(&mut make)
}

/// Kiln's downloads: the user's, and those of the end-to-end tests.
fn stores(target: &std::path::Path) -> Vec<PathBuf> {
    let variable = |name| std::env::var_os(name).map(PathBuf::from);
    let home = variable("XDG_CACHE_HOME").or_else(|| Some(variable("HOME")?.join(".cache")));
    let users = home.map(|home| home.join("kiln/downloads"));
    users
        .into_iter()
        .chain([target.join("tmp/e2e/cache/downloads")])
        .collect()
}
