//! A server whose contents are in a store elsewhere, and what becomes of builds when that fails.

use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use kiln_testkit::{Bucket, Trouble};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::{BUILDS, OPEN, PROJECT, Server, kiln, silent};

const GOOD: &str = "lang C.UTF-8\nrootpw x\n%packages\n%end\n";
const SECRET: &str = "a-secret-access-key";
const ROOT: &str = "kept/kiln/kiln-objects1/";

/// A store, and the options of a server that uses it.
struct Elsewhere {
    store: Bucket,
    options: Vec<String>,
    _directory: TempDir,
}

impl Elsewhere {
    fn new() -> Elsewhere {
        let store = Bucket::start();
        let directory = tempfile::tempdir().expect("a directory");
        let file = credentials(&directory, &store.url(), 0o600);
        let options = ["--objects", "s3://kept/kiln", "--objects-credentials"];
        let options = OPEN.iter().chain(&options).map(|text| (*text).to_owned());
        let options = options.chain([file.display().to_string()]).collect();
        Elsewhere {
            store,
            options,
            _directory: directory,
        }
    }

    fn options(&self) -> Vec<&str> {
        self.options.iter().map(String::as_str).collect()
    }

    fn server(&self) -> Server {
        Server::start(&self.options())
    }

    /// The contents by their place.
    fn contents(&self) -> Vec<String> {
        let names = self.store.names();
        let names = names.iter().map(|name| {
            let place = name.strip_prefix(ROOT);
            place.unwrap_or_else(|| panic!("{name} is elsewhere"))
        });
        names
            .filter(|place| *place != "@owner")
            .map(str::to_owned)
            .collect()
    }
}

fn credentials(directory: &TempDir, url: &str, mode: u32) -> PathBuf {
    let file = directory.path().join("credentials");
    let text = format!(
        "# of the test\nAWS_ENDPOINT_URL={url}\nAWS_ALLOW_HTTP=true\nAWS_REGION=nowhere\nAWS_ACCESS_KEY_ID=id\nAWS_SECRET_ACCESS_KEY={SECRET}\n"
    );
    fs::write(&file, text).expect("a file");
    fs::set_permissions(&file, fs::Permissions::from_mode(mode)).expect("a mode");
    file
}

fn build(source: &Value) -> Value {
    json!({
        "source": source,
        "steps": [{ "name": "kiln", "args": ["flatten", "good.ks"] }],
        "artifacts": { "objects": { "location": "gs://out/$BUILD_ID", "paths": ["*.ks"] } },
    })
}

fn artifact(server: &Server, id: &str) -> (u16, Vec<u8>) {
    let path = format!("/download/storage/v1/b/out/o/{id}%2Fgood.ks?alt=media");
    server.request("GET", &path, "", b"")
}

