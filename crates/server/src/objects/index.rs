//! Which objects there are: an SQLite database beside their contents.
//!
//! A content gets its place before the database knows the object, and is removed after the database has forgotten it. In between its
//! place is in the table `doomed`; what stands there when the server starts is left over from one that was killed, and goes. So an
//! object that the database knows has its content, and a content that it does not know does not stay.

mod uploads;

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};

use super::condition::Conditions;
use super::error::{ApiError, Result};
use super::ledger::{Change, ENTRY, Ledger, Owner};
use super::name::{BucketName, ObjectName, place};
use super::resource::{Attributes, Bucket, Object};
use super::schema::{self, failed};
pub(super) use uploads::Upload;

/// Bytes that an object counts.
fn cost() -> String {
    format!("size + length(name) + length(CAST(attributes AS BLOB)) + {ENTRY}")
}

/// The database; a handle that can be cloned.
#[derive(Clone, Debug)]
pub(super) struct Index {
    connection: Arc<Mutex<Connection>>,
    ledger: Ledger,
}

/// A stored content that is to become an object.
#[derive(Clone, Debug)]
pub(super) struct Content {
    pub(super) size: u64,
    pub(super) md5: [u8; 16],
    pub(super) crc32c: u32,
}

/// What a list shows.
#[derive(Debug, Default)]
pub(super) struct Page {
    pub(super) objects: Vec<Object>,
    pub(super) prefixes: Vec<String>,
    /// The name that the next page begins with.
    pub(super) next: Option<Vec<u8>>,
}

/// What of a bucket is asked for.
#[derive(Clone, Debug, Default)]
pub(super) struct Selection {
    pub(super) prefix: String,
    pub(super) delimiter: String,
    /// The first name, from a page before or from the client.
    pub(super) from: Vec<u8>,
    /// The first name that is not wanted any more.
    pub(super) until: Option<String>,
    /// Objects and prefixes, at most.
    pub(super) most: usize,
    /// Objects whose names end with the delimiter are listed beside their prefixes.
    pub(super) trailing: bool,
}

impl Index {
    /// Opens the database, or makes it.
    pub(super) fn open(path: &Path) -> Result<Index> {
        let mut connection = Connection::open(path).map_err(failed)?;
        connection
            .execute_batch(
                "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA foreign_keys=ON;",
            )
            .map_err(failed)?;
        schema::bring(&mut connection, path)?;
        let ledger = Ledger::default();
        ledger.apply(held(&connection).map_err(failed)?);
        Ok(Index {
            connection: Arc::new(Mutex::new(connection)),
            ledger,
        })
    }

    /// What each owner holds.
    pub(super) fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Runs something on the database, away from the threads that serve.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Database<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let index = self.clone();
        let done = tokio::task::spawn_blocking(move || index.run_now(work)).await;
        done.unwrap_or_else(|error| Err(ApiError::internal(error.to_string())))
    }

    /// The same on this thread. All of `work` happens, or nothing.
    pub(super) fn run_now<T>(
        &self,
        work: impl FnOnce(&mut Database<'_>) -> Result<T>,
    ) -> Result<T> {
        let mut connection = self.lock();
        let mut database = Database {
            transaction: connection.transaction().map_err(failed)?,
            ledger: &self.ledger,
            changes: Vec::new(),
        };
        let result = work(&mut database)?;
        let Database {
            transaction,
            changes,
            ..
        } = database;
        transaction.commit().map_err(failed)?;
        self.ledger.apply(changes);
        Ok(result)
    }

    fn lock(&self) -> MutexGuard<'_, Connection> {
        // A transaction that panicked was rolled back.
        self.connection
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// What owners hold when the server starts.
fn held(connection: &Connection) -> rusqlite::Result<Vec<Change>> {
    let query = format!(
        "SELECT owner, sum({}), count(*) FROM object GROUP BY owner
         UNION ALL SELECT owner, sum(received), 0 FROM upload WHERE generation IS NULL GROUP BY owner",
        cost()
    );
    let mut statement = connection.prepare(&query)?;
    let rows = statement.query_map([], |row| {
        Ok(Change {
            owner: row.get(0)?,
            bytes: row.get(1)?,
            objects: row.get(2)?,
        })
    })?;
    rows.collect()
}

/// The database inside of a transaction.
pub(super) struct Database<'a> {
    transaction: Transaction<'a>,
    ledger: &'a Ledger,
    /// What owners hold more or less by this transaction.
    changes: Vec<Change>,
}

