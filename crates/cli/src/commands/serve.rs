//! `kiln serve`

use std::error::Error as _;
use std::sync::Arc;

use kiln_engine::{Failure, FailureKind};
use kiln_server::Options;

use super::Context;
use crate::args::ServeArgs;

/// Serves until a signal comes.
pub(crate) fn run(args: &ServeArgs, context: &Context<'_>) -> Result<u8, Failure> {
    let options = Options {
        listen: args.listen,
        data: match &args.data {
            Some(data) => data.clone(),
            None => context.settings.state_dir()?.join("server"),
        },
    };
    let stop = Arc::new(kiln_server::Notify::new());
    let end = Arc::clone(&stop);
    context.interrupt.on_signal(move || end.notify_one())?;
    let ready = |address| {
        context
            .terminal
            .note("serving", &format!("http://{address}/"));
    };
    kiln_server::serve(&options, stop, ready).map_err(|error| {
        let mut failure = Failure::new(FailureKind::Environment, error.to_string());
        if let Some(cause) = error.source() {
            failure = failure.cause(cause.to_string());
        }
        failure
    })?;
    Ok(0)
}
