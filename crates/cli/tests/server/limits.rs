//! Clients that want too much, and builds that stay.

use serde_json::{Value, json};

use crate::harness::{BUILDS, OPEN, PROJECT, Server, kiln, silent};

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

fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}\r\n")
}

/// A build that nobody starts: no disk has the room that the servers of these tests keep free.
fn waiting() -> Vec<u8> {
    json!({ "steps": [{ "name": "kiln", "args": ["check", "none.ks"] }] })
        .to_string()
        .into_bytes()
}

pub(crate) const NO_ROOM: &[&str] = &["--keep-free", "4294967296"];

#[test]
fn one_token_cannot_take_the_whole_queue() {
    let mut server = Server::start(&[NO_ROOM, &["--queue-length", "5"]].concat());
    let tokens = ["ann", "bob"].map(|name| server.token(&["create", name, "--role", "submit"]));
    let ask = |server: &Server, token: &str, path: &str, body: &[u8]| {
        let (status, answer) = server.request("POST", path, &bearer(token), body);
        let answer: Value = serde_json::from_slice(&answer).expect("JSON");
        (status, answer)
    };
    let [ann, bob] = &tokens;
    let made: Vec<_> = (0..4)
        .map(|_| ask(&server, ann, BUILDS, &waiting()))
        .collect();
    let statuses: Vec<u16> = made.iter().map(|(status, _)| *status).collect();
    assert_eq!(statuses, [200, 200, 200, 429]);
    let error = &made[3].1["error"];
    assert_eq!(error["status"], "RESOURCE_EXHAUSTED");
    let message = error["message"].as_str().expect("words");
    assert!(
        message.starts_with("ann has 3 builds waiting")
            && message.contains("--queue-length-per-token"),
        "{message}"
    );
    // Others come in, until all is full.
    for expected in [200, 200, 429] {
        let (status, answer) = ask(&server, bob, BUILDS, &waiting());
        assert_eq!(status, expected, "{answer}");
    }
    let id = made[0].1["metadata"]["build"]["id"]
        .as_str()
        .expect("an id");
    assert_eq!(
        ask(&server, ann, &format!("{BUILDS}/{id}:cancel"), b"").0,
        200
    );
    server.kill_and_start_with(&[NO_ROOM, &["--queue-length-per-token", "2"]].concat());
    // A repetition is one more as well; it is of whoever wants it.
    let retry = format!("{BUILDS}/{id}:retry");
    assert_eq!(ask(&server, ann, &retry, b"").0, 429);
    assert_eq!(ask(&server, bob, &retry, b"").0, 429);
    let cancelled = made[1].1["metadata"]["build"]["id"]
        .as_str()
        .expect("an id");
    assert_eq!(
        ask(&server, bob, &format!("{BUILDS}/{cancelled}:cancel"), b"").0,
        200
    );
    assert_eq!(ask(&server, ann, &retry, b"").0, 200);
    assert_eq!(ask(&server, ann, &retry, b"").0, 429);
}

#[test]
fn a_trigger_takes_so_many_messages_and_strangers_use_none_up() {
    let server = Server::start(&[NO_ROOM, &["--webhook-rate", "3"]].concat());
    let admin = server.token(&["create", "root", "--role", "admin"]);
    let secret = server.token(&["create", "hook", "--role", "webhook"]);
    let triggers = format!("/v1/projects/{PROJECT}/locations/global/triggers");
    for name in ["push", "other"] {
        let trigger = json!({
            "name": name,
            "webhookConfig": { "secret": format!("projects/{PROJECT}/secrets/hook/versions/1") },
            "build": { "steps": [{ "name": "kiln", "args": ["check", "none.ks"] }] },
        });
        let body = trigger.to_string();
        let (status, _) = server.request("POST", &triggers, &bearer(&admin), body.as_bytes());
        assert_eq!(status, 200);
    }
    let send = |name: &str, secret: &str| {
        let path = format!("{triggers}/{name}:webhook?secret={secret}");
        server.request("POST", &path, "", b"{}")
    };
    for _ in 0..10 {
        assert_eq!(send("push", "kiln_wrong").0, 403);
    }
    for _ in 0..3 {
        assert_eq!(send("push", &secret).0, 200);
    }
    let (status, body) = send("push", &secret);
    let body: Value = serde_json::from_slice(&body).expect("JSON");
    assert_eq!(status, 429, "{body}");
    assert_eq!(body["error"]["status"], "RESOURCE_EXHAUSTED");
    let message = body["error"]["message"].as_str().expect("words");
    assert!(
        message.contains("--webhook-rate") && message.ends_with(" s"),
        "{message}"
    );
    assert_eq!(send("other", &secret).0, 200);
}

