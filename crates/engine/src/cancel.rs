//! One way to stop everything a build does.

use kiln_packages::CancelToken as FetchToken;
use kiln_sandbox::CancelToken as RunToken;

use crate::io::no_descriptor;
use crate::{Failure, FailureKind};

/// Stops a build: transfers and runs end, nothing half-written stays. Clones share it.
#[derive(Clone, Debug)]
pub struct Cancel {
    pub(crate) fetch: FetchToken,
    pub(crate) run: RunToken,
}

impl Cancel {
    /// A token that is not set.
    ///
    /// # Errors
    /// The process has no file descriptor left.
    pub fn new() -> std::io::Result<Self> {
        Ok(Cancel {
            fetch: FetchToken::new(),
            run: RunToken::new()?,
        })
    }

    /// Sets it.
    pub fn cancel(&self) {
        self.fetch.cancel();
        self.run.cancel();
    }

    /// Whether it is set.
    pub fn is_cancelled(&self) -> bool {
        self.run.is_cancelled()
    }

    /// A token for runs that is set with this one.
    pub(crate) fn child(&self) -> Result<RunToken, Failure> {
        self.run.child().map_err(|e| no_descriptor(&e))
    }

    /// An error if it is set.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        if self.is_cancelled() {
            Err(stopped())
        } else {
            Ok(())
        }
    }
}

pub(crate) fn stopped() -> Failure {
    Failure::new(FailureKind::Cancelled, "the build was stopped")
}
