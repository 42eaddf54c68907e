//! Built-in functions with which `checks` tries what this machine can do.

use std::fs;

use serde::{Deserialize, Serialize};

use crate::call::{Call, Say, Silence};
use crate::error::{Error, ErrorKind, Result};

/// Tries an overlay of a layer that holds `/dir/file`.
#[derive(Serialize, Deserialize)]
pub(crate) struct Probe;

/// Does nothing: to try whether a sandbox can be made.
#[derive(Serialize, Deserialize)]
pub(crate) struct Nothing;

impl Call for Nothing {
    const NAME: &'static str = "kiln-sandbox/nothing";
    type Handed = ();
    type Message = Silence;
    type Answer = ();

    fn run(self, (): (), _: &Say<Silence>) -> Result<()> {
        Ok(())
    }
}

impl Call for Probe {
    const NAME: &'static str = "kiln-sandbox/probe";
    type Handed = ();
    type Message = Silence;
    type Answer = ();

    fn run(self, (): (), _: &Say<Silence>) -> Result<()> {
        probe()
    }
}

/// Does what installing packages does to a root.
fn probe() -> Result<()> {
    let failed = |what: &'static str| {
        move |error: std::io::Error| Error::new(ErrorKind::Environment, what).because(error)
    };
    fs::remove_file("/dir/file").map_err(failed("removing a file of a lower layer"))?;
    fs::remove_dir("/dir").map_err(failed("removing a directory of a lower layer"))?;
    fs::create_dir("/dir").map_err(failed("making a directory over a removed one"))?;
    fs::write("/dir/new", "x").map_err(failed("writing a file"))?;
    std::os::unix::fs::chown("/dir/new", Some(1), Some(65534))
        .map_err(failed("giving a file to another id"))?;
    let names = fs::read_dir("/dir")
        .map_err(failed("listing a directory"))?
        .count();
    if names == 1 {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Environment,
        "a directory made over a removed one shows what was removed",
    ))
}
