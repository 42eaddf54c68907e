//! Requests that no friend sends: each is answered with a clear refusal, and the server goes on.
//!
//! `cargo xtask fuzz-server --seconds N` makes them for longer than the test of every day.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use crate::harness::{BUILDS, PROJECT, Server};

const TRIGGERS: &str = "/v1/projects/demo-proj/locations/global/triggers";

/// Texts that mean something somewhere.
const TEXTS: &[&str] = &[
    "",
    "kiln",
    "check",
    "x.ks",
    "$_A",
    "${_A:-${_B}}",
    "${_A",
    "$$",
    "$(body.a[0])",
    "$(body",
    "-",
    "a",
    "../../etc/passwd",
    "/workspace/../..",
    "\u{0}",
    "\u{202e}é😀",
    "9999999999999999999s",
    "-1s",
    "3.5s",
    "1e9s",
    "gs://b/c",
    "gs://",
    "SUCCESS",
    "ALLOW_LOOSE",
    "2026-11-28T20:00:00Z",
    "yesterday",
    "_A",
    "PROJECT_ID",
    "--help",
    "projects/p/secrets/hook/versions/1",
    "build.steps",
    "18446744073709551616",
];
/// Names of fields.
const NAMES: &[&str] = &[
    "steps",
    "name",
    "args",
    "env",
    "id",
    "waitFor",
    "wait_for",
    "dir",
    "timeout",
    "volumes",
    "source",
    "storageSource",
    "bucket",
    "object",
    "generation",
    "artifacts",
    "objects",
    "location",
    "paths",
    "substitutions",
    "_A",
    "_B",
    "tags",
    "options",
    "substitutionOption",
    "dynamicSubstitutions",
    "machineType",
    "logging",
    "queueTtl",
    "build",
    "webhookConfig",
    "secret",
    "status",
    "allowExitCodes",
    "allowFailure",
    "script",
    "entrypoint",
    "triggerId",
    "branchName",
    "nothing",
    "",
];