impl Database<'_> {
    /// Adds a bucket, if its owner has not `of_one` already, and there are not `of_all`.
    pub(super) fn add_bucket(
        &mut self,
        bucket: &Bucket,
        owner: &Owner,
        (of_one, of_all): (u32, u32),
    ) -> Result<()> {
        let added = self.transaction.execute(
            "INSERT OR IGNORE INTO bucket (name, project, created, owner) VALUES (?1, ?2, ?3, ?4)",
            params![
                bucket.name.as_str(),
                bucket.project,
                bucket.created,
                owner.name()
            ],
        );
        let query = "SELECT count(*) FILTER (WHERE owner = ?1), count(*) FROM bucket";
        let (own, all) = self
            .transaction
            .query_row(query, [owner.name()], |row| {
                Ok((row.get::<_, u32>(0)?, row.get::<_, u32>(1)?))
            })
            .map_err(failed)?;
        match added.map_err(failed)? {
            0 => Err(ApiError::conflict(format!(
                "Your previous request to create the named bucket succeeded and you already own it: {}",
                bucket.name
            ))),
            _ if owner.is_limited() && (own > of_one || all > of_all) => {
                Err(ApiError::quota(format!(
                    "{} may have {of_one} buckets, and all together {of_all}; remove some that are not needed",
                    owner.name()
                )))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn bucket(&self, name: &BucketName) -> Result<Bucket> {
        let query = "SELECT project, created FROM bucket WHERE name = ?1";
        let found = self.transaction.query_row(query, [name.as_str()], |row| {
            Ok(Bucket {
                name: name.clone(),
                project: row.get(0)?,
                created: row.get(1)?,
            })
        });
        found
            .optional()
            .map_err(failed)?
            .ok_or_else(|| ApiError::no_bucket(name.as_str()))
    }

    pub(super) fn buckets(
        &self,
        project: &str,
        prefix: &str,
        from: &str,
        most: usize,
    ) -> Result<Vec<Bucket>> {
        let query = "SELECT name, project, created FROM bucket WHERE name >= ?1 AND name >= ?2 AND substr(name, 1, length(?1)) = ?1
             AND (?4 = '' OR project IN ('', ?4)) ORDER BY name LIMIT ?3";
        let mut statement = self.transaction.prepare(query).map_err(failed)?;
        let rows = statement.query_map(params![prefix, from, rows(most), project], |row| {
            Ok((row.get::<_, String>(0)?, row.get(1)?, row.get(2)?))
        });
        let mut buckets = Vec::new();
        for row in rows.map_err(failed)? {
            let (name, project, created) = row.map_err(failed)?;
            let name = BucketName::new(&name)?;
            buckets.push(Bucket {
                name,
                project,
                created,
            });
        }
        Ok(buckets)
    }

    pub(super) fn remove_bucket(&mut self, name: &BucketName) -> Result<()> {
        self.bucket(name)?;
        let query = "SELECT EXISTS (SELECT 1 FROM object WHERE bucket = ?1)";
        let used: bool = self
            .transaction
            .query_row(query, [name.as_str()], |row| row.get(0))
            .map_err(failed)?;
        if used {
            return Err(ApiError::conflict(
                "The bucket you tried to delete is not empty.",
            ));
        }
        self.transaction
            .execute("DELETE FROM bucket WHERE name = ?1", [name.as_str()])
            .map_err(failed)?;
        Ok(())
    }

    /// Returns a new generation, higher than all before; its content may then be put into its place.
    pub(super) fn begin(
        &mut self,
        bucket: &BucketName,
        name: &ObjectName,
        now: i64,
    ) -> Result<i64> {
        self.bucket(bucket)?;
        let query = "UPDATE generation SET last = max(last + 1, ?1) RETURNING last";
        let generation = self
            .transaction
            .query_row(query, [now], |row| row.get(0))
            .map_err(failed)?;
        self.doom(&place(bucket, name, generation))?;
        Ok(generation)
    }

    /// Makes a content that is in its place the object of that name. Returns it, and the place of what it replaces.
    ///
    /// Its owner has at most `objects` then, if that is said.
    pub(super) fn commit(
        &mut self,
        object: &Object,
        owner: &Owner,
        conditions: &Conditions,
        objects: u64,
    ) -> Result<Option<String>> {
        let (bucket, name) = (&object.bucket, &object.name);
        self.bucket(bucket)?;
        let old = self.find(bucket, name)?;
        conditions.check(old.as_ref())?;
        let attributes = text(&object.attributes)?;
        let size = i64::try_from(object.size).map_err(|_| ApiError::too_large("too many bytes"))?;
        if owner.is_limited() && old.is_none() && self.ledger.held(owner.name()).objects >= objects
        {
            return Err(ApiError::quota(format!(
                "{} holds {objects} objects, as many as it may; remove some that are not needed",
                owner.name()
            )));
        }
        let query = "INSERT OR REPLACE INTO object (bucket, name, generation, metageneration, size, md5, crc32c, attributes, created, updated, owner)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)";
        let values = params![
            bucket.as_str(),
            name.as_str().as_bytes(),
            object.generation,
            object.metageneration,
            size,
            object.md5,
            object.crc32c,
            attributes,
            object.created,
            object.updated,
            owner.name()
        ];
        self.counted(bucket, name, |transaction| {
            transaction.execute(query, values)
        })?;
        let replaced = old.map(|old| place(bucket, name, old.generation));
        if let Some(place) = &replaced {
            self.doom(place)?;
        }
        self.spare(&place(bucket, name, object.generation))?;
        Ok(replaced)
    }

    /// Says something else about an object, if what its owner holds more by it fits.
    pub(super) fn set_attributes(&mut self, object: &Object, quota: Option<u64>) -> Result<()> {
        let query = "UPDATE object SET attributes = ?3, metageneration = ?4, updated = ?5 WHERE bucket = ?1 AND name = ?2";
        let values = params![
            object.bucket.as_str(),
            object.name.as_str().as_bytes(),
            text(&object.attributes)?,
            object.metageneration,
            object.updated
        ];
        self.counted(&object.bucket, &object.name, |transaction| {
            transaction.execute(query, values)
        })?;
        match self.changes.iter().find(|change| change.bytes > 0) {
            Some(grown) if !grown.owner.is_empty() => {
                let bytes = grown.bytes.cast_unsigned();
                self.ledger.fits(&grown.owner, bytes, quota)
            }
            _ => Ok(()),
        }
    }

    /// Changes an object, and notes what its owners hold more or less by it.
    fn counted(
        &mut self,
        bucket: &BucketName,
        name: &ObjectName,
        change: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<usize>,
    ) -> Result<()> {
        let query = format!(
            "SELECT owner, {} FROM object WHERE bucket = ?1 AND name = ?2",
            cost()
        );
        let cost = |transaction: &Transaction<'_>| {
            let key = params![bucket.as_str(), name.as_str().as_bytes()];
            let found = transaction.query_row(&query, key, |row| {
                Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?))
            });
            found.optional()
        };
        let before = cost(&self.transaction).map_err(failed)?;
        change(&self.transaction).map_err(failed)?;
        let after = cost(&self.transaction).map_err(failed)?;
        self.changed(before, after, 1);
        Ok(())
    }

    fn changed(
        &mut self,
        before: Option<(String, i64)>,
        after: Option<(String, i64)>,
        objects: i64,
    ) {
        let gone = before.map(|(owner, bytes)| (owner, -bytes, -objects));
        let new = after.map(|(owner, bytes)| (owner, bytes, objects));
        match (gone, new) {
            (Some(gone), Some(new)) if gone.0 == new.0 => {
                self.change(gone.0, gone.1 + new.1, 0);
            }
            (gone, new) => {
                for (owner, bytes, objects) in gone.into_iter().chain(new) {
                    self.change(owner, bytes, objects);
                }
            }
        }
    }

    fn change(&mut self, owner: String, bytes: i64, objects: i64) {
        self.changes.push(Change {
            owner,
            bytes,
            objects,
        });
    }

    /// Forgets an object. Returns the place of its content.
    pub(super) fn remove(
        &mut self,
        bucket: &BucketName,
        name: &ObjectName,
        generation: Option<i64>,
        conditions: &Conditions,
    ) -> Result<String> {
        let old = self.object(bucket, name, generation)?;
        conditions.check(Some(&old))?;
        self.counted(bucket, name, |transaction| {
            transaction.execute(
                "DELETE FROM object WHERE bucket = ?1 AND name = ?2",
                params![bucket.as_str(), name.as_str().as_bytes()],
            )
        })?;
        let place = place(bucket, name, old.generation);
        self.doom(&place)?;
        Ok(place)
    }

    /// Returns an object, of that very generation if one is said.
    pub(super) fn object(
        &self,
        bucket: &BucketName,
        name: &ObjectName,
        generation: Option<i64>,
    ) -> Result<Object> {
        self.bucket(bucket)?;
        self.find(bucket, name)?
            .filter(|object| generation.is_none_or(|wanted| wanted == object.generation))
            .ok_or_else(|| ApiError::no_object(bucket.as_str(), name.as_str()))
    }

    pub(super) fn find(&self, bucket: &BucketName, name: &ObjectName) -> Result<Option<Object>> {
        let query = format!("SELECT {COLUMNS} FROM object WHERE bucket = ?1 AND name = ?2");
        let mut statement = self.transaction.prepare(&query).map_err(failed)?;
        let found = statement.query_row(
            params![bucket.as_str(), name.as_str().as_bytes()],
            Raw::read,
        );
        let raw = found.optional().map_err(failed)?;
        raw.map(|raw| raw.object(bucket)).transpose()
    }

    pub(super) fn list(&self, bucket: &BucketName, selection: &Selection) -> Result<Page> {
        self.bucket(bucket)?;
        let mut page = Page::default();
        let mut from = selection
            .from
            .clone()
            .max(selection.prefix.clone().into_bytes());
        while let Some(rows) = self.rows(bucket, selection, &from)? {
            for object in rows {
                let name = object.name.as_str();
                if page.objects.len() + page.prefixes.len() >= selection.most {
                    page.next = Some(name.as_bytes().to_vec());
                    return Ok(page);
                }
                from = [name.as_bytes(), &[0]].concat();
                let Some(prefix) = common(name, selection) else {
                    page.objects.push(object);
                    continue;
                };
                from = successor(prefix);
                page.prefixes.push(prefix.to_owned());
                if selection.trailing && prefix == name {
                    page.objects.push(object);
                }
                // What has the same prefix is skipped by asking anew.
                break;
            }
        }
        Ok(page)
    }

    /// The next objects, `None` if there are no more.
    fn rows(
        &self,
        bucket: &BucketName,
        selection: &Selection,
        from: &[u8],
    ) -> Result<Option<Vec<Object>>> {
        let until = match (&selection.until, selection.prefix.as_str()) {
            (None, "") => None,
            (Some(until), "") => Some(until.clone().into_bytes()),
            (None, prefix) => Some(successor(prefix)),
            (Some(until), prefix) => Some(until.clone().into_bytes().min(successor(prefix))),
        };
        let count = if selection.delimiter.is_empty() {
            selection.most + 1
        } else {
            64
        };
        let query = format!(
            "SELECT {COLUMNS} FROM object WHERE bucket = ?1 AND name >= ?2 AND (?3 IS NULL OR name < ?3) ORDER BY name LIMIT ?4"
        );
        let mut statement = self.transaction.prepare(&query).map_err(failed)?;
        let rows = statement.query_map(
            params![bucket.as_str(), from, until, rows(count)],
            Raw::read,
        );
        let mut objects = Vec::new();
        for row in rows.map_err(failed)? {
            objects.push(row.map_err(failed)?.object(bucket)?);
        }
        Ok((!objects.is_empty()).then_some(objects))
    }

    fn doom(&mut self, place: &str) -> Result<()> {
        let query = "INSERT OR IGNORE INTO doomed (place) VALUES (?1)";
        self.transaction.execute(query, [place]).map_err(failed)?;
        Ok(())
    }

    /// A place holds an object now, or nothing any more.
    pub(super) fn spare(&mut self, place: &str) -> Result<()> {
        let query = "DELETE FROM doomed WHERE place = ?1";
        self.transaction.execute(query, [place]).map_err(failed)?;
        Ok(())
    }

    /// Returns the id of this index, and whether it names contents.
    pub(super) fn identity(&self) -> Result<(String, bool)> {
        let query = "SELECT id, EXISTS (SELECT 1 FROM object) FROM identity";
        let found = self
            .transaction
            .query_row(query, [], |row| Ok((row.get(0)?, row.get(1)?)));
        found.map_err(failed)
    }

    /// Returns all places whose content is to go.
    pub(super) fn doomed(&self) -> Result<Vec<String>> {
        let mut statement = self
            .transaction
            .prepare("SELECT place FROM doomed")
            .map_err(failed)?;
        let rows = statement.query_map([], |row| row.get(0)).map_err(failed)?;
        rows.collect::<rusqlite::Result<_>>().map_err(failed)
    }
}

