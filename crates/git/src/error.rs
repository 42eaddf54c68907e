//! What goes wrong.

use std::io;

/// A result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Why there is no source.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The repository, or what was asked of it; a sentence with its address.
    #[error("{url}: {what}")]
    Repository {
        /// The address, without credentials.
        url: String,
        /// What is wrong with it.
        what: String,
    },
    /// What was asked for cannot be.
    #[error("{0}")]
    Asked(String),
    /// Somebody wished for the end.
    #[error("stopped")]
    Stopped,
    /// Trouble with files of this machine.
    #[error("{doing}: {error}")]
    Local {
        /// What was done.
        doing: String,
        /// What came of it.
        error: io::Error,
    },
}

impl Error {
    pub(crate) fn local(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Error {
        let doing = doing.into();
        move |error| Error::Local { doing, error }
    }
}

/// Text of a stranger as it can be shown: short, on one line.
pub(crate) fn shown(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    let plain = text
        .trim()
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c });
    plain.take(300).collect()
}
