//! A definition: its files, read and checked.

pub(crate) mod check;
pub mod confined;
pub(crate) mod files;
pub(crate) mod load;
pub(crate) mod owners;
pub(crate) mod plan;
pub mod web;
