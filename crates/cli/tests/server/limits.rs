//! Clients that want too much, and builds that stay.

use serde_json::{Value, json};

use crate::harness::{BUILDS, OPEN, PROJECT, Server, silent};

#[test]
fn who_asks_too_much_is_told_when_to_come_back() {
    let server = Server::start(&["--request-rate", "1"]);
    let greedy = server.token(&["create", "greedy", "--role", "view"]);
    let calm = server.token(&["create", "calm", "--role", "view"]);
    let ask = |token: &str, path: &str| {
        let header = format!("Authorization: Bearer {token}\r\n");
        server.request("GET", path, &header, b"")
    };
    // Buckets and builds count together.
    let paths = [
        BUILDS.to_owned(),
        format!("/storage/v1/b?project={PROJECT}"),
    ];
    let refused = (0..40).map(|number| ask(&greedy, &paths[number % 2]));
    let (status, body) = refused
        .into_iter()
        .find(|(status, _)| *status != 200)
        .expect("a refusal");
    assert_eq!(status, 429);
    let body: Value = serde_json::from_slice(&body).expect("JSON");
    assert_eq!(body["error"]["code"], 429);
    assert_eq!(body["error"]["status"], "RESOURCE_EXHAUSTED");
    assert_eq!(ask(&calm, BUILDS).0, 200);
}

#[test]
fn a_full_queue_takes_no_more() {
    let server = Server::start(&[OPEN, &["--queue-length", "2"]].concat());
    let (_listener, hang) = silent();
    let source = server.source(&[("hang.ks", &hang)]);
    let step = json!({ "name": "kiln", "args": ["build", "hang.ks"] });
    let build =
        json!({ "source": source, "steps": [step], "options": { "machineType": "E2_HIGHCPU_32" } });
    let running = server.create(&build);
    server.wait(&running, &["WORKING"]);
    let waiting = [server.create(&build), server.create(&build)];
    let (status, error) = server.json("POST", BUILDS, &build);
    assert_eq!(status, 429, "{error}");
    assert_eq!(error["error"]["status"], "RESOURCE_EXHAUSTED");
    let message = error["error"]["message"].as_str().unwrap();
    assert!(message.contains("2 builds waiting"), "{message}");
    let cancel = |id: &str| server.json("POST", &format!("{BUILDS}/{id}:cancel"), &json!({}));
    assert_eq!(cancel(&waiting[0]).0, 200);
    let (status, error) = server.json(
        "POST",
        &format!("{BUILDS}/{}:retry", waiting[0]),
        &json!({}),
    );
    assert_eq!(status, 200, "{error}");
    let (status, _) = server.json(
        "POST",
        &format!("{BUILDS}/{}:retry", waiting[0]),
        &json!({}),
    );
    assert_eq!(status, 429);
    assert_eq!(cancel(&running).0, 200);
}

#[test]
fn a_build_is_pinned_by_who_may_submit() {
    let server = Server::start(&[]);
    let submit = server.token(&["create", "ann", "--role", "submit"]);
    let view = server.token(&["create", "bob", "--role", "view"]);
    let ask = |method: &str, path: &str, token: &str, body: &Value| {
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        let header = format!("Authorization: Bearer {token}\r\n");
        let (status, answer) = server.request(method, path, &header, body.as_bytes());
        let answer: Value = serde_json::from_slice(&answer).expect("JSON");
        (status, answer)
    };
    let build = json!({ "steps": [{ "name": "kiln", "args": ["build", "none.ks"] }] });
    let (status, made) = ask("POST", BUILDS, &submit, &build);
    assert_eq!(status, 200, "{made}");
    let id = made["metadata"]["build"]["id"].as_str().expect("an id");
    let path = |verb: &str| format!("{BUILDS}/{id}:{verb}");
    let null = Value::Null;
    assert_eq!(ask("POST", &path("pin"), &view, &null).0, 403);
    let pinned = |value: bool| (200, json!({ "id": id, "pinned": value }));
    assert_eq!(ask("GET", &path("pinned"), &view, &null), pinned(false));
    assert_eq!(ask("POST", &path("pin"), &submit, &null), pinned(true));
    assert_eq!(ask("GET", &path("pinned"), &view, &null), pinned(true));
    assert_eq!(ask("POST", &path("unpin"), &submit, &null), pinned(false));
    let nobody = format!("{BUILDS}/nobody:pin");
    assert_eq!(ask("POST", &nobody, &submit, &null).0, 404);
}
