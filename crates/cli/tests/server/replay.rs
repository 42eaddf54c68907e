//! What Google's command line sends about builds and triggers, recorded from the real one by `cargo xtask record-gcloud`, and sent
//! again where there is none.
//!
//! Ids, generations and times are those of the run; all else has to be what it was. Requests about builds that still run are left
//! out: how many there are is a matter of time.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::gcloud::repository;
use crate::harness::Server;

/// What differs from run to run.
const VOLATILE: &[&str] = &[
    "createTime",
    "endTime",
    "etag",
    "finishTime",
    "generation",
    "logUrl",
    "mediaLink",
    "nextPageToken",
    "selfLink",
    "startTime",
    "statusDetail",
    "timeCreated",
    "timeStorageClassUpdated",
    "updated",
];

/// A server in front of the server, which notes what it hands on.
pub(crate) struct Recorder {
    pub(crate) address: SocketAddr,
    noted: Arc<Mutex<Vec<Value>>>,
}

impl Recorder {
    pub(crate) fn start(server: SocketAddr) -> Recorder {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let noted = Arc::new(Mutex::new(Vec::new()));
        let all = Arc::clone(&noted);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let all = Arc::clone(&all);
                // A client that has gone has nothing to be told.
                std::thread::spawn(move || drop(hand_on(client, server, &all)));
            }
        });
        Recorder { address, noted }
    }

    /// Writes a transcript, if that is asked for.
    pub(crate) fn save(&self, name: &str) {
        if std::env::var_os("KILN_RECORD_GCLOUD").is_none() {
            return;
        }
        let noted = self.noted.lock().unwrap();
        let lines: Vec<String> = noted.iter().map(Value::to_string).collect();
        std::fs::write(file(name), format!("[\n{}\n]\n", lines.join(",\n"))).unwrap();
    }
}

fn file(name: &str) -> PathBuf {
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts");
    directory.join(format!("{name}.json"))
}

/// Hands one request on, or a tunnel with all that goes through it.
fn hand_on(mut client: TcpStream, server: SocketAddr, all: &Mutex<Vec<Value>>) -> io::Result<()> {
    let mut rest = Vec::new();
    let end = loop {
        if let Some(at) = rest.windows(4).position(|four| four == b"\r\n\r\n") {
            break at + 4;
        }
        let mut chunk = [0; 4096];
        match client.read(&mut chunk)? {
            0 => return Ok(()),
            length => rest.extend_from_slice(&chunk[..length]),
        }
    };
    let mut body = rest.split_off(end);
    let head = String::from_utf8_lossy(&rest).into_owned();
    let mut to = TcpStream::connect(server)?;
    if head.starts_with("CONNECT ") {
        to.write_all(&rest)?;
        to.write_all(&body)?;
        let (mut from_client, mut to_client) = (client.try_clone()?, client);
        let mut to_server = to.try_clone()?;
        std::thread::spawn(move || {
            drop(io::copy(&mut from_client, &mut to_server));
            drop(to_server.shutdown(Shutdown::Write));
        });
        io::copy(&mut to, &mut to_client)?;
        return to_client.shutdown(Shutdown::Both);
    }
    let length = header(&head, "content-length").map_or(0, |text| text.parse().expect("a length"));
    while body.len() < length {
        let mut chunk = [0; 65536];
        match client.read(&mut chunk)? {
            0 => return Ok(()),
            more => body.extend_from_slice(&chunk[..more]),
        }
    }
    let kept: Vec<&str> = head
        .trim_end()
        .lines()
        .filter(|line| !line.to_ascii_lowercase().starts_with("connection:"))
        .collect();
    let head = format!("{}\r\nConnection: close\r\n\r\n", kept.join("\r\n"));
    to.write_all(head.as_bytes())?;
    to.write_all(&body)?;
    let mut answer = Vec::new();
    to.read_to_end(&mut answer)?;
    all.lock().unwrap().extend(exchange(&head, &body, &answer));
    client.write_all(&answer)
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| {
        let (given, value) = line.split_once(':')?;
        given.eq_ignore_ascii_case(name).then_some(value.trim())
    })
}

