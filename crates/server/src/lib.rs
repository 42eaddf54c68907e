//! The build server: Cloud Build's API over a queue of builds, each of which is a process of its own.
//!
//! [`serve`] is the whole server. What it keeps stands below one data directory.

pub mod gcloud;
pub mod objects;
mod serve;

pub use serve::{Error, Options, serve};
pub use tokio::sync::Notify;
