//! Debian repositories: metadata, signatures, the bootstrap closure, the lock file and the download store.
