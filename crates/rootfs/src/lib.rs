//! Tools root, package installation, kickstart commands, scripts and the layer store.

pub mod archive;
mod calls;
pub mod changes;
pub mod debian;
mod error;
pub mod family;
pub mod files;
pub mod finish;
pub mod initramfs;
mod kernels;
pub mod network;
mod offline;
pub mod private;
mod registry;
mod report;
mod requests;
pub mod rpm;
pub mod run;
pub mod scripts;
mod secrets;
pub mod selinux;
mod skeleton;
mod slices;
pub mod store;
pub mod trace;

pub use calls::{Copied, ExportSparse};
pub use error::{Error, ErrorKind, Result, describe, sandbox_error};
pub use family::{Families, Family};
pub use network::Reach;
pub use registry::FUNCTIONS;
pub use report::{Quiet, Reporter};
pub use requests::{Requests, SYSTEM, Wanted};
pub use run::{Extras, Place};
pub use secrets::Secrets;
pub use store::{Layer, Staging, Store};
pub use trace::Tracer;
