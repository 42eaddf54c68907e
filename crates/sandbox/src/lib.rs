//! User namespaces, id maps, mounts as values, limits, running commands and capturing their output.
//!
//! A run is a [`Request`]: a plain value. [`Sandbox::run`] carries it out and reports an [`Outcome`]; what is printed in
//! it arrives line by line. The program itself is started again as the sandbox child, so its `main` has to begin
//! with [`entry`].
//!
//! What a run cannot do: see the host's files, processes or, without [`Network::Host`], its network; keep a capability
//! outside of its namespaces; outlive the caller. Killing the caller's process at any instant ends everything inside.
//! A program ([`Body::Exec`], or started by a function and [`confine`]d) has no `CAP_SYS_ADMIN` and no `CAP_SYS_PTRACE`, so it
//! cannot mount, undo what is mounted read-only, or look into Kiln's own functions ([`Body::Call`]), which have them.
//!
//! What it can do on purpose: set-user-id programs work, unless [`Request::no_new_privs`] is on, and flushing to disk returns at
//! once without doing anything.
//!
//! Left out: control groups, because a killed process could not take its group's directory back. A caller that is
//! killed leaves the mount points that its run made in a writable root: empty directories and files.

mod call;
mod cancel;
mod checks;
mod child;
mod error;
mod ids;
mod memory;
mod network;
mod outer;
mod output;
mod parent;
mod probe;
mod processor;
mod program;
mod remove;
mod request;
mod run;
mod seccomp;
mod sys;
mod terminal;
mod trees;
mod usage;
mod watch;
mod wire;

pub use call::{Call, Descriptors, Field, Function, Handed, Say, Silence, message};
pub use cancel::CancelToken;
pub use checks::{Check, Needs, Verdict, checks};
pub use child::entry;
pub use error::{Error, ErrorKind};
pub use ids::{Extent, ID_COUNT, IdMap, SHIFTED_BASE};
pub use memory::available as available_memory;
pub use network::{closed_to_runs, is_elsewhere, own_network};
pub use parent::{confine, die_with_parent, hand_over};
pub use processor::processor_level;
pub use remove::remove_tree;
pub use request::*;
pub use run::{Io, Outcome, Sandbox, Stdin};
pub use sys::begin_writing;
pub use usage::{Meter, processes_with};
pub use watch::{AccessKind, Observer, PathAccess, Watch};