#[test]
fn a_session_is_counted_as_its_token() {
    let server = Server::start(&["--request-rate", "1"]);
    let ann = server.token(&["create", "ann", "--role", "view"]);
    let bob = server.token(&["create", "bob", "--role", "view"]);
    let cookies = [&ann, &ann, &bob].map(|token| crate::page::enter(&server, token));
    let look = |headers: &str| server.request("GET", "/", headers, b"").0;
    // Two sessions and the token itself have ten requests together, and one a second.
    let began = std::time::Instant::now();
    let asked = (0..60).map(|number| match number % 3 {
        2 => server.request("GET", BUILDS, &bearer(&ann), b"").0,
        which => look(&cookies[which]),
    });
    let answered = asked.filter(|status| *status == 200).count();
    let most = 11 + began.elapsed().as_secs();
    assert!(
        answered >= 10 && answered as u64 <= most,
        "{answered} of {most}"
    );
    assert_eq!(look(&cookies[2]), 200);
}

#[test]
fn the_address_of_a_client_is_counted_and_on_record() {
    let mut server = Server::start(&[NO_ROOM, &["--behind-proxy", "--request-rate", "1"]].concat());
    let tokens = [("ann", "submit"), ("root", "admin")]
        .map(|(name, role)| server.token(&["create", name, "--role", role]));
    let [ann, root] = &tokens;
    let from =
        |token: &str, addresses: &str| format!("{}X-Forwarded-For: {addresses}\r\n", bearer(token));
    let newest = |server: &Server| {
        let path = "/kiln/v1/audit?limit=1";
        let (_, body) = server.request("GET", path, &bearer(root), b"");
        let body: Value = serde_json::from_slice(&body).expect("JSON");
        body["entries"][0].clone()
    };
    // What a client says itself stands in front of what the proxy adds.
    let headers = from(ann, "10.1.1.1, 192.0.2.7");
    assert_eq!(server.request("POST", BUILDS, &headers, &waiting()).0, 200);
    let entry = newest(&server);
    assert_eq!(
        (&entry["who"], &entry["address"]),
        (&json!("ann"), &json!("192.0.2.7"))
    );
    let shown = kiln(server.directory.path())
        .args(["audit", "--limit", "1", "--data"])
        .arg(server.data())
        .output()
        .expect("kiln audit");
    let shown = String::from_utf8(shown.stdout).expect("UTF-8");
    assert!(shown.trim_end().ends_with(" from 192.0.2.7"), "{shown}");
    let ask = |address: &str| {
        let headers = format!("X-Forwarded-For: {address}\r\n");
        server.request("GET", "/healthz", &headers, b"").0
    };
    let asked: Vec<u16> = (0..40)
        .map(|number| ask(&format!("10.9.9.{number}, 192.0.2.8")))
        .collect();
    assert!(asked.contains(&429), "{asked:?}");
    assert_eq!(ask("192.0.2.9"), 200);
    // Without the option nobody is believed.
    server.kill_and_start_with(NO_ROOM);
    assert_eq!(server.request("POST", BUILDS, &headers, &waiting()).0, 200);
    assert_eq!(newest(&server)["address"], "127.0.0.1");
}
