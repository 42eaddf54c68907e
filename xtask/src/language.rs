//! `cargo xtask language`: Kiln's reading of kickstarts against the reference's, over inputs that nobody has seen before.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::{Result, prerequisites, process, workspace};

/// As many inputs as there are shared cases.
const INPUTS: &str = "3065";

/// Without `--seed` the inputs are new ones; the test prints the seed, so that a run can be repeated.
pub(crate) fn run(words: &[&str]) -> Result<()> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let mut seed = now.map_or(0, |now| now.as_secs()).to_string();
    let mut inputs = INPUTS.to_owned();
    for pair in words.chunks(2) {
        match pair {
            ["--seed", number] => seed = (*number).to_owned(),
            ["--inputs", number] => inputs = (*number).to_owned(),
            _ => return Err("usage: cargo xtask language [--seed N] [--inputs N]".to_owned()),
        }
    }
    prerequisites::python_tools()?;
    let mut command = workspace::cargo();
    command.args(["test", "--locked", "--workspace"]);
    command.args(["--test", "reference", "--", "--nocapture"]);
    process::run(command.env("KILN_SEED", seed).env("KILN_INPUTS", inputs))
}
