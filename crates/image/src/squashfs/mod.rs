//! SquashFS.
