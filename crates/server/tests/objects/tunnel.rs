//! The server as a proxy: requests in absolute form, and `CONNECT`; curl is the judge.

use std::path::Path;
use std::process::{Command, Output};

use crate::harness::Server;

const HOST: &str = "storage.googleapis.com";

fn curl(server: &Server, arguments: &[&str]) -> Output {
    let mut curl = Command::new("curl");
    curl.env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap());
    curl.args(["-sS", "--max-time", "20", "-x", &server.url()]);
    curl.args(arguments).output().expect("curl is installed")
}

fn trusted(directory: &Path, server: &Server) -> String {
    let path = directory.join("ca.pem");
    let certificate = server.get("/ca.pem");
    assert_eq!(certificate.text(), server.authority.certificate());
    std::fs::write(&path, certificate.body).unwrap();
    path.display().to_string()
}

#[test]
fn a_log_is_read_through_the_tunnel() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path());
    let authority = trusted(directory.path(), &server);
    let log = directory.path().join("log");
    std::fs::write(&log, "one\ntwo\nthr").unwrap();
    server.logs.add("demo", "logs/log-1.txt", &log);
    let url = format!("https://{HOST}/demo/logs/log-1.txt");
    let read = |range: &str| {
        let output = curl(
            &server,
            &[
                "--cacert",
                &authority,
                "-H",
                &format!("Range: bytes={range}"),
                "-w",
                " %{http_code}",
                &url,
            ],
        );
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(read("0-"), "one\ntwo\n 206");
    assert_eq!(read("4-"), "two\n 206");
    assert!(read("8-").ends_with(" 416"));
    std::fs::write(&log, "one\ntwo\nthree\n").unwrap();
    assert_eq!(read("8-"), "three\n 206");
    // Twice over one connection, and what is not there.
    let missing = format!("https://{HOST}/demo/log-2.txt");
    let output = curl(&server, &["--cacert", &authority, &url, &missing]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.starts_with("one\ntwo\nthree\n<?xml"), "{text}");
    assert!(text.contains("<Code>NoSuchKey</Code>"), "{text}");
    // The JSON API is there as well, with links of its own scheme.
    server.bucket("demo");
    server.store("demo", "x", b"x");
    let output = curl(
        &server,
        &[
            "--cacert",
            &authority,
            &format!("https://{HOST}/storage/v1/b/demo/o/x"),
        ],
    );
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(
        json["mediaLink"]
            .as_str()
            .unwrap()
            .starts_with(&format!("https://{HOST}/download/"))
    );
}

#[test]
fn the_tunnel_leads_nowhere_else() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path());
    for host in ["other.example", "storage.googleapis.com:8443"] {
        let output = curl(&server, &[&format!("https://{host}/")]);
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && error.contains("403"), "{error}");
    }
    // Who does not trust the authority does not get through.
    let output = curl(&server, &[&format!("https://{HOST}/demo/x")]);
    assert_eq!(output.status.code(), Some(60), "{output:?}");
}

#[test]
fn requests_in_absolute_form_are_taken() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path());
    server.bucket("demo");
    server.store("demo", "a%2Fb", b"x");
    let own = format!("{}/storage/v1/b/demo/o/a%2Fb", server.url());
    let output = curl(&server, &[&own]);
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["selfLink"], own);
    let output = curl(&server, &[&format!("http://{HOST}/demo/a/b")]);
    assert_eq!(output.stdout, b"x");
}