const COLUMNS: &str =
    "name, generation, metageneration, size, md5, crc32c, attributes, created, updated";

/// A row of objects as it is in the database.
struct Raw {
    name: Vec<u8>,
    generation: i64,
    metageneration: i64,
    size: i64,
    md5: [u8; 16],
    crc32c: u32,
    attributes: String,
    created: i64,
    updated: i64,
}

impl Raw {
    fn read(row: &Row<'_>) -> rusqlite::Result<Raw> {
        Ok(Raw {
            name: row.get(0)?,
            generation: row.get(1)?,
            metageneration: row.get(2)?,
            size: row.get(3)?,
            md5: row.get(4)?,
            crc32c: row.get(5)?,
            attributes: row.get(6)?,
            created: row.get(7)?,
            updated: row.get(8)?,
        })
    }

    fn object(self, bucket: &BucketName) -> Result<Object> {
        let broken =
            |why: String| ApiError::internal(format!("the index of objects is damaged: {why}"));
        let name = String::from_utf8(self.name).map_err(|error| broken(error.to_string()))?;
        let attributes: Attributes =
            serde_json::from_str(&self.attributes).map_err(|error| broken(error.to_string()))?;
        Ok(Object {
            bucket: bucket.clone(),
            name: ObjectName::new(&name)?,
            generation: self.generation,
            metageneration: self.metageneration,
            size: self.size.cast_unsigned(),
            md5: self.md5,
            crc32c: self.crc32c,
            attributes,
            created: self.created,
            updated: self.updated,
        })
    }
}

