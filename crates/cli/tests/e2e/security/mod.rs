//! What Kiln promises in `docs/security.md`, attacked: one module for each kind of thing that is handed to it. Read the
//! names of the tests as the list of promises.

mod canary;
mod lock;
mod logs;
mod modules;
pub(crate) mod neighbours;
mod network;
mod programs;
