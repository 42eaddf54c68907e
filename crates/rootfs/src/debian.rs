//! Debian roots: what differs by family lies below this module.

mod apt;
mod daemons;
mod deb;
mod family;
mod finish;
mod form;
mod generator;
mod indices;
mod initramfs;
mod install;
mod installer;
mod kernels;
mod native;
mod order;
mod pools;
mod repositories;
mod requests;
mod slices;
mod solve;
mod sources;
mod tools;
mod unpack;

pub(crate) use daemons::{KEEP_DAEMONS_OUT, keep_daemons_out_call};
pub use family::Debian;
pub(crate) use finish::{FINISH, finish_call};
pub(crate) use generator::{KNOWN as KNOWN_GENERATOR, known_call as known_generator_call};
pub use indices::Indices;
pub(crate) use native::{ADOPT, EXTRACT, FILL, adopt_call, extract_call, fill_call};
pub(crate) use sources::{SOURCES, sources_call};
pub(crate) use unpack::{CLEAR, SKELETON, UNPACK, clear_call, skeleton_call, unpack_call};
