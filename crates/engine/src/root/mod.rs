//! The root, layer by layer.

pub(crate) mod finish;
pub(crate) mod network;
pub(crate) mod pre;
pub(crate) mod slices;
pub(crate) mod steps;
pub(crate) mod why;
