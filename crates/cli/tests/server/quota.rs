//! What one token may hold, and the room that stays on the disk: attacked by those who have a token.

use std::io::{Read, Write};
use std::net::TcpStream;

use serde_json::{Value, json};

use crate::harness::{BUILDS, OPEN, PROJECT, Server};

const MIB: usize = 1 << 20;
/// The client waits for the server's word before it sends a body.
const ASKS: &str = "Expect: 100-continue\r\n";
/// More than any disk has.
const ALL: &str = "4294967296";

/// Somebody with a token.
struct User<'a> {
    server: &'a Server,
    token: String,
}

impl<'a> User<'a> {
    fn new(server: &'a Server, name: &str) -> User<'a> {
        let token = server.token(&["create", name, "--role", "submit"]);
        User { server, token }
    }

    /// Sends a head that announces `length` bytes, and of those the ones that are given.
    fn begin(
        &self,
        method: &str,
        path: &str,
        headers: &str,
        length: usize,
        body: &[u8],
    ) -> TcpStream {
        let mut stream = TcpStream::connect(self.server.address).expect("a connection");
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Length: {length}\r\nAuthorization: Bearer {}\r\n{headers}\r\n",
            self.server.address, self.token
        );
        stream.write_all(head.as_bytes()).expect("a request");
        // Who refuses a body early closes while it is being sent.
        drop(stream.write_all(body));
        stream
    }

    fn send(&self, method: &str, path: &str, headers: &str, body: &[u8]) -> Answer {
        answer(self.begin(method, path, headers, body.len(), body))
    }

    fn json(&self, method: &str, path: &str, body: &Value) -> Answer {
        self.send(method, path, "", body.to_string().as_bytes())
    }

    fn bucket(&self, name: &str) -> Answer {
        let path = format!("/storage/v1/b?project={PROJECT}");
        self.json("POST", &path, &json!({ "name": name }))
    }

    fn store(&self, name: &str, size: usize) -> Answer {
        self.send("POST", &media(name), "", &vec![7; size])
    }

    /// The same, but nothing is sent before the answer is there.
    fn announce(&self, name: &str, size: usize) -> Answer {
        answer(self.begin("POST", &media(name), ASKS, size, b""))
    }

    fn compose(&self, name: &str, of: &str, times: usize) -> Answer {
        let sources = vec![json!({ "name": of }); times];
        let path = format!("/storage/v1/b/own/o/{name}/compose");
        self.json("POST", &path, &json!({ "sourceObjects": sources }))
    }

    fn copy(&self, from: &str, to: &str) -> Answer {
        let path = format!("/storage/v1/b/own/o/{from}/copyTo/b/own/o/{to}");
        self.send("POST", &path, "", b"")
    }

    /// Begins a resumable upload; its path, or what was answered.
    fn start(&self, name: &str, headers: &str) -> Result<String, Answer> {
        let path = format!("/upload/storage/v1/b/own/o?uploadType=resumable&name={name}");
        let answer = self.send("POST", &path, headers, b"");
        let location = answer.head.lines().find_map(|line| {
            let (name, value) = line.split_once(": ")?;
            (name == "location").then(|| value.to_owned())
        });
        let path = location.map(|url| url[url.find("/upload").expect("a path")..].to_owned());
        path.ok_or(answer)
    }

    fn put(&self, path: &str, range: &str, size: usize) -> Answer {
        let headers = format!("Content-Range: bytes {range}\r\n");
        self.send("PUT", path, &headers, &vec![7; size])
    }
}

fn media(name: &str) -> String {
    format!("/upload/storage/v1/b/own/o?uploadType=media&name={name}")
}

#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: Value,
}

impl Answer {
    fn said(&self) -> (u16, &str) {
        let reason = self.body["error"]["errors"][0]["reason"].as_str();
        (self.status, reason.unwrap_or(""))
    }

    fn message(&self) -> &str {
        self.body["error"]["message"].as_str().unwrap_or("")
    }
}

