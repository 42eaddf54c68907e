//! How much somebody may leave in a store.

use std::path::Path;
use std::process::Command;

use kiln_server::objects::{Held, Limits};
use rusqlite::Connection;
use serde_json::json;

use crate::harness::{Place, Reply, Server};

fn told(reply: &Reply) -> (u16, String) {
    (reply.status, reply.reason())
}

fn start(server: &Server) -> String {
    let target = "/upload/storage/v1/b/demo/o?uploadType=resumable&name=x";
    let reply = server.send("POST", target, &[], b"");
    let location = reply.header("location").unwrap();
    location.strip_prefix(&server.url()).unwrap().to_owned()
}

fn put(server: &Server, target: &str, range: &str, body: &[u8]) -> Reply {
    server.send("PUT", target, &[("Content-Range", range)], body)
}

fn database(directory: &Path) -> Connection {
    Connection::open(directory.join("objects/index.db")).unwrap()
}

#[test]
fn there_is_an_end_to_buckets_and_objects() {
    let directory = tempfile::tempdir().unwrap();
    let limits = Limits {
        buckets_of_one: 2,
        objects_of_one: 3,
        ..Limits::default()
    };
    let server = Server::with(Place::Here, directory.path(), limits, None);
    server.bucket("demo");
    server.bucket("second");
    let third = |name: &str| {
        let target = "/storage/v1/b?project=demo-proj";
        server.json("POST", target, &json!({ "name": name }))
    };
    let full = (403, "quotaExceeded".to_owned());
    assert_eq!(told(&third("third")), full);
    assert_eq!(server.get("/storage/v1/b/third").status, 404);
    assert_eq!(told(&third("demo")).0, 409);
    for name in ["a", "b", "c"] {
        assert_eq!(server.store("demo", name, b"x").status, 200);
    }
    let refused = server.store("demo", "d", b"x");
    assert_eq!(told(&refused), full);
    assert!(
        refused.text().contains("holds 3 objects"),
        "{}",
        refused.text()
    );
    let target = start(&server);
    assert_eq!(told(&put(&server, &target, "bytes 0-0/1", b"x")), full);
    assert_eq!(put(&server, &target, "bytes */1", b"").status, 404);
    // What replaces another is no further one.
    assert_eq!(server.store("demo", "a", b"y").status, 200);
    let gone = |target: &str| server.send("DELETE", target, &[], b"").status;
    assert_eq!(gone("/storage/v1/b/demo/o/b"), 204);
    assert_eq!(server.store("demo", "d", b"x").status, 200);
    assert_eq!(gone("/storage/v1/b/second"), 204);
    assert_eq!(third("third").status, 200);
    let staging = directory.path().join("objects/staging");
    assert_eq!(std::fs::read_dir(staging).unwrap().count(), 0);
}

#[test]
fn uploads_that_are_done_do_not_fill_the_index() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path());
    server.bucket("demo");
    let described = json!({ "name": "x", "metadata": { "a": "b".repeat(30_000) } });
    let begun = server.json(
        "POST",
        "/upload/storage/v1/b/demo/o?uploadType=resumable",
        &described,
    );
    let target = begun.header("location").unwrap().to_owned();
    let target = target.strip_prefix(&server.url()).unwrap();
    let index = database(directory.path());
    let old = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500)
        INSERT INTO upload (id, bucket, name, request, received, touched, generation, owner)
        SELECT 'old' || i, 'demo', 'x', '', 1, touched - i, 1, 'somebody' FROM n, upload";
    assert_eq!(index.execute(old, []).unwrap(), 500);
    let done = put(&server, target, "bytes 0-0/1", b"x");
    assert_eq!(done.status, 200, "{}", done.text());
    let query = "SELECT count(*), max(length(request)) FROM upload WHERE generation IS NOT NULL AND owner = 'somebody'";
    let held: (u32, u32) = index
        .query_row(query, [], |row| Ok((row.get(0)?, row.get(1)?)))
        .unwrap();
    assert_eq!(held, (100, 0));
    // The last answer may have been lost: it is given again.
    assert_eq!(put(&server, target, "bytes */1", b"").body, done.body);
}

