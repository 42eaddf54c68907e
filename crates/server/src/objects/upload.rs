//! Uploads: in one piece, with their metadata in front, or in several requests.

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue, Method, Response, StatusCode, header};
use serde_json::Value;

use super::condition::Conditions;
use super::download::value;
use super::error::{ApiError, Result};
use super::incoming::Incoming;
use super::multipart::{self, Parser, Piece};
use super::name::{BucketName, ObjectName};
use super::range::Sent;
use super::request::Request;
use super::resource::{Attributes, Object};
use super::route::{Query, no_method};
use super::session::{self, Progress};
use super::store::Objects;

/// The parameters of uploads that are not built.
const NOT_BUILT: &[&str] = &["kmsKeyName", "predefinedAcl", "contentEncoding"];

/// A request for an upload.
pub(super) struct Upload<'a> {
    pub(super) objects: &'a Objects,
    pub(super) bucket: BucketName,
    pub(super) query: Query,
    pub(super) parts: &'a Parts,
    /// The server's address as the client spells it.
    pub(super) base: &'a str,
}

impl Upload<'_> {
    pub(super) async fn answer(&self, body: &mut Incoming) -> Result<Response<Body>> {
        self.query.refuse(NOT_BUILT)?;
        no_encryption(self.parts)?;
        let method = &self.parts.method;
        if let Some(id) = self.query.get("upload_id") {
            return match *method {
                Method::DELETE => {
                    session::cancel(self.objects, &self.bucket, id).await?;
                    Err(ApiError::cancelled())
                }
                Method::PUT | Method::POST => self.go_on(id, body).await,
                _ => no_method(method, self.parts.uri.path()),
            };
        }
        if *method != Method::POST {
            return no_method(method, self.parts.uri.path());
        }
        match self.query.get("uploadType") {
            Some("multipart") => self.multipart(body).await,
            Some("media") => self.media(body).await,
            Some("resumable") => self.start(body).await,
            _ => Err(ApiError::invalid(
                "uploadType is media, multipart or resumable",
            )),
        }
    }

    async fn media(&self, body: &mut Incoming) -> Result<Response<Body>> {
        let name = self.name(None)?;
        let kind = value(&self.parts.headers, &header::CONTENT_TYPE);
        let request = self.request(Value::Null, kind)?;
        let mut making = self.objects.stage(self.length()).await?;
        while let Some(bytes) = body.next().await? {
            self.objects.write(&mut making, bytes).await?;
        }
        let object = self
            .objects
            .commit_staged(&self.bucket, &name, making, &request)
            .await?;
        Ok(self.stored(&object))
    }

    async fn multipart(&self, body: &mut Incoming) -> Result<Response<Body>> {
        let kind = value(&self.parts.headers, &header::CONTENT_TYPE);
        let mut parser = Parser::new(multipart::boundary(kind.unwrap_or(""))?);
        // What is around the content is not much.
        self.objects.check_disk(self.length()).await?;
        let mut making = self.objects.stage(0).await?;
        let (mut described, mut media_type, mut ended) = (Value::Null, None, false);
        while let Some(bytes) = body.next().await? {
            parser.push(&bytes)?;
            while let Some(piece) = parser.next() {
                match piece {
                    Piece::Json(json) => described = parse(&json)?,
                    Piece::Content(kind) => media_type = kind,
                    Piece::Bytes(bytes) => self.objects.write(&mut making, bytes).await?,
                    Piece::End => ended = true,
                }
            }
        }
        if !ended {
            return Err(ApiError::invalid(
                "the multipart body ends before its last boundary",
            ));
        }
        let name = self.name(described["name"].as_str())?;
        let request = self.request(described, media_type.as_deref())?;
        let object = self
            .objects
            .commit_staged(&self.bucket, &name, making, &request)
            .await?;
        Ok(self.stored(&object))
    }

    /// Begins a resumable upload: its address is in `Location`.
    async fn start(&self, body: &mut Incoming) -> Result<Response<Body>> {
        let json = body.whole(multipart::JSON_MAX).await?;
        let described = if json.is_empty() {
            Value::Null
        } else {
            parse(&json)?
        };
        let name = self.name(described["name"].as_str())?;
        let headers = &self.parts.headers;
        let kind = value(headers, &HeaderName::from_static("x-upload-content-type"));
        let request = self.request(described, kind)?;
        let total = match value(headers, &HeaderName::from_static("x-upload-content-length")) {
            None => None,
            Some(text) => {
                let wrong = |_| ApiError::invalid("X-Upload-Content-Length is a number of bytes");
                Some(text.parse().map_err(wrong)?)
            }
        };
        let (bucket, shown) = (self.bucket.clone(), self.bucket.as_str());
        let id = session::start(self.objects, bucket, name, &request, total).await?;
        let path = self.parts.uri.path().trim_start_matches("/resumable");
        let prefix = path.split("/b/").next().unwrap_or("/upload/storage/v1");
        let location = format!(
            "{}{prefix}/b/{shown}/o?uploadType=resumable&upload_id={id}",
            self.base
        );
        let mut response = Response::new(Body::empty());
        let headers = response.headers_mut();
        let location = HeaderValue::try_from(location)
            .map_err(|_| ApiError::invalid("the request's Host is no name of a host"))?;
        headers.insert(header::LOCATION, location);
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(0));
        headers.insert(
            "x-guploader-uploadid",
            HeaderValue::try_from(id).map_err(|error| ApiError::internal(error.to_string()))?,
        );
        Ok(response)
    }

    async fn go_on(&self, id: &str, body: &mut Incoming) -> Result<Response<Body>> {
        let headers = &self.parts.headers;
        let sent = match value(headers, &header::CONTENT_RANGE) {
            Some(text) => Sent::parse(text)?,
            None => whole(value(headers, &header::CONTENT_LENGTH))?,
        };
        match session::receive(self.objects, &self.bucket, id, sent, body).await? {
            Progress::Done(object) => Ok(self.stored(&object)),
            Progress::Received(bytes) => {
                let mut response = Response::new(Body::empty());
                *response.status_mut() = StatusCode::PERMANENT_REDIRECT;
                let headers = response.headers_mut();
                headers.insert(header::CONTENT_LENGTH, HeaderValue::from(0));
                if let Some(last) = bytes.checked_sub(1)
                    && let Ok(range) = HeaderValue::try_from(format!("bytes=0-{last}"))
                {
                    headers.insert(header::RANGE, range);
                }
                Ok(response)
            }
        }
    }

    /// What the request says that its body has.
    fn length(&self) -> u64 {
        let length = value(&self.parts.headers, &header::CONTENT_LENGTH);
        length.and_then(|length| length.parse().ok()).unwrap_or(0)
    }

    /// The name from the query, or from the metadata; if both say one, it is the same.
    fn name(&self, described: Option<&str>) -> Result<ObjectName> {
        let name = match (self.query.get("name"), described) {
            (Some(query), Some(described)) if query != described => {
                return Err(ApiError::invalid(
                    "the name in the query is not the one in the metadata",
                ));
            }
            (Some(name), _) | (None, Some(name)) => name,
            (None, None) => return Err(ApiError::invalid("Required parameter: name")),
        };
        ObjectName::new(name)
    }

    fn request(&self, described: Value, media_type: Option<&str>) -> Result<Request> {
        let text = |name: &str| described[name].as_str().map(str::to_owned);
        let (md5, crc32c) = (text("md5Hash"), text("crc32c"));
        let mut attributes = match described {
            Value::Null => Attributes::default(),
            described => Attributes::of_json(described)?,
        };
        if attributes.content_type.is_none() {
            let kind = media_type.unwrap_or("application/octet-stream");
            attributes.content_type = Some(kind.to_owned());
        }
        Ok(Request {
            attributes: attributes.check()?,
            conditions: Conditions::of_query(&self.query, false)?,
            md5,
            crc32c,
        })
    }

    fn stored(&self, object: &Object) -> Response<Body> {
        super::answer::json(&object.json(self.base))
    }
}

