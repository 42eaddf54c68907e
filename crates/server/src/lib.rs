//! The build server: Cloud Build's API over a queue of builds, each of which is a process of its own.
//!
//! [`serve`] is the whole server; [`agent::run`] is one build. What a server keeps stands below one data directory:
//! - `kiln.db`: builds, attempts, tokens, and who did what;
//! - `objects/`: the buckets;
//! - `builds/ID/attempt-N/`: everything of an attempt, written by nobody else ([`executor::request`]);
//! - `cache/`: Kiln's downloads and layers, unless they are elsewhere;
//! - `notify.toml`: who is told how builds go ([`notify`]);
//! - `secrets/`: values for the environment of steps ([`secrets`]);
//! - `authority.json`: the certificate authority for the CLI's log reader.

pub mod access;
mod address;
pub mod agent;
mod api;
pub mod commands;
mod demand;
mod disk;
pub mod document;
mod door;
pub mod executor;
pub mod gcloud;
mod git;
mod graph;
mod left;
mod limits;
mod linger;
pub mod local;
mod metrics;
pub mod notify;
pub mod objects;
mod openapi;
mod page;
mod pieces;
mod pinned;
mod prepare;
mod queue;
mod requests;
mod retain;
mod run;
pub mod secrets;
mod serve;
mod server;
pub mod store;
mod submit;
mod substitute;
pub mod tls;
mod trigger;
pub mod wire;

pub use agent::engine::{FUNCTIONS, images};
pub use limits::Rates;
pub use serve::{Error, Options, open_store, serve};
pub use server::{Keep, Settings};
pub use tokio::sync::Notify;
