//! The object store from outside: raw requests, Google's command line, its Python client.

mod elsewhere;
mod files;
mod gcloud;
mod harness;
mod limits;
mod python;
mod replay;
mod tunnel;

/// With contents in the server's own directory.
#[path = "."]
mod here {
    pub(crate) const PLACE: crate::harness::Place = crate::harness::Place::Here;

    mod hostile;
    mod raw;
    mod resumable;
}

/// The same with contents in a store behind HTTP.
#[path = "."]
#[expect(clippy::duplicate_mod, reason = "the same tests, another store")]
mod there {
    pub(crate) const PLACE: crate::harness::Place = crate::harness::Place::Bucket;

    mod hostile;
    mod raw;
    mod resumable;
}
