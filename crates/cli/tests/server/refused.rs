//! Requests that are refused before all of their body was read: their senders come to read why.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::harness::{BUILDS, Server};

/// More than the kernel's buffers on both sides hold.
const LARGE: usize = 24 << 20;

#[test]
fn who_says_all_before_listening_reads_the_refusal() {
    let server = Server::start(&[]);
    let token = server.token(&["create", "ann", "--role", "view"]);
    let view = format!("Authorization: Bearer {token}\r\n");
    let wrong = "Authorization: Bearer kiln_wrong\r\n";
    let upload = "/upload/storage/v1/b/demo-proj_cloudbuild/o?uploadType=media&name=x";
    let body = vec![b'x'; LARGE];
    for (method, path, headers, expected) in [
        ("POST", BUILDS, "", 401),
        ("POST", BUILDS, wrong, 401),
        ("POST", BUILDS, view.as_str(), 400),
        ("POST", upload, wrong, 401),
        ("POST", upload, &view, 403),
        ("POST", "/submit", wrong, 400),
        ("PUT", "/nowhere", wrong, 401),
        (
            "POST",
            "/v1/projects/p/triggers/t:webhook?key=k&secret=s",
            "",
            403,
        ),
    ] {
        let (status, answer) = server.request(method, path, headers, &body);
        let said = String::from_utf8_lossy(&answer);
        assert_eq!(status, expected, "{method} {path}: {said}");
    }
}

#[test]
fn who_asks_before_it_sends_is_answered_at_once() {
    let server = Server::start(&[]);
    let mut stream = TcpStream::connect(server.address).unwrap();
    let head = format!(
        "POST {BUILDS} HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: {LARGE}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 401");
}

#[test]
fn the_rest_of_a_body_is_not_waited_for_for_ever() {
    let server = Server::start(&[]);
    let mut stream = TcpStream::connect(server.address).unwrap();
    let head = format!("POST {BUILDS} HTTP/1.1\r\nHost: x\r\nContent-Length: {LARGE}\r\n\r\nx");
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = [0; 12];
    // Nothing more is sent, and the answer comes.
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 401");
}
