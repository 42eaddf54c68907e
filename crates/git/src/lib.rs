//! Sources from git: finds a commit of a repository over HTTP, fetches it without its history, and writes its files.
//!
//! It speaks version 2 of git's protocol (<https://git-scm.com/docs/protocol-v2>) and reads packs itself
//! (<https://git-scm.com/docs/gitformat-pack>), so that a server needs no program `git`, and nothing of a stranger's
//! repository decides how much memory, disk or time that takes. Absent on purpose: history, pushing, `git://`, SSH,
//! submodules, filters and attributes.
//!
//! ```no_run
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let options = kiln_git::Options::default();
//! let remote = kiln_git::Remote::open("https://git.example.org/lab.git", &options)?;
//! let found = remote.resolve("main")?;
//! let snapshot = remote.fetch(&found.commit, std::path::Path::new("/tmp"), None)?;
//! snapshot.check_out(std::path::Path::new("lab"))?;
//! # Ok(()) }
//! ```

mod check_out;
mod credentials;
mod delta;
mod error;
mod http;
mod id;
mod pack;
mod packet;
mod remote;
mod tree;

use std::net::IpAddr;
use std::time::Duration;

pub use check_out::{Snapshot, leads_out};
pub use credentials::Credentials;
pub use error::{Error, Result};
pub use http::check_url;
pub use remote::{Remote, Resolved, check_revision};

/// How repositories are reached, and what they may take.
#[derive(Clone)]
pub struct Options<'a> {
    /// Says which addresses may be connected to; `None`: all.
    pub only: Option<fn(IpAddr) -> bool>,
    /// For private repositories.
    pub credentials: Credentials,
    /// What is refused because it is too much.
    pub limits: Limits,
    /// How long one answer of the repository may take, from the first byte of the request to the last of the answer.
    pub patience: Duration,
    /// How long the repository may say nothing.
    pub silence: Duration,
    /// Asked again and again; what goes on ends when it says yes.
    pub stop: &'a (dyn Fn() -> bool + 'a),
}

impl Default for Options<'_> {
    fn default() -> Self {
        Options {
            only: None,
            credentials: Credentials::default(),
            limits: Limits::default(),
            patience: Duration::from_secs(60 * 60),
            silence: Duration::from_secs(60),
            stop: &|| false,
        }
    }
}

/// What a repository may have.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of a pack.
    pub pack: u64,
    /// Objects of a pack.
    pub objects: u32,
    /// Bytes of all objects of a pack, unpacked.
    pub unpacked: u64,
    /// Bytes of an object that is held in memory: one that is stored as the difference to another, or that another is
    /// stored as the difference to.
    pub in_memory: u64,
    /// Files, directories and links.
    pub entries: u64,
    /// Bytes of all files.
    pub bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            pack: 4 << 30,
            objects: 1_000_000,
            unpacked: 16 << 30,
            in_memory: 256 << 20,
            entries: 1_000_000,
            bytes: 16 << 30,
        }
    }
}
