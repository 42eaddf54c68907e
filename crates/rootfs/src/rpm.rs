//! RPM roots: what differs by family lies below this module.

mod answer;
mod boot;
mod facts;
mod family;
mod finish;
mod generator;
mod install;
mod installer;
mod kernels;
mod paths;
mod pins;
mod question;
mod repositories;
mod requests;
mod scriptlets;
mod streams;
mod times;
mod tools;
mod words;
mod world;

pub use family::Rpm;
pub(crate) use finish::{FinishRpm, WriteSources};
pub(crate) use kernels::FindKernels;
pub(crate) use times::SetTimes;
pub(crate) use tools::UnpackTools;
pub use world::Repositories;
