//! The access trace of a run: what a program read of a root, and whether it would read the same in another root.

mod linker;
mod states;

pub use states::{LOADERS, Question, Sight, interpreters, questions, states};
pub(crate) use states::{STATES, states_call};
