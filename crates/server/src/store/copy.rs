//! What a database was before a newer program changed it.

use std::fs;
use std::io;
use std::path::Path;

use rusqlite::Connection;

use super::error::Error;

/// Keeps a copy of a database of an older version as `NAME.db.vN`, whole or not at all. One that is there already stays.
///
/// # Errors
/// The copy cannot be written.
pub(crate) fn keep(connection: &Connection, path: &Path, version: i64) -> Result<(), Error> {
    let kept = path.with_extension(format!("db.v{version}"));
    if kept.exists() {
        return Ok(());
    }
    let staged = path.with_extension("db.copy");
    match fs::remove_file(&staged) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    connection.execute("VACUUM INTO ?1", [staged.to_string_lossy()])?;
    fs::File::open(&staged)?.sync_all()?;
    fs::rename(staged, kept)?;
    Ok(())
}
