//! Events and failures as text. Everything here turns values into strings; only [`terminal`] writes.

pub(crate) mod board;
pub(crate) mod diagnostic;
pub(crate) mod failure;
pub(crate) mod style;
pub(crate) mod terminal;
pub(crate) mod text;
