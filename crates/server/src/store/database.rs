//! The file, its connection, and the log of who did what.

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rusqlite::Connection;

use super::error::Error;
use super::migrate;

/// The database.
#[derive(Debug)]
pub struct Store {
    connection: Mutex<Connection>,
}

impl Store {
    /// Opens or makes the database in a directory, and brings it to this program's version. The old one is kept beside it.
    ///
    /// # Errors
    /// The file is no database, is of a newer program, or cannot be written.
    pub fn open(dir: &Path) -> Result<Store, Error> {
        let path = dir.join("kiln.db");
        let mut connection = Connection::open(&path)?;
        connection.busy_timeout(std::time::Duration::from_secs(10))?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "foreign_keys", "ON")?;
        migrate::run(&mut connection, &path)?;
        Ok(Store {
            connection: Mutex::new(connection),
        })
    }

    pub(super) fn connection(&self) -> MutexGuard<'_, Connection> {
        self.connection
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes down who did what, without an address: the server itself, or somebody beside it.
    ///
    /// # Errors
    /// The database cannot be written.
    pub fn audit(
        &self,
        time: i64,
        who: &str,
        what: &str,
        build: Option<&str>,
    ) -> Result<(), Error> {
        self.audit_from(time, (who, None), what, build)
    }

    /// Writes down who did what, and from which address.
    ///
    /// # Errors
    /// The database cannot be written.
    pub fn audit_from(
        &self,
        time: i64,
        (who, address): (&str, Option<&str>),
        what: &str,
        build: Option<&str>,
    ) -> Result<(), Error> {
        self.connection().execute(
            "INSERT INTO audit (time, who, what, build, address) VALUES (?1, ?2, ?3, ?4, ?5)",
            (time, who, what, build, address),
        )?;
        Ok(())
    }

    /// Whether the database answers.
    ///
    /// # Errors
    /// It does not.
    pub fn answers(&self) -> Result<(), Error> {
        self.connection().query_row("SELECT 1", (), |_| Ok(()))?;
        Ok(())
    }
}
