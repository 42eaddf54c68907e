//! One build that runs: its attempt is started, followed through its files and brought to its end.
//!
//! Everything here can be done again after a crash: events are read from the beginning and applied to the same record.

mod apply;
mod ending;
mod finish;
mod start;
mod waiting;

use std::fs::File;
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::executor::request::{Attempt, Event, What};
use crate::retain;
use crate::server::Server;
use crate::store::{Error, Record};
use crate::wire::model::Status;
use crate::wire::time;
use ending::Ending;

/// How soon the files of an attempt are looked at again: a lock and a length, a few microseconds. Of an attempt that has run for long,
/// every two-hundredth of that time, at most so rarely.
const LOOK: Duration = Duration::from_millis(10);
const RARELY: Duration = Duration::from_millis(100);
/// How long is waited when the database cannot be used.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a build waits for the store of its source or of its artifacts: long enough for somebody to come and repair it.
const STORE: Duration = Duration::from_secs(24 * 3600);
/// Attempts at a build that nobody has stopped.
const MOST_ATTEMPTS: u32 = 3;

/// Where a build goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum From {
    /// Its attempt has to be started.
    Start,
    /// It was started by a server that has ended since.
    Follow,
}

/// Takes care of a build until its attempt is over. Trouble with the attempt's own files ends the build with that reason; while
/// the database cannot be used, the build stays as it is, and is gone on with later.
pub(crate) async fn build(server: Arc<Server>, record: Record, mut from: From) {
    let attempt = server.attempt(&record.build.id, record.attempt);
    while whole(&server, &record, &attempt, &mut from).await.is_err() {
        tokio::time::sleep(PATIENCE).await;
    }
    server.wake.notify_one();
}

/// A build from where it goes on to its end.
async fn whole(
    server: &Arc<Server>,
    record: &Record,
    attempt: &Attempt,
    from: &mut From,
) -> Result<(), Error> {
    match attend(server, record, attempt, from).await {
        Ok(Some(ending)) => finish::build(server, record, attempt, ending).await,
        Ok(None) => again(server, record, attempt).await,
        Err(Trouble::Database(error)) => Err(error),
        Err(Trouble::Attempt(why)) => {
            // What can be told so is told: nobody attends to the attempt from here on.
            drop(server.executor.cancel(attempt));
            let ending = Ending::failed(Status::InternalError, why);
            finish::build(server, record, attempt, ending).await
        }
    }
}

/// Why an attempt cannot be attended to.
enum Trouble {
    /// That may pass.
    Database(Error),
    /// Its files, or its process.
    Attempt(String),
}

impl std::convert::From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Trouble::Database(error)
    }
}

impl std::convert::From<String> for Trouble {
    fn from(why: String) -> Self {
        Trouble::Attempt(why)
    }
}

/// Starts an attempt if need be and follows it. `None`: it vanished without an end.
async fn attend(
    server: &Arc<Server>,
    record: &Record,
    attempt: &Attempt,
    from: &mut From,
) -> Result<Option<Ending>, Trouble> {
    let id = &record.build.id;
    // A server that ended while it fetched the source has not started anything.
    if *from == From::Start || !attempt.request().exists() {
        server.store.attempt_began(id, record.attempt)?;
        if let Some(ending) = start::attempt(server, record, attempt).await? {
            return Ok(Some(ending));
        }
        *from = From::Follow;
    }
    // A wish that came before there was somebody to tell.
    if server.store.get(id)?.is_some_and(|now| now.cancelled) {
        let told = server.executor.cancel(attempt);
        told.map_err(|error| format!("stopping the build: {error}"))?;
    }
    follow(server, record, attempt).await
}

async fn follow(
    server: &Arc<Server>,
    record: &Record,
    attempt: &Attempt,
) -> Result<Option<Ending>, Trouble> {
    let mut seen = 0;
    let mut files = Vec::new();
    let since = Instant::now();
    loop {
        // In this order: what the attempt wrote before it ended is read after it was seen to have ended.
        let alive = server
            .executor
            .is_alive(attempt)
            .map_err(|error| format!("looking for the build's process: {error}"))?;
        let events = read_events(attempt, &mut seen)?;
        if !events.is_empty() {
            server.store.follow(&record.build.id, |record| {
                events
                    .iter()
                    .for_each(|event| apply::event(&mut record.build, event));
                true
            })?;
        }
        for event in events {
            match event.what {
                What::Artifacts { files: found } => files = found,
                What::Ended {
                    status,
                    detail,
                    failure,
                } => {
                    return Ok(Some(Ending {
                        status,
                        detail,
                        failure,
                        files,
                    }));
                }
                _ => {}
            }
        }
        if !alive {
            return Ok(None);
        }
        tokio::time::sleep((since.elapsed() / 200).clamp(LOOK, RARELY)).await;
    }
}

/// The events behind the first `seen` bytes, whole lines only.
fn read_events(attempt: &Attempt, seen: &mut u64) -> Result<Vec<Event>, String> {
    let trouble = |error: std::io::Error| format!("reading the attempt's events: {error}");
    let path = attempt.events();
    match path.metadata() {
        Ok(data) if data.len() == *seen => return Ok(Vec::new()),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        known => known.map_err(trouble)?,
    };
    let mut file = File::open(path).map_err(trouble)?;
    file.seek(SeekFrom::Start(*seen)).map_err(trouble)?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).map_err(trouble)?;
    let end = bytes
        .iter()
        .rposition(|byte| *byte == b'\n')
        .map_or(0, |at| at + 1);
    *seen += end as u64;
    let lines = bytes[..end]
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty());
    lines
        .map(|line| {
            serde_json::from_slice(line)
                .map_err(|error| format!("reading the attempt's events: {error}"))
        })
        .collect()
}

/// An attempt ended without a word: its machine went down, or something killed it. The build is queued again.
async fn again(server: &Arc<Server>, record: &Record, attempt: &Attempt) -> Result<(), Error> {
    let id = &record.build.id;
    let now = server.store.get(id)?;
    let cancelled = now.is_some_and(|now| now.cancelled);
    if cancelled || record.attempt >= MOST_ATTEMPTS {
        let ending = if cancelled {
            Ending::failed(Status::Cancelled, "the build was cancelled".to_owned())
        } else {
            let what = format!("the build's process ended without a word, {MOST_ATTEMPTS} times");
            Ending::failed(Status::InternalError, what)
        };
        return finish::build(server, record, attempt, ending).await;
    }
    let why = "the build's process ended without a word";
    server
        .store
        .attempt_ended(id, record.attempt, Status::InternalError, Some(why))?;
    retain::clean(server, attempt, id).await;
    server.store.change(id, |record| {
        record.build.status = Status::Queued;
        apply::forget(&mut record.build);
        true
    })?;
    let time = time::now();
    server.store.audit(time, "server", "restart", Some(id))
}