/// A request that carries all of an upload says only how long it is.
fn whole(length: Option<&str>) -> Result<Sent> {
    let length: Option<u64> = length.and_then(|length| length.parse().ok());
    match length {
        None => Err(ApiError::length_required(
            "an upload goes on with a Content-Range or a Content-Length",
        )),
        Some(0) => Ok(Sent {
            bytes: None,
            total: Some(0),
        }),
        Some(length) => Ok(Sent {
            bytes: Some((0, length - 1)),
            total: Some(length),
        }),
    }
}

/// Reads a JSON object.
pub(super) fn parse(json: &[u8]) -> Result<Value> {
    let read: serde_json::Result<Value> = serde_json::from_slice(json);
    let value = read.map_err(|error| ApiError::invalid(format!("Parse Error: {error}")))?;
    if !value.is_object() {
        return Err(ApiError::invalid("Parse Error: a JSON object is expected"));
    }
    Ok(value)
}

/// Contents with a key of the client's own are not built.
pub(super) fn no_encryption(parts: &Parts) -> Result<()> {
    let is_key = |name: &&HeaderName| {
        name.as_str().starts_with("x-goog-encryption")
            || name.as_str().starts_with("x-goog-copy-source-encryption")
    };
    match parts.headers.keys().find(is_key) {
        Some(name) => Err(ApiError::not_built(format!(
            "encryption with a key of the client's ({name})"
        ))),
        None => Ok(()),
    }
}
