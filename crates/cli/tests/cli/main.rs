//! The `kiln` binary from outside, without anything of this machine: cleared environment, own directories, fixed time.

mod check;
mod confined;
mod failures;
mod gcloud_env;
mod harness;
mod includes;
mod live;
mod messages;
mod output;
mod usage;