/// A number of rows as the database counts them.
fn rows(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// The prefix that a name is shown as, up to the first delimiter behind the prefix that was asked for.
fn common<'a>(name: &'a str, selection: &Selection) -> Option<&'a str> {
    if selection.delimiter.is_empty() {
        return None;
    }
    let rest = name.strip_prefix(selection.prefix.as_str())?;
    let at = rest.find(selection.delimiter.as_str())?;
    name.get(..selection.prefix.len() + at + selection.delimiter.len())
}

/// The smallest text of bytes that is behind all that begin with this one. UTF-8 has no byte 0xFF that could not be raised.
fn successor(prefix: &str) -> Vec<u8> {
    let mut bytes = prefix.as_bytes().to_vec();
    if let Some(last) = bytes.last_mut() {
        *last = last.saturating_add(1);
    }
    bytes
}

fn text(attributes: &Attributes) -> Result<String> {
    serde_json::to_string(attributes).map_err(|error| ApiError::internal(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index() -> (tempfile::TempDir, Index, BucketName) {
        let directory = tempfile::tempdir().unwrap();
        let index = Index::open(&directory.path().join("index.db")).unwrap();
        let name = BucketName::new("demo").unwrap();
        let bucket = Bucket {
            name: name.clone(),
            project: "p".to_owned(),
            created: 1,
        };
        index
            .run_now(|database| database.add_bucket(&bucket, &Owner::default(), (0, 0)))
            .unwrap();
        (directory, index, name)
    }

    fn add(index: &Index, bucket: &BucketName, name: &str) -> Object {
        let name = ObjectName::new(name).unwrap();
        index
            .run_now(|database| {
                let generation = database.begin(bucket, &name, 5)?;
                let object = Object {
                    bucket: bucket.clone(),
                    name,
                    generation,
                    metageneration: 1,
                    size: 3,
                    md5: [1; 16],
                    crc32c: 4,
                    attributes: Attributes::default(),
                    created: 5,
                    updated: 5,
                };
                database.commit(&object, &Owner::of("ann"), &Conditions::default(), 100)?;
                Ok(object)
            })
            .unwrap()
    }

    fn names(
        index: &Index,
        bucket: &BucketName,
        selection: &Selection,
    ) -> (Vec<String>, Vec<String>, usize) {
        let (mut objects, mut prefixes, mut pages) = (Vec::new(), Vec::new(), 0);
        let mut selection = selection.clone();
        loop {
            let page = index
                .run_now(|database| database.list(bucket, &selection))
                .unwrap();
            pages += 1;
            objects.extend(page.objects.iter().map(|object| object.name.to_string()));
            prefixes.extend(page.prefixes);
            match page.next {
                Some(next) => selection.from = next,
                None => return (objects, prefixes, pages),
            }
        }
    }

    #[test]
    fn lists_have_prefixes_and_pages() {
        let (_directory, index, bucket) = index();
        for name in ["a", "a/1", "a/2", "a/b/3", "a0", "b/", "b/x", "c", "ü"] {
            add(&index, &bucket, name);
        }
        for most in [1, 2, 3, 100] {
            let all = Selection {
                most,
                ..Selection::default()
            };
            let (objects, _, pages) = names(&index, &bucket, &all);
            assert_eq!(
                objects,
                ["a", "a/1", "a/2", "a/b/3", "a0", "b/", "b/x", "c", "ü"]
            );
            assert!(most < 100 || pages == 1);
            let flat = Selection {
                delimiter: "/".to_owned(),
                ..all.clone()
            };
            let (objects, prefixes, _) = names(&index, &bucket, &flat);
            assert_eq!(
                (objects, prefixes),
                (strings(&["a", "a0", "c", "ü"]), strings(&["a/", "b/"])),
                "{most}"
            );
            let below = Selection {
                prefix: "a/".to_owned(),
                ..flat.clone()
            };
            let (objects, prefixes, _) = names(&index, &bucket, &below);
            assert_eq!(
                (objects, prefixes),
                (strings(&["a/1", "a/2"]), strings(&["a/b/"])),
                "{most}"
            );
            let between = Selection {
                from: b"a/2".to_vec(),
                until: Some("b/x".to_owned()),
                ..all
            };
            assert_eq!(
                names(&index, &bucket, &between).0,
                ["a/2", "a/b/3", "a0", "b/"]
            );
        }
        let trailing = Selection {
            delimiter: "/".to_owned(),
            most: 100,
            trailing: true,
            ..Selection::default()
        };
        assert_eq!(
            names(&index, &bucket, &trailing).0,
            ["a", "a0", "b/", "c", "ü"]
        );
    }

    fn strings(list: &[&str]) -> Vec<String> {
        list.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn generations_rise_though_the_clock_stands() {
        let (_directory, index, bucket) = index();
        let (first, second) = (add(&index, &bucket, "x"), add(&index, &bucket, "x"));
        assert!(second.generation > first.generation);
        // What was replaced is to be removed; what is there is not.
        let doomed = index.run_now(|database| database.doomed()).unwrap();
        assert_eq!(doomed, [place(&bucket, &first.name, first.generation)]);
    }

    #[test]
    fn an_index_of_a_newer_kiln_is_left_alone() {
        let (directory, index, _) = index();
        index
            .lock()
            .execute_batch("PRAGMA user_version=99")
            .unwrap();
        let error = Index::open(&directory.path().join("index.db")).unwrap_err();
        assert!(error.to_string().contains("newer Kiln"), "{error}");
    }

    #[test]
    fn a_bucket_goes_when_it_is_empty() {
        let (_directory, index, bucket) = index();
        let object = add(&index, &bucket, "x");
        let status = |result: Result<()>| result.unwrap_err().status().as_u16();
        assert_eq!(
            status(index.run_now(|database| database.remove_bucket(&bucket))),
            409
        );
        index
            .run_now(|database| {
                database.remove(&bucket, &object.name, None, &Conditions::default())
            })
            .unwrap();
        index
            .run_now(|database| database.remove_bucket(&bucket))
            .unwrap();
        assert_eq!(
            status(index.run_now(|database| database.remove_bucket(&bucket))),
            404
        );
    }
}