/// Waits until a build says that it waits for the store.
fn waits(server: &Server, id: &str) {
    let since = Instant::now();
    loop {
        let build = server.get(id);
        let detail = build["statusDetail"].as_str().unwrap_or("");
        if detail.starts_with("WAITING") {
            assert_eq!(build["status"], "WORKING", "{build}");
            return;
        }
        assert!(since.elapsed() < Duration::from_secs(60), "{build}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_build_goes_through_a_store_that_fails_now_and_then() {
    let elsewhere = Elsewhere::new();
    let (store, server) = (&elsewhere.store, elsewhere.server());
    store.fault("PUT *source*", 0, 1, Trouble::Status(503));
    let source = server.source(&[("good.ks", GOOD)]);
    server.bucket("out");
    // What comes back changed is asked for again.
    store.fault("GET *source*", 0, 1, Trouble::Flip);
    store.fault("GET *source*", 1, 1, Trouble::Cut);
    store.fault("PUT *good.ks*", 0, 1, Trouble::Close);
    store.fault("PUT *good.ks*", 0, 2, Trouble::Status(403));
    store.fault("PUT *artifacts-*", 0, 1, Trouble::Forget);
    store.fault("PUT *log-*", 0, 1, Trouble::Status(500));
    let id = server.create(&build(&source));
    let ended = server.end(&id);
    let log = server.log(&id);
    assert_eq!(ended["status"], "SUCCESS", "{ended}\n{log}");
    assert!(ended["statusDetail"].is_null(), "{ended}");
    assert_eq!(log.matches("DONE\n").count(), 1, "{log}");
    assert!(
        log.contains("WAITING: the artifacts cannot be kept"),
        "{log}"
    );
    assert!(log.contains("credentials"), "{log}");
    assert_eq!(artifact(&server, &id), (200, GOOD.as_bytes().to_vec()));
    let mut places = elsewhere.contents();
    for place in &mut places {
        place.truncate(place.find('@').expect("a generation"));
    }
    let bucket = format!("{PROJECT}_cloudbuild");
    let expected = [
        format!("{bucket}/log-{id}.txt/"),
        format!("{bucket}/source/s.tgz/"),
        format!("out/{id}/artifacts-{id}.json/"),
        format!("out/{id}/good.ks/"),
    ];
    assert_eq!(places, expected);
    assert!(!server.data().join("objects/content").exists());
    // The secret is not in what the server keeps, nor told.
    let grep = std::process::Command::new("grep")
        .args(["-rl", SECRET])
        .arg(server.data())
        .output()
        .expect("grep");
    assert_eq!(String::from_utf8_lossy(&grep.stdout), "");
    assert!(!log.contains(SECRET) && !ended.to_string().contains(SECRET));
}

#[test]
fn credentials_of_the_store_are_not_handed_to_builds() {
    let elsewhere = Elsewhere::new();
    let server = elsewhere.server();
    let (_listener, kickstart) = silent();
    let source = server.source(&[("good.ks", &kickstart)]);
    let id = server.create(&json!({
        "source": source, "steps": [{ "name": "kiln", "args": ["build", "good.ks"] }],
    }));
    server.wait(&id, &["WORKING"]);
    let data = server.data().display().to_string();
    let since = Instant::now();
    let agent = loop {
        let found = fs::read_dir("/proc")
            .expect("/proc")
            .flatten()
            .find(|entry| {
                let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
                let line = String::from_utf8_lossy(&line).into_owned();
                line.contains("run-attempt") && line.contains(&data)
            });
        if let Some(agent) = found {
            break agent.path();
        }
        assert!(since.elapsed() < Duration::from_secs(30), "no agent");
        std::thread::sleep(Duration::from_millis(10));
    };
    for file in ["environ", "cmdline"] {
        let bytes = fs::read(agent.join(file)).expect("a process");
        let text = String::from_utf8_lossy(&bytes);
        assert!(
            !text.is_empty() && !text.contains("AWS_") && !text.contains("credentials"),
            "{text}"
        );
    }
    let (status, _) = server.json("POST", &format!("{BUILDS}/{id}:cancel"), &json!({}));
    assert_eq!(status, 200);
}

#[test]
fn a_finished_build_waits_for_the_store_also_when_the_server_is_killed() {
    let elsewhere = Elsewhere::new();
    let (store, mut server) = (&elsewhere.store, elsewhere.server());
    let source = server.source(&[("good.ks", GOOD)]);
    server.bucket("out");
    store.fault("PUT *out/*", 0, u32::MAX, Trouble::Status(400));
    let id = server.create(&build(&source));
    waits(&server, &id);
    // The store is away for the next server's start, too.
    store.trouble(Some(Trouble::Status(400)));
    server.kill_and_start_with(&elsewhere.options());
    waits(&server, &id);
    let (status, why) = server.request("GET", "/readyz", "", b"");
    assert_eq!(status, 503, "{}", String::from_utf8_lossy(&why));
    store.heal();
    let ended = server.end(&id);
    assert_eq!(ended["status"], "SUCCESS", "{ended}");
    let log = server.log(&id);
    assert_eq!(log.matches("DONE\n").count(), 1, "{log}");
    assert_eq!(artifact(&server, &id).0, 200);
    assert_eq!(server.request("GET", "/readyz", "", b"").0, 200);
}

#[test]
fn a_build_that_waits_for_the_store_can_be_cancelled() {
    let elsewhere = Elsewhere::new();
    let (store, server) = (&elsewhere.store, elsewhere.server());
    let source = server.source(&[("good.ks", GOOD)]);
    server.bucket("out");
    for pattern in ["PUT *out/*", "GET *source*"] {
        store.fault(pattern, 0, u32::MAX, Trouble::Status(400));
        let id = server.create(&build(&source));
        waits(&server, &id);
        let (status, _) = server.json("POST", &format!("{BUILDS}/{id}:cancel"), &json!({}));
        assert_eq!(status, 200);
        assert_eq!(server.end(&id)["status"], "CANCELLED");
        store.heal();
    }
    let left: Vec<String> = elsewhere.contents();
    assert!(
        left.iter().all(|place| !place.starts_with("out/")),
        "{left:?}"
    );
}

#[test]
fn a_build_waits_for_its_source_also_when_the_server_is_killed() {
    let elsewhere = Elsewhere::new();
    let (store, mut server) = (&elsewhere.store, elsewhere.server());
    let source = server.source(&[("good.ks", GOOD)]);
    server.bucket("out");
    store.fault("GET *source*", 0, u32::MAX, Trouble::Status(400));
    let id = server.create(&build(&source));
    // More often than a build is begun anew.
    for _ in 0..4 {
        waits(&server, &id);
        server.kill_and_start_with(&elsewhere.options());
    }
    store.heal();
    let ended = server.end(&id);
    assert_eq!(ended["status"], "SUCCESS", "{ended}\n{}", server.log(&id));
}

/// Begins an upload of some parts and does not wait for the answer.
fn begin(server: &Server, path: &str, content: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(server.address).expect("a connection");
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: {}\r\nContent-Length: {}\r\n\r\n",
        server.address,
        content.len()
    );
    stream.write_all(head.as_bytes()).expect("a request");
    stream.write_all(content).expect("a body");
    stream
}

fn until(what: impl Fn() -> bool) {
    let since = Instant::now();
    while !what() {
        assert!(since.elapsed() < Duration::from_secs(30));
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn an_upload_that_is_killed_between_its_parts_leaves_nothing_named() {
    let elsewhere = Elsewhere::new();
    let (store, mut server) = (&elsewhere.store, elsewhere.server());
    server.bucket("out");
    let content = vec![7; 20 << 20];
    let path = "/upload/storage/v1/b/out/o?uploadType=media&name=big";
    // Between parts, and before the end.
    for (method, target) in [("PUT", "partNumber=2"), ("POST", "uploadId=")] {
        store.fault(&format!("{method} *{target}*"), 0, 1, Trouble::Silence);
        let _stream = begin(&server, path, &content);
        let asked = |line: &String| line.starts_with(method) && line.contains(target);
        until(|| store.requests().iter().any(asked));
        server.kill_and_start_with(&elsewhere.options());
        assert_eq!(elsewhere.contents(), [""; 0], "{target}");
        let (status, _) = server.request("GET", "/storage/v1/b/out/o/big", "", b"");
        assert_eq!(status, 404, "{target}");
    }
    // Done in the store, and the server was killed before it knew.
    store.fault("POST *uploadId=*", 0, u32::MAX, Trouble::Forget);
    store.fault("HEAD *", 0, u32::MAX, Trouble::Silence);
    let _stream = begin(&server, path, &content);
    until(|| !elsewhere.contents().is_empty());
    store.heal();
    server.kill_and_start_with(&elsewhere.options());
    assert_eq!(elsewhere.contents(), [""; 0]);
    let (status, _) = server.request("POST", path, "", &content);
    assert_eq!(status, 200);
    assert_eq!(elsewhere.contents().len(), 1);
}

/// What `kiln serve` says when it does not start.
fn refused(options: &[&str]) -> String {
    let home = tempfile::tempdir().expect("a directory");
    let mut command = kiln(home.path());
    command.args(["serve", "--listen", "127.0.0.1:0", "--data"]);
    let output = command.arg(home.path().join("data")).args(options).output();
    let output = output.expect("a server");
    assert!(!output.status.success());
    String::from_utf8(output.stderr).expect("UTF-8")
}

#[test]
fn a_store_that_cannot_be_used_is_refused_at_the_start() {
    let elsewhere = Elsewhere::new();
    let store = &elsewhere.store;
    for (status, expected) in [(403, "credentials"), (404, "no such bucket")] {
        store.trouble(Some(Trouble::Status(status)));
        let said = refused(&elsewhere.options());
        assert!(said.contains(expected) && !said.contains(SECRET), "{said}");
    }
    store.heal();
    let _server = elsewhere.server();
    let said = refused(&elsewhere.options());
    assert!(said.contains("another server's"), "{said}");

    let directory = tempfile::tempdir().expect("a directory");
    let open = credentials(&directory, "http://127.0.0.1:1", 0o644);
    let file = open.display().to_string();
    let with = |url: &str| refused(&["--objects", url, "--objects-credentials", &file]);
    let said = with("s3://kept");
    assert!(
        said.contains("is no secret") && said.contains("chmod 600"),
        "{said}"
    );
    fs::set_permissions(&open, fs::Permissions::from_mode(0o600)).expect("a mode");
    for (url, expected) in [
        ("ftp://kept", "begins with none of"),
        ("s3://", "names no bucket"),
        ("s3://user@kept", "no user, query"),
        ("file://relative", "absolute path"),
    ] {
        let said = with(url);
        assert!(said.contains(expected), "{url}: {said}");
    }
    fs::write(&open, format!("AWS_SECRET={SECRET}\n")).expect("a file");
    let said = with("s3://kept");
    assert!(said.contains("line 1") && !said.contains(SECRET), "{said}");
}
