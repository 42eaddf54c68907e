//! How a build comes into the queue, whoever wants it: a request, a repetition, a trigger.

use serde_json::Value;

use crate::access::Caller;
use crate::agent::engine;
use crate::demand;
use crate::pinned::pin_of;
use crate::prepare::{self, Rules};
use crate::server::Server;
use crate::store::{Added, Record};
use crate::substitute::Place;
use crate::wire::error::{ApiError, Code};
use crate::wire::time;

/// Who wants a build, and where.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Order<'a> {
    /// The token's name.
    pub who: &'a str,
    /// The project.
    pub project: &'a str,
    /// The region.
    pub location: &'a str,
    /// The build that this one does again.
    pub retry_of: Option<&'a Record>,
    /// The id of the trigger that wants it.
    pub trigger: Option<&'a str>,
}

/// Checks a build as it came. Nothing is queued yet.
///
/// # Errors
/// What is wrong with it, as a client is told.
pub(crate) fn check(server: &Server, order: Order<'_>, request: Value) -> Result<Record, ApiError> {
    let id = new_id()?;
    check_name("project", order.project)?;
    check_name("location", order.location)?;
    let rules = Rules {
        images: &server.settings.images,
        commands: &*server.commands,
        engine: &|| match (server.settings.containers, &server.settings.engine) {
            (true, None) => engine::available(),
            (true, Some(elsewhere)) => engine::answers(elsewhere),
            (false, _) => Err("the server was started with --engine none".to_owned()),
        },
        secrets: &|version| server.secrets.find(version).map(drop),
        pin: order.retry_of.and_then(pin_of),
    };
    let place = Place {
        project: order.project,
        location: order.location,
        id: &id,
    };
    let prepared = prepare::prepare(request.clone(), place, &rules)?;
    let created = time::now();
    let mut build = prepared.build;
    build.create_time = Some(time::stamp(created));
    build.log_url = Some(format!("{}/builds/{id}", server.url));
    build.build_trigger_id = order.trigger.map(str::to_owned);
    Ok(Record {
        location: order.location.to_owned(),
        created,
        who: order.who.to_owned(),
        attempt: 0,
        cancelled: false,
        retry_of: order.retry_of.map(|record| record.build.id.clone()),
        build,
        request,
        task: prepared.task,
    })
}

/// Queues a build. Whoever asked is told that it is there, whatever happens next: a client repeats what failed with 5xx, and
/// there would be two builds.
///
/// # Errors
/// As many builds wait as may, or the database cannot be written; there is no build.
pub(crate) fn queue(
    server: &Server,
    record: &Record,
    caller: &Caller,
    what: &str,
) -> Result<(), ApiError> {
    let most = server.settings.queue_length;
    let added = server.store.add(record, most).map_err(ApiError::internal)?;
    let builds = |number: u32| demand::builds(usize::try_from(number).unwrap_or(usize::MAX));
    let full = match added {
        Added::Waits => None,
        Added::AllWait => Some(format!(
            "the queue is full: {} waiting, as many as the server's --queue-length allows; try again later",
            builds(most.all)
        )),
        Added::OwnWait => Some(format!(
            "{} has {} waiting, as many as the server's --queue-length-per-token allows; try again later",
            record.who,
            builds(most.of_one)
        )),
    };
    if let Some(why) = full {
        return Err(ApiError::new(Code::ResourceExhausted, why));
    }
    server.wake.notify_one();
    // Best effort: what it tells of is done already.
    drop(caller.note(&server.store, what, Some(&record.build.id)));
    Ok(())
}

/// Refuses names of projects and regions that no address can have.
///
/// # Errors
/// It is one of these.
pub(crate) fn check_name(what: &str, name: &str) -> Result<(), ApiError> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte);
    let begins = name.starts_with(|first: char| first.is_ascii_alphanumeric());
    if begins && name.len() <= 128 && name.bytes().all(fits) {
        return Ok(());
    }
    Err(ApiError::invalid(format!("invalid {what} {name:?}")))
}

/// A random UUID.
///
/// # Errors
/// The kernel has no random numbers.
pub(crate) fn new_id() -> Result<String, ApiError> {
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
