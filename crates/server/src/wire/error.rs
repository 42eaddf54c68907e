//! Errors as Google's APIs answer them.

use serde_json::{Value, json};

/// A canonical code of Google's APIs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// The request is wrong, whatever the state of the server.
    InvalidArgument,
    /// The request does not fit the state that something is in.
    FailedPrecondition,
    /// There is no such thing.
    NotFound,
    /// There is one of that name.
    AlreadyExists,
    /// No token, or an unknown one.
    Unauthenticated,
    /// The token's role does not go so far.
    PermissionDenied,
    /// Too much at once, or too large.
    ResourceExhausted,
    /// A fault of the server.
    Internal,
}

impl Code {
    /// The status of the HTTP reply.
    pub fn http(self) -> u16 {
        match self {
            Code::InvalidArgument | Code::FailedPrecondition => 400,
            Code::Unauthenticated => 401,
            Code::PermissionDenied => 403,
            Code::NotFound => 404,
            Code::AlreadyExists => 409,
            Code::ResourceExhausted => 429,
            Code::Internal => 500,
        }
    }

    /// The name in the body.
    pub fn name(self) -> &'static str {
        match self {
            Code::InvalidArgument => "INVALID_ARGUMENT",
            Code::FailedPrecondition => "FAILED_PRECONDITION",
            Code::NotFound => "NOT_FOUND",
            Code::AlreadyExists => "ALREADY_EXISTS",
            Code::Unauthenticated => "UNAUTHENTICATED",
            Code::PermissionDenied => "PERMISSION_DENIED",
            Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
            Code::Internal => "INTERNAL",
        }
    }
}

/// A refusal: what a client is told.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// The kind.
    pub code: Code,
    /// One or more sentences.
    pub message: String,
}

impl ApiError {
    /// A refusal of some kind.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        ApiError {
            code,
            message: message.into(),
        }
    }

    /// The request is wrong.
    pub fn invalid(message: impl Into<String>) -> Self {
        ApiError::new(Code::InvalidArgument, message)
    }

    /// A fault of the server.
    pub fn internal(error: impl std::fmt::Display) -> Self {
        ApiError::new(Code::Internal, format!("internal error: {error}"))
    }

    /// The body of the reply.
    pub fn body(&self) -> Value {
        json!({ "error": {
            "code": self.code.http(),
            "message": self.message,
            "status": self.code.name(),
        }})
    }
}
