//! The web page: HTML that the server writes and that works without script; a small script adds what is live.
//!
//! Everything that is shown was written by strangers. The templates escape it, logs go through [`ansi`], and the pages' own
//! policy lets no script run but the one that is compiled in.

mod admin;
mod ansi;
mod artifacts;
mod assets;
mod boots;
mod build;
mod failure;
mod history;
mod image;
mod index;
mod kept;
mod list;
mod live;
mod log;
mod login;
mod multipart;
mod names;
mod parts;
mod session;
mod submit;
mod treemap;
mod upload;
mod versions;
mod view;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header, request};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use maud::{Markup, html};
use tokio::sync::Semaphore;

use crate::access;
use crate::api;
use crate::server::Server;
use crate::store::{Record, Role};
use crate::wire::error::{ApiError, Code};
pub(crate) use session::named as session_named;

/// What a page may load and send: its own style, script and pictures, and forms to this server.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'";
/// Bytes of a form.
const LONGEST_FORM: usize = 2 << 20;
/// How long a form may take to arrive.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the pages share.
struct Page {
    server: Arc<Server>,
    logs: index::Logs,
    /// Behind the forms of those who have no session.
    secret: [u8; 32],
    names: names::Names,
    /// Places for uploads, which are held in memory.
    uploads: Semaphore,
}

/// The routes of the page.
///
/// # Errors
/// The kernel has no random numbers.
pub(crate) fn router(server: Arc<Server>) -> std::io::Result<Router> {
    let page = Arc::new(Page {
        server,
        logs: index::Logs::default(),
        secret: access::random()?,
        names: names::Names::default(),
        uploads: Semaphore::new(upload::AT_ONCE),
    });
    Ok(Router::new()
        .route("/", get(show))
        .route("/builds/{id}", get(show))
        .route("/builds/{id}/lines", get(show))
        .route("/builds/{id}/search", get(show))
        .route("/builds/{id}/kept/{file}", get(show))
        .route("/builds/{id}/log", get(log::plain))
        .route("/builds/{id}/events", get(live::events))
        .route("/builds/{id}/artifacts/{number}", get(artifacts::download))
        .route("/builds/{id}/cancel", post(act))
        .route("/builds/{id}/retry", post(act))
        .route("/builds/{id}/build", post(act))
        .route("/submit", get(show).post(act))
        .route("/submit/files", post(upload::take))
        .route("/admin", get(show))
        .route("/admin/{what}", post(act))
        .route("/login", get(show).post(act))
        .route("/logout", post(act))
        .route("/assets/{name}", get(asset))
        .layer(middleware::from_fn(secured))
        .with_state(page))
}

/// Puts the pages' policy on every answer.
async fn secured(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        // With no referrer at all, browsers would not say where a form comes from.
        (header::REFERRER_POLICY, "same-origin"),
        (
            header::HeaderName::from_static("cross-origin-opener-policy"),
            "same-origin",
        ),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    let private = HeaderValue::from_static("no-store");
    headers.entry(header::CACHE_CONTROL).or_insert(private);
    response
}

async fn asset(uri: Uri) -> Response {
    let name = uri.path().rsplit('/').next().unwrap_or("");
    assets::file(name).unwrap_or_else(|| StatusCode::NOT_FOUND.into_response())
}

/// The pairs of an address or a form.
#[derive(Debug, Default)]
struct Query(Vec<(String, String)>);

impl Query {
    fn read(text: &str) -> Result<Query, ApiError> {
        api::query(text).map(Query)
    }

    /// The value of a name; nothing if it is not there.
    fn get(&self, name: &str) -> &str {
        let found = self.0.iter().find(|(known, _)| known == name);
        found.map_or("", |(_, value)| value)
    }

    fn number(&self, name: &str) -> Option<u64> {
        self.get(name).parse().ok()
    }
}

/// An answer that is a page or numbers.
enum Answer {
    Page(Markup),
    Json(serde_json::Value),
    Text(String),
    Other(Response),
}

async fn show(State(page): State<Arc<Page>>, request: Request) -> Response {
    let (parts, _) = request.into_parts();
    blocking(move || match answer(&page, &parts) {
        Ok(Answer::Page(markup)) => page_of(StatusCode::OK, &markup),
        Ok(Answer::Json(value)) => text_of("application/json; charset=utf-8", value.to_string()),
        Ok(Answer::Text(text)) => text_of("text/plain; charset=utf-8", text),
        Ok(Answer::Other(response)) => response,
        Err(error) => trouble(&page, &parts.headers, &parts.uri, &error),
    })
    .await
}

fn text_of(kind: &'static str, text: String) -> Response {
    let kind = HeaderValue::from_static(kind);
    ([(header::CONTENT_TYPE, kind)], text).into_response()
}

/// Reads of disks and of the database, beside the sockets' threads.
async fn blocking(work: impl FnOnce() -> Response + Send + 'static) -> Response {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|_| StatusCode::INTERNAL_SERVER_ERROR.into_response())
}

