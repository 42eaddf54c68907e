//! Cloud Build's API v1 over HTTP.

mod builds;
mod filter;
mod paging;
mod show;
mod triggers;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures_util::StreamExt;
use percent_encoding::percent_decode_str;
use serde_json::Value;

use crate::access::{self, Caller};
use crate::metrics;
use crate::objects::Owner;
use crate::openapi;
use crate::server::Server;
use crate::store::{Record, Role};
use crate::wire::error::{ApiError, Code};
use builds::Asked;
use show::Show;
use triggers::Hook;

/// Bytes of a request's body at most.
const LONGEST_BODY: usize = 4 << 20;
/// Entries of the log of who did what in one answer, at most.
const ENTRIES: i64 = 1000;
/// How long a body may take to arrive.
const PATIENCE: Duration = Duration::from_secs(30);

/// The routes of the server but for buckets.
pub(crate) fn router(server: Arc<Server>) -> Router {
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .route(
            "/openapi.json",
            get(async || json(StatusCode::OK, &openapi::document())),
        )
        .route("/kiln/v1/audit", get(audit))
        .fallback(answer)
        .with_state(server)
}

/// Puts the question who asks in front of the routes of buckets.
pub(crate) fn guarded(objects: Router, server: Arc<Server>) -> Router {
    objects.layer(middleware::from_fn_with_state(server, guard))
}

async fn guard(State(server): State<Arc<Server>>, mut request: Request, next: Next) -> Response {
    let caller = access::caller(&server.store, request.headers(), server.settings.open);
    let allowed = caller.and_then(|caller| {
        caller.needs(access::for_objects(request.method()))?;
        Ok(Owner::of(&caller.name))
    });
    match allowed {
        Ok(owner) => {
            request.extensions_mut().insert(owner);
            next.run(request).await
        }
        Err(error) => refusal(&error),
    }
}

async fn ready(State(server): State<Arc<Server>>) -> Response {
    let answer = tokio::task::spawn_blocking(move || metrics::ready(&server)).await;
    match answer.unwrap_or_else(|error| Err(error.to_string())) {
        Ok(()) => "ok\n".into_response(),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response(),
    }
}

/// For Prometheus.
async fn metrics(State(server): State<Arc<Server>>, request: Request) -> Response {
    let work = move || {
        let caller = access::caller(&server.store, request.headers(), server.settings.open)?;
        caller.needs(Role::View)?;
        metrics::text(&server).map_err(ApiError::internal)
    };
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    match blocking(work).await {
        Ok(text) => ([(header::CONTENT_TYPE, kind)], text).into_response(),
        Err(error) => refusal(&error),
    }
}

/// Entries of the log of who did what, the newest first: `?limit=N&before=NUMBER`.
async fn audit(State(server): State<Arc<Server>>, request: Request) -> Response {
    let work = move || {
        let caller = access::caller(&server.store, request.headers(), server.settings.open)?;
        caller.needs(Role::Admin)?;
        let pairs = query(request.uri().query().unwrap_or(""))?;
        let number = |name: &str| {
            let found = pairs.iter().find(|(key, _)| key == name);
            let read = found.map(|(_, value)| value.parse::<i64>());
            read.transpose()
                .map_err(|_| ApiError::invalid(format!("{name} is no number")))
        };
        let most = number("limit")?.unwrap_or(ENTRIES).clamp(1, ENTRIES);
        let most = u32::try_from(most).map_err(ApiError::internal)?;
        let entries = server.store.entries(number("before")?, most);
        Ok(serde_json::json!({ "entries": entries.map_err(ApiError::internal)? }))
    };
    match blocking(work).await {
        Ok(value) => json(StatusCode::OK, &value),
        Err(error) => refusal(&error),
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(ApiError::internal)?
}

async fn answer(State(server): State<Arc<Server>>, request: Request) -> Response {
    match reply(server, request).await {
        Ok(response) => response,
        Err(error) => refusal(&error),
    }
}

async fn reply(server: Arc<Server>, request: Request) -> Result<Response, ApiError> {
    let (parts, body) = request.into_parts();
    let segments = segments(parts.uri.path())?;
    let query = query(parts.uri.query().unwrap_or(""))?;
    if parts.method == Method::POST {
        let words: Vec<&str> = segments.iter().map(String::as_str).collect();
        // Who sends a webhook has the trigger's secret, and no token.
        if let Some(hook) = Hook::find(&server, &words, &query, &parts.headers) {
            let (hook, body) = (hook?, whole(body, LONGEST_BODY, PATIENCE).await?);
            return work(move || hook.receive(&body)).await;
        }
    }
    let caller = access::caller(&server.store, &parts.headers, server.settings.open)?;
    let body = whole(body, LONGEST_BODY, PATIENCE).await?;
    work(move || {
        let call = Call {
            method: &parts.method,
            query: &query,
            body: &body,
        };
        route(&server, &caller, &segments, &call)
    })
    .await
}

/// A request's body, if it comes in time and is not too long.
pub(crate) async fn whole(
    body: Body,
    longest: usize,
    patience: Duration,
) -> Result<bytes::Bytes, ApiError> {
    let read = async {
        let mut chunks = body.into_data_stream();
        let mut bytes = bytes::BytesMut::new();
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk.map_err(|_| ApiError::invalid("the request's body is cut off"))?;
            if bytes.len() + chunk.len() > longest {
                return Err(ApiError::invalid(format!(
                    "the request's body has more than {longest} bytes"
                )));
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes.freeze())
    };
    let read = tokio::time::timeout(patience, read).await;
    read.unwrap_or_else(|_| {
        Err(ApiError::invalid(
            "the request's body did not arrive in time",
        ))
    })
}

/// Answers with what a thread finds that may wait for the database.
async fn work(
    work: impl FnOnce() -> Result<Value, ApiError> + Send + 'static,
) -> Result<Response, ApiError> {
    let value = tokio::task::spawn_blocking(work)
        .await
        .map_err(ApiError::internal)??;
    Ok(json(StatusCode::OK, &value))
}

struct Call<'a> {
    method: &'a Method,
    query: &'a [(String, String)],
    body: &'a [u8],
}

