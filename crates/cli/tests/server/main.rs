//! `kiln serve` from outside: requests as the clients send them, builds as processes, kills.

mod builds;
mod gcloud;
mod harness;
