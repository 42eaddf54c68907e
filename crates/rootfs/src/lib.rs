//! Tools root, package installation, kickstart commands, scripts and the layer store.

pub mod archive;
mod calls;
pub mod changes;
pub mod debian;
mod error;
pub mod files;
pub mod looks;
pub mod network;
pub mod offline;
pub mod private;
mod report;
pub mod run;
pub mod scripts;
pub mod selinux;
pub mod store;

pub use calls::{EXPORT_SPARSE, FUNCTIONS};
pub use error::{Error, ErrorKind, Result, describe};
pub use network::Reach;
pub use report::Reporter;
pub use run::{Extras, Place, Seen};
pub use store::{Layer, Staging, Store};