impl Call<'_> {
    fn json(&self) -> Result<Value, ApiError> {
        serde_json::from_slice(self.body)
            .map_err(|error| ApiError::invalid(format!("Invalid JSON payload received. {error}")))
    }

    /// Clients of Python ask for numbers in place of names.
    fn wants_numbers(&self) -> bool {
        let wants = |value: &str| value.contains("enum-encoding=int");
        self.query
            .iter()
            .any(|(name, value)| name.trim_start_matches('$') == "alt" && wants(value))
    }
}

fn route(
    server: &Arc<Server>,
    caller: &Caller,
    segments: &[String],
    call: &Call<'_>,
) -> Result<Value, ApiError> {
    let words: Vec<&str> = segments.iter().map(String::as_str).collect();
    let asked = |project, location| Asked {
        server,
        caller,
        project,
        location,
        show: Show {
            server,
            numbers: call.wants_numbers(),
        },
    };
    match words.as_slice() {
        ["v1", "operations", "build", project, rest @ ..] if call.method == Method::GET => {
            // Base64 may have slashes.
            asked(*project, None).operation(&rest.join("/"))
        }
        ["v1", "projects", project, "builds", rest @ ..] => {
            on_builds(&asked(*project, None), rest, call)
        }
        [
            "v1",
            "projects",
            project,
            "locations",
            location,
            "builds",
            rest @ ..,
        ] => on_builds(&asked(*project, Some(*location)), rest, call),
        [
            "v1",
            "projects",
            project,
            "locations",
            location,
            "operations",
            rest @ ..,
        ] if call.method == Method::GET => {
            asked(*project, Some(*location)).operation(&rest.join("/"))
        }
        ["v1", "projects", project, "triggers", rest @ ..] => {
            on_triggers(&asked(*project, None), rest, call)
        }
        [
            "v1",
            "projects",
            project,
            "locations",
            location,
            "triggers",
            rest @ ..,
        ] => on_triggers(&asked(*project, Some(*location)), rest, call),
        _ => Err(unknown(call, &words)),
    }
}

fn on_builds(asked: &Asked<'_>, rest: &[&str], call: &Call<'_>) -> Result<Value, ApiError> {
    match (call.method.as_str(), rest) {
        ("POST", []) => asked.create(call.json()?),
        ("GET", []) => asked.list(call.query),
        ("GET", [last]) => match last.split_once(':') {
            Some((id, "pinned")) => asked.pinned(id, None),
            _ => asked.get(last),
        },
        ("POST", [last]) => match last.split_once(':') {
            Some((id, "cancel")) => asked.cancel(id),
            Some((id, "pin")) => asked.pinned(id, Some(true)),
            Some((id, "unpin")) => asked.pinned(id, Some(false)),
            Some((id, "retry")) => asked.retry(id),
            _ => Err(unknown(call, rest)),
        },
        _ => Err(unknown(call, rest)),
    }
}

