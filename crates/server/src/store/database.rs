//! The file, its connections, and the log of who did what.

use std::ops::{Deref, DerefMut};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use super::error::Error;
use super::migrate;

/// How long another process is waited for that writes.
const PATIENCE: Duration = Duration::from_secs(10);
const SYNCHRONOUS: &str = "synchronous";
/// A commit is on the disk when it returns.
const FULL: &str = "FULL";
/// Connections that only read.
const READERS: usize = 4;

/// The database. Who reads it sees what is committed, and does not wait for who writes: a commit takes as long as the disk does.
#[derive(Debug)]
pub struct Store {
    // In front of the other, so that the last one that is closed can tidy up the journal.
    readers: Vec<Mutex<Connection>>,
    turn: AtomicUsize,
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
        connection.busy_timeout(PATIENCE)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, SYNCHRONOUS, FULL)?;
        connection.pragma_update(None, "foreign_keys", "ON")?;
        migrate::run(&mut connection, &path)?;
        let readers = (0..READERS).map(|_| reader(&path).map(Mutex::new));
        Ok(Store {
            readers: readers.collect::<Result<_, _>>()?,
            turn: AtomicUsize::new(0),
            connection: Mutex::new(connection),
        })
    }

    /// A connection that only reads: one that is free, or the next one in turn.
    pub(super) fn reader(&self) -> MutexGuard<'_, Connection> {
        let mut free = self.readers.iter().filter_map(|one| one.try_lock().ok());
        free.next().unwrap_or_else(|| {
            let turn = self.turn.fetch_add(1, Ordering::Relaxed) % self.readers.len();
            self.readers[turn]
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
        })
    }

    pub(super) fn connection(&self) -> MutexGuard<'_, Connection> {
        self.connection
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection, for what an attempt's files say again after a power cut: nobody waits until it is on the disk. What is committed
    /// later by [`Store::connection`] is on the disk behind it.
    pub(super) fn passing(&self) -> Result<Passing<'_>, Error> {
        let connection = self.connection();
        connection.pragma_update(None, SYNCHRONOUS, "NORMAL")?;
        Ok(Passing(connection))
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
        self.reader()
            .query_row("SELECT count(*) FROM tokens", (), |_| Ok(()))?;
        Ok(())
    }
}

/// The connection of [`Store::passing`].
pub(super) struct Passing<'a>(MutexGuard<'a, Connection>);

impl Deref for Passing<'_> {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.0
    }
}

impl DerefMut for Passing<'_> {
    fn deref_mut(&mut self) -> &mut Connection {
        &mut self.0
    }
}

impl Drop for Passing<'_> {
    fn drop(&mut self) {
        // It can fail only within a transaction, and those have ended.
        drop(self.0.pragma_update(None, SYNCHRONOUS, FULL));
    }
}

fn reader(path: &Path) -> Result<Connection, Error> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(PATIENCE)?;
    Ok(connection)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_files_say_again_is_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let level = |connection: &Connection| {
            let query = "PRAGMA synchronous";
            connection
                .query_row(query, (), |row| row.get::<_, i64>(0))
                .unwrap()
        };
        assert_eq!(level(&store.connection()), 2);
        let mut passing = store.passing().unwrap();
        assert_eq!(level(&passing), 1);
        drop(passing.transaction().unwrap());
        drop(passing);
        assert_eq!(level(&store.connection()), 2);
    }

    #[test]
    fn who_reads_waits_for_nobody_who_writes() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let mut connection = store.connection();
        let writing = connection.transaction().unwrap();
        writing
            .execute(
                "INSERT INTO audit (time, who, what) VALUES (1, 'a', 'b')",
                (),
            )
            .unwrap();
        assert!(store.entries(None, 9).unwrap().is_empty());
        writing.commit().unwrap();
        assert_eq!(store.entries(None, 9).unwrap().len(), 1);
        // More than there are connections: the next one is waited for.
        let all: Vec<_> = (0..READERS).map(|_| store.reader()).collect();
        std::thread::scope(|scope| {
            let late = scope.spawn(|| store.entries(None, 9).unwrap().len());
            drop(all);
            assert_eq!(late.join().unwrap(), 1);
        });
    }
}
