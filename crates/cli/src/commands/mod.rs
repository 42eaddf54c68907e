//! One module for each command. Each takes its arguments and a [`Context`], and returns an exit code or a failure.

mod check;
mod completions;
mod flatten;
mod man;

use kiln_build::{Failure, FailureKind};

use crate::args::Command;
use crate::interrupt::Interrupt;
use crate::render::terminal::Terminal;
use crate::settings::Settings;

/// What every command works with.
pub(crate) struct Context<'a> {
    /// The choices made.
    pub(crate) settings: Settings,
    /// Shows events.
    pub(crate) terminal: &'a Terminal,
    /// Tells of signals.
    pub(crate) interrupt: &'a Interrupt,
}

/// Runs a command and returns the exit code.
pub(crate) fn run(command: Command, context: &Context<'_>) -> Result<u8, Failure> {
    match command {
        Command::Completions(args) => completions::run(&args),
        Command::Man => man::run(),
        Command::Check(args) => check::run(&args, context),
        Command::Flatten(args) => flatten::run(&args, context),
        _ => Err(Failure::new(FailureKind::Internal, "this command is not connected yet")),
    }
}