/// A request and its answer, if they tell something in another run too.
fn exchange(head: &str, body: &[u8], answer: &[u8]) -> Option<Value> {
    let mut words = head.split(' ');
    let (method, target) = (words.next()?, words.next()?);
    let path = target.find("://").map_or(target, |at| {
        let rest = &target[at + 3..];
        &rest[rest.find('/').unwrap_or(rest.len())..]
    });
    let (status, answer) = parts(answer);
    let answer: Value = serde_json::from_slice(&answer).unwrap_or(Value::Null);
    let open = ["QUEUED", "WORKING"].contains(&answer["status"].as_str().unwrap_or(""));
    if path.starts_with("/ca.pem") || method == "GET" && open {
        return None;
    }
    Some(json!({
        "method": method,
        "target": path,
        "type": header(head, "content-type"),
        "range": header(head, "range"),
        "body": body.iter().map(|byte| char::from(*byte)).collect::<String>(),
        "status": status,
        "answer": answer,
    }))
}

fn parts(answer: &[u8]) -> (u16, Vec<u8>) {
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n");
    let end = end.expect("a head") + 4;
    let status = String::from_utf8_lossy(&answer[9..12]);
    (status.parse().expect("a status"), answer[end..].to_vec())
}

fn recorded(name: &str) -> String {
    std::fs::read_to_string(file(name)).expect("a transcript")
}

/// Sends what was recorded; `renamed` has names of the record and those of now.
fn replay(name: &str, mut renamed: Vec<(String, String)>) {
    let text = recorded(name);
    let exchanges: Vec<Value> = serde_json::from_str(&text).unwrap();
    assert!(exchanges.len() > 10, "the transcript is short");
    let server = Server::open();
    for (at, exchange) in exchanges.iter().enumerate() {
        let rename = |text: &str| {
            let pairs = renamed.iter();
            pairs.fold(text.to_owned(), |text, (old, new)| text.replace(old, new))
        };
        let (status, mut new) = again(&server, exchange, &rename);
        let mut old: Value =
            serde_json::from_str(&rename(&exchange["answer"].to_string())).unwrap();
        let told = format!(
            "request {at}: {} {}: {new}",
            exchange["method"], exchange["target"]
        );
        assert_eq!(status, exchange["status"], "{told}");
        let before = renamed.len();
        pair(&old, &new, &mut renamed);
        let fresh = &renamed[before..];
        let text = fresh
            .iter()
            .fold(old.to_string(), |text, (old, new)| text.replace(old, new));
        old = serde_json::from_str(&text).unwrap();
        forget(&mut old);
        forget(&mut new);
        assert_eq!(new, old, "{told}");
    }
}

/// Sends a request again; as often as it takes where its answer was of a build that had ended.
fn again(server: &Server, exchange: &Value, rename: &impl Fn(&str) -> String) -> (u16, Value) {
    let text = |name: &str| rename(exchange[name].as_str().unwrap_or(""));
    let ended = exchange["method"] == "GET" && exchange["answer"]["status"].is_string();
    let body: Vec<u8> = text("body")
        .chars()
        .map(|byte| u8::try_from(byte).unwrap())
        .collect();
    let mut header = String::new();
    for (field, name) in [("type", "Content-Type"), ("range", "Range")] {
        if let Some(value) = exchange[field].as_str() {
            header.push_str(&format!("{name}: {value}\r\n"));
        }
    }
    let since = Instant::now();
    loop {
        let (status, answer) = server.request(&text("method"), &text("target"), &header, &body);
        let answer: Value = serde_json::from_slice(&answer).unwrap_or(Value::Null);
        let open = ["QUEUED", "WORKING"].contains(&answer["status"].as_str().unwrap_or(""));
        if !(ended && open) {
            return (status, answer);
        }
        assert!(since.elapsed() < Duration::from_secs(60), "{answer}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Names of the record and those of now, as they come.
fn pair(old: &Value, new: &Value, renamed: &mut Vec<(String, String)>) {
    match (old, new) {
        (Value::Object(old), Value::Object(new)) => {
            for (name, old) in old {
                let Some(new) = new.get(name) else { continue };
                if let ("id" | "name" | "generation" | "nextPageToken", Some(old), Some(new)) =
                    (name.as_str(), old.as_str(), new.as_str())
                    && old != new
                    && old.len() > 8
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

#[test]
fn recorded_requests_about_builds_are_answered_as_they_were() {
    replay("builds", Vec::new());
}

#[test]
fn recorded_requests_about_triggers_are_answered_as_they_were() {
    replay("triggers", Vec::new());
}

#[test]
fn recorded_requests_about_repositories_are_answered_as_they_were() {
    let (_dir, repositories, _) = repository();
    let name = "team/lab.git";
    let text = recorded("repositories");
    let end = text.find(name).expect("a repository");
    let begin = text[..end].rfind("http://").expect("its address");
    let old = format!("{}{name}", &text[begin..end]);
    replay("repositories", vec![(old, repositories.url(name))]);
}
