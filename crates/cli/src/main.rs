//! The `kiln` command: arguments, progress, errors, exit codes.
//!
//! The way through: [`args`] holds the command line as typed, [`settings`] settles it with the environment, one
//! module under [`commands`] does each command with the crates below, [`render`] turns events and failures into
//! text. Nothing below this crate prints or reads the environment.

mod args;
mod commands;
mod interrupt;
mod kickstart_files;
mod output;
mod render;
mod settings;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory, FromArgMatches, ValueEnum};
use kiln_engine::{Failure, FailureKind};
use rustix::fs::Mode;

use crate::args::{Cli, ColorWhen};
use crate::commands::Context;
use crate::interrupt::Interrupt;
use crate::render::terminal::{Terminal, write_stderr};
use crate::settings::{Environment, Settings};

fn main() -> ExitCode {
    // If this is the sandbox child, it never returns from here.
    kiln_sandbox::entry(
        &[
            kiln_rootfs::FUNCTIONS,
            kiln_engine::FUNCTIONS,
            kiln_server::FUNCTIONS,
        ]
        .concat(),
    );
    // As root, the sandbox reads packages and metadata in the cache under other ids, so a mask may forbid writing at most. What is
    // private is made so where it is made.
    let mask = rustix::process::umask(Mode::empty());
    rustix::process::umask(mask & Mode::from_raw_mode(0o022));
    let environment = Environment::of_process();
    let arguments: Vec<OsString> = std::env::args_os().collect();
    match parse(&arguments, &environment) {
        Ok(cli) => run(cli, &environment),
        Err(code) => code,
    }
}

/// Parses the command line; help and usage errors are answered here.
fn parse(arguments: &[OsString], environment: &Environment) -> Result<Cli, ExitCode> {
    let matches = Cli::command().try_get_matches_from(arguments);
    matches
        .and_then(|matches| Cli::from_arg_matches(&matches))
        .map_err(|error| {
            let is_answer = matches!(
                error.kind(),
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion
            );
            let terminal = if is_answer {
                environment.stdout_terminal
            } else {
                environment.stderr_terminal
            };
            let styled = error.render();
            let text = match settings::colored(early_color(arguments), environment, terminal) {
                true => styled.ansi().to_string(),
                false => styled.to_string(),
            };
            if is_answer {
                return output::print(&text)
                    .map_or_else(|failure| exit_code(&failure), |()| ExitCode::SUCCESS);
            }
            write_stderr(&text);
            ExitCode::from(FailureKind::Usage.exit_code())
        })
}

/// `--color` as far as it can be told from a command line that does not parse.
fn early_color(arguments: &[OsString]) -> ColorWhen {
    let words = arguments
        .iter()
        .filter_map(|word| word.to_str())
        .take_while(|word| *word != "--");
    let words: Vec<&str> = words.collect();
    let joined = words
        .iter()
        .filter_map(|word| word.strip_prefix("--color="));
    let apart = words
        .windows(2)
        .filter(|pair| pair[0] == "--color")
        .map(|pair| pair[1]);
    let mut given = joined
        .chain(apart)
        .filter_map(|value| ColorWhen::from_str(value, false).ok());
    given.next_back().unwrap_or(ColorWhen::Auto)
}

/// Runs a command; the failure, if any, is shown last of all.
fn run(cli: Cli, environment: &Environment) -> ExitCode {
    let settings = Settings::resolve(&cli.global, environment);
    let mut terminal = Terminal::new(&settings);
    let interrupt = Interrupt::default();
    let result = commands::run(
        cli.command,
        &Context {
            settings,
            terminal: &terminal,
            interrupt: &interrupt,
        },
    );
    match result {
        Ok(code) => {
            terminal.end();
            ExitCode::from(code)
        }
        Err(failure) => {
            terminal.failure(&failure);
            match (failure.kind, interrupt.exit_code()) {
                (FailureKind::Cancelled, Some(code)) => ExitCode::from(code),
                _ => exit_code(&failure),
            }
        }
    }
}

fn exit_code(failure: &Failure) -> ExitCode {
    ExitCode::from(failure.kind.exit_code())
}
