//! A definition: its files, read and checked.

pub mod confined;
pub(crate) mod files;
pub(crate) mod limits;
pub(crate) mod load;
pub(crate) mod owners;
pub(crate) mod plan;
pub mod web;
