//! Builds and their attempts.

use rusqlite::{Connection, OptionalExtension, Row};
use serde_json::Value;

use super::database::Store;
use super::error::Error;
use super::notices;
use crate::prepare::Task;
use crate::wire::model::{Build, Status};
use crate::wire::time;

/// A build, as the server knows it.
#[derive(Clone, Debug)]
pub struct Record {
    /// Where it was asked for.
    pub location: String,
    /// When.
    pub created: i64,
    /// By whom.
    pub who: String,
    /// How many attempts have begun.
    pub attempt: u32,
    /// Whether somebody wants it to stop.
    pub cancelled: bool,
    /// The build that this one does again.
    pub retry_of: Option<String>,
    /// As clients see it.
    pub build: Build,
    /// As it came.
    pub request: Value,
    /// As it is run.
    pub task: Task,
}

/// A build that waits: there may be many, and little has to be known of most.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Waiting {
    /// Its id.
    pub id: String,
    /// When it was asked for.
    pub created: i64,
    /// Seconds that it may wait.
    pub ttl: f64,
}

/// Where a list goes on: behind this build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// Its time.
    pub created: i64,
    /// Its id.
    pub id: String,
}

/// How many builds may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Most {
    /// Of all.
    pub all: u32,
    /// Of one token.
    pub of_one: u32,
}

/// What became of a build that was to be added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Added {
    /// It waits.
    Waits,
    /// It was not added: as many wait as may.
    AllWait,
    /// It was not added: as many of this token wait as may.
    OwnWait,
}

pub(super) const COLUMNS: &str =
    "location, created, who, attempt, cancelled, retry_of, build, request, task";

impl Store {
    /// Adds a build, unless as many are waiting already as may.
    ///
    /// # Errors
    /// The database cannot be written.
    pub fn add(&self, record: &Record, most: Most) -> Result<Added, Error> {
        let connection = self.connection();
        let query =
            "SELECT count(*), count(*) FILTER (WHERE who = ?1) FROM builds WHERE status = 'QUEUED'";
        let (all, own): (u32, u32) =
            connection.query_row(query, [&record.who], |row| Ok((row.get(0)?, row.get(1)?)))?;
        if all >= most.all {
            return Ok(Added::AllWait);
        }
        if own >= most.of_one {
            return Ok(Added::OwnWait);
        }
        connection.execute(
            "INSERT INTO builds (id, project, location, created, who, status, priority, attempt, cancelled, retry_of, build, request, task)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)",
            (
                &record.build.id,
                &record.build.project_id,
                &record.location,
                record.created,
                &record.who,
                record.build.status.name(),
                record.task.priority,
                record.attempt,
                record.cancelled,
                &record.retry_of,
                serde_json::to_string(&record.build)?,
                serde_json::to_string(&record.request)?,
                serde_json::to_string(&record.task)?,
            ),
        )?;
        Ok(Added::Waits)
    }

