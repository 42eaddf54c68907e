//! A file tree.
