//! Buckets and objects: the part of the Storage JSON API that the clients use, over a directory or a store elsewhere.
//!
//! How the rest of the server uses it:
//! - `Objects::{create_bucket, put, open, list, delete}` are what builds need for sources, logs and artifacts;
//! - `router(objects, live)` answers what comes to the server's port;
//! - `connect(request, authority, inner)` answers `CONNECT` on that port and serves `inner` inside of the TLS that it ends.
//!   Who may do what is looked at by a layer around the routers, outside of this module.

use std::path::PathBuf;

/// Objects that grow: the logs of builds, which are read while they are written.
pub trait Live: Send + Sync {
    /// The file of an object, if it is one that grows. What is behind its last line end is not to be shown yet.
    fn find(&self, bucket: &str, name: &str) -> Option<PathBuf>;
}
