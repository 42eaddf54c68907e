//! `kiln completions SHELL`

use clap::CommandFactory;
use kiln_engine::Failure;

use crate::args::{Cli, CompletionsArgs};
use crate::output;

/// Prints the completions of a shell.
pub(crate) fn run(args: &CompletionsArgs) -> Result<u8, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "kiln", &mut script);
    output::print_bytes(&script)?;
    Ok(0)
}
