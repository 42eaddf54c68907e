//! `kiln builds`, `kiln cancel`, `kiln retry`

use std::time::Duration;

use kiln_client::builds::Builds;
use kiln_engine::Failure;
use serde_json::Value;

use super::follow::to_the_end;
use super::{connect, failure};
use crate::args::client::{BuildsArgs, CancelArgs, RetryArgs};
use crate::commands::Context;
use crate::output;
use crate::render::text::{duration, sanitize};

/// Lists builds.
pub(crate) fn list(args: &BuildsArgs, context: &Context<'_>) -> Result<u8, Failure> {
    let builds = connect(&args.remote, context)?;
    let most = usize::try_from(args.limit).unwrap_or(usize::MAX);
    let found = builds
        .list(most, args.filter.as_deref().unwrap_or(""))
        .map_err(failure)?;
    if args.json {
        output::print_json(&found)?;
        return Ok(0);
    }
    output::print(&found.iter().map(line).collect::<String>())?;
    Ok(0)
}

/// `ID STATUS DURATION CREATED TAGS`
fn line(build: &Value) -> String {
    let text = |name: &str| sanitize(build[name].as_str().unwrap_or("-"));
    let created: String = text("createTime").chars().take(19).collect();
    let tags = build["tags"].as_array().into_iter().flatten();
    let tags: Vec<String> = tags.filter_map(Value::as_str).map(sanitize).collect();
    let line = format!(
        "{}  {:<14}  {:>12}  {}  {}",
        text("id"),
        text("status"),
        time(build).map_or_else(|| "-".to_owned(), duration),
        created.replace('T', " "),
        tags.join(",")
    );
    format!("{}\n", line.trim_end())
}

/// How long a build ran, or runs.
fn time(build: &Value) -> Option<Duration> {
    let start = kiln_client::follow::seconds(build["startTime"].as_str()?)?;
    let end = match build["finishTime"].as_str() {
        Some(text) => kiln_client::follow::seconds(text)?,
        None => std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .ok()?
            .as_secs_f64(),
    };
    Duration::try_from_secs_f64(end - start).ok()
}

/// Stops a build.
pub(crate) fn cancel(args: &CancelArgs, context: &Context<'_>) -> Result<u8, Failure> {
    let builds = connect(&args.remote, context)?;
    let id = builds.find(Some(&args.build)).map_err(failure)?;
    let build = builds.cancel(&id).map_err(failure)?;
    if args.json {
        output::print_json(&build)?;
        return Ok(0);
    }
    let verb = match build["status"].as_str() {
        Some("CANCELLED") => "cancelled",
        _ => "cancelling",
    };
    context.terminal.note(verb, &id);
    Ok(0)
}

/// Queues a build again.
pub(crate) fn retry(args: &RetryArgs, context: &Context<'_>) -> Result<u8, Failure> {
    let builds = connect(&args.remote, context)?;
    let id = builds.find(Some(&args.build)).map_err(failure)?;
    let build = builds.retry(&id).map_err(failure)?;
    queued(&builds, &build, args.json, args.follow, context)
}

/// Says where a queued build is, and follows it if that is wanted.
pub(super) fn queued(
    builds: &Builds,
    build: &Value,
    json: bool,
    follow: bool,
    context: &Context<'_>,
) -> Result<u8, Failure> {
    let id = build["id"].as_str().unwrap_or("");
    if json {
        output::print_json(build)?;
        return Ok(0);
    }
    for warning in build["warnings"].as_array().into_iter().flatten() {
        let message = sanitize(warning["text"].as_str().unwrap_or(""));
        context.terminal.event(&kiln_engine::Event::Warning {
            step: None,
            message,
            origin: None,
            hint: None,
        });
    }
    let page = super::page(builds, id);
    context.terminal.note("queued", &page);
    if follow {
        return to_the_end(builds, id, context);
    }
    context.terminal.note("log", &format!("kiln logs -f {id}"));
    output::print(&format!("{id}\n"))?;
    Ok(0)
}
