//! Uploads over several requests, over broken connections, and over restarts of the server.

use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use kiln_server::objects::Limits;
use serde_json::json;

use crate::harness::{Reply, Server, pattern};

/// The path of a new upload.
fn start(server: &Server, name: &str, headers: &[(&str, &str)]) -> String {
    let target = format!("/resumable/upload/storage/v1/b/demo/o?uploadType=resumable&name={name}");
    let reply = server.send("POST", &target, headers, b"");
    assert_eq!(reply.status, 200, "{}", reply.text());
    let location = reply.header("location").unwrap();
    location.strip_prefix(&server.url()).unwrap().to_owned()
}

fn put(server: &Server, target: &str, range: &str, body: &[u8]) -> Reply {
    server.send("PUT", target, &[("Content-Range", range)], body)
}

#[test]
fn chunks_make_an_object() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start_in(super::PLACE, directory.path());
    server.bucket("demo");
    let content = pattern(1_000_000);
    let target = start(&server, "big", &[("X-Upload-Content-Type", "a/b")]);
    let asked = put(&server, &target, "bytes */*", b"");
    assert_eq!((asked.status, asked.header("range")), (308, None));
    let first = put(&server, &target, "bytes 0-262143/*", &content[..262_144]);
    assert_eq!(
        (first.status, first.header("range")),
        (308, Some("bytes=0-262143"))
    );
    // A gap is not taken; the answer says where to go on.
    let gap = put(&server, &target, "bytes 300000-300009/*", &content[..10]);
    assert_eq!(
        (gap.status, gap.header("range")),
        (308, Some("bytes=0-262143"))
    );
    // What is there already is skipped.
    let overlap = put(
        &server,
        &target,
        "bytes 262000-524287/*",
        &content[262_000..524_288],
    );
    assert_eq!(overlap.header("range"), Some("bytes=0-524287"));
    let last = put(
        &server,
        &target,
        "bytes 524288-999999/1000000",
        &content[524_288..],
    );
    assert_eq!(
        (last.status, last.json()["contentType"].as_str()),
        (200, Some("a/b"))
    );
    assert_eq!(
        server.get("/storage/v1/b/demo/o/big?alt=media").body,
        content
    );
    // The last answer may have been lost: it is given again.
    let again = put(&server, &target, "bytes */1000000", b"");
    assert_eq!(again.json()["generation"], last.json()["generation"]);
}

#[test]
fn an_upload_in_one_request_or_of_nothing_is_one_too() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start_in(super::PLACE, directory.path());
    server.bucket("demo");
    let target = start(&server, "one", &[]);
    assert_eq!(server.send("PUT", &target, &[], b"abc").json()["size"], "3");
    let target = start(&server, "none", &[]);
    assert_eq!(put(&server, &target, "bytes */0", b"").json()["size"], "0");
}

#[test]
fn an_upload_survives_the_server_and_a_broken_connection() {
    let directory = tempfile::tempdir().unwrap();
    let content = pattern(2_000_000);
    let server = Server::start_in(super::PLACE, directory.path());
    server.bucket("demo");
    let target = start(&server, "big", &[]);
    let mut broken = server.begin(
        "PUT",
        &target,
        &[("Content-Range", "bytes 0-1999999/2000000")],
        content.len(),
    );
    broken.write_all(&content[..700_000]).unwrap();
    drop(broken);
    let until = Instant::now() + Duration::from_secs(20);
    let received = loop {
        let asked = put(&server, &target, "bytes */2000000", b"");
        if let Some(range) = asked.header("range") {
            break range.rsplit('-').next().unwrap().parse::<usize>().unwrap() + 1;
        }
        assert!(Instant::now() < until, "nothing was kept");
        std::thread::sleep(Duration::from_millis(50));
    };
    assert_eq!(received, 700_000);
    drop(server);
    let server = Server::start_in(super::PLACE, directory.path());
    let rest = put(
        &server,
        &target,
        &format!("bytes {received}-1999999/2000000"),
        &content[received..],
    );
    assert_eq!(rest.status, 200, "{}", rest.text());
    assert_eq!(
        server.get("/storage/v1/b/demo/o/big?alt=media").body,
        content
    );
}

