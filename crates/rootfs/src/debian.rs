//! Debian roots: what differs by family lies below this module.

mod apt;
mod deb;
mod finish;
mod form;
mod generator;
mod initramfs;
mod install;
mod kernels;
mod native;
mod order;
mod requests;
mod secrets;
mod slices;
mod solve;
mod sources;
mod tools;
mod unpack;

pub use apt::{Choice, Question, resolve};
pub use deb::{Deb, bootstrap_split, built, pool_item, read_debs};
pub(crate) use finish::finish_call;
pub use finish::{Finish, Finished, HomeMount, RAM_MEDIUM, finish};
pub use form::Form;
pub(crate) use generator::{KNOWN as KNOWN_GENERATOR, known_call as known_generator_call};
pub(crate) use initramfs::keep_boot_call;
pub use initramfs::{Initramfs, export, initramfs};
pub use install::{InstallOptions, Unpacker, filters, install, mark_auto};
pub use kernels::Kernels;
pub(crate) use native::{ADOPT, EXTRACT, FILL, adopt_call, extract_call, fill_call};
pub use native::{Filter, Pool, PoolItem};
pub use requests::{Requests, SYSTEM, Wanted, collect};
pub use secrets::Secrets;
pub use solve::{Solved, solve};
pub use sources::{AptSources, Installed, write_sources};
pub(crate) use sources::{SOURCES, sources_call};
pub use tools::{package_error, tools};
pub(crate) use unpack::{CLEAR, SKELETON, UNPACK, clear_call, skeleton_call, unpack_call};
pub use unpack::{clear_filtered, extract, unpack};

pub(crate) const FINISH: &str = "debian.finish";
pub(crate) const KEEP_BOOT: &str = "debian.keep-boot";
