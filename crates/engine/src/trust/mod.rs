//! Whether stored layers are what they were when they were finished.

pub(crate) mod guard;
pub(crate) mod known;
