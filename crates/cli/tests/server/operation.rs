//! What administrators see of a server.

use std::process::Command;

use serde_json::{Value, json};

use crate::harness::{BUILDS, OPEN, Server, kiln};
use crate::limits::NO_ROOM;
use crate::python::python;

/// Prometheus' own reader of its text format, from PyPI.
const READ: &str = r#"
import sys
from prometheus_client.parser import text_string_to_metric_families
found = {}
for family in text_string_to_metric_families(sys.stdin.read()):
    assert family.type != "unknown" and family.documentation, family
    for sample in family.samples:
        found[sample.name + "".join(sorted(sample.labels.values()))] = sample.value
assert found["kiln_buildsFAILURE"] == 1, found
assert found["kiln_attempt_duration_seconds_countFAILURE"] == 1, found
assert found["kiln_http_request_duration_seconds_bucket+Inf"] == found["kiln_http_request_duration_seconds_count"] >= 2, found
assert found["kiln_disk_free_bytes"] > 0 and found["kiln_database_bytes"] > 0, found
"#;

#[test]
fn prometheus_reads_the_metrics() {
    let server = Server::open();
    server.end(
        &server.create(&json!({ "steps": [{ "name": "kiln", "args": ["check", "none.ks"] }] })),
    );
    let (status, text) = server.request("GET", "/metrics", "", b"");
    assert_eq!(status, 200);
    let file = server.directory.path().join("metrics");
    std::fs::write(&file, &text).unwrap();
    let mut python = Command::new(python());
    python
        .args(["-c", READ])
        .stdin(std::fs::File::open(file).unwrap());
    let read = python.output().expect("python3");
    let text = String::from_utf8_lossy(&text);
    assert!(
        read.status.success(),
        "{}\n{text}",
        String::from_utf8_lossy(&read.stderr)
    );
}

/// An outsider's check of OpenAPI documents, from PyPI.
const VALIDATE: &str =
    "import json, sys; from openapi_spec_validator import validate; validate(json.load(sys.stdin))";

#[test]
fn the_openapi_document_is_one_and_names_what_is_there() {
    let server = Server::open();
    let (status, text) = server.request("GET", "/openapi.json", "", b"");
    assert_eq!(status, 200);
    let file = server.directory.path().join("openapi.json");
    std::fs::write(&file, &text).unwrap();
    let mut command = Command::new(python());
    command
        .args(["-c", VALIDATE])
        .stdin(std::fs::File::open(file).unwrap());
    let checked = command.output().expect("python3");
    assert!(
        checked.status.success(),
        "{}",
        String::from_utf8_lossy(&checked.stderr)
    );
    let document: Value = serde_json::from_slice(&text).unwrap();
    for (path, operations) in document["paths"].as_object().unwrap() {
        let path = path
            .replace("{projectId}", "p")
            .replace("{location}", "global")
            .replace("{id}", "x");
        for method in operations.as_object().unwrap().keys() {
            let (_, body) = server.request(&method.to_uppercase(), &path, "", b"{}");
            let said = String::from_utf8_lossy(&body);
            assert!(
                !said.contains("nothing that this server does"),
                "{method} {path}: {said}"
            );
        }
    }
}

#[test]
fn only_administrators_see_who_did_what() {
    let server = Server::start(&[]);
    let token = |name: &str, role: &str| {
        let mut command = kiln(server.directory.path());
        command.args(["token", "create", name, "--role", role, "--data"]);
        let made = command.arg(server.data()).output().unwrap();
        let text = String::from_utf8(made.stdout).unwrap();
        format!("Authorization: Bearer {}\r\n", text.trim())
    };
    let (view, submit, admin) = (
        token("eve", "view"),
        token("ann", "submit"),
        token("bob", "admin"),
    );
    let build = json!({ "steps": [{ "name": "kiln", "args": ["check", "none.ks"] }] }).to_string();
    let (status, _) = server.request("POST", BUILDS, &submit, build.as_bytes());
    assert_eq!(status, 200);
    for (path, headers, expected) in [
        ("/metrics", "", 401),
        ("/metrics", view.as_str(), 200),
        ("/kiln/v1/audit", "", 401),
        ("/kiln/v1/audit", &submit, 403),
        ("/kiln/v1/audit?limit=x", &admin, 400),
        ("/readyz", "", 200),
    ] {
        let (status, body) = server.request("GET", path, headers, b"");
        assert_eq!(
            status,
            expected,
            "{path} {}",
            String::from_utf8_lossy(&body)
        );
    }
    let (_, body) = server.request("GET", "/kiln/v1/audit", &admin, b"");
    let made = String::from_utf8_lossy(&body)
        .matches("token create")
        .count();
    assert_eq!(made, 3, "{}", String::from_utf8_lossy(&body));
    let (_, body) = server.request("GET", "/kiln/v1/audit?limit=1", &admin, b"");
    let entries: Value = serde_json::from_slice(&body).unwrap();
    let newest = &entries["entries"][0];
    assert_eq!(
        (&newest["who"], &newest["what"]),
        (&json!("ann"), &json!("create")),
        "{entries}"
    );
    let mut command = kiln(server.directory.path());
    let shown = command
        .args(["audit", "--data"])
        .arg(server.data())
        .output()
        .unwrap();
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(
        shown.contains(&format!(
            "  ann  create  {}",
            newest["build"].as_str().unwrap()
        )),
        "{shown}"
    );
}

#[test]
fn a_restored_backup_runs_what_waited_and_shows_what_was() {
    let mut server = Server::open();
    let source = server.source(&[("lab.ks", "lang C.UTF-8\nrootpw x\npart / --size=500\n")]);
    let build =
        json!({ "source": source, "steps": [{ "name": "kiln", "args": ["flatten", "lab.ks"] }] });
    let done = server.create(&build);
    assert_eq!(server.end(&done)["status"], "SUCCESS");
    let log = server.log(&done);
    assert!(log.contains("rootpw --plaintext x"), "{log}");
    server.kill_and_start_with(&[OPEN, NO_ROOM].concat());
    let waiting: Vec<String> = (0..3).map(|_| server.create(&build)).collect();
    let restored = server.restored(OPEN);
    for id in &waiting {
        assert_eq!(server_is(&restored, id), ("SUCCESS".to_owned(), true));
    }
    assert_eq!(restored.get(&done)["status"], "SUCCESS");
    assert_eq!(restored.log(&done), log);
}

/// How a build ends, and whether its log has what its step says.
fn server_is(server: &Server, id: &str) -> (String, bool) {
    let status = server.end(id)["status"].as_str().unwrap_or("").to_owned();
    (status, server.log(id).contains("rootpw --plaintext x"))
}
