//! Errors as Storage words them: a status, a reason, a sentence. JSON for the JSON API, XML for plain object addresses.

use axum::body::Body;
use axum::http::{HeaderValue, Response, StatusCode, header};
use axum::response::IntoResponse;
use serde_json::json;

/// What a request is answered with when it cannot be done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    reason: Reason,
    message: String,
}

/// The result of anything here.
pub type Result<T, E = ApiError> = std::result::Result<T, E>;

/// Why a request cannot be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reason {
    Invalid,
    NotBuilt,
    NotFound,
    Conflict,
    Method,
    LengthRequired,
    Precondition,
    NotModified,
    TooLarge,
    TooSlow,
    TooMany,
    /// An owner holds as much as it may.
    Quota,
    Range,
    Cancelled,
    /// What arrived has not the digest that was said.
    Digest,
    NoRoom,
    Internal,
    /// The store of the contents does not answer.
    Away,
    /// The store of the contents does not accept the server's credentials.
    Barred,
    /// A content is not what was stored.
    Damaged,
}

impl Reason {
    /// The HTTP status, and Storage's word.
    fn told(self) -> (u16, &'static str) {
        match self {
            Reason::Invalid | Reason::Digest => (400, "invalid"),
            Reason::NotBuilt => (400, "notImplemented"),
            Reason::NotFound => (404, "notFound"),
            Reason::Conflict => (409, "conflict"),
            Reason::Method => (405, "methodNotAllowed"),
            Reason::LengthRequired => (411, "required"),
            Reason::Precondition => (412, "conditionNotMet"),
            Reason::NotModified => (304, "notModified"),
            Reason::TooLarge => (413, "uploadTooLarge"),
            Reason::TooSlow => (408, "requestTimeout"),
            Reason::TooMany => (429, "rateLimitExceeded"),
            Reason::Quota => (403, "quotaExceeded"),
            Reason::Range => (416, "requestedRangeNotSatisfiable"),
            Reason::Cancelled => (499, "clientClosedRequest"),
            Reason::NoRoom => (507, "insufficientStorage"),
            Reason::Internal => (500, "backendError"),
            Reason::Away => (503, "backendError"),
            Reason::Barred => (503, "backendCredentials"),
            Reason::Damaged => (500, "dataLoss"),
        }
    }
}

impl ApiError {
    fn new(reason: Reason, message: impl Into<String>) -> Self {
        let message = message.into();
        ApiError { reason, message }
    }

