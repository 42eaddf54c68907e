//! What engines have in common, over the Docker API.

use std::collections::HashMap;

use bollard::errors::Error;

/// What a step's container has of the engine's machine.
pub(in crate::agent) struct Around {
    /// `FROM:TO`.
    pub binds: Vec<String>,
    /// What the names of volumes begin with.
    pub volumes: String,
    /// Where scripts of steps are.
    pub scripts: String,
    /// The network; `None`: the engine's usual one.
    pub network: Option<String>,
    /// By which what a build has made is known.
    pub labels: HashMap<String, String>,
    /// What its root cannot do.
    pub dropped: Option<Vec<String>>,
    /// Bytes of memory, and processes, that it has at most; `None`: what the engine says.
    pub most: Option<(i64, i64)>,
}

/// What the engine said, without the name of the crate's error around it.
pub(in crate::agent) fn told(error: Error) -> String {
    match error {
        Error::DockerResponseServerError { message, .. } => message,
        Error::DockerStreamError { error } => error,
        other => other.to_string(),
    }
}
