//! TLS by a given certificate, with curl as the client.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::harness::kiln;

/// A certificate for localhost that vouches for itself.
fn make_certificate(dir: &Path) {
    let made = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-days",
            "2",
        ])
        .args([
            "-subj",
            "/CN=localhost",
            "-addext",
            "subjectAltName=DNS:localhost,IP:127.0.0.1",
        ])
        .args(["-keyout", "key.pem", "-out", "cert.pem"])
        .current_dir(dir)
        .output()
        .expect("openssl (Debian package openssl)");
    assert!(
        made.status.success(),
        "{}",
        String::from_utf8_lossy(&made.stderr)
    );
}

fn curl(dir: &Path, options: &[&str], url: &str) -> Output {
    let mut command = Command::new("curl");
    command
        .args(["-sS", "--max-time", "20", "--cacert"])
        .arg(dir.join("cert.pem"));
    command
        .args(options)
        .arg(url)
        .output()
        .expect("curl (Debian package curl)")
}

#[test]
fn curl_speaks_tls_with_the_server_and_nothing_else() {
    let home = tempfile::tempdir().unwrap();
    make_certificate(home.path());
    let mut server = kiln(home.path())
        .args([
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--open-to-this-machine",
            "--data",
        ])
        .arg(home.path().join("data"))
        .arg("--tls-cert")
        .arg(home.path().join("cert.pem"))
        .arg("--tls-key")
        .arg(home.path().join("key.pem"))
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(server.stderr.take().unwrap()).lines();
    let line = lines.next().unwrap().unwrap();
    let (_, url) = line.split_once("https://").expect(&line);
    let address = url.trim_end_matches('/');

    let answer = curl(home.path(), &[], &format!("https://{address}/healthz"));
    assert_eq!(
        String::from_utf8_lossy(&answer.stdout),
        "ok\n",
        "{answer:?}"
    );
    let old = curl(
        home.path(),
        &["--tls-max", "1.1"],
        &format!("https://{address}/healthz"),
    );
    assert!(!old.status.success(), "TLS 1.1 is spoken");
    let plain = curl(home.path(), &[], &format!("http://{address}/healthz"));
    assert!(!plain.status.success(), "HTTP without TLS is spoken");
    // Links lead back by TLS.
    let bucket = [
        "-X",
        "POST",
        "-H",
        "Content-Type: application/json",
        "-d",
        "{\"name\":\"b-1\"}",
    ];
    let made = curl(
        home.path(),
        &bucket,
        &format!("https://{address}/storage/v1/b?project=p"),
    );
    let made = String::from_utf8_lossy(&made.stdout).into_owned();
    assert!(
        made.contains(&format!("https://{address}/storage/v1/b/b-1")),
        "{made}"
    );
    server.kill().unwrap();
    server.wait().unwrap();
}