#[test]
fn an_upload_that_nobody_begins_is_forgotten_soon() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path());
    server.bucket("demo");
    let (unused, begun) = (start(&server), start(&server));
    assert_eq!(put(&server, &begun, "bytes 0-0/2", b"x").status, 308);
    let later = |hours: i64| {
        let query = "UPDATE upload SET touched = touched - ?1 * 3600 * 1000000";
        database(directory.path()).execute(query, [hours]).unwrap();
        // Whoever begins another one clears up.
        server.send("DELETE", &start(&server), &[], b"");
    };
    later(2);
    assert_eq!(put(&server, &unused, "bytes */*", b"").status, 404);
    assert_eq!(put(&server, &begun, "bytes */2", b"").status, 308);
    later(7 * 24);
    let gone = put(&server, &begun, "bytes 1-1/2", b"y");
    assert_eq!(gone.status, 404, "{}", gone.text());
    let staging = directory.path().join("objects/staging");
    assert_eq!(std::fs::read_dir(staging).unwrap().count(), 0);
}

#[test]
fn what_somebody_holds_is_counted_over_restarts() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path());
    server.bucket("demo");
    server.store("demo", "a", &[7; 1000]);
    server.store("demo", "b", &[7; 1000]);
    server.store("demo", "a", &[7; 500]);
    let target = start(&server);
    put(&server, &target, "bytes 0-99/*", &[7; 100]);
    let held = server.objects.held("somebody");
    let described = "{\"contentType\":\"text/plain\"}".len() as u64;
    let bytes = 500 + 1000 + 100 + 2 * (4096 + 1 + described);
    assert_eq!(held, Held { bytes, objects: 2 });
    drop(server);
    let server = Server::start(directory.path());
    assert_eq!(server.objects.held("somebody"), held);
    put(&server, &target, "bytes 100-199/200", &[7; 100]);
    server.send("DELETE", "/storage/v1/b/demo/o/a", &[], b"");
    server.send("DELETE", "/storage/v1/b/demo/o/b", &[], b"");
    server.send("DELETE", "/storage/v1/b/demo/o/x", &[], b"");
    assert_eq!(server.objects.held("somebody"), Held::default());
}

/// A disk of 8 MB in namespaces of its own, of which 4 MB stay free: needs unshare and mount, as root or with user namespaces.
#[test]
fn room_stays_free_though_nobody_said_how_much_comes() {
    if std::env::var_os("KILN_TEST_KEPT_DISK").is_none() {
        let this = std::env::current_exe().unwrap();
        let script = "mount -t tmpfs -o size=8m none \"$KILN_TEST_KEPT_DISK\" && exec \"$0\" --exact \"$1\" --nocapture";
        let directory = tempfile::tempdir().unwrap();
        let status = Command::new("unshare")
            .args(["--user", "--map-root-user", "--mount", "sh", "-c", script])
            .arg(this)
            .arg(std::thread::current().name().unwrap())
            .env("KILN_TEST_KEPT_DISK", directory.path())
            .status()
            .unwrap();
        assert!(status.success(), "{status}");
        return;
    }
    let disk = std::env::var_os("KILN_TEST_KEPT_DISK").unwrap();
    let disk = Path::new(&disk);
    let limits = Limits {
        keep_free: 4 << 20,
        ..Limits::default()
    };
    let server = Server::with(Place::Here, disk, limits, None);
    server.bucket("demo");
    let head = b"--b\r\nContent-Type: application/json\r\n\r\n{\"name\":\"x\"}\r\n--b\r\n\r\n";
    let body = [head.as_slice(), &vec![7; 9 << 19], b"\r\n--b--"].concat();
    let target = "/upload/storage/v1/b/demo/o?uploadType=multipart";
    let kind = [("Content-Type", "multipart/related; boundary=b")];
    let refused = server.send("POST", target, &kind, &body);
    assert_eq!(told(&refused), (507, "insufficientStorage".to_owned()));
    assert!(refused.text().contains("keeps 4 MiB"), "{}", refused.text());
    assert_eq!(server.store("demo", "one", &vec![7; 1 << 20]).status, 200);
    // An object of itself, again and again.
    let sources = vec![json!({ "name": "one" }); 4];
    let target = "/storage/v1/b/demo/o/one/compose";
    let many = server.json("POST", target, &json!({ "sourceObjects": sources }));
    assert_eq!(many.status, 507, "{}", many.text());
    let staging = disk.join("objects/staging");
    assert_eq!(std::fs::read_dir(staging).unwrap().count(), 0);
}
