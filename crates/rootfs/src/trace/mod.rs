//! The access trace of a run: what it read of a root, and whether it would read the same in another root.
//!
//! - A run that is watched leaves a [`Trace`]: paths, each with what was learned of it (its [`Access`]), and searches for names.
//!   The sandbox tells the paths; what they mean to the program that accesses them is known here. A [`Tracer`] collects the traces of
//!   several runs.
//! - [`queries`] turns a trace into [`Query`]s: what has to be asked of a root to know whether the run would read the same there.
//! - [`states`] asks a root. Each answer is an [`Observation`]: the query and the digest of what the root has. Two roots whose
//!   observations are equal are the same for that run.

mod access;
mod linker;
mod recorder;
mod search;
mod states;
mod tracer;

pub use access::{Access, SharedTrace, Trace};
pub use recorder::{Glob, Tracing, taken};
pub use search::{Affixes, Search};
pub(crate) use states::Ask;
pub use states::{Answers, LOADERS, Observation, Query, Stamps, interpreters, queries, states};
pub use tracer::Tracer;
pub(crate) use tracer::of_layers;
