//! One module for each command. Each takes its arguments and a [`Context`], and returns an exit code or a failure.

mod boot;
mod build;
mod cache;
mod check;
mod client;
mod completions;
mod doctor;
mod flatten;
mod gcloud_env;
mod machine;
mod man;
mod objects;
mod plan;
mod secret;
mod serve;
mod shared;
mod shell;
mod step;
mod test;

use kiln_engine::{Event, Failure};
use kiln_rootfs::private::Notice;

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

impl Context<'_> {
    /// Shows what was found about a private directory.
    pub(crate) fn notices(&self, notices: &[Notice]) {
        for notice in notices {
            self.terminal.event(&Event::Warning {
                step: None,
                message: notice.message.clone(),
                origin: None,
                hint: Some(notice.hint.clone()),
            });
        }
    }
}

/// Runs a command and returns the exit code.
pub(crate) fn run(command: Command, context: &Context<'_>) -> Result<u8, Failure> {
    match command {
        Command::Build(args) => build::run(&args, context),
        Command::Plan(args) => plan::run(&args, context),
        Command::Lock(args) => build::lock(&args, context),
        Command::Check(args) => check::run(&args, context),
        Command::Flatten(args) => flatten::run(&args, context),
        Command::Boot(args) => boot::run(&args, context),
        Command::Test(args) => test::run(&args, context),
        Command::Shell(args) => shell::run(&args, context),
        Command::Submit(args) => client::submit(&args, context),
        Command::Builds(args) => client::list(&args, context),
        Command::Logs(args) => client::logs(&args, context),
        Command::Cancel(args) => client::cancel(&args, context),
        Command::Retry(args) => client::retry(&args, context),
        Command::Artifacts(args) => client::artifacts(&args, context),
        Command::Login(args) => client::login(&args, context),
        Command::Serve(args) => serve::run(&args, context),
        Command::Token(args) => serve::token(&args, context),
        Command::Secret(args) => secret::run(&args, context),
        Command::Audit(args) => serve::audit(&args, context),
        Command::LoadImage(args) => serve::load_image(&args, context),
        Command::RunAttempt(args) => serve::agent(&args, context),
        Command::GcloudEnv(args) => gcloud_env::run(&args, context),
        Command::Doctor(args) => doctor::run(&args, context),
        Command::Cache(args) => cache::run(&args, context),
        Command::Completions(args) => completions::run(&args),
        Command::Man => man::run(),
    }
}
