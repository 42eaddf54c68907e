//! Debian roots: what differs by family lies below this module.

mod apart;
mod apt;
mod asks;
mod compile;
mod daemons;
mod deb;
mod family;
mod finish;
mod fonts;
mod form;
mod generator;
mod indices;
mod initramfs;
mod install;
mod installer;
mod kernels;
mod native;
mod order;
mod outline;
mod pools;
mod repositories;
mod requests;
mod snaps;
mod solve;
mod sources;
mod tools;
mod unpack;

pub(crate) use apart::Compile;
pub(crate) use daemons::Daemons;
pub use family::Debian;
pub(crate) use finish::FinishDebian;
pub(crate) use generator::LookAtGenerator;
pub use indices::Indices;
pub(crate) use native::{Adopt, CopyModules, Extract, Fill};
pub(crate) use sources::WriteSources;
pub(crate) use unpack::{Clear, Skeleton, Unpack};