fn answer(mut stream: TcpStream) -> Answer {
    let mut text = Vec::new();
    // A reset behind the answer is no matter.
    drop(stream.read_to_end(&mut text));
    let text = String::from_utf8(text).expect("UTF-8");
    let (head, body) = text.split_once("\r\n\r\n").expect("a head");
    Answer {
        status: head[9..12].parse().expect("a status"),
        head: head.to_owned(),
        body: serde_json::from_str(body).unwrap_or(Value::Null),
    }
}

const FULL: (u16, &str) = (403, "quotaExceeded");
const NO_ROOM: (u16, &str) = (507, "insufficientStorage");

#[test]
fn one_token_cannot_hold_the_uploads_of_all() {
    let server = Server::start(&[]);
    let (ann, bob) = (User::new(&server, "ann"), User::new(&server, "bob"));
    assert_eq!(ann.bucket("own").status, 200);
    let mut paths = Vec::new();
    let refused = loop {
        match ann.start("x", "") {
            Ok(path) => paths.push(path),
            Err(refused) => break refused,
        }
    };
    assert_eq!(paths.len(), 100);
    assert_eq!(refused.said(), (429, "rateLimitExceeded"));
    assert!(
        refused
            .message()
            .starts_with("ann has 100 uploads under way"),
        "{refused:?}"
    );
    let own = bob.start("y", "").expect("an upload");
    assert_eq!(bob.put(&own, "0-0/1", 1).status, 200);
    // One that is done, or taken back, makes room for another.
    assert_eq!(ann.put(&paths[0], "0-0/1", 1).status, 200);
    assert!(ann.start("x", "").is_ok());
    assert!(ann.start("x", "").is_err());
    assert_eq!(ann.send("DELETE", &paths[1], "", b"").status, 499);
    assert!(ann.start("x", "").is_ok());
}

#[test]
fn a_token_holds_as_much_as_it_may_and_no_more() {
    let mut server = Server::start(&["--quota-size", "4"]);
    let ann = User::new(&server, "ann");
    let bob = User::new(&server, "bob");
    assert_eq!(ann.bucket("own").status, 200);
    assert_eq!(ann.store("one", MIB).status, 200);
    let big = ann.announce("big", 3 * MIB + 1);
    assert_eq!(big.said(), FULL);
    assert!(
        big.message().starts_with("ann holds 10") && big.message().contains("may hold 4194304"),
        "{big:?}"
    );
    // One of a megabyte, 32 times; and of that, copies.
    // One that is sent without asking is taken, so that its client comes to read why it was refused, and thrown away.
    assert_eq!(ann.store("big", 8 * MIB).said(), FULL);
    assert_eq!(ann.compose("many", "one", 32).said(), FULL);
    assert_eq!(ann.compose("two", "one", 2).status, 200);
    assert_eq!(ann.copy("two", "more").said(), FULL);
    assert_eq!(ann.compose("two", "two", 2).said(), FULL);
    // What is said about objects counts as well.
    let words = json!({ "metadata": { "a": "x".repeat(30_000) } });
    let mut said = (0..40).map(|number| {
        let described = json!({ "name": format!("s{number}"), "metadata": words["metadata"] });
        let body = format!("--b\r\nContent-Type: application/json\r\n\r\n{described}\r\n--b\r\nContent-Type: a/b\r\n\r\nx\r\n--b--");
        let path = "/upload/storage/v1/b/own/o?uploadType=multipart";
        let kind = "Content-Type: multipart/related; boundary=b\r\n";
        ann.send("POST", path, kind, body.as_bytes())
    });
    assert_eq!(
        said.find(|answer| answer.status != 200)
            .expect("a refusal")
            .said(),
        FULL
    );
    let path = "/storage/v1/b/own/o/one";
    assert_eq!(ann.json("PATCH", path, &words).said(), FULL);
    assert_eq!(bob.store("bobs", 3 * MIB).status, 200);
    // After a restart it is the same, and what goes makes room, whoever removes it.
    let tokens = [ann.token, bob.token];
    server.kill_and_start_with(&["--quota-size", "4"]);
    let [ann, bob] = tokens.map(|token| User {
        server: &server,
        token,
    });
    assert_eq!(ann.store("three", MIB).said(), FULL);
    assert_eq!(
        bob.send("DELETE", "/storage/v1/b/own/o/two", "", b"")
            .status,
        204
    );
    assert_eq!(ann.store("three", MIB).status, 200);
    // An object that somebody else replaces is that one's.
    assert_eq!(ann.store("bobs", MIB / 2).status, 200);
    assert_eq!(bob.store("again", 3 * MIB).status, 200);
}

