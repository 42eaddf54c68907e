//! Buckets and objects: the part of the Storage JSON API that the clients use, over a directory or a store elsewhere.
//!
//! How the rest of the server uses it:
//! - [`Objects`] has what builds need for sources, logs and artifacts: `create_bucket`, `put`, `get`, `open_object`, `list`, `delete`;
//! - [`router`] answers what comes to the server's port;
//! - [`front`] stands before all routes of that port: it answers `CONNECT` with the certificate of an [`Authority`], and serves
//!   [`host_router`] inside. Who may do what is looked at by layers around the routers, outside of this module.
//!
//! A request comes in by `api.rs`; `route.rs` reads its path, `upload.rs`, `download.rs` and `copy.rs` do its work with `store.rs`,
//! which keeps an index (`index.rs`) of contents (`blobs.rs`).

mod answer;
mod api;
mod authority;
mod blobs;
mod condition;
mod copy;
mod download;
mod elsewhere;
mod error;
mod incoming;
mod index;
mod known;
mod ledger;
mod live;
mod multipart;
mod name;
mod range;
mod request;
mod resource;
mod route;
mod schema;
mod send;
mod session;
mod store;
mod tunnel;
mod turns;
mod upload;
mod work;

pub use answer::Secure;
pub use api::{host_router, router};
pub use authority::{Authority, AuthorityError};
pub use condition::Conditions;
pub use elsewhere::{Contents, Elsewhere, settings};
pub use error::{ApiError, Result};
pub use known::Known;
pub use ledger::{Held, Owner};
pub use live::Live;
pub use name::{BucketName, ObjectName};
pub use resource::{Attributes, Bucket, Object};
pub use store::{Limits, List, Objects, Opened};
pub use tunnel::{CERTIFICATE, front};