/// Numbers that look random, the same for the same seed.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % sides as u64).unwrap()
    }

    pub(crate) fn pick<'a, T: ?Sized>(&mut self, from: &[&'a T]) -> &'a T {
        from[self.roll(from.len())]
    }

    fn value(&mut self, depth: usize) -> Value {
        match self.roll(if depth == 0 { 7 } else { 10 }) {
            0 => Value::Null,
            1 => Value::Bool(self.roll(2) == 0),
            2 => json!([0, -1, 1, i64::MAX, i64::MIN, 1 << 40][self.roll(6)]),
            3 => json!([0.5, -1e308, 1e20, 3.0][self.roll(4)]),
            4 => Value::from("x".repeat(self.roll(20_000))),
            5 | 6 => Value::from(self.pick(TEXTS)),
            7 => (0..self.roll(5)).map(|_| self.value(depth - 1)).collect(),
            _ => {
                let mut fields = Map::new();
                for _ in 0..self.roll(5) {
                    let name = self.pick(NAMES).to_owned();
                    fields.insert(name, self.value(depth - 1));
                }
                Value::Object(fields)
            }
        }
    }

    /// Changes something somewhere.
    fn change(&mut self, value: &mut Value) {
        let goes_in = self.roll(4) > 0;
        match value {
            Value::Array(items) if goes_in && !items.is_empty() => {
                let at = self.roll(items.len());
                self.change(&mut items[at]);
            }
            Value::Object(fields) if goes_in && !fields.is_empty() => {
                let at = self.roll(fields.len());
                if let Some(inner) = fields.values_mut().nth(at) {
                    self.change(inner);
                }
            }
            Value::Array(items) if self.roll(2) == 0 => {
                let more = self.value(2);
                items.extend(vec![more; 1 + self.roll(400)]);
            }
            Value::Object(fields) if self.roll(2) == 0 => {
                let name = self.pick(NAMES).to_owned();
                fields.insert(name, self.value(3));
            }
            other => *other = self.value(3),
        }
    }

    /// A message as bytes, sometimes damaged.
    fn message(&mut self, mut value: Value) -> Vec<u8> {
        for _ in 0..self.roll(4) {
            self.change(&mut value);
        }
        let mut bytes = value.to_string().into_bytes();
        if self.roll(5) == 0 && !bytes.is_empty() {
            let at = self.roll(bytes.len());
            match self.roll(3) {
                0 => bytes.truncate(at),
                1 => bytes[at] = u8::try_from(self.roll(256)).unwrap(),
                _ => bytes.insert(at, b"{[\"\\\x00\xff"[self.roll(6)]),
            }
        }
        bytes
    }

    /// A text as a part of an address.
    fn word(&mut self) -> String {
        let text = self.pick(TEXTS);
        let mut word = String::new();
        for byte in text.bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => word.push(char::from(byte)),
                _ => word.push_str(&format!("%{byte:02X}")),
            }
        }
        if self.roll(20) == 0 {
            word.push_str(["%", "%zz", "%ff", ":run", "%2F%2e%2e"][self.roll(5)]);
        }
        word
    }

    fn request(&mut self) -> (&'static str, String, Vec<u8>) {
        let build = json!({
            "steps": [{ "name": "kiln", "args": ["check", "$_A.ks"], "id": "a", "waitFor": ["-"], "env": ["A=b"], "timeout": "3s" }],
            "source": { "storageSource": { "bucket": "none", "object": "x" } },
            "artifacts": { "objects": { "location": "gs://none/$_A", "paths": ["*"] } },
            "substitutions": { "_A": "x" }, "tags": ["t"], "timeout": "60s",
            "options": { "dynamicSubstitutions": true, "substitutionOption": 1, "machineType": "E2_MEDIUM" },
        });
        let trigger = json!({
            "name": "t", "build": build, "substitutions": { "_A": "$(body.a)" }, "disabled": false,
            "webhookConfig": { "secret": "projects/p/secrets/hook/versions/1" },
        });
        let word = self.word();
        match self.roll(9) {
            0 | 1 => ("POST", BUILDS.to_owned(), self.message(build)),
            2 => ("POST", TRIGGERS.to_owned(), self.message(trigger)),
            3 => {
                let path = format!("{TRIGGERS}/t?updateMask={word},{}", self.word());
                ("PATCH", path, self.message(trigger))
            }
            4 => {
                let body = json!({ "triggerId": "t", "source": { "substitutions": { "_A": "x" }, "branchName": "m" } });
                ("POST", format!("{TRIGGERS}/t:run"), self.message(body))
            }
            5 => {
                let path = format!("/v1/projects/{PROJECT}/triggers/t:webhook?key=k&secret={word}");
                ("POST", path, self.message(json!({ "a": 1 })))
            }
            6 => {
                let sign = ["%3D", "%3E", "%21%3D", "%28", "%20AND%20"][self.roll(5)];
                let field = self.pick(&["status", "tags", "create_time", "id", "NOT"]);
                let path = format!(
                    "{BUILDS}?filter={field}{sign}%22{word}%22&pageSize={}",
                    self.word()
                );
                ("GET", path, Vec::new())
            }
            7 => {
                let method = self.pick(&["GET", "POST", "DELETE", "PATCH", "PUT"]);
                (
                    method,
                    format!("/v1/projects/{word}/builds/{}", self.word()),
                    Vec::new(),
                )
            }
            _ => ("GET", format!("/builds/{word}/log"), Vec::new()),
        }
    }
}

pub(crate) fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn any_request_is_answered_and_nothing_is_lost() {
    let seconds = number("KILN_FUZZ_SECONDS").unwrap_or(3);
    let seed = number("KILN_FUZZ_SEED").unwrap_or(0x5eed);
    let server = Server::open();
    let mut dice = Dice(seed.max(1));
    let (since, mut asked, mut made) = (Instant::now(), 0_u64, Vec::new());
    let mut refused = 0_u64;
    while since.elapsed() < Duration::from_secs(seconds) {
        let (method, path, body) = dice.request();
        let (status, answer) = server.request(method, &path, "", &body);
        let told = format!(
            "seed {seed}, request {asked}: {method} {path}\n{}\n{status} {}",
            String::from_utf8_lossy(&body),
            String::from_utf8_lossy(&answer)
        );
        asked += 1;
        assert!(matches!(status, 200 | 400..=499), "{told}");
        let answer: Value = serde_json::from_slice(&answer).unwrap_or_else(|_| panic!("{told}"));
        if status == 200 {
            made.extend(
                answer["metadata"]["build"]["id"]
                    .as_str()
                    .map(str::to_owned),
            );
        } else {
            refused += 1;
            let message = answer["error"]["message"].as_str().unwrap_or("");
            assert!(
                !message.is_empty() && answer["error"]["status"].is_string(),
                "{told}"
            );
            assert!(!message.contains("internal error"), "{told}");
        }
    }
    println!(
        "seed {seed}: {asked} requests, {refused} refused, {} builds",
        made.len()
    );
    assert!(
        refused > 20 && !made.is_empty(),
        "of {asked} requests {refused} were refused"
    );
    for id in made {
        assert_eq!(server.get(&id)["id"], id.as_str());
    }
}

