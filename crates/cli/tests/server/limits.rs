//! Clients that want too much, and builds that stay.

use serde_json::{Value, json};

use crate::harness::{BUILDS, PROJECT, Server};

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
