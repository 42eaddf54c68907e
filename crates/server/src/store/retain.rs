//! Which builds stay, and what is still to be removed of those that do not.
//!
//! A build leaves the list and enters `condemned` in one transaction; it leaves `condemned` when nothing of it is there any more.
//! A server that is killed in between goes on where it was.

use rusqlite::OptionalExtension;

use super::database::Store;
use super::error::Error;
use crate::wire::time;

/// A build that has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ended {
    /// Its id.
    pub id: String,
    /// When.
    pub finished: i64,
    /// Whether it stays.
    pub pinned: bool,
    /// What it holds, if that was measured.
    pub bytes: Option<u64>,
}

/// A build that is being removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Condemned {
    /// Its id.
    pub id: String,
    /// What is to be removed, as [`Store::condemn`] was told.
    pub leaves: String,
    /// Why that did not go the last time.
    pub trouble: Option<String>,
}

const FINAL: &str = "status NOT IN ('QUEUED', 'WORKING', 'STATUS_UNKNOWN')";

impl Store {
    /// Says whether a build stays whatever its age and size. Returns false if there is no such build.
    ///
    /// # Errors
    /// The database cannot be written.
    pub(crate) fn pin(&self, id: &str, pinned: bool) -> Result<bool, Error> {
        let changed = self
            .connection()
            .execute("UPDATE builds SET pinned = ?2 WHERE id = ?1", (id, pinned))?;
        Ok(changed == 1)
    }

    /// Whether a build stays; `None` if there is no such build.
    ///
    /// # Errors
    /// The database cannot be read.
    pub(crate) fn is_pinned(&self, id: &str) -> Result<Option<bool>, Error> {
        let connection = self.reader();
        let mut query = connection.prepare("SELECT pinned FROM builds WHERE id = ?1")?;
        Ok(query.query_row([id], |row| row.get(0)).optional()?)
    }

    /// The builds that have ended, the one that ended first before the others.
    ///
    /// # Errors
    /// The database cannot be read.
    pub(crate) fn ended(&self) -> Result<Vec<Ended>, Error> {
        let connection = self.reader();
        let mut query = connection.prepare(&format!(
            "SELECT id, created, json_extract(build, '$.finishTime'), pinned, bytes FROM builds WHERE {FINAL}"
        ))?;
        let rows = query.query_map((), |row| {
            let (created, stamp): (i64, Option<String>) = (row.get(1)?, row.get(2)?);
            let bytes: Option<i64> = row.get(4)?;
            Ok(Ended {
                id: row.get(0)?,
                finished: stamp
                    .and_then(|stamp| time::read_stamp(&stamp))
                    .unwrap_or(created),
                pinned: row.get(3)?,
                bytes: bytes.and_then(|bytes| u64::try_from(bytes).ok()),
            })
        })?;
        let mut ended = rows.collect::<Result<Vec<_>, _>>()?;
        ended.sort_by(|one, other| (one.finished, &one.id).cmp(&(other.finished, &other.id)));
        Ok(ended)
    }

    /// Keeps what a build that has ended holds.
    ///
    /// # Errors
    /// The database cannot be written.
    pub(crate) fn measured(&self, id: &str, bytes: u64) -> Result<(), Error> {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        self.connection()
            .execute("UPDATE builds SET bytes = ?2 WHERE id = ?1", (id, bytes))?;
        Ok(())
    }

    /// Takes a build off the list, and notes what is to be removed and why. Returns false and does nothing if it has not ended,
    /// is pinned, or is done again by a build that has not ended: that one uses its lock files.
    ///
    /// # Errors
    /// The database cannot be written.
    pub(crate) fn condemn(&self, id: &str, leaves: &str, why: &str) -> Result<bool, Error> {
        let mut connection = self.connection();
        let transaction = connection.transaction()?;
        let may_go: bool = transaction.query_row(
            &format!(
                "SELECT EXISTS (SELECT 1 FROM builds WHERE id = ?1 AND pinned = 0 AND {FINAL})
                 AND NOT EXISTS (SELECT 1 FROM builds WHERE retry_of = ?1 AND NOT ({FINAL}))"
            ),
            [id],
            |row| row.get(0),
        )?;
        if !may_go {
            return Ok(false);
        }
        transaction.execute(
            "INSERT INTO condemned (id, leaves) VALUES (?1, ?2)",
            (id, leaves),
        )?;
        transaction.execute("DELETE FROM attempts WHERE build = ?1", [id])?;
        transaction.execute("DELETE FROM builds WHERE id = ?1", [id])?;
        transaction.execute(
            "INSERT INTO audit (time, who, what, build) VALUES (?1, 'server', ?2, ?3)",
            (time::now(), format!("remove: {why}"), id),
        )?;
        transaction.commit()?;
        Ok(true)
    }

    /// The builds that are not on the list any more, and not gone yet.
    ///
    /// # Errors
    /// The database cannot be read.
    pub(crate) fn condemned(&self) -> Result<Vec<Condemned>, Error> {
        let connection = self.reader();
        let mut query =
            connection.prepare("SELECT id, leaves, trouble FROM condemned ORDER BY id")?;
        let rows = query.query_map((), |row| {
            Ok(Condemned {
                id: row.get(0)?,
                leaves: row.get(1)?,
                trouble: row.get(2)?,
            })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Notes why the rest of a build could not be removed; with `None`, that nothing of it is left.
    ///
    /// # Errors
    /// The database cannot be written.
    pub(crate) fn removed(&self, id: &str, trouble: Option<&str>) -> Result<(), Error> {
        let connection = self.connection();
        match trouble {
            None => connection.execute("DELETE FROM condemned WHERE id = ?1", [id])?,
            Some(trouble) => connection.execute(
                "UPDATE condemned SET trouble = ?2 WHERE id = ?1",
                (id, trouble),
            )?,
        };
        Ok(())
    }

    /// Whether a build on the list has an object as its source.
    ///
    /// # Errors
    /// The database cannot be read.
    pub(crate) fn is_source(&self, bucket: &str, object: &str) -> Result<bool, Error> {
        let found = self.reader().query_row(
            "SELECT EXISTS (SELECT 1 FROM builds WHERE json_extract(build, '$.source.storageSource.bucket') = ?1
             AND json_extract(build, '$.source.storageSource.object') = ?2)",
            (bucket, object),
            |row| row.get(0),
        )?;
        Ok(found)
    }
}
