//! `kiln serve` from outside: requests as the clients send them, builds as processes, kills.

// A test says in one line what it had to do without.
#![allow(clippy::print_stdout)]

mod attacks;
mod boots;
mod browser;
mod build_files;
mod builds;
mod client;
mod containers;
mod contents;
mod elsewhere;
mod gcloud;
mod git;
mod harness;
mod hostile;
mod limits;
mod notify;
mod operation;
mod page;
mod python;
mod quota;
mod refused;
mod replay;
mod repositories;
mod secrets;
mod tls;
mod triggers;
