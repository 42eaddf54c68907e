//! Built-in functions with which `checks` tries what this machine can do.

use std::fs;

use serde_json::Value;

use crate::call::Call;
use crate::error::{Error, ErrorKind};

/// The name of the built-in function that tries an overlay.
pub(crate) const PROBE: &str = "kiln-sandbox/probe";
/// The name of a function that does nothing: to try whether a sandbox can be made.
pub(crate) const NOTHING: &str = "kiln-sandbox/nothing";

/// Runs inside an overlay of a layer that holds `/dir/file`: does what installing packages does to a root.
pub(crate) fn probe(_: Call) -> Result<Value, Error> {
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
        return Ok(Value::Null);
    }
    Err(Error::new(
        ErrorKind::Environment,
        "a directory made over a removed one shows what was removed",
    ))
}
