//! The build pipeline: events, resume, artifacts and cancellation.
//!
//! [`build`] is the list of a build's verbs; read `pipeline.rs` first.

mod ahead;
mod artifacts;
pub mod cache;
mod cancel;
pub mod confined;
mod convert;
mod current;
mod event;
mod failure;
mod files;
mod finish;
mod guard;
mod image;
mod initramfs;
mod known;
mod limits;
mod load;
mod network;
mod neutral;
mod output;
mod owners;
mod pipeline;
mod plan;
mod pools;
mod pre;
mod record;
mod recorder;
mod resolve;
mod root;
mod shared;
mod space;
mod squash;
mod steps;
mod trust;
mod vendor;
pub mod web;
mod why;

pub use cancel::Cancel;
pub use event::*;
pub use failure::*;
pub use kiln_packages::Proxies;
pub use kiln_plan::Input;
pub use kiln_rootfs::Reach;
pub use kiln_share::{Key as SharedKey, Options as SharedOptions};
pub use neutral::{is_hostile, neutral};
pub use output::Artifact;
pub use pipeline::{BuildReport, BuildRequest, build, lock};
pub use plan::{Planned, examine, plan};
pub use shared::SharedCache;
pub use squash::FUNCTIONS;
pub use steps::{Sink, Timing};
