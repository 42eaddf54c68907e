//! What can be done with builds.

use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::filter;
use super::paging::{self, Paging, given};
use super::show::Show;
use crate::access::Caller;
use crate::server::Server;
use crate::store::{Record, Role};
use crate::submit::{self, Order};
use crate::wire::error::{ApiError, Code};
use crate::wire::model::Status;
use crate::wire::time;

/// How long a cancelled build is waited for before the answer.
const PATIENCE: Duration = Duration::from_secs(3);

/// A request about builds: from whom, and where.
pub(super) struct Asked<'a> {
    pub(super) server: &'a Arc<Server>,
    pub(super) caller: &'a Caller,
    pub(super) project: &'a str,
    /// `None`: a form without a region.
    pub(super) location: Option<&'a str>,
    pub(super) show: Show<'a>,
}

impl Asked<'_> {
    /// Queues a build.
    pub(super) fn create(&self, body: Value) -> Result<Value, ApiError> {
        self.queue(body, None)
    }

    fn queue(&self, request: Value, retry_of: Option<&Record>) -> Result<Value, ApiError> {
        self.caller.needs(Role::Submit)?;
        let order = Order {
            who: &self.caller.name,
            project: self.project,
            location: self.location.unwrap_or("global"),
            retry_of,
            trigger: retry_of.and_then(|record| record.build.build_trigger_id.as_deref()),
        };
        let record = submit::check(self.server, order, request)?;
        let answer = self.show.operation(&record)?;
        let what = if retry_of.is_some() {
            "retry"
        } else {
            "create"
        };
        submit::queue(self.server, &record, self.caller, what)?;
        Ok(answer)
    }

    /// A build.
    pub(super) fn get(&self, id: &str) -> Result<Value, ApiError> {
        self.caller.needs(Role::View)?;
        self.show.build(&self.find(id)?)
    }

    /// A build's operation by the end of its name.
    pub(super) fn operation(&self, name: &str) -> Result<Value, ApiError> {
        self.caller.needs(Role::View)?;
        let id = STANDARD
            .decode(name)
            .ok()
            .and_then(|id| String::from_utf8(id).ok());
        let id = id.ok_or_else(|| not_found("operation", name))?;
        self.show.operation(&self.find(&id)?)
    }

    /// A page of the newest builds.
    pub(super) fn list(&self, query: &[(String, String)]) -> Result<Value, ApiError> {
        self.caller.needs(Role::View)?;
        let filter = filter::read(given(query, "filter").unwrap_or(""))?;
        let Paging { size, after } = Paging::read(query)?;
        // One more than asked for tells whether there is another page.
        let mut found = self
            .server
            .store
            .list(
                self.project,
                self.location,
                after.as_ref(),
                size + 1,
                |record| filter.fits(record),
            )
            .map_err(ApiError::internal)?;
        let more = found.len() > size;
        found.truncate(size);
        let builds = found.iter().map(|record| self.show.build(record));
        let builds = builds.collect::<Result<Vec<_>, _>>()?;
        let mut answer = json!({});
        if !builds.is_empty() {
            answer["builds"] = Value::from(builds);
        }
        if let Some(last) = found.last().filter(|_| more) {
            answer["nextPageToken"] = Value::from(paging::token(last.created, &last.build.id));
        }
        Ok(answer)
    }

    /// Stops a build. Returns it when it has stopped, or after a while.
    pub(super) fn cancel(&self, id: &str) -> Result<Value, ApiError> {
        self.caller.needs(Role::Submit)?;
        self.find(id)?;
        let store = &self.server.store;
        let mut was = Status::StatusUnknown;
        let changed = store.change(id, |record| {
            was = record.build.status;
            match was {
                Status::Queued => {
                    record.build.status = Status::Cancelled;
                    record.build.finish_time = Some(time::stamp(time::now()));
                }
                Status::Working => {}
                _ => return false,
            }
            record.cancelled = true;
            true
        });
        let mut record = changed
            .map_err(ApiError::internal)?
            .ok_or_else(|| not_found("build", id))?;
        if was.is_final() {
            return Err(ApiError::new(
                Code::FailedPrecondition,
                format!("cannot cancel build in state {}", was.name()),
            ));
        }
        self.audit("cancel", Some(id));
        if was == Status::Working {
            let attempt = self.server.attempt(id, record.attempt);
            if attempt.dir.is_dir() {
                self.server
                    .executor
                    .cancel(&attempt)
                    .map_err(ApiError::internal)?;
            }
            let since = Instant::now();
            while !record.build.status.is_final() && since.elapsed() < PATIENCE {
                std::thread::sleep(Duration::from_millis(20));
                record = self.find(id)?;
            }
        }
        self.server.wake.notify_one();
        self.show.build(&record)
    }

    /// Queues a build again under a new id: as it came, with the lock files that it used.
    pub(super) fn retry(&self, id: &str) -> Result<Value, ApiError> {
        self.caller.needs(Role::Submit)?;
        let record = self.find(id)?;
        if !record.build.status.is_final() {
            return Err(ApiError::new(
                Code::FailedPrecondition,
                format!("cannot retry build in state {}", record.build.status.name()),
            ));
        }
        self.queue(record.request.clone(), Some(&record))
    }

    /// Whether a build stays whatever its age and size; says so first, if that is wished.
    pub(super) fn pinned(&self, id: &str, wish: Option<bool>) -> Result<Value, ApiError> {
        let role = if wish.is_some() {
            Role::Submit
        } else {
            Role::View
        };
        self.caller.needs(role)?;
        self.find(id)?;
        let store = &self.server.store;
        if let Some(pinned) = wish {
            store.pin(id, pinned).map_err(ApiError::internal)?;
            self.audit(if pinned { "pin" } else { "unpin" }, Some(id));
        }
        let pinned = store.is_pinned(id).map_err(ApiError::internal)?;
        let pinned = pinned.ok_or_else(|| not_found("build", id))?;
        Ok(json!({ "id": id, "pinned": pinned }))
    }

    fn find(&self, id: &str) -> Result<Record, ApiError> {
        let found = self.server.store.get(id).map_err(ApiError::internal)?;
        let here = |record: &Record| {
            record.build.project_id == self.project
                && self
                    .location
                    .is_none_or(|location| location == record.location)
        };
        found.filter(here).ok_or_else(|| not_found("build", id))
    }

    pub(super) fn audit(&self, what: &str, build: Option<&str>) {
        // Best effort: what it tells of is done already.
        drop(self.caller.note(&self.server.store, what, build));
    }
}

pub(super) fn not_found(what: &str, name: &str) -> ApiError {
    ApiError::new(Code::NotFound, format!("{what} {name:?} not found"))
}
