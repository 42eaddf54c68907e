//! A cache that several machines share: results of builds in a directory, an S3 bucket or a Google Cloud Storage bucket.
//!
//! ```text
//! <url>/kiln1/
//!   <kind>/<id>                 a record: what a result consists of, under the name by which a build asks for it
//!   chunks/<2 hex>/<64 hex>     up to 8 MiB of content, named by its SHA-256; never changed
//!
//! record   "kiln-share 1 keyed|plain <64 hex>\n"     the seal: BLAKE3 of what follows and of `<kind>/<id>`
//!          JSON: { "facts": …, "files": { name: [ { "sha256": …, "size": … }, … ] } }
//! ```
//!
//! **Whom to trust.** The id of a result is the hash of what it was made *of*, not of what came out; so nobody can see from it
//! that a result is right, and whoever can write records can choose what others build. Therefore records are sealed with a
//! secret that builds know and the store does not (keyed BLAKE3). A record whose seal is not right for its very name is no
//! record. A store can then lose, exchange, mutilate or hold back results: each of these is a miss. Without a secret the seal is
//! a plain hash and guards against accidents only; that is allowed for directories, whose access rights decide who writes.
//!
//! A chunk is hashed whole before any of its bytes is passed on, so nothing unverified reaches a decompressor or an archive
//! reader. Records are small and bounded ([`RECORD_MAX`]); memory holds a few chunks at a time.
//!
//! The build server keeps its buckets' contents in such stores too; it takes [`bucket`] only.
//!
//! The cache's interface is synchronous. `object_store` is asynchronous, so there is a private runtime on the caller's thread
//! (`store.rs`); nothing of it can be seen from outside.

mod cloud;
mod error;
mod http;
mod location;
mod options;
mod record;
mod store;

pub use cloud::{Cloud, bucket, is_setting, parts};
pub use error::{Error, ErrorKind, Result};
pub use options::{Options, is_local};
pub use record::{Chunk, Key, Record};
pub use store::{Progress, Share};

/// Bytes of a chunk, at most.
pub const CHUNK_MAX: usize = 8 << 20;
/// Bytes of a record, at most.
pub const RECORD_MAX: usize = 16 << 20;
