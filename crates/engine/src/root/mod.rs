//! The root, layer by layer.

pub(crate) mod brought;
pub(crate) mod finish;
pub(crate) mod layer;
pub(crate) mod outside;
pub(crate) mod slices;
pub(crate) mod steps;
pub(crate) mod why;
