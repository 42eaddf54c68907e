//! A definition: its files, read and checked.

pub(crate) mod check;
pub(crate) mod confined;
pub(crate) mod files;
pub(crate) mod load;
pub(crate) mod owners;
pub(crate) mod plan;
pub(crate) mod reader;
pub mod web;