#[test]
fn what_is_on_its_way_counts() {
    let server = Server::start(&["--quota-size", "4"]);
    let ann = User::new(&server, "ann");
    assert_eq!(ann.bucket("own").status, 200);
    // Six at once, none of which is complete: each alone would fit.
    let mut open: Vec<_> = (0..6)
        .map(|number| ann.begin("POST", &media(&format!("o{number}")), "", 2 * MIB, b""))
        .collect();
    std::thread::sleep(std::time::Duration::from_millis(200));
    for stream in &mut open {
        drop(stream.write_all(&vec![7; MIB + MIB / 2]));
    }
    std::thread::sleep(std::time::Duration::from_millis(500));
    let staging = server.data().join("objects/staging");
    let staged = std::fs::read_dir(&staging).expect("a directory");
    let sizes = staged.map(|file| file.unwrap().metadata().map_or(0, |file| file.len()));
    let staged: u64 = sizes.sum();
    assert!(staged > 0 && staged <= 4 * MIB as u64, "{staged}");
    drop(open);
    let until = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while std::fs::read_dir(&staging).expect("a directory").count() > 0 {
        assert!(std::time::Instant::now() < until, "left behind");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    // What is announced, and what comes in several requests.
    let announced = format!("X-Upload-Content-Length: {}\r\n", 5 * MIB);
    assert_eq!(
        ann.start("big", &announced).expect_err("a refusal").said(),
        FULL
    );
    let first = ann.start("first", "").expect("an upload");
    let range = format!("0-{}/*", 3 * MIB - 1);
    assert_eq!(ann.put(&first, &range, 3 * MIB).status, 308);
    assert_eq!(ann.announce("other", 2 * MIB).said(), FULL);
    let second = ann.start("second", "").expect("an upload");
    let headers = format!("Content-Range: bytes {range}\r\n{ASKS}");
    let refused = answer(ann.begin("PUT", &second, &headers, 3 * MIB, b""));
    assert_eq!(refused.said(), FULL);
    assert_eq!(ann.put(&second, "*/*", 0).status, 404, "it cannot go on");
    assert_eq!(ann.send("DELETE", &first, "", b"").status, 499);
    assert_eq!(ann.store("other", 3 * MIB).status, 200);
}

#[test]
fn a_log_is_kept_though_nothing_else_is() {
    let server = Server::start(&["--quota-size", "1"]);
    let ann = User::new(&server, "ann");
    assert_eq!(ann.bucket("own").status, 200);
    let source = server.directory.path().join("source");
    std::fs::create_dir(&source).expect("a directory");
    std::fs::write(
        source.join("a.ks"),
        "lang C.UTF-8\nrootpw x\n%packages\n%end\n",
    )
    .expect("a file");
    let archive = std::process::Command::new("tar")
        .args(["-cz", "-C"])
        .arg(&source)
        .arg(".")
        .output()
        .expect("tar");
    assert_eq!(
        ann.send("POST", &media("s.tgz"), "", &archive.stdout)
            .status,
        200
    );
    for size in [100 << 10, 1] {
        let mut stored = (0..300).map(|number| ann.store(&format!("f{size}-{number}"), size));
        assert!(stored.any(|answer| answer.said() == FULL));
    }
    let build = json!({
        "source": { "storageSource": { "bucket": "own", "object": "s.tgz" } },
        "steps": [{ "name": "kiln", "args": ["check", "a.ks"] }],
        "artifacts": { "objects": { "location": "gs://own/x", "paths": ["*.ks"] } },
    });
    let made = ann.json("POST", BUILDS, &build);
    assert_eq!(made.status, 200, "{made:?}");
    let id = made.body["metadata"]["build"]["id"]
        .as_str()
        .expect("an id");
    let until = std::time::Instant::now() + std::time::Duration::from_secs(60);
    let build = loop {
        let build = ann.send("GET", &format!("{BUILDS}/{id}"), "", b"").body;
        if build["finishTime"].is_string() {
            break build;
        }
        assert!(std::time::Instant::now() < until, "{build}");
        std::thread::sleep(std::time::Duration::from_millis(50));
    };
    assert_eq!(build["failureInfo"]["type"], "PUSH_FAILED", "{build}");
    let detail = build["statusDetail"].as_str().unwrap_or("");
    assert!(detail.contains("--quota-size"), "{build}");
    assert_eq!(build.get("warnings"), None, "{build}");
    // A list shows what is stored; the log itself would be there from its file.
    let list = format!("/storage/v1/b/{PROJECT}_cloudbuild/o?prefix=log-");
    let list = ann.send("GET", &list, "", b"").body;
    assert_eq!(list["items"][0]["name"], format!("log-{id}.txt"), "{list}");
}

#[test]
fn room_is_kept_free_on_the_disk() {
    let mut server = Server::start(&["--keep-free", "0"]);
    let ann = User::new(&server, "ann");
    assert_eq!(ann.bucket("own").status, 200);
    assert_eq!(ann.store("one", 10).status, 200);
    let path = ann.start("later", "").expect("an upload");
    assert_eq!(ann.put(&path, "0-9/20", 10).status, 308);
    let token = ann.token;
    server.kill_and_start_with(&["--keep-free", ALL]);
    let ann = User {
        server: &server,
        token,
    };
    let refused = [
        ann.announce("x", 10),
        ann.compose("x", "one", 32),
        ann.copy("one", "x"),
        ann.bucket("another"),
        ann.json(
            "PATCH",
            "/storage/v1/b/own/o/one",
            &json!({ "metadata": { "a": "b" } }),
        ),
        ann.start("x", "").expect_err("a refusal"),
        answer(ann.begin(
            "PUT",
            &path,
            &format!("Content-Range: bytes 10-19/20\r\n{ASKS}"),
            10,
            b"",
        )),
    ];
    for answer in refused {
        assert_eq!(answer.said(), NO_ROOM, "{answer:?}");
        let message = answer.message();
        let says = "--keep-free keeps 4294967296 MiB";
        assert!(
            message.contains("MiB of the server's disk are free") && message.contains(says),
            "{message}"
        );
    }
    // What is there can be read, and removed, which makes room.
    let read = ann.send("GET", "/storage/v1/b/own/o/one?alt=media", "", b"");
    assert_eq!(read.status, 200);
    assert_eq!(
        ann.send("DELETE", "/storage/v1/b/own/o/one", "", b"")
            .status,
        204
    );
    let staging = server.data().join("objects/staging");
    assert_eq!(std::fs::read_dir(staging).expect("a directory").count(), 0);
    assert_eq!(server.request("GET", "/readyz", "", b"").0, 503);
}

#[test]
fn a_build_waits_for_room_on_the_disk() {
    let mut server = Server::start(&[OPEN, &["--keep-free", ALL]].concat());
    let id = server.create(&json!({ "steps": [{ "name": "kiln", "args": ["check", "none.ks"] }] }));
    let until = std::time::Instant::now() + std::time::Duration::from_secs(20);
    loop {
        let build = server.get(&id);
        assert_eq!(build["status"], "QUEUED", "{build}");
        let detail = build["statusDetail"].as_str().unwrap_or("");
        if detail.starts_with("waits for room on the disk: ") && detail.contains("--keep-free") {
            break;
        }
        assert!(std::time::Instant::now() < until, "{build}");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    server.kill_and_start();
    let build = server.end(&id);
    assert_eq!(build["status"], "FAILURE", "{build}");
}
