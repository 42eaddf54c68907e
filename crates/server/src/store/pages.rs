//! What the page asks for: builds of all projects, attempts, and sessions.

use rusqlite::OptionalExtension;

use super::builds::{COLUMNS, Page, Record, record};
use super::database::Store;
use super::error::Error;
use super::tokens::{Token, read};

/// An attempt at a build. Times are nanoseconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttemptRow {
    /// Counted from 1.
    pub number: u32,
    /// When it began.
    pub began: i64,
    /// When it ended.
    pub ended: Option<i64>,
    /// Cloud Build's word.
    pub status: String,
    /// Why it ended, unless it ended well.
    pub reason: Option<String>,
}

/// Builds that are read at once.
const AT_ONCE: usize = 100;

impl Store {
    /// The newest builds of all projects, `most` of them; behind `after`, if that is said.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn newest(
        &self,
        after: Option<&Page>,
        most: usize,
        fits: impl Fn(&Record) -> bool,
    ) -> Result<Vec<Record>, Error> {
        let mut found = Vec::new();
        let mut after = after.cloned();
        loop {
            let some = self.some(after.as_ref())?;
            let is_end = some.len() < AT_ONCE;
            after = some.last().map(|last| Page {
                created: last.created,
                id: last.build.id.clone(),
            });
            for record in some.into_iter().filter(|record| fits(record)) {
                found.push(record);
                if found.len() == most {
                    return Ok(found);
                }
            }
            if is_end {
                return Ok(found);
            }
        }
    }

    /// The next builds of all projects. Others get at the database between two of these, however long a search takes.
    fn some(&self, after: Option<&Page>) -> Result<Vec<Record>, Error> {
        let connection = self.reader();
        let mut query = connection.prepare(&format!(
            "SELECT {COLUMNS} FROM builds WHERE (created, id) < (?1, ?2) ORDER BY created DESC, id DESC LIMIT {AT_ONCE}"
        ))?;
        let after = after.map_or((i64::MAX, ""), |page| (page.created, page.id.as_str()));
        let rows = query.query_map(after, |row| Ok(record(row)))?;
        rows.map(|row| row?).collect()
    }

    /// The attempts at a build, in their order.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn attempts(&self, build: &str) -> Result<Vec<AttemptRow>, Error> {
        let connection = self.reader();
        let mut query = connection.prepare(
            "SELECT number, began, ended, status, reason FROM attempts WHERE build = ?1 ORDER BY number",
        )?;
        let rows = query.query_map([build], |row| {
            Ok(AttemptRow {
                number: row.get(0)?,
                began: row.get(1)?,
                ended: row.get(2)?,
                status: row.get(3)?,
                reason: row.get(4)?,
            })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Keeps a session's hash, and forgets those that are over.
    ///
    /// # Errors
    /// The database cannot be written.
    pub fn begin_session(
        &self,
        hash: &[u8],
        token: &str,
        now: i64,
        ends: i64,
    ) -> Result<(), Error> {
        let connection = self.connection();
        connection.execute("DELETE FROM sessions WHERE ends < ?1", [now])?;
        connection.execute(
            "INSERT INTO sessions (hash, token, ends) VALUES (?1, ?2, ?3)",
            (hash, token, ends),
        )?;
        Ok(())
    }

    /// The token of a session.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn session(&self, hash: &[u8], now: i64) -> Result<Option<Token>, Error> {
        let connection = self.reader();
        let mut query = connection.prepare(
            "SELECT name, role, created FROM tokens JOIN sessions ON token = name
             WHERE sessions.hash = ?1 AND ends >= ?2",
        )?;
        let found = query.query_row((hash, now), read).optional()?;
        Ok(found.flatten())
    }

    /// The hash of the token of a session.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn token_of_session(&self, hash: &[u8], now: i64) -> Result<Option<Vec<u8>>, Error> {
        let connection = self.connection();
        let query = "SELECT tokens.hash FROM tokens JOIN sessions ON token = name
             WHERE sessions.hash = ?1 AND ends >= ?2";
        let found = connection.query_row(query, (hash, now), |row| row.get(0));
        Ok(found.optional()?)
    }

    /// Ends a session.
    ///
    /// # Errors
    /// The database cannot be written.
    pub fn end_session(&self, hash: &[u8]) -> Result<(), Error> {
        self.connection()
            .execute("DELETE FROM sessions WHERE hash = ?1", [hash])?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::Role;
    use super::*;

    #[test]
    fn a_session_is_as_long_as_its_time_and_its_token() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let token = Token {
            name: "ann".to_owned(),
            role: Role::Submit,
            created: 1,
        };
        store.add_token(&token, b"t").unwrap();
        store.begin_session(b"s", "ann", 5, 10).unwrap();
        assert_eq!(store.session(b"s", 10).unwrap(), Some(token));
        assert_eq!(store.session(b"s", 11).unwrap(), None);
        let hash = |now| store.token_of_session(b"s", now).unwrap();
        assert_eq!((hash(10), hash(11)), (Some(b"t".to_vec()), None));
        assert_eq!(store.session(b"t", 6).unwrap(), None);
        store.begin_session(b"r", "ann", 6, 20).unwrap();
        store.end_session(b"r").unwrap();
        assert_eq!(store.session(b"r", 7).unwrap(), None);
        store.remove_token("ann").unwrap();
        assert_eq!(store.session(b"s", 6).unwrap(), None);
    }
}
