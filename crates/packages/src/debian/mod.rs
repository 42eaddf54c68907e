//! Debian repositories: metadata, the package universe, the bootstrap closure, `.deb` files.

pub mod closure;
pub mod contents;
pub mod control;
pub mod deb;
mod index;
pub mod keys;
pub mod refresh;
pub mod relation;
pub mod release;
pub mod repository;
mod signed;
pub mod universe;
pub mod unpack;
pub mod version;

pub use closure::closure;
pub use keys::Archive;
pub use refresh::{Index, Metadata, VerifiedRepository, load_cached, refresh};
pub use release::Release;
pub use repository::{Keys, Repository, default_repositories};
pub use signed::{outside, verdict};
pub use universe::{Package, Universe};
