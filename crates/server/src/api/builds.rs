//! What can be done with builds.

use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use serde_json::{Value, json};

use super::filter;
use super::show::Show;
use crate::access::Caller;
use crate::prepare::{self, Rules};
use crate::server::Server;
use crate::store::{Page, Record, Role};
use crate::substitute::Place;
use crate::wire::error::{ApiError, Code};
use crate::wire::model::Status;
use crate::wire::time;

const PAGE: usize = 50;
const LONGEST_PAGE: usize = 1000;
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
        let id = new_id()?;
        let location = self.location.unwrap_or("global");
        check_name("project", self.project)?;
        check_name("location", location)?;
        let settings = &self.server.settings;
        let rules = Rules {
            images: &settings.images,
            commands: &*self.server.commands,
        };
        let place = Place {
            project: self.project,
            location,
            id: &id,
        };
        let prepared = prepare::prepare(request.clone(), place, &rules)?;
        let created = time::now();
        let mut build = prepared.build;
        build.create_time = Some(time::stamp(created));
        build.log_url = Some(format!("{}/builds/{id}/log", self.server.url));
        let record = Record {
            location: location.to_owned(),
            created,
            who: self.caller.name.clone(),
            attempt: 0,
            cancelled: false,
            retry_of: retry_of.map(|record| record.build.id.clone()),
            build,
            request,
            task: prepared.task,
        };
        // Nothing may fail behind this: a client repeats what failed with 5xx, and there would be two builds.
        let answer = self.show.operation(&record)?;
        self.server.store.add(&record).map_err(ApiError::internal)?;
        self.server.wake.notify_one();
        self.audit(
            if retry_of.is_some() {
                "retry"
            } else {
                "create"
            },
            &id,
        );
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
        let given = |name: &str| {
            let found = query.iter().find(|(given, _)| given == name);
            found
                .map(|(_, value)| value.as_str())
                .filter(|value| !value.is_empty())
        };
        let filter = filter::read(given("filter").unwrap_or(""))?;
        let size = match given("pageSize") {
            None => PAGE,
            Some(text) => match text.parse::<usize>() {
                Ok(0) => PAGE,
                Ok(size) => size.min(LONGEST_PAGE),
                Err(_) => return Err(ApiError::invalid(format!("invalid page size {text:?}"))),
            },
        };
        let after = match given("pageToken") {
            None => None,
            Some(token) => {
                let page = read_page(token);
                Some(page.ok_or_else(|| ApiError::invalid("invalid page token"))?)
            }
        };
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
            answer["nextPageToken"] = Value::from(write_page(last));
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
        self.audit("cancel", id);
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

    fn audit(&self, what: &str, build: &str) {
        // Best effort: what it tells of is done already.
        drop(
            self.server
                .store
                .audit(time::now(), &self.caller.name, what, Some(build)),
        );
    }
}

fn not_found(what: &str, name: &str) -> ApiError {
    ApiError::new(Code::NotFound, format!("{what} {name:?} not found"))
}

fn check_name(what: &str, name: &str) -> Result<(), ApiError> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte);
    if !name.is_empty() && name.len() <= 128 && name.bytes().all(fits) {
        return Ok(());
    }
    Err(ApiError::invalid(format!("invalid {what} {name:?}")))
}

/// A random UUID.
fn new_id() -> Result<String, ApiError> {
    let mut bytes = [0_u8; 16];
    let length = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
        .map_err(ApiError::internal)?;
    if length != bytes.len() {
        return Err(ApiError::internal("the kernel has no random numbers"));
    }
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let text = hex::encode(bytes);
    Ok(format!(
        "{}-{}-{}-{}-{}",
        &text[..8],
        &text[8..12],
        &text[12..16],
        &text[16..20],
        &text[20..]
    ))
}

fn write_page(record: &Record) -> String {
    URL_SAFE.encode(format!("{} {}", record.created, record.build.id))
}

fn read_page(token: &str) -> Option<Page> {
    let text = String::from_utf8(URL_SAFE.decode(token).ok()?).ok()?;
    let (created, id) = text.split_once(' ')?;
    Some(Page {
        created: created.parse().ok()?,
        id: id.to_owned(),
    })
}
