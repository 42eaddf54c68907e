//! Which builds run, and why the others wait.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::demand::{self, Used, builds};
use crate::disk;
use crate::run;
use crate::server::Server;
use crate::store::{Error, Record};
use crate::wire::model::Status;
use crate::wire::time;

/// How often the queue is looked at although nothing has happened: for builds that wait too long.
const LOOK: Duration = Duration::from_secs(1);

/// Takes builds from the queue until the task is dropped.
pub(crate) async fn work(server: Arc<Server>) {
    loop {
        let wake = server.wake.notified();
        let pass = Arc::clone(&server);
        let start = Arc::clone(&server);
        let runtime = tokio::runtime::Handle::current();
        let started = move |record| {
            runtime.spawn(run::build(Arc::clone(&start), record, run::From::Start));
        };
        // Trouble with the database shows in /readyz; the next pass tries again.
        drop(tokio::task::spawn_blocking(move || take(&pass, started)).await);
        let _ = tokio::time::timeout(LOOK, wake).await;
    }
}

/// Ends builds that have waited too long and takes those that can run: each is handed on as soon as it is marked as running, so
/// that trouble with the next one leaves none behind that nobody attends to.
fn take(server: &Server, started: impl Fn(Record)) -> Result<(), Error> {
    let mut used = Used::default();
    for record in server.store.with_status(Status::Working)? {
        used.add(demand::of(&record, &server.settings));
    }
    let mut waits = BTreeMap::new();
    let queued = server.store.waiting()?;
    let room = match queued.is_empty() {
        true => None,
        false => room(server),
    };
    for waiting in queued {
        let waited =
            Duration::from_nanos(u64::try_from(time::now() - waiting.created).unwrap_or(0));
        if waited.as_secs_f64() > waiting.ttl {
            expire(server, &waiting.id)?;
            continue;
        }
        // Nobody overtakes: a build that needs much would wait for ever.
        if let ahead @ 1.. = waits.len() {
            let why = format!("waits: {} ahead in the queue", builds(ahead));
            waits.insert(waiting.id, why);
            continue;
        }
        let Some(record) = server.store.get(&waiting.id)? else {
            continue;
        };
        let needs = demand::of(&record, &server.settings);
        let missing = || demand::missing(used, needs, &server.settings);
        if let Some(why) = room.clone().or_else(missing) {
            waits.insert(waiting.id, why);
            continue;
        }
        let begun = begin(server, &waiting.id)?;
        if let Some(record) = begun.filter(|record| record.build.status == Status::Working) {
            used.add(needs);
            started(record);
        }
    }
    *server.waits() = waits;
    Ok(())
}

/// Why no build can begin for want of room on the disk. They wait until there is some: what is removed makes it.
fn room(server: &Server) -> Option<String> {
    match disk::missing(&server.builds, server.settings.keep_free, 0) {
        Ok(missing) => missing.map(|why| format!("waits for room on the disk: {why}")),
        Err(error) => Some(format!(
            "waits for the disk, which cannot be looked at: {error}"
        )),
    }
}

fn begin(server: &Server, id: &str) -> Result<Option<Record>, Error> {
    server.store.change(id, |record| {
        if record.build.status != Status::Queued {
            return false;
        }
        record.build.status = Status::Working;
        record.attempt += 1;
        record.build.start_time = Some(time::stamp(time::now()));
        true
    })
}

fn expire(server: &Server, id: &str) -> Result<(), Error> {
    server.store.change(id, |record| {
        if record.build.status != Status::Queued {
            return false;
        }
        record.build.status = Status::Expired;
        record.build.status_detail = Some("the build waited longer than its queueTtl".to_owned());
        record.build.finish_time = Some(time::stamp(time::now()));
        true
    })?;
    Ok(())
}
