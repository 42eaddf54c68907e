//! Answers that carry content: of stored objects, and of logs that still grow.

use std::ops::Range;
use std::sync::Arc;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use serde_json::{Value, json};

use super::condition::Conditions;
use super::error::{ApiError, Result};
use super::live::{self, Growing, Live};
use super::name::{BucketName, ObjectName};
use super::range::Asked;
use super::resource::{Object, encoded, time};
use super::store::{Objects, now};
use crate::pieces;

/// The media type of logs.
const TEXT: &str = "text/plain; charset=utf-8";

/// Where contents are read from.
#[derive(Clone)]
pub(super) struct Source {
    pub(super) objects: Objects,
    pub(super) live: Arc<dyn Live>,
}

impl Source {
    /// Answers with an object's content, or the part that `Range` asks for.
    pub(super) async fn content(
        &self,
        bucket: &BucketName,
        name: &ObjectName,
        generation: Option<i64>,
        conditions: &Conditions,
        headers: &HeaderMap,
    ) -> Result<Response<Body>> {
        if let Some(growing) = self.growing(bucket, name).await? {
            return growing_content(growing, headers);
        }
        let opened = self.objects.open_object(bucket, name, generation).await?;
        conditions.check_read(&opened.object)?;
        let object = opened.object.clone();
        let asked = value(headers, &header::RANGE)
            .and_then(Asked::parse)
            // A condition on a version that is not this one: the whole is asked for.
            .filter(|_| {
                value(headers, &header::IF_RANGE).is_none_or(|etag| etag == quoted(&object))
            });
        let range = asked.map(|asked| asked.within(object.size)).transpose();
        let range = range.map_err(|error| (error, object.size));
        let range = match range {
            Ok(range) => range,
            Err((error, size)) => return Ok(not_satisfiable(&error, size)),
        };
        let mut response = partial(range.clone(), object.size);
        describe(response.headers_mut(), &object, range.is_none());
        let Range { start, end } = range.unwrap_or(0..object.size);
        *response.body_mut() = Body::from_stream(opened.read(start, end));
        Ok(response)
    }

    /// What is known of an object, in JSON.
    pub(super) async fn describe(
        &self,
        bucket: &BucketName,
        name: &ObjectName,
        generation: Option<i64>,
        conditions: &Conditions,
        base: &str,
    ) -> Result<Value> {
        if let Some(growing) = self.growing(bucket, name).await? {
            return Ok(growing_json(bucket, name, growing.size, base));
        }
        let object = self.objects.get(bucket, name, generation).await?;
        conditions.check_read(&object)?;
        Ok(object.json(base))
    }

    async fn growing(&self, bucket: &BucketName, name: &ObjectName) -> Result<Option<Growing>> {
        live::open(&self.live, bucket.as_str(), name.as_str()).await
    }
}

/// A log that grows has no digests: they would be wrong a moment later.
fn growing_json(bucket: &BucketName, name: &ObjectName, size: u64, base: &str) -> Value {
    let path = format!("b/{bucket}/o/{}", encoded(name.as_str()));
    let now = time(now());
    json!({
        "kind": "storage#object", "id": format!("{bucket}/{name}/1"), "bucket": bucket.as_str(), "name": name.as_str(),
        "selfLink": format!("{base}/storage/v1/{path}"),
        "mediaLink": format!("{base}/download/storage/v1/{path}?alt=media"),
        "generation": "1", "metageneration": "1", "size": size.to_string(), "contentType": TEXT,
        "storageClass": "STANDARD", "timeCreated": now, "updated": now,
    })
}

fn growing_content(growing: Growing, headers: &HeaderMap) -> Result<Response<Body>> {
    let asked = match value(headers, &header::RANGE) {
        None => None,
        Some(text) => {
            // A client that asks for new lines must not get the old ones again.
            let wrong = || {
                ApiError::invalid(
                    "a log is read with a Range of the form bytes=FIRST- or bytes=FIRST-LAST",
                )
            };
            Some(Asked::parse(text).ok_or_else(wrong)?)
        }
    };
    let range = match asked.map(|asked| asked.within(growing.size)).transpose() {
        Ok(range) => range,
        Err(error) => return Ok(not_satisfiable(&error, growing.size)),
    };
    let mut response = partial(range.clone(), growing.size);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(TEXT));
    headers.insert(
        header::CACHE_CONTROL,
        HeaderValue::from_static("no-store, no-transform"),
    );
    harmless(headers);
    let range = range.unwrap_or(0..growing.size);
    *response.body_mut() = Body::from_stream(pieces::of(growing.file, range));
    Ok(response)
}

/// A 200, or a 206 with its range.
fn partial(range: Option<Range<u64>>, size: u64) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    let length = range.as_ref().map_or(size, |range| range.end - range.start);
    if let Some(range) = range {
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        let text = format!("bytes {}-{}/{size}", range.start, range.end - 1);
        put(response.headers_mut(), header::CONTENT_RANGE, &text);
    }
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    response
}

fn not_satisfiable(error: &ApiError, size: u64) -> Response<Body> {
    let mut response = error.xml();
    let text = format!("bytes */{size}");
    put(response.headers_mut(), header::CONTENT_RANGE, &text);
    response
}

/// The headers that Storage sends with an object's content.
fn describe(headers: &mut HeaderMap, object: &Object, is_whole: bool) {
    let attributes = &object.attributes;
    let kind = attributes.content_type.as_deref();
    put(
        headers,
        header::CONTENT_TYPE,
        kind.unwrap_or("application/octet-stream"),
    );
    let passed_on = [
        (header::CONTENT_ENCODING, &attributes.content_encoding),
        (header::CONTENT_DISPOSITION, &attributes.content_disposition),
        (header::CONTENT_LANGUAGE, &attributes.content_language),
    ];
    for (name, value) in passed_on {
        if let Some(value) = value {
            put(headers, name, value);
        }
    }
    let cache = attributes.cache_control.as_deref();
    put(
        headers,
        header::CACHE_CONTROL,
        cache.unwrap_or("private, max-age=0"),
    );
    put(headers, header::ETAG, &quoted(object));
    let google = |name| HeaderName::from_static(name);
    put(
        headers,
        google("x-goog-generation"),
        &object.generation.to_string(),
    );
    put(
        headers,
        google("x-goog-metageneration"),
        &object.metageneration.to_string(),
    );
    put(headers, google("x-goog-storage-class"), "STANDARD");
    let size = object.size.to_string();
    put(headers, google("x-goog-stored-content-length"), &size);
    let coding = attributes.content_encoding.as_deref();
    put(
        headers,
        google("x-goog-stored-content-encoding"),
        coding.unwrap_or("identity"),
    );
    if is_whole {
        let hash = format!("crc32c={},md5={}", object.crc32c_text(), object.md5_text());
        put(headers, google("x-goog-hash"), &hash);
    }
    harmless(headers);
}

/// What somebody uploaded must not act as a page of this server in a browser.
fn harmless(headers: &mut HeaderMap) {
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    headers.insert(
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static("sandbox"),
    );
}

fn quoted(object: &Object) -> String {
    format!("\"{}\"", object.etag())
}

/// A header whose value was checked when it came in.
fn put(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_bytes(value.as_bytes()) {
        headers.insert(name, value);
    }
}

/// A header as text; one that is none is as good as absent.
pub(super) fn value<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}
