//! The build pipeline: events, resume, artifacts and cancellation.

mod event;
mod failure;

pub use event::*;
pub use failure::*;
