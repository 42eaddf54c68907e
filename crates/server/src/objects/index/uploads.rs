//! Resumable uploads in the index.

use rusqlite::{OptionalExtension, params};

use super::super::error::{ApiError, Result};
use super::super::name::{BucketName, ObjectName};
use super::super::schema::failed;
use super::Database;

/// How long an upload may be left alone, in microseconds: a week, as Storage says.
const UPLOAD_LIFETIME: i64 = 7 * 24 * 3600 * 1_000_000;
/// The same of one that nothing was ever sent for.
const UNUSED_LIFETIME: i64 = 3600 * 1_000_000;
/// Uploads of an owner whose last answer can be asked again after they are done.
const REMEMBERED: i64 = 100;

/// A resumable upload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::objects) struct Upload {
    pub(in crate::objects) id: String,
    pub(in crate::objects) owner: String,
    pub(in crate::objects) bucket: BucketName,
    pub(in crate::objects) name: ObjectName,
    /// Attributes and conditions, in JSON; nothing any more once all was there.
    pub(in crate::objects) request: String,
    /// The size, if the client has said it.
    pub(in crate::objects) total: Option<u64>,
    /// Bytes that are surely there.
    pub(in crate::objects) received: u64,
    /// The object's generation, once all was there.
    pub(in crate::objects) generation: Option<i64>,
}

impl Database<'_> {
    pub(in crate::objects) fn add_upload(&mut self, upload: &Upload, now: i64) -> Result<()> {
        self.bucket(&upload.bucket)?;
        let query = "INSERT INTO upload (id, bucket, name, request, total, received, touched, owner) VALUES (?1, ?2, ?3, ?4, ?5, 0, ?6, ?7)";
        let total = upload.total.map(u64::cast_signed);
        let values = params![
            upload.id,
            upload.bucket.as_str(),
            upload.name.as_str(),
            upload.request,
            total,
            now,
            upload.owner
        ];
        self.transaction.execute(query, values).map_err(failed)?;
        Ok(())
    }

    pub(in crate::objects) fn upload(&self, id: &str, bucket: &BucketName) -> Result<Upload> {
        let query = "SELECT name, request, total, received, generation, owner FROM upload WHERE id = ?1 AND bucket = ?2";
        let found = self
            .transaction
            .query_row(query, [id, bucket.as_str()], |row| {
                Ok((
                    row.get::<_, String>(0)?,
                    row.get(1)?,
                    row.get::<_, Option<i64>>(2)?,
                    row.get::<_, i64>(3)?,
                    row.get(4)?,
                    row.get(5)?,
                ))
            });
        let (name, request, total, received, generation, owner) =
            found.optional().map_err(failed)?.ok_or_else(no_upload)?;
        Ok(Upload {
            id: id.to_owned(),
            owner,
            bucket: bucket.clone(),
            name: ObjectName::new(&name)?,
            request,
            total: total.map(i64::cast_unsigned),
            received: received.cast_unsigned(),
            generation,
        })
    }

    /// Notes how far an upload is. Of those that are done, the owner's newest are remembered, and of those only what they became.
    pub(in crate::objects) fn set_upload(&mut self, upload: &Upload, now: i64) -> Result<()> {
        let query = "UPDATE upload SET total = ?2, received = ?3, touched = ?4, generation = ?5, request = iif(?5 IS NULL, request, '') WHERE id = ?1";
        let total = upload.total.map(u64::cast_signed);
        let values = params![
            upload.id,
            total,
            upload.received.cast_signed(),
            now,
            upload.generation
        ];
        let before = self.unfinished(&upload.id)?;
        if self.transaction.execute(query, values).map_err(failed)? == 0 {
            return Err(no_upload());
        }
        let after = self.unfinished(&upload.id)?;
        self.changed(before, after, 0);
        if upload.generation.is_some() {
            let query = "DELETE FROM upload WHERE id IN (SELECT id FROM upload
                 WHERE owner = ?1 AND generation IS NOT NULL ORDER BY touched DESC LIMIT -1 OFFSET ?2)";
            self.transaction
                .execute(query, params![upload.owner, REMEMBERED])
                .map_err(failed)?;
        }
        Ok(())
    }

    /// What an upload counts for its owner, unless it is done.
    fn unfinished(&self, id: &str) -> Result<Option<(String, i64)>> {
        let query = "SELECT owner, received FROM upload WHERE id = ?1 AND generation IS NULL";
        let found = self
            .transaction
            .query_row(query, [id], |row| Ok((row.get(0)?, row.get(1)?)));
        found.optional().map_err(failed)
    }

    pub(in crate::objects) fn remove_upload(&mut self, id: &str) -> Result<()> {
        let before = self.unfinished(id)?;
        self.transaction
            .execute("DELETE FROM upload WHERE id = ?1", [id])
            .map_err(failed)?;
        self.changed(before, None, 0);
        Ok(())
    }

    /// Forgets uploads that nobody has touched for too long; returns their ids.
    pub(in crate::objects) fn expire_uploads(&mut self, now: i64) -> Result<Vec<String>> {
        let query = "SELECT id FROM upload WHERE touched < ?1 OR touched < ?2 AND received = 0 AND generation IS NULL";
        let old: Vec<String> = {
            let mut statement = self.transaction.prepare(query).map_err(failed)?;
            let before = [now - UPLOAD_LIFETIME, now - UNUSED_LIFETIME];
            let rows = statement.query_map(before, |row| row.get(0));
            let rows = rows.map_err(failed)?.collect::<rusqlite::Result<_>>();
            rows.map_err(failed)?
        };
        for id in &old {
            self.remove_upload(id)?;
        }
        Ok(old)
    }

    /// Returns how many uploads of an owner, and of all, are not done.
    pub(in crate::objects) fn count_uploads(&self, owner: &str) -> Result<(u32, u32)> {
        let query = "SELECT count(*) FILTER (WHERE owner = ?1), count(*) FROM upload WHERE generation IS NULL";
        self.transaction
            .query_row(query, [owner], |row| Ok((row.get(0)?, row.get(1)?)))
            .map_err(failed)
    }

    /// Forgets uploads of which less is there than was noted: the directory of what is staged was lost, or is another.
    pub(in crate::objects) fn forget_uploads(
        &mut self,
        staged: impl Fn(&str) -> u64,
    ) -> Result<()> {
        let query = "SELECT id, received FROM upload WHERE generation IS NULL";
        let mut statement = self.transaction.prepare(query).map_err(failed)?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)));
        let rows: Vec<(String, i64)> = rows.and_then(Iterator::collect).map_err(failed)?;
        drop(statement);
        for (id, received) in rows {
            if staged(&id) < received.cast_unsigned() {
                self.remove_upload(&id)?;
            }
        }
        Ok(())
    }

    /// Returns the ids of all uploads.
    pub(in crate::objects) fn uploads(&self) -> Result<Vec<String>> {
        let mut statement = self
            .transaction
            .prepare("SELECT id FROM upload")
            .map_err(failed)?;
        let rows = statement.query_map([], |row| row.get(0)).map_err(failed)?;
        rows.collect::<rusqlite::Result<_>>().map_err(failed)
    }
}

fn no_upload() -> ApiError {
    ApiError::not_found(
        "there is no such upload: it was cancelled, was never begun within an hour, or is older than a week",
    )
}
