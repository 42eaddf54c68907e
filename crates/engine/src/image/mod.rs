//! From the finished root to a disk image.

pub(crate) mod ahead;
mod boot;
pub(crate) mod disk;
pub(crate) mod elsewhere;
mod follow;
mod home;
pub(crate) mod inside;
pub(crate) mod layout;
mod offer;
pub(crate) mod squash;