    /// Returns the HTTP status.
    pub fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.reason.told().0).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// Returns Storage's word for the cause, such as `notFound`.
    pub fn reason(&self) -> &'static str {
        self.reason.told().1
    }

    /// Whether a resumable upload cannot go on after this. After all else its client may send on.
    pub(super) fn ends_upload(&self) -> bool {
        matches!(
            self.reason,
            Reason::Digest
                | Reason::Precondition
                | Reason::TooLarge
                | Reason::Quota
                | Reason::NoRoom
        )
    }

    /// The request makes no sense (400).
    pub fn invalid(message: impl Into<String>) -> Self {
        ApiError::new(Reason::Invalid, message)
    }

    /// What was asked for is a part of Storage's API that Kiln does not have. A 4xx, because clients try a 5xx again.
    pub fn not_built(what: impl std::fmt::Display) -> Self {
        let message = format!("Kiln's object store does not have {what}");
        ApiError::new(Reason::NotBuilt, message)
    }

    /// A bucket, object or upload is not there (404).
    pub fn not_found(message: impl Into<String>) -> Self {
        ApiError::new(Reason::NotFound, message)
    }

    pub(super) fn no_bucket(bucket: &str) -> Self {
        ApiError::not_found(format!("The specified bucket does not exist: {bucket}"))
    }

    pub(super) fn no_object(bucket: &str, name: &str) -> Self {
        ApiError::not_found(format!("No such object: {bucket}/{name}"))
    }

    /// Something of that name is there already, or stands in the way (409).
    pub fn conflict(message: impl Into<String>) -> Self {
        ApiError::new(Reason::Conflict, message)
    }

    pub(super) fn method(method: &axum::http::Method, path: &str) -> Self {
        let message = format!("{method} is not a method of {path}");
        ApiError::new(Reason::Method, message)
    }

    pub(super) fn length_required(message: impl Into<String>) -> Self {
        ApiError::new(Reason::LengthRequired, message)
    }

    /// A precondition such as `ifGenerationMatch` does not hold (412).
    pub fn precondition(message: impl Into<String>) -> Self {
        ApiError::new(Reason::Precondition, message)
    }

    /// The caller has this version already (304).
    pub(super) fn not_modified() -> Self {
        ApiError::new(Reason::NotModified, "")
    }

    /// More bytes than the server takes (413).
    pub fn too_large(message: impl Into<String>) -> Self {
        ApiError::new(Reason::TooLarge, message)
    }

    /// The content has not the digest that its client says (400).
    pub(super) fn digest(message: impl Into<String>) -> Self {
        ApiError::new(Reason::Digest, message)
    }

    pub(super) fn too_slow(seconds: u64) -> Self {
        let message = format!("nothing was received for {seconds} seconds");
        ApiError::new(Reason::TooSlow, message)
    }

    pub(super) fn too_many(message: impl Into<String>) -> Self {
        ApiError::new(Reason::TooMany, message)
    }

    /// An owner holds as much as it may (403: clients do not try it again).
    pub(super) fn quota(message: impl Into<String>) -> Self {
        ApiError::new(Reason::Quota, message)
    }

    pub(super) fn range(message: impl Into<String>) -> Self {
        ApiError::new(Reason::Range, message)
    }

    /// The client took its upload back (499, as Storage says it).
    pub(super) fn cancelled() -> Self {
        ApiError::new(Reason::Cancelled, "the upload was cancelled")
    }

    /// The server's own trouble with a file or its index; a full disk is told apart (507).
    pub(crate) fn of_io(doing: &str, error: &std::io::Error) -> Self {
        use std::io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
        if matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge) {
            return ApiError::full();
        }
        ApiError::internal(format!("{doing}: {error}"))
    }

    pub(super) fn full() -> Self {
        ApiError::no_room("there is no room left in the server's object store; nothing was stored")
    }

    /// The disk is full, or as full as the server lets it become (507).
    pub(super) fn no_room(message: impl Into<String>) -> Self {
        ApiError::new(Reason::NoRoom, message)
    }

    pub(super) fn internal(message: impl Into<String>) -> Self {
        ApiError::new(Reason::Internal, message)
    }

    /// The store of the contents does not answer, or not usefully (503): that may pass, so clients repeat it.
    pub(super) fn away(message: impl Into<String>) -> Self {
        ApiError::new(Reason::Away, message)
    }

    /// The store of the contents lets the server in no more (503): somebody has to give it other credentials.
    pub(super) fn barred(message: impl Into<String>) -> Self {
        ApiError::new(Reason::Barred, message)
    }

    /// What comes out of the store is not what was put in, or nothing does.
    pub(super) fn damaged(message: impl Into<String>) -> Self {
        ApiError::new(Reason::Damaged, message)
    }

    /// Whether a content came back as another, on the way or for good, or not at all.
    pub fn is_damaged(&self) -> bool {
        self.reason == Reason::Damaged
    }

    /// Whether the store of the contents is in the way, and what was refused may be done later.
    pub fn is_away(&self) -> bool {
        matches!(self.reason, Reason::Away | Reason::Barred)
    }

    pub(super) fn is_barred(&self) -> bool {
        self.reason == Reason::Barred
    }

    /// The body of the JSON API.
    pub fn json(&self) -> serde_json::Value {
        let cause = json!({ "domain": "global", "reason": self.reason(), "message": self.message });
        json!({ "error": {
            "code": self.status().as_u16(), "message": self.message, "status": self.canonical(), "errors": [cause],
        } })
    }

    /// The word of Google's canonical codes.
    fn canonical(&self) -> &'static str {
        match self.status().as_u16() {
            400 | 411 | 413 => "INVALID_ARGUMENT",
            401 => "UNAUTHENTICATED",
            403 => "PERMISSION_DENIED",
            404 => "NOT_FOUND",
            409 => "ALREADY_EXISTS",
            412 => "FAILED_PRECONDITION",
            416 => "OUT_OF_RANGE",
            429 | 507 => "RESOURCE_EXHAUSTED",
            499 => "CANCELLED",
            408 => "DEADLINE_EXCEEDED",
            503 => "UNAVAILABLE",
            405 => "UNIMPLEMENTED",
            _ => "INTERNAL",
        }
    }

    /// The answer of plain object addresses, `/{bucket}/{object}`.
    pub(super) fn xml(&self) -> Response<Body> {
        let code = match self.reason {
            Reason::NotFound => "NoSuchKey",
            Reason::Range => "InvalidRange",
            Reason::Precondition => "PreconditionFailed",
            Reason::Method => "MethodNotAllowed",
            Reason::NotBuilt => "NotImplemented",
            Reason::Internal | Reason::Away | Reason::Barred | Reason::Damaged => "InternalError",
            _ => "InvalidArgument",
        };
        let text = format!(
            "<?xml version='1.0' encoding='UTF-8'?><Error><Code>{code}</Code><Message>{}</Message></Error>",
            escape(&self.message)
        );
        self.with(text.into_bytes(), "application/xml; charset=UTF-8")
    }

    fn with(&self, body: Vec<u8>, kind: &'static str) -> Response<Body> {
        let is_silent = self.reason == Reason::NotModified;
        let body = if is_silent { Vec::new() } else { body };
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        if !is_silent {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        }
        headers.insert(
            header::CACHE_CONTROL,
            HeaderValue::from_static("private, max-age=0"),
        );
        response
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response<Body> {
        let text = self.json().to_string();
        self.with(text.into_bytes(), "application/json; charset=UTF-8")
    }
}

/// Text as XML's character data, without the characters that XML cannot hold.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            c if c.is_control() => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_code_reason_and_sentence() {
        let error = ApiError::no_object("b", "a<\u{1}>&");
        let body = error.json();
        assert_eq!(body["error"]["code"], 404);
        assert_eq!(body["error"]["errors"][0]["reason"], "notFound");
        assert_eq!(body["error"]["status"], "NOT_FOUND");
        assert_eq!(escape("a<\u{1}>&"), "a&lt;\u{fffd}&gt;&amp;");
    }

    #[test]
    fn a_full_disk_is_told_apart() {
        let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
        assert_eq!(ApiError::of_io("writing", &full).status().as_u16(), 507);
        let other = std::io::Error::from(std::io::ErrorKind::PermissionDenied);
        assert_eq!(ApiError::of_io("writing", &other).status().as_u16(), 500);
    }
}
