//! What has to be said of builds, and to whom: kept until it is said, so that a restart forgets nothing.

use rusqlite::{OptionalExtension, Row, Transaction};

use super::database::Store;
use super::error::Error;

/// How long what was said stays on record: 30 days in nanoseconds.
const KEPT: i64 = 30 * 24 * 3600 * 1_000_000_000;

/// A build has got another status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// Counted up.
    pub number: i64,
    /// Which build.
    pub build: String,
    /// The status.
    pub status: String,
}

/// Something that one target has to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// Goes along, so that a receiver knows what it has got before.
    pub id: String,
    /// The target's name.
    pub target: String,
    /// Which build.
    pub build: String,
    /// The status that it got.
    pub status: String,
    /// How often that was tried in vain.
    pub tries: u32,
}

const COLUMNS: &str = "id, target, build, status, tries";

/// Notes a new status, in the transaction that changes it.
pub(super) fn note(transaction: &Transaction<'_>, build: &str, status: &str) -> Result<(), Error> {
    transaction.execute(
        "INSERT INTO notices (build, status) VALUES (?1, ?2)",
        (build, status),
    )?;
    Ok(())
}

impl Store {
    /// The oldest notices that nobody has looked at.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn notices(&self) -> Result<Vec<Notice>, Error> {
        let connection = self.reader();
        let mut query = connection
            .prepare("SELECT number, build, status FROM notices ORDER BY number LIMIT 100")?;
        let rows = query.query_map((), |row| {
            Ok(Notice {
                number: row.get(0)?,
                build: row.get(1)?,
                status: row.get(2)?,
            })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Makes deliveries of a notice.
    ///
    /// # Errors
    /// The database cannot be written.
    pub fn address(&self, notice: &Notice, deliveries: &[Delivery], now: i64) -> Result<(), Error> {
        let mut connection = self.connection();
        let transaction = connection.transaction()?;
        for delivery in deliveries {
            transaction.execute(
                "INSERT INTO deliveries (id, target, build, status, tries, due) VALUES (?1, ?2, ?3, ?4, 0, ?5)",
                (&delivery.id, &delivery.target, &delivery.build, &delivery.status, now),
            )?;
        }
        transaction.execute("DELETE FROM notices WHERE number = ?1", [notice.number])?;
        transaction.execute("DELETE FROM deliveries WHERE ended < ?1", [now - KEPT])?;
        transaction.commit()?;
        Ok(())
    }

    /// What a target has to be told next, if it is time.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn due(&self, target: &str, now: i64) -> Result<Option<Delivery>, Error> {
        let connection = self.reader();
        let mut query = connection.prepare(&format!(
            "SELECT {COLUMNS} FROM deliveries WHERE ended IS NULL AND target = ?1 AND due <= ?2 ORDER BY due, id LIMIT 1"
        ))?;
        Ok(query.query_row((target, now), delivery).optional()?)
    }

    /// Writes down how an attempt at a delivery went: when it is tried again, or that it is over; and what went wrong.
    ///
    /// # Errors
    /// The database cannot be written.
    pub fn tried(
        &self,
        delivery: &Delivery,
        again: Option<i64>,
        now: i64,
        trouble: Option<&str>,
    ) -> Result<(), Error> {
        self.connection().execute(
            "UPDATE deliveries SET tries = ?2, due = ?3, ended = ?4, trouble = ?5 WHERE id = ?1",
            (
                &delivery.id,
                delivery.tries + 1,
                again.unwrap_or(now),
                again.is_none().then_some(now),
                trouble,
            ),
        )?;
        Ok(())
    }
}

fn delivery(row: &Row<'_>) -> rusqlite::Result<Delivery> {
    Ok(Delivery {
        id: row.get(0)?,
        target: row.get(1)?,
        build: row.get(2)?,
        status: row.get(3)?,
        tries: row.get(4)?,
    })
}
