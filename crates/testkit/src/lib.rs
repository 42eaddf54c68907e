//! Test support, never part of the product: a loopback mirror that injects faults ([`mirror`]), and small signed
//! Debian repositories made on the spot ([`repository`], [`package`], [`key`]), and RPM ones ([`rpm`]); a whole RPM
//! distribution that boots ([`distribution`]), and an archive in Ubuntu's layout of Debian's packages ([`ubuntu`]); git
//! repositories ([`mod@git`]).
//!
//! Helpers panic with a sentence when a test's environment is at fault: that is what a test wants.

mod azure;
pub mod bucket;
pub mod distribution;
pub mod fault;
pub mod git;
pub mod key;
pub mod mirror;
pub mod package;
pub mod repository;
pub mod rpm;
mod server;
mod shared;
pub mod ubuntu;
mod uri;

pub use bucket::{Bucket, Trouble};
pub use fault::{Fault, Rule};
pub use git::GitServer;
pub use key::Key;
pub use mirror::Mirror;
pub use package::Package;
pub use repository::{Repository, Signing};
pub use shared::{Request, Source};
