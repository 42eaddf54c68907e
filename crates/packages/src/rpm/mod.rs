//! RPM repositories: mirrors, metadata, package files.
//!
//! What decides about trust: a package's header is signed, and has the digest of the payload. So a package is proven by
//! [`package::PackageFile::verify`] whoever served it. Metadata is proven where the repository signs it
//! ([`repository::Proof::Signature`]) or a metalink has its digest; else it only says which packages are asked for, and each of
//! them still has to prove itself.

pub mod closure;
pub mod comps;
mod filelists;
mod files;
mod header;
mod href;
pub mod manifest;
pub mod mirrors;
pub mod modules;
pub mod package;
pub mod payload;
pub mod presets;
pub mod primary;
pub mod refresh;
pub mod repomd;
pub mod repository;
mod rich;
pub mod unpack;
pub mod version;
mod xml;

pub use closure::closure;
pub use files::FileInfo;
pub use package::PackageFile;
pub use primary::{Capability, Package};
pub use refresh::{
    Metadata, VerifiedRepository, add_filelists, know_mirrors, load_cached, refresh,
};
pub use repository::{Filter, Proof, Repository, Source};
pub use version::Evr;
