//! Licences, bans, sources and advisories of what Kiln links, checked by cargo-deny along `deny.toml`.

use std::path::Path;
use std::process::Command;

use crate::prerequisites::search_path_with;
use crate::{Result, process, workspace};

/// Runs cargo-deny from `tools`.
///
/// Advisories need the RustSec database. Where no copy of it is at hand and none can be fetched, that is said; the
/// other checks need nothing but the lock file and the sources.
pub(crate) fn run(tools: &Path) -> Result<()> {
    process::run(cargo_deny(tools)?.args([
        "--log-level",
        "error",
        "--locked",
        "check",
        "licenses",
        "bans",
        "sources",
    ]))?;
    if has_advisories(tools)? {
        let check = [
            "--log-level",
            "error",
            "--locked",
            "check",
            "--disable-fetch",
            "advisories",
        ];
        return process::run(cargo_deny(tools)?.args(check));
    }
    println!(
        "advisories: NOT CHECKED, no copy of the advisory database can be had on this machine"
    );
    Ok(())
}

fn cargo_deny(tools: &Path) -> Result<Command> {
    let mut command = Command::new(tools.join("cargo-deny"));
    command
        .current_dir(workspace::root())
        .env("PATH", search_path_with(tools)?);
    Ok(command)
}

/// Whether the database is there, after an attempt to bring it up to date.
fn has_advisories(tools: &Path) -> Result<bool> {
    let fetched = process::output(cargo_deny(tools)?.args(["--log-level", "off", "fetch", "db"]));
    Ok(fetched.is_ok())
}
