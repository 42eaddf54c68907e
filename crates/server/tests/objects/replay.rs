//! What Google's command line sends, recorded from the real one, and sent again where there is none.
//!
//! A transcript is a list of requests with their answers. When it is replayed, generations and ids of uploads are those that this
//! server gives; all else that a client relies on has to be what it was.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use flate2::Compression;
use flate2::read::{GzDecoder, GzEncoder};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::gcloud::prepare;
use crate::harness::{Reply, Server};

/// Headers of requests that mean something to the store.
const SENT: &[&str] = &[
    "content-type",
    "content-range",
    "range",
    "accept-encoding",
    "x-upload-content-type",
    "x-upload-content-length",
];
/// Headers of answers that mean something to the client.
const ANSWERED: &[&str] = &[
    "location",
    "range",
    "content-range",
    "content-type",
    "x-goog-hash",
    "x-goog-stored-content-length",
];
/// What differs from run to run.
const VOLATILE: &[&str] = &[
    "generation",
    "id",
    "selfLink",
    "mediaLink",
    "etag",
    "timeCreated",
    "updated",
    "timeStorageClassUpdated",
    "nextPageToken",
];

/// A request and its answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Exchange {
    method: String,
    target: String,
    host: String,
    sent: Vec<(String, String)>,
    body: Packed,
    status: u16,
    answered: Vec<(String, String)>,
    answer: Packed,
}

/// Bytes in gzip and base64.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Packed(String);

impl Packed {
    fn new(bytes: &[u8]) -> Packed {
        let mut packed = Vec::new();
        GzEncoder::new(bytes, Compression::best())
            .read_to_end(&mut packed)
            .unwrap();
        Packed(BASE64.encode(packed))
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let packed = BASE64.decode(&self.0).unwrap();
        GzDecoder::new(&packed[..]).read_to_end(&mut bytes).unwrap();
        bytes
    }
}

/// Notes what a server is asked and what it answers.
#[derive(Default)]
pub(crate) struct Recorder(Mutex<Vec<Exchange>>);

impl Recorder {
    pub(crate) fn layer(self: &Arc<Self>, router: Router) -> Router {
        let own = Arc::clone(self);
        router.layer(from_fn(move |request: Request, next: Next| {
            let own = Arc::clone(&own);
            async move { own.note(request, next).await }
        }))
    }

    async fn note(&self, request: Request, next: Next) -> Response {
        let (parts, body) = request.into_parts();
        let body = to_bytes(body, usize::MAX).await.unwrap();
        let kept = |headers: &axum::http::HeaderMap, names: &[&str]| -> Vec<(String, String)> {
            let found = names.iter().filter_map(|name| {
                Some((
                    (*name).to_owned(),
                    headers.get(*name)?.to_str().unwrap().to_owned(),
                ))
            });
            found.collect()
        };
        let host = parts
            .headers
            .get("host")
            .and_then(|host| host.to_str().ok())
            .unwrap_or("")
            .to_owned();
        let mut exchange = Exchange {
            method: parts.method.to_string(),
            target: parts.uri.path_and_query().unwrap().to_string(),
            sent: kept(&parts.headers, SENT),
            host: host.clone(),
            body: Packed::new(&body),
            status: 0,
            answered: Vec::new(),
            answer: Packed::new(b""),
        };
        let response = next.run(Request::from_parts(parts, Body::from(body))).await;
        let (parts, body) = response.into_parts();
        let body = to_bytes(body, usize::MAX).await.unwrap();
        exchange.status = parts.status.as_u16();
        exchange.answered = kept(&parts.headers, ANSWERED);
        // The server's own address is of that run only.
        let is_own = host.starts_with("127.0.0.1");
        let neutral = |text: &str| {
            if is_own {
                text.replace(&host, "SERVER")
            } else {
                text.to_owned()
            }
        };
        for (_, value) in &mut exchange.answered {
            *value = neutral(value);
        }
        exchange.answer = match std::str::from_utf8(&body) {
            Ok(text) => Packed::new(neutral(text).as_bytes()),
            Err(_) => Packed::new(&body),
        };
        exchange.host = neutral(&host);
        self.0.lock().unwrap().push(exchange);
        Response::from_parts(parts, Body::from(body))
    }

