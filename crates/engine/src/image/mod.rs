//! From the finished root to a disk image.

pub(crate) mod ahead;
pub(crate) mod disk;
pub(crate) mod inside;
pub(crate) mod squash;
