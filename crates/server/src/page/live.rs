//! What happens to a build while somebody looks: server-sent events. An event says how far things are, not what was added, so
//! that one that is lost is made up for by the next.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::{Page, find, parts, session};
use crate::api;
use crate::store::Role;
use crate::wire::error::ApiError;

/// How often a build is looked at.
const LOOK: Duration = Duration::from_millis(400);
/// After which a line is sent so that nobody between takes the connection for dead.
const QUIET: Duration = Duration::from_secs(15);
/// The longest that a connection lasts; the browser makes another.
const LONGEST: Duration = Duration::from_secs(600);

struct Watch {
    page: Arc<Page>,
    id: String,
    seen: String,
    began: Instant,
    sent: Instant,
    over: bool,
}

/// The events of a build: `state` with its word, attempt, lines of the log, and a mark of all that a page shows.
pub(super) async fn events(State(page): State<Arc<Page>>, request: Request) -> Response {
    let (parts, _) = request.into_parts();
    let last = parts.headers.get("last-event-id");
    let seen = last
        .and_then(|id| id.to_str().ok())
        .unwrap_or("")
        .to_owned();
    let known = {
        let page = Arc::clone(&page);
        tokio::task::spawn_blocking(move || {
            session::visitor(&page, &parts.headers)?
                .caller
                .needs(Role::View)?;
            let segments = api::segments(parts.uri.path())?;
            let id = segments.get(1).map_or("", String::as_str);
            find(&page, id).map(|record| record.build.id)
        })
    };
    let id = match known.await {
        Ok(Ok(id)) => id,
        Ok(Err(error)) => return api::refusal(&error),
        Err(error) => return api::refusal(&ApiError::internal(error)),
    };
    let watch = Watch {
        page,
        id,
        seen,
        began: Instant::now(),
        sent: Instant::now(),
        over: false,
    };
    let stream = futures_util::stream::unfold(watch, next);
    let kind = HeaderValue::from_static("text/event-stream; charset=utf-8");
    ([(header::CONTENT_TYPE, kind)], Body::from_stream(stream)).into_response()
}

async fn next(mut watch: Watch) -> Option<(Result<String, Infallible>, Watch)> {
    if watch.over {
        return None;
    }
    loop {
        if watch.began.elapsed() > LONGEST {
            return None;
        }
        let (page, id) = (Arc::clone(&watch.page), watch.id.clone());
        let look = tokio::task::spawn_blocking(move || look(&page, &id));
        let (mark, data, over) = look.await.ok()?.ok()?;
        watch.over = over;
        if mark != watch.seen {
            let text = format!("id: {mark}\nevent: state\ndata: {data}\n\n");
            watch.seen = mark;
            watch.sent = Instant::now();
            return Some((Ok(text), watch));
        }
        if over {
            return None;
        }
        if watch.sent.elapsed() > QUIET {
            watch.sent = Instant::now();
            return Some((Ok(": still here\n\n".to_owned()), watch));
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// How far a build is: a mark that changes with it, what to tell, and whether nothing follows.
fn look(page: &Page, id: &str) -> Result<(String, String, bool), ApiError> {
    let record = find(page, id)?;
    let (mut lines, mut notes) = (0, 0);
    if let Some(path) = page.server.log(id, record.attempt) {
        let read = page
            .logs
            .with(&path, |index| Ok((index.lines(), index.notes().len())));
        (lines, notes) = read.map_err(ApiError::internal)?;
    }
    let build = &record.build;
    let steps = build
        .steps
        .iter()
        .map(|step| step.status.map_or("-", |status| status.name()));
    let shown = format!(
        "{}-{}-{notes}-{}",
        record.attempt,
        build.status.name(),
        steps.collect::<String>()
    );
    let mut hash: u32 = 0;
    shown
        .bytes()
        .for_each(|byte| hash = hash.wrapping_mul(31).wrapping_add(byte.into()));
    let data = json!({
        "word": parts::word(build.status),
        "attempt": record.attempt,
        "lines": lines,
        "shown": hash,
        "over": build.status.is_final(),
    });
    Ok((
        format!("{hash}-{lines}"),
        data.to_string(),
        build.status.is_final(),
    ))
}
