//! Answers in JSON, and the address that links in them begin with.

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{HeaderValue, Response, StatusCode, header};
use serde_json::Value;

use super::download::value;

/// A request's extension: it came through TLS, so links in the answer begin with `https://`.
#[derive(Clone, Copy, Debug)]
pub struct Secure;

/// Answers with JSON.
pub(super) fn json(value: &Value) -> Response<Body> {
    let mut response = Response::new(Body::from(value.to_string()));
    let headers = response.headers_mut();
    let kind = HeaderValue::from_static("application/json; charset=UTF-8");
    headers.insert(header::CONTENT_TYPE, kind);
    headers.insert(
        header::CACHE_CONTROL,
        HeaderValue::from_static("no-cache, no-store, max-age=0, must-revalidate"),
    );
    response
}

/// Answers with nothing (204).
pub(super) fn nothing() -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}

/// Returns the server's address as the client spells it, without a slash at the end.
pub(super) fn base(parts: &Parts) -> String {
    let secure = parts.extensions.get::<Secure>().is_some();
    let scheme = if secure { "https" } else { "http" };
    let in_target = parts
        .uri
        .authority()
        .map(axum::http::uri::Authority::as_str);
    let host = in_target.or_else(|| value(&parts.headers, &header::HOST));
    let is_plain = |host: &&str| {
        !host.is_empty()
            && host
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-._:[]".contains(&b))
    };
    format!(
        "{scheme}://{}",
        host.filter(is_plain).unwrap_or("localhost")
    )
}