    /// A build by its id.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn get(&self, id: &str) -> Result<Option<Record>, Error> {
        let connection = self.reader();
        let mut query =
            connection.prepare(&format!("SELECT {COLUMNS} FROM builds WHERE id = ?1"))?;
        let found = query.query_row([id], |row| Ok(record(row))).optional()?;
        found.transpose()
    }

    /// Changes a build, unless nothing has to be changed; `change` says whether. Returns what is there afterwards.
    ///
    /// # Errors
    /// The database cannot be read or written.
    pub fn change(
        &self,
        id: &str,
        change: impl FnOnce(&mut Record) -> bool,
    ) -> Result<Option<Record>, Error> {
        changed(&mut self.connection(), id, change)
    }

    /// The same for what is read from the attempt's files again if it is lost with the machine's power.
    ///
    /// # Errors
    /// The database cannot be read or written.
    pub(crate) fn follow(
        &self,
        id: &str,
        change: impl FnOnce(&mut Record) -> bool,
    ) -> Result<Option<Record>, Error> {
        changed(&mut *self.passing()?, id, change)
    }

    /// The builds of a status in the order in which they are to run.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn with_status(&self, status: Status) -> Result<Vec<Record>, Error> {
        let connection = self.reader();
        let mut query = connection.prepare(&format!(
            "SELECT {COLUMNS} FROM builds WHERE status = ?1 ORDER BY priority DESC, created, id"
        ))?;
        let rows = query.query_map([status.name()], |row| Ok(record(row)))?;
        rows.map(|row| row?).collect()
    }

    /// The builds that wait in the order in which they are to run.
    ///
    /// # Errors
    /// The database cannot be read.
    pub(crate) fn waiting(&self) -> Result<Vec<Waiting>, Error> {
        let connection = self.reader();
        let mut query = connection.prepare(
            "SELECT id, created, json_extract(task, '$.queue_ttl') FROM builds WHERE status = 'QUEUED'
             ORDER BY priority DESC, created, id",
        )?;
        let rows = query.query_map((), |row| {
            Ok(Waiting {
                id: row.get(0)?,
                created: row.get(1)?,
                ttl: row.get(2)?,
            })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// The newest builds of a project that `fits` takes, `most` of them; behind `after`, if that is said.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn list(
        &self,
        project: &str,
        location: Option<&str>,
        after: Option<&Page>,
        most: usize,
        fits: impl Fn(&Record) -> bool,
    ) -> Result<Vec<Record>, Error> {
        let connection = self.reader();
        let mut query = connection.prepare(&format!(
            "SELECT {COLUMNS} FROM builds
             WHERE project = ?1 AND (?2 IS NULL OR location = ?2)
             AND (?3 IS NULL OR (created, id) < (?3, ?4))
             ORDER BY created DESC, id DESC"
        ))?;
        let after = after.map(|page| (page.created, page.id.as_str())).unzip();
        let mut rows = query.query((project, location, after.0, after.1))?;
        let mut found = Vec::new();
        while found.len() < most
            && let Some(row) = rows.next()?
        {
            let record = record(row)?;
            if fits(&record) {
                found.push(record);
            }
        }
        Ok(found)
    }

    /// Writes down that an attempt began.
    ///
    /// # Errors
    /// The database cannot be written.
    pub fn attempt_began(&self, build: &str, number: u32) -> Result<(), Error> {
        self.passing()?.execute(
            "INSERT OR IGNORE INTO attempts (build, number, began, status) VALUES (?1, ?2, ?3, 'WORKING')",
            (build, number, time::now()),
        )?;
        Ok(())
    }

    /// Writes down how an attempt ended, and why if it is not the build's end.
    ///
    /// # Errors
    /// The database cannot be written.
    pub fn attempt_ended(
        &self,
        build: &str,
        number: u32,
        status: Status,
        reason: Option<&str>,
    ) -> Result<(), Error> {
        self.passing()?.execute(
            "UPDATE attempts SET ended = ?3, status = ?4, reason = ?5 WHERE build = ?1 AND number = ?2",
            (build, number, time::now(), status.name(), reason),
        )?;
        Ok(())
    }
}

fn changed(
    connection: &mut Connection,
    id: &str,
    change: impl FnOnce(&mut Record) -> bool,
) -> Result<Option<Record>, Error> {
    let transaction = connection.transaction()?;
    let found = transaction
        .query_row(
            &format!("SELECT {COLUMNS} FROM builds WHERE id = ?1"),
            [id],
            |row| Ok(record(row)),
        )
        .optional()?;
    let Some(mut record) = found.transpose()? else {
        return Ok(None);
    };
    let before = record.build.status;
    if change(&mut record) {
        if record.build.status != before {
            notices::note(&transaction, id, record.build.status.name())?;
        }
        transaction.execute(
            "UPDATE builds SET status = ?2, attempt = ?3, cancelled = ?4, build = ?5 WHERE id = ?1",
            (
                id,
                record.build.status.name(),
                record.attempt,
                record.cancelled,
                serde_json::to_string(&record.build)?,
            ),
        )?;
        transaction.commit()?;
    }
    Ok(Some(record))
}

pub(super) fn record(row: &Row<'_>) -> Result<Record, Error> {
    let json = |column: usize| row.get::<_, String>(column);
    Ok(Record {
        location: row.get(0)?,
        created: row.get(1)?,
        who: row.get(2)?,
        attempt: row.get(3)?,
        cancelled: row.get(4)?,
        retry_of: row.get(5)?,
        build: serde_json::from_str(&json(6)?)?,
        request: serde_json::from_str(&json(7)?)?,
        task: serde_json::from_str(&json(8)?)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(id: &str, created: i64, priority: i32) -> Record {
        Record {
            location: "global".to_owned(),
            created,
            who: "ann".to_owned(),
            attempt: 0,
            cancelled: false,
            retry_of: None,
            build: Build {
                id: id.to_owned(),
                project_id: "p".to_owned(),
                status: Status::Queued,
                ..Build::default()
            },
            request: Value::Null,
            task: Task {
                steps: Vec::new(),
                artifacts: None,
                images: Vec::new(),
                secrets: std::collections::BTreeMap::new(),
                git: None,
                timeout: 1.0,
                queue_ttl: 1.0,
                cpus: 1,
                priority,
            },
        }
    }

    fn ids(records: &[Record]) -> Vec<&str> {
        records
            .iter()
            .map(|record| record.build.id.as_str())
            .collect()
    }

    #[test]
    fn builds_are_kept_listed_and_changed() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let most = Most { all: 4, of_one: 4 };
        for (id, created, priority) in [("a", 1, 0), ("b", 2, -1), ("c", 2, 1), ("d", 3, 0)] {
            let added = store.add(&record(id, created, priority), most);
            assert_eq!(added.unwrap(), Added::Waits);
        }
        assert_eq!(store.add(&record("e", 4, 0), most).unwrap(), Added::AllWait);
        let most = Most { all: 5, of_one: 4 };
        assert_eq!(store.add(&record("e", 4, 0), most).unwrap(), Added::OwnWait);
        let all = store.list("p", None, None, 2, |_| true).unwrap();
        assert_eq!(ids(&all), ["d", "c"]);
        let page = Page {
            created: 2,
            id: "c".to_owned(),
        };
        let rest = store.list("p", Some("global"), Some(&page), 9, |record| {
            record.build.id != "a"
        });
        assert_eq!(ids(&rest.unwrap()), ["b"]);
        assert!(store.list("q", None, None, 9, |_| true).unwrap().is_empty());
        let queue = store.with_status(Status::Queued).unwrap();
        assert_eq!(ids(&queue), ["c", "a", "d", "b"]);
        let waiting = store.waiting().unwrap().into_iter();
        let waiting: Vec<_> = waiting.map(|one| (one.id, one.created, one.ttl)).collect();
        let expected = [("c", 2), ("a", 1), ("d", 3), ("b", 2)];
        assert_eq!(
            waiting,
            expected.map(|(id, created)| (id.to_owned(), created, 1.0))
        );

        let changed = store.change("a", |record| {
            record.build.status = Status::Working;
            record.attempt = 1;
            true
        });
        assert_eq!(changed.unwrap().unwrap().attempt, 1);
        drop(store);
        let store = Store::open(dir.path()).unwrap();
        assert_eq!(ids(&store.with_status(Status::Working).unwrap()), ["a"]);
        assert!(store.change("nobody", |_| true).unwrap().is_none());
    }
}
