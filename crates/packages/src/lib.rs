//! Package repositories: signed metadata, the universe of packages, the bootstrap closure, the lock file and the
//! download store.
//!
//! The way of the data: [`debian::refresh`] fetches and verifies metadata, [`debian::Universe`] reads it,
//! [`debian::closure`] returns what bootstraps the target's own package manager, [`Lock`] holds what that package
//! manager decided, [`download`] has those files in the [`DownloadStore`], [`debian::deb`] unpacks them.
//!
//! Nothing here prints, reads the environment or knows where caches are: callers say. Not a byte from the network
//! is used before it is verified: release files by OpenPGP signature, everything else by SHA-256 and size.
//!
//! What is Debian's own is in [`debian`], what RPM repositories have in [`rpm`]; fetching, store, lock and OpenPGP are for any kind of repository.

mod cache;
mod cancel;
pub mod debian;
mod decompress;
mod digest;
mod error;
mod fetch;
mod glob;
mod lock;
pub mod openpgp;
pub mod rpm;
mod store;
mod unpack;

pub use cancel::CancelToken;
pub use digest::{Digest, NotADigest};
pub use error::{Category, Error, ErrorKind, Result};
pub use fetch::{Allows, FetchOptions, Fetched, Fetcher, Proxies};
pub use glob::{matches as glob_matches, nearest};
pub use lock::{Lock, LockedPackage, LockedRepository, TOOLS, Verdict, download};
pub use store::{DownloadStore, Item, OnProgress, Progress};
