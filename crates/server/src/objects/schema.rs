//! The tables of the index, and how those of an older Kiln become this one's. As of `kiln.db`, a copy of the old ones stays.

use std::path::Path;

use rusqlite::Connection;

use super::error::{ApiError, Result};
use crate::store::copy;

/// Step `n` leads from version `n` to `n + 1`. Steps are never changed, only added.
const STEPS: &[&str] = &[
    "
CREATE TABLE bucket (name TEXT PRIMARY KEY, project TEXT NOT NULL, created INTEGER NOT NULL) STRICT;
CREATE TABLE object (
    bucket TEXT NOT NULL REFERENCES bucket(name), name BLOB NOT NULL,
    generation INTEGER NOT NULL, metageneration INTEGER NOT NULL, size INTEGER NOT NULL,
    md5 BLOB NOT NULL, crc32c INTEGER NOT NULL, attributes TEXT NOT NULL,
    created INTEGER NOT NULL, updated INTEGER NOT NULL,
    PRIMARY KEY (bucket, name)) STRICT, WITHOUT ROWID;
CREATE TABLE doomed (place TEXT PRIMARY KEY) STRICT, WITHOUT ROWID;
CREATE TABLE generation (last INTEGER NOT NULL) STRICT;
INSERT INTO generation VALUES (0);
CREATE TABLE upload (
    id TEXT PRIMARY KEY, bucket TEXT NOT NULL, name TEXT NOT NULL, request TEXT NOT NULL,
    total INTEGER, received INTEGER NOT NULL, touched INTEGER NOT NULL, generation INTEGER) STRICT, WITHOUT ROWID;
",
    "
CREATE TABLE identity (id TEXT NOT NULL) STRICT;
INSERT INTO identity VALUES (lower(hex(randomblob(16))));
",
    // What was stored before is the server's own.
    "
ALTER TABLE bucket ADD COLUMN owner TEXT NOT NULL DEFAULT '';
ALTER TABLE object ADD COLUMN owner TEXT NOT NULL DEFAULT '';
ALTER TABLE upload ADD COLUMN owner TEXT NOT NULL DEFAULT '';
UPDATE upload SET request = '' WHERE generation IS NOT NULL;
CREATE INDEX upload_done ON upload (owner, touched) WHERE generation IS NOT NULL;
",
];

/// Brings an index to this program's version.
pub(super) fn bring(connection: &mut Connection, path: &Path) -> Result<()> {
    by(connection, path, STEPS)
}

fn by(connection: &mut Connection, path: &Path, steps: &[&str]) -> Result<()> {
    let version: i64 = connection
        .query_row("PRAGMA user_version", [], |row| row.get(0))
        .map_err(failed)?;
    let newest = steps.len() as i64;
    let done = usize::try_from(version).ok();
    let Some(left) = done.and_then(|done| steps.get(done..)) else {
        let shown = path.display();
        return Err(ApiError::internal(format!(
            "{shown} was written by a newer Kiln (version {version}, this one knows {newest}); run that one"
        )));
    };
    if left.is_empty() {
        return Ok(());
    }
    if version > 0 {
        copy::keep(connection, path, version)
            .map_err(|error| ApiError::internal(format!("copying {}: {error}", path.display())))?;
    }
    let transaction = connection.transaction().map_err(failed)?;
    for step in left {
        transaction.execute_batch(step).map_err(failed)?;
    }
    transaction
        .pragma_update(None, "user_version", newest)
        .map_err(failed)?;
    transaction.commit().map_err(failed)
}

/// What SQLite says, as Storage would.
pub(super) fn failed(error: rusqlite::Error) -> ApiError {
    if error.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull) {
        return ApiError::full();
    }
    ApiError::internal(format!("the index of objects: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "CREATE TABLE one (x INTEGER);";
    const TWO: &str = "INSERT INTO one VALUES (2);";

    fn numbers(path: &Path) -> (i64, i64) {
        let connection = Connection::open(path).unwrap();
        let ask = |query| connection.query_row(query, [], |row| row.get(0)).unwrap();
        (ask("PRAGMA user_version"), ask("SELECT count(*) FROM one"))
    }

    #[test]
    fn an_older_index_is_kept_before_it_is_changed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("index.db");
        let copy = dir.path().join("index.db.v1");
        let open = |steps: &[&str]| by(&mut Connection::open(&path).unwrap(), &path, steps);
        open(&[ONE]).unwrap();
        open(&[ONE]).unwrap();
        assert!(!copy.exists());
        // A copy that a crash cut off is made again.
        std::fs::write(dir.path().join("index.db.copy"), "torn").unwrap();
        // A step that fails changes nothing; the copy is there already.
        open(&[ONE, TWO, "nonsense"]).unwrap_err();
        assert_eq!(numbers(&path), (1, 0));
        open(&[ONE, TWO]).unwrap();
        assert_eq!(numbers(&path), (2, 1));
        assert_eq!(numbers(&copy), (1, 0));
        let error = open(&[ONE]).unwrap_err().to_string();
        assert!(error.contains("newer Kiln"), "{error}");
        assert_eq!(numbers(&path), (2, 1));
    }
}
