//! The engine: it builds a definition, and says what it does as events.
//!
//! [`build`] is the list of a build's verbs; read `build.rs` first.

mod again;
mod build;
pub mod cache;
mod cancel;
mod convert;
mod count;
mod define;
mod event;
mod failure;
mod ids;
mod image;
mod initramfs;
mod io;
mod means;
mod neutral;
mod output;
mod request;
mod resolve;
mod root;
mod shared;
mod space;
mod steps;
mod trust;
mod values;

pub use build::{build, lock};
pub use cancel::Cancel;
pub use count::counted;
pub use define::confined::{Confined, Files};
pub use define::plan::{Planned, examine, plan};
pub use define::reader::{Directory, Reader};
pub use define::web;
pub use event::*;
pub use failure::*;
pub use kiln_packages::Proxies;
pub use kiln_plan::Input;
pub use kiln_rootfs::{Families, Reach};
pub use kiln_share::{Key as SharedKey, Options as SharedOptions};
pub use means::output::Artifact;
pub use neutral::{is_hostile, neutral};
pub use request::{BuildReport, BuildRequest, LockOptions, Locked};
pub use shared::SharedCache;
pub use steps::{Sink, Timing};

/// Functions of this crate for [`kiln_sandbox::entry`].
pub const FUNCTIONS: &[kiln_sandbox::Function] = &[
    kiln_sandbox::Function::of::<image::inside::WriteImage>(),
    kiln_sandbox::Function::of::<image::inside::FindMissing>(),
    kiln_sandbox::Function::of::<image::inside::FindStored>(),
    kiln_sandbox::Function::of::<image::inside::Prepare>(),
    kiln_sandbox::Function::of::<trust::known::Record>(),
    kiln_sandbox::Function::of::<trust::guard::Compare>(),
    kiln_sandbox::Function::of::<shared::Adopt>(),
];
