//! The object store from outside: raw requests, Google's command line, its Python client.

mod gcloud;
mod harness;
mod hostile;
mod python;
mod raw;
mod replay;
mod resumable;
mod tunnel;