    /// Writes what was noted.
    pub(crate) fn save(&self) {
        let all = self.0.lock().unwrap();
        let mut lines = String::from("[\n");
        for (at, exchange) in all.iter().enumerate() {
            let comma = if at + 1 < all.len() { "," } else { "" };
            lines.push_str(&format!(
                "{}{comma}\n",
                serde_json::to_string(exchange).unwrap()
            ));
        }
        lines.push_str("]\n");
        std::fs::write(file(), lines).unwrap();
    }
}

fn file() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts/storage.json")
}

#[test]
fn recorded_requests_are_answered_as_they_were() {
    let text = std::fs::read_to_string(file())
        .expect("a transcript; `cargo xtask record-gcloud` makes it");
    let exchanges: Vec<Exchange> = serde_json::from_str(&text).unwrap();
    assert!(exchanges.len() > 20, "the transcript is short");
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path());
    prepare(&server, directory.path());
    let mut renamed: Vec<(String, String)> = Vec::new();
    for (at, exchange) in exchanges.iter().enumerate() {
        let reply = again(&server, exchange, &renamed);
        let told = format!(
            "request {at}: {} {}: {}",
            exchange.method,
            exchange.target,
            reply.text()
        );
        assert_eq!(reply.status, exchange.status, "{told}");
        let (old, new) = (exchange.answer.bytes(), &reply.body);
        match (
            serde_json::from_slice::<Value>(&old),
            serde_json::from_slice::<Value>(new),
        ) {
            (Ok(mut old), Ok(mut new)) => {
                pair(&old, &new, &mut renamed);
                forget(&mut old);
                forget(&mut new);
                assert_eq!(new, old, "{told}");
            }
            // Texts of errors hold names of this run.
            _ if exchange.status >= 400 => {}
            _ => assert!(old == *new, "{told}"),
        }
        for (name, value) in &exchange.answered {
            let now = reply
                .header(name)
                .unwrap_or_else(|| panic!("{told}: no {name}"));
            match (upload_id(value), upload_id(now)) {
                (Some(old), Some(new)) => renamed.push((old.to_owned(), new.to_owned())),
                _ => assert_eq!(now, value, "{told}"),
            }
        }
    }
}

fn upload_id(text: &str) -> Option<&str> {
    text.split_once("upload_id=").map(|(_, id)| id)
}

/// Generations of the record and those of now, as they come.
fn pair(old: &Value, new: &Value, renamed: &mut Vec<(String, String)>) {
    match (old, new) {
        (Value::Object(old), Value::Object(new)) => {
            for (name, old) in old {
                let Some(new) = new.get(name) else { continue };
                if let ("generation" | "nextPageToken", Some(old), Some(new)) =
                    (name.as_str(), old.as_str(), new.as_str())
                {
                    renamed.push((old.to_owned(), new.to_owned()));
                }
                pair(old, new, renamed);
            }
        }
        (Value::Array(old), Value::Array(new)) => old
            .iter()
            .zip(new)
            .for_each(|(old, new)| pair(old, new, renamed)),
        _ => {}
    }
}

fn forget(value: &mut Value) {
    match value {
        Value::Object(all) => {
            all.retain(|name, _| !VOLATILE.contains(&name.as_str()));
            all.values_mut().for_each(forget);
        }
        Value::Array(all) => all.iter_mut().for_each(forget),
        _ => {}
    }
}

fn again(server: &Server, exchange: &Exchange, renamed: &[(String, String)]) -> Reply {
    let rename = |text: &str| {
        // A generation of 1 is of a log, and in other numbers too.
        let long = renamed.iter().filter(|(old, _)| old.len() > 8);
        long.fold(text.to_owned(), |text, (old, new)| text.replace(old, new))
    };
    let host = exchange.host.replace("SERVER", &server.address.to_string());
    let body = exchange.body.bytes();
    let body = match String::from_utf8(body) {
        Ok(text) => rename(&text).into_bytes(),
        Err(error) => error.into_bytes(),
    };
    let mut head = format!(
        "{} {} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Length: {}\r\n",
        exchange.method,
        rename(&exchange.target),
        body.len()
    );
    for (name, value) in &exchange.sent {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    let mut stream = TcpStream::connect(server.address).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(60)))
        .unwrap();
    stream.write_all(format!("{head}\r\n").as_bytes()).unwrap();
    let _ = stream.write_all(&body);
    let reply = Reply::read(stream);
    reply.neutral(&server.address.to_string())
}
