//! Where builds run. Today that is this machine; nothing above this seam knows.

pub mod local;
pub mod request;

use std::io;

use request::Attempt;

/// Starts, watches and stops attempts. What they report comes through the files of the [`Attempt`].
pub trait Executor: Send + Sync {
    /// Starts what is asked for in the attempt's request, and returns at once.
    ///
    /// # Errors
    /// Nothing was started.
    fn start(&self, attempt: &Attempt) -> io::Result<()>;

    /// Whether something may still write to the attempt's files.
    ///
    /// # Errors
    /// It cannot be told.
    fn is_alive(&self, attempt: &Attempt) -> io::Result<bool>;

    /// Asks an attempt to stop; it reports its end as always. Does nothing if it has ended.
    ///
    /// # Errors
    /// The wish could not be left.
    fn cancel(&self, attempt: &Attempt) -> io::Result<()>;
}