fn on_triggers(asked: &Asked<'_>, rest: &[&str], call: &Call<'_>) -> Result<Value, ApiError> {
    match (call.method.as_str(), rest) {
        ("POST", []) => asked.create_trigger(call.json()?),
        ("GET", []) => asked.list_triggers(call.query),
        ("GET", [which]) => asked.get_trigger(which),
        ("PATCH", [which]) => asked.change_trigger(which, call.query, call.json()?),
        ("DELETE", [which]) => asked.delete_trigger(which),
        ("POST", [last]) => match last.split_once(':') {
            Some((which, "run")) if call.body.is_empty() => {
                asked.run_trigger(which, Value::Object(serde_json::Map::new()))
            }
            Some((which, "run")) => asked.run_trigger(which, call.json()?),
            _ => Err(unknown(call, rest)),
        },
        _ => Err(unknown(call, rest)),
    }
}

fn unknown(call: &Call<'_>, words: &[&str]) -> ApiError {
    let path = words.join("/");
    ApiError::new(
        Code::NotFound,
        format!(
            "{} of {path:?} is nothing that this server does",
            call.method
        ),
    )
}

/// What somebody wants of a build on its page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    /// It is to stop.
    Cancel,
    /// It is to be made again.
    Retry,
}

/// Does what a page's form asks for, by the rules of the API.
///
/// # Errors
/// The role or the state of the build does not allow it.
pub(crate) fn wish(
    server: &Arc<Server>,
    caller: &Caller,
    record: &Record,
    wish: Wish,
) -> Result<Value, ApiError> {
    let asked = Asked {
        server,
        caller,
        project: &record.build.project_id,
        location: Some(&record.location),
        show: Show {
            server,
            numbers: false,
        },
    };
    match wish {
        Wish::Cancel => asked.cancel(&record.build.id),
        Wish::Retry => asked.retry(&record.build.id),
    }
}

/// A log as text, as far as it is there.
pub(crate) async fn log_file(path: &std::path::Path) -> Result<Response, ApiError> {
    let file = tokio::fs::File::open(path)
        .await
        .map_err(ApiError::internal)?;
    let chunks = futures_util::stream::try_unfold(file, async |mut file| {
        let mut chunk = bytes::BytesMut::with_capacity(64 << 10);
        let length = tokio::io::AsyncReadExt::read_buf(&mut file, &mut chunk).await?;
        Ok::<_, std::io::Error>((length > 0).then(|| (chunk.freeze(), file)))
    });
    let text = HeaderValue::from_static("text/plain; charset=utf-8");
    let secure = HeaderValue::from_static("nosniff");
    let headers = [
        (header::CONTENT_TYPE, text),
        (header::X_CONTENT_TYPE_OPTIONS, secure),
    ];
    Ok((headers, Body::from_stream(chunks)).into_response())
}

/// A path's parts, decoded after they were split.
pub(crate) fn segments(path: &str) -> Result<Vec<String>, ApiError> {
    let parts = path.trim_start_matches('/').split('/');
    parts.map(decoded).collect()
}

fn decoded(part: &str) -> Result<String, ApiError> {
    let text = percent_decode_str(part).decode_utf8();
    text.map(|text| text.into_owned())
        .map_err(|_| ApiError::invalid("the address is no UTF-8"))
}

/// The pairs of a query or a form.
pub(crate) fn query(text: &str) -> Result<Vec<(String, String)>, ApiError> {
    let pairs = text.split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Ok((
                decoded(&name.replace('+', " "))?,
                decoded(&value.replace('+', " "))?,
            ))
        })
        .collect()
}

/// An error as clients of the API get it.
pub(crate) fn refusal(error: &ApiError) -> Response {
    let status = StatusCode::from_u16(error.code.http());
    let mut response = json(
        status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
        &error.body(),
    );
    if error.code == Code::Unauthenticated {
        let bearer = HeaderValue::from_static("Bearer");
        response
            .headers_mut()
            .insert(header::WWW_AUTHENTICATE, bearer);
    }
    response
}

fn json(status: StatusCode, value: &Value) -> Response {
    let kind = HeaderValue::from_static("application/json; charset=UTF-8");
    (status, [(header::CONTENT_TYPE, kind)], value.to_string()).into_response()
}
