//! Results on standard output.

use std::io::{self, ErrorKind, Write};

use kiln_engine::{Failure, FailureKind};
use serde::Serialize;

/// Writes a result.
///
/// A reader that has seen enough (`kiln man | head`) is no error. Any other trouble is.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    print_bytes(text.as_bytes())
}

/// [`print`] for what need not be UTF-8.
pub(crate) fn print_bytes(bytes: &[u8]) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            let failure = Failure::new(
                FailureKind::Environment,
                "the result could not be written to standard output",
            );
            Err(failure.cause(error.to_string()))
        }
        _ => Ok(()),
    }
}

/// Writes a result as indented JSON.
pub(crate) fn print_json(value: &impl Serialize) -> Result<(), Failure> {
    let mut text = serde_json::to_string_pretty(value).map_err(|error| {
        Failure::new(
            FailureKind::Internal,
            "a result could not be turned into JSON",
        )
        .cause(error.to_string())
    })?;
    text.push('\n');
    print(&text)
}
