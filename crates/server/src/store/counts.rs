//! Sums over the database, and the log of who did what.

use serde::Serialize;

use super::database::Store;
use super::error::Error;
use crate::wire::time;

/// What is counted at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Counts {
    /// Builds by status.
    pub builds: Vec<(String, i64)>,
    /// When the build that waits longest was made.
    pub oldest_queued: Option<i64>,
    /// Ended attempts by status: how many, and their seconds together.
    pub attempts: Vec<(String, i64, f64)>,
    /// Deliveries that are to be made, and those that were given up.
    pub deliveries: (i64, i64),
}

/// Who did what, and when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// Counted up.
    pub number: i64,
    /// RFC 3339.
    pub time: String,
    /// A token's name, `anyone` or `server`.
    pub who: String,
    /// What.
    pub what: String,
    /// The build that it was about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub build: Option<String>,
    /// The address that the request came from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
}

impl Store {
    /// Counts.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn counts(&self) -> Result<Counts, Error> {
        let connection = self.reader();
        let mut query = connection
            .prepare("SELECT status, count(*) FROM builds GROUP BY status ORDER BY status")?;
        let builds = query.query_map((), |row| Ok((row.get(0)?, row.get(1)?)))?;
        let builds = builds.collect::<Result<_, _>>()?;
        let oldest = "SELECT min(created) FROM builds WHERE status = 'QUEUED'";
        let mut query = connection.prepare(
            "SELECT status, count(*), sum(ended - began) / 1e9 FROM attempts WHERE ended IS NOT NULL GROUP BY status ORDER BY status",
        )?;
        let attempts = query.query_map((), |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
        let attempts = attempts.collect::<Result<_, _>>()?;
        let deliveries = "SELECT count(*) FILTER (WHERE ended IS NULL), count(*) FILTER (WHERE ended IS NOT NULL AND trouble IS NOT NULL) FROM deliveries";
        Ok(Counts {
            builds,
            oldest_queued: connection.query_row(oldest, (), |row| row.get(0))?,
            attempts,
            deliveries: connection
                .query_row(deliveries, (), |row| Ok((row.get(0)?, row.get(1)?)))?,
        })
    }

    /// The newest entries of the log of who did what, `most` of them; those before number `before`, if that is said.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn entries(&self, before: Option<i64>, most: u32) -> Result<Vec<Entry>, Error> {
        let connection = self.reader();
        let mut query = connection.prepare(
            "SELECT number, time, who, what, build, address FROM audit WHERE ?1 IS NULL OR number < ?1 ORDER BY number DESC LIMIT ?2",
        )?;
        let rows = query.query_map((before, most), |row| {
            Ok(Entry {
                number: row.get(0)?,
                time: time::stamp(row.get(1)?),
                who: row.get(2)?,
                what: row.get(3)?,
                build: row.get(4)?,
                address: row.get(5)?,
            })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}