#[test]
fn too_much_is_refused_in_plain_words() {
    let server = Server::open();
    let step = |id: &str, after: &str| json!({ "name": "kiln", "args": ["check", "x.ks"], "id": id, "waitFor": [after] });
    let many: Vec<Value> = (0..10_000)
        .map(|_| json!({ "name": "kiln", "args": ["check", "x.ks"] }))
        .collect();
    let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
    for (body, expected) in [
        (
            json!({ "steps": many }).to_string(),
            "10000 build steps are specified, 300 is the maximum",
        ),
        (
            json!({ "steps": [step("a", "b"), step("b", "a")] }).to_string(),
            "waits for itself",
        ),
        (
            json!({ "steps": [step("a", "c")] }).to_string(),
            "the ID of no step",
        ),
        (
            format!("{{\"steps\":{deep}}}"),
            "Invalid JSON payload received.",
        ),
        ("[1".to_owned(), "Invalid JSON payload received."),
        (
            json!({ "steps": [{ "nam": "x" }] }).to_string(),
            "Unknown name \"nam\" at 'build.steps[0]': Cannot find field.",
        ),
        (" ".repeat(5 << 20), "more than 4194304 bytes"),
        ("\u{feff}{}".to_owned(), "Invalid JSON payload received."),
    ] {
        let (status, answer) = server.request("POST", BUILDS, "", body.as_bytes());
        let answer: Value = serde_json::from_slice(&answer).unwrap();
        let message = answer["error"]["message"].as_str().unwrap();
        assert_eq!(
            (status, &answer["error"]["status"]),
            (400, &json!("INVALID_ARGUMENT")),
            "{message}"
        );
        assert!(message.contains(expected), "{message}");
    }
    for place in ["%2e%2e", "..%2F..", "a%2Fb", "%00", "a b"] {
        let (status, _) = server.request(
            "POST",
            &format!("/v1/projects/{place}/builds"),
            "",
            br#"{"steps":[{"name":"kiln","args":["check","x.ks"]}]}"#,
        );
        assert_eq!(status, 400, "{place}");
    }
    assert_eq!(server.json("GET", BUILDS, &Value::Null), (200, json!({})));
}

/// Clients that never finish hold nobody up.
#[test]
fn slow_clients_keep_nobody_waiting() {
    let server = Server::open();
    let starts: [&[u8]; 3] = [
        b"POST /v1/projects/demo-proj/builds HTTP/1.1\r\nHost: x",
        b"POST /v1/projects/demo-proj/builds HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 4000000\r\n\r\n{",
        b"GET ",
    ];
    let mut slow = Vec::new();
    for at in 0..150 {
        let mut stream = TcpStream::connect(server.address).unwrap();
        stream.write_all(starts[at % starts.len()]).unwrap();
        slow.push(stream);
    }
    let since = Instant::now();
    for _ in 0..20 {
        assert_eq!(server.json("GET", BUILDS, &Value::Null).0, 200);
    }
    assert!(
        since.elapsed() < Duration::from_secs(10),
        "{:?}",
        since.elapsed()
    );
    // They are still there, and were told nothing yet.
    for stream in &mut slow {
        stream
            .set_read_timeout(Some(Duration::from_millis(1)))
            .unwrap();
        assert!(stream.read(&mut [0]).is_err());
    }
}
