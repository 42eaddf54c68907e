//! Kiln's own client of the build server: it reads a build file, packs the source, and speaks with the server's API.
//!
//! [`config`] makes a build of a file and the command line, [`source`] chooses and packs the files of a directory, [`repository`]
//! is a source that the server fetches itself, [`connection`] carries requests, [`builds`] says what can be asked of a server, and
//! [`follow`] reads a log that grows.

pub mod builds;
pub mod config;
pub mod connection;
mod error;
pub mod follow;
pub mod ignored;
pub mod repository;
pub mod source;

pub use error::{Error, Kind};