#[test]
fn a_later_request_ends_an_earlier_one() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start_in(super::PLACE, directory.path());
    server.bucket("demo");
    let target = start(&server, "x", &[]);
    let mut stuck = server.begin("PUT", &target, &[("Content-Range", "bytes 0-9/10")], 10);
    stuck.write_all(b"01234").unwrap();
    std::thread::sleep(Duration::from_millis(200));
    // It may come by Storage's own name, which has routes of its own.
    let mut other = TcpStream::connect(server.address).unwrap();
    let head = format!(
        "PUT {target} HTTP/1.1\r\nHost: storage.googleapis.com\r\nConnection: close\r\nContent-Range: bytes 0-9/10\r\nContent-Length: 10\r\n\r\n0123456789"
    );
    other.write_all(head.as_bytes()).unwrap();
    let whole = Reply::read(other);
    assert_eq!(whole.status, 200, "{}", whole.text());
    let ended = Reply::read(stuck);
    assert_eq!((ended.status, ended.reason().as_str()), (409, "conflict"));
    assert_eq!(
        server.get("/storage/v1/b/demo/o/x?alt=media").text(),
        "0123456789"
    );
}

#[test]
fn an_upload_can_be_cancelled_and_refused() {
    let directory = tempfile::tempdir().unwrap();
    let limits = Limits {
        uploads: 2,
        object: 1000,
        ..Limits::default()
    };
    let server = Server::with(super::PLACE, directory.path(), limits, None);
    server.bucket("demo");
    let target = start(&server, "x", &[]);
    put(&server, &target, "bytes 0-9/100", b"0123456789");
    let elsewhere = target.replace("/b/demo/", "/b/other/");
    assert_eq!(put(&server, &elsewhere, "bytes */100", b"").status, 404);
    assert_eq!(server.send("DELETE", &elsewhere, &[], b"").status, 404);
    assert_eq!(server.send("DELETE", &target, &[], b"").status, 499);
    assert_eq!(put(&server, &target, "bytes */100", b"").status, 404);
    assert_eq!(
        std::fs::read_dir(directory.path().join("objects/staging"))
            .unwrap()
            .count(),
        0
    );
    for bad in ["bytes 9-0/10", "0-9/10", "bytes 0-10/10"] {
        assert_eq!(put(&server, &target, bad, b"").status, 400, "{bad}");
    }
    let target = start(&server, "y", &[]);
    assert_eq!(
        put(&server, &target, "bytes 0-9/1001", b"0123456789").status,
        413
    );
    put(&server, &target, "bytes 0-9/100", b"0123456789");
    assert_eq!(
        put(&server, &target, "bytes 10-19/200", b"0123456789").status,
        400
    );
    assert_eq!(
        put(&server, &target, "bytes 10-11/100", b"0123456789").status,
        400
    );
    start(&server, "z", &[]);
    let third = server.send(
        "POST",
        "/upload/storage/v1/b/demo/o?uploadType=resumable&name=w",
        &[],
        b"",
    );
    assert_eq!(
        (third.status, third.reason().as_str()),
        (429, "rateLimitExceeded")
    );
}

#[test]
fn digests_and_preconditions_of_an_upload_hold() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start_in(super::PLACE, directory.path());
    server.bucket("demo");
    let start = |query: &str, body: &serde_json::Value| {
        let target = format!("/upload/storage/v1/b/demo/o?uploadType=resumable{query}");
        let reply = server.json("POST", &target, body);
        let location = reply
            .header("location")
            .map(|location| location.strip_prefix(&server.url()).unwrap().to_owned());
        location.ok_or(reply.status)
    };
    let target = start("", &json!({ "name": "x", "crc32c": "AAAAAA==" })).unwrap();
    let refused = put(&server, &target, "bytes 0-8/9", b"123456789");
    assert_eq!(refused.status, 400);
    assert!(refused.text().contains("CRC32C"), "{}", refused.text());
    assert_eq!(server.get("/storage/v1/b/demo/o/x").status, 404);
    let target = start(
        "&ifGenerationMatch=0",
        &json!({ "name": "x", "crc32c": "4waSgw==" }),
    )
    .unwrap();
    server.store("demo", "x", b"first");
    assert_eq!(
        put(&server, &target, "bytes 0-8/9", b"123456789").status,
        412
    );
    assert_eq!(
        start("&ifGenerationMatch=0", &json!({ "name": "x" })),
        Err(412)
    );
    assert_eq!(
        server.get("/storage/v1/b/demo/o/x?alt=media").text(),
        "first"
    );
}