fn answer(page: &Page, parts: &request::Parts) -> Result<Answer, ApiError> {
    let segments = api::segments(parts.uri.path())?;
    let words: Vec<&str> = segments.iter().map(String::as_str).collect();
    let query = Query::read(parts.uri.query().unwrap_or(""))?;
    if words == ["login"] {
        return Ok(Answer::Page(login::page(page, query.get("next"), None)));
    }
    let visitor = session::visitor(page, &parts.headers)?;
    visitor.caller.needs(Role::View)?;
    match words.as_slice() {
        [""] => list::page(page, &visitor, &query).map(Answer::Page),
        ["builds", id] => build::page(page, id, &visitor, &query).map(Answer::Page),
        ["submit"] => submit::page(&visitor).map(Answer::Page),
        ["admin"] => admin::page(page, &visitor, None).map(Answer::Page),
        ["builds", id, "lines"] => log::lines(page, id, &query).map(Answer::Json),
        ["builds", id, "search"] => log::search(page, id, &query).map(Answer::Json),
        ["builds", id, "kept", "desktop.png"] => boots::send(page, id, &query).map(Answer::Other),
        ["builds", id, "kept", file] => kept::file(page, id, file, &query).map(Answer::Text),
        _ => Err(not_found()),
    }
}

fn not_found() -> ApiError {
    ApiError::new(Code::NotFound, "this server has no such page")
}

/// The build of an id.
fn find(page: &Page, id: &str) -> Result<Record, ApiError> {
    let found = page.server.store.get(id).map_err(ApiError::internal)?;
    found.ok_or_else(|| ApiError::new(Code::NotFound, format!("there is no build {id:?}")))
}

/// Which attempt an address means: the newest unless it says another.
fn attempt_of(record: &Record, query: &Query) -> Result<u32, ApiError> {
    match query.get("attempt") {
        "" => Ok(record.attempt),
        text => {
            let number = text.parse().ok();
            let known = number.filter(|number| (1..=record.attempt).contains(number));
            known.ok_or_else(|| {
                ApiError::new(Code::NotFound, format!("the build has no attempt {text:?}"))
            })
        }
    }
}

/// A form that was sent.
async fn act(State(page): State<Arc<Page>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = match api::whole(body, LONGEST_FORM, PATIENCE).await {
        Ok(body) => body,
        Err(error) => return trouble(&page, &parts.headers, &parts.uri, &error),
    };
    blocking(move || {
        let done = std::str::from_utf8(&body)
            .map_err(|_| ApiError::invalid("the form is no UTF-8"))
            .and_then(Query::read)
            .and_then(|form| acted(&page, &parts, &form));
        done.unwrap_or_else(|error| trouble(&page, &parts.headers, &parts.uri, &error))
    })
    .await
}

fn acted(page: &Page, parts: &request::Parts, form: &Query) -> Result<Response, ApiError> {
    let segments = api::segments(parts.uri.path())?;
    let words: Vec<&str> = segments.iter().map(String::as_str).collect();
    if words == ["login"] {
        session::from_here(&parts.headers)?;
        return login::enter(page, form);
    }
    let visitor = session::visitor(page, &parts.headers)?;
    visitor.sent(&parts.headers, Some(form.get("proof")))?;
    match words.as_slice() {
        ["logout"] => {
            let mut response = to("/login");
            let gone = session::end(page, &parts.headers)?;
            response.headers_mut().insert(header::SET_COOKIE, gone);
            Ok(response)
        }
        ["submit"] => submit::take(page, &visitor, form),
        ["admin", what] => admin::act(page, &visitor, what, form),
        ["builds", id, "build"] => submit::build(page, &visitor, &find(page, id)?),
        ["builds", id, "cancel"] => {
            let record = find(page, id)?;
            api::wish(&page.server, &visitor.caller, &record, api::Wish::Cancel)?;
            Ok(to(&format!("/builds/{id}")))
        }
        ["builds", id, "retry"] => {
            let record = find(page, id)?;
            let made = api::wish(&page.server, &visitor.caller, &record, api::Wish::Retry)?;
            let id = made["metadata"]["build"]["id"].as_str();
            let id = id.ok_or_else(|| ApiError::internal("a build without an id"))?;
            Ok(to(&format!("/builds/{id}")))
        }
        _ => Err(not_found()),
    }
}

/// Leads to another page of this server.
fn to(path: &str) -> Response {
    match HeaderValue::from_str(path) {
        Ok(path) => (StatusCode::SEE_OTHER, [(header::LOCATION, path)]).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// The page that a form is on: what takes a form shows nothing.
fn page_of_form(path: &str) -> &str {
    match path.rsplit_once('/') {
        Some((page, "cancel" | "retry" | "build" | "files" | "token" | "revoke")) => page,
        _ => path,
    }
}

fn page_of(status: StatusCode, markup: &Markup) -> Response {
    let kind = HeaderValue::from_static("text/html; charset=utf-8");
    let body = Body::from(markup.0.clone());
    (status, [(header::CONTENT_TYPE, kind)], body).into_response()
}

/// An error as a page; who is not known gets the login.
fn trouble(page: &Page, headers: &HeaderMap, uri: &Uri, error: &ApiError) -> Response {
    let status =
        StatusCode::from_u16(error.code.http()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    if error.code == Code::Unauthenticated {
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let path = page_of_form(path);
        // A link on another site leads here without the cookie; the page's own second look has it.
        let comes_from_elsewhere = headers
            .get("sec-fetch-site")
            .is_some_and(|site| site == "cross-site");
        if comes_from_elsewhere {
            return page_of(StatusCode::OK, &login::second_look(path));
        }
        return page_of(status, &login::page(page, path, None));
    }
    let visitor = session::visitor(page, headers).ok();
    let body = html! {
        h1 { "This did not work" }
        p.failure { (error.message) }
        p { a href="/" { "To the builds" } }
    };
    page_of(status, &parts::frame("Error", visitor.as_ref(), &body))
}
