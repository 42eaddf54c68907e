//! The database's versions: each step leads from one to the next, all in one transaction.

use std::path::Path;

use rusqlite::Connection;

use super::copy;
use super::error::Error;

/// Step `n` leads from version `n` to `n + 1`. Steps are never changed, only added.
const STEPS: &[&str] = &[
    "
    CREATE TABLE builds (
        id TEXT PRIMARY KEY,
        project TEXT NOT NULL,
        location TEXT NOT NULL,
        created INTEGER NOT NULL,
        who TEXT NOT NULL,
        status TEXT NOT NULL,
        priority INTEGER NOT NULL,
        attempt INTEGER NOT NULL,
        cancelled INTEGER NOT NULL,
        retry_of TEXT,
        build TEXT NOT NULL,
        request TEXT NOT NULL,
        task TEXT NOT NULL
    ) STRICT;
    CREATE INDEX builds_by_time ON builds (project, created DESC, id DESC);
    CREATE INDEX builds_open ON builds (status) WHERE status IN ('QUEUED', 'WORKING');
    CREATE TABLE attempts (
        build TEXT NOT NULL REFERENCES builds (id),
        number INTEGER NOT NULL,
        began INTEGER NOT NULL,
        ended INTEGER,
        status TEXT NOT NULL,
        reason TEXT,
        PRIMARY KEY (build, number)
    ) STRICT;
    CREATE TABLE tokens (
        name TEXT PRIMARY KEY,
        role TEXT NOT NULL,
        hash BLOB NOT NULL UNIQUE,
        created INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE audit (
        number INTEGER PRIMARY KEY,
        time INTEGER NOT NULL,
        who TEXT NOT NULL,
        what TEXT NOT NULL,
        build TEXT
    ) STRICT;
",
    "
    CREATE TABLE triggers (
        id TEXT PRIMARY KEY,
        project TEXT NOT NULL,
        location TEXT NOT NULL,
        name TEXT NOT NULL,
        created INTEGER NOT NULL,
        value TEXT NOT NULL,
        UNIQUE (project, location, name)
    ) STRICT;
",
    "
    CREATE TABLE notices (
        number INTEGER PRIMARY KEY,
        build TEXT NOT NULL,
        status TEXT NOT NULL
    ) STRICT;
    CREATE TABLE deliveries (
        id TEXT PRIMARY KEY,
        target TEXT NOT NULL,
        build TEXT NOT NULL,
        status TEXT NOT NULL,
        tries INTEGER NOT NULL,
        due INTEGER NOT NULL,
        ended INTEGER,
        trouble TEXT
    ) STRICT;
    CREATE INDEX deliveries_due ON deliveries (target, due) WHERE ended IS NULL;
",
    "
    ALTER TABLE builds ADD COLUMN pinned INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE builds ADD COLUMN bytes INTEGER;
    CREATE INDEX builds_again ON builds (retry_of) WHERE retry_of IS NOT NULL;
    CREATE TABLE condemned (
        id TEXT PRIMARY KEY,
        leaves TEXT NOT NULL,
        trouble TEXT
    ) STRICT;
",
    "
    CREATE TABLE sessions (
        hash BLOB PRIMARY KEY,
        token TEXT NOT NULL REFERENCES tokens (name) ON DELETE CASCADE,
        ends INTEGER NOT NULL
    ) STRICT;
",
    "
    CREATE INDEX builds_newest ON builds (created DESC, id DESC);
",
    "
    ALTER TABLE audit ADD COLUMN address TEXT;
",
];

/// The version of this program.
pub(super) const NEWEST: i64 = STEPS.len() as i64;

/// Brings a database to [`NEWEST`]. A copy of one that held something stays as `kiln.db.vN`.
pub(super) fn run(connection: &mut Connection, path: &Path) -> Result<(), Error> {
    let found: i64 = connection.query_row("PRAGMA user_version", (), |row| row.get(0))?;
    if !(0..=NEWEST).contains(&found) {
        return Err(Error::Newer {
            found,
            newest: NEWEST,
        });
    }
    if found == NEWEST {
        return Ok(());
    }
    if found > 0 {
        copy::keep(connection, path, found)?;
    }
    let transaction = connection.transaction()?;
    for step in STEPS.iter().skip(usize::try_from(found).unwrap_or(0)) {
        transaction.execute_batch(step)?;
    }
    transaction.pragma_update(None, "user_version", NEWEST)?;
    transaction.commit()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::database::Store;
    use super::*;

    #[test]
    fn a_newer_database_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        drop(Store::open(dir.path()).unwrap());
        let path = dir.path().join("kiln.db");
        let connection = Connection::open(&path).unwrap();
        connection
            .pragma_update(None, "user_version", NEWEST + 1)
            .unwrap();
        drop(connection);
        let error = Store::open(dir.path()).unwrap_err().to_string();
        assert!(error.contains("use the newer program"), "{error}");
        let connection = Connection::open(&path).unwrap();
        let version: i64 = connection
            .query_row("PRAGMA user_version", (), |row| row.get(0))
            .unwrap();
        assert_eq!(version, NEWEST + 1);
    }

    #[test]
    fn a_database_is_made_once() {
        let dir = tempfile::tempdir().unwrap();
        drop(Store::open(dir.path()).unwrap());
        Store::open(dir.path()).unwrap().answers().unwrap();
    }
}
