//! Names, bodies and clients that mean no good.

use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use kiln_server::objects::Limits;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::harness::{Reply, Server};

fn files(directory: &Path) -> Vec<String> {
    let mut all = Vec::new();
    for entry in directory.read_dir().unwrap() {
        let entry = entry.unwrap();
        let path = entry.path();
        if entry.file_type().unwrap().is_dir() {
            assert_eq!(
                entry.metadata().unwrap().mode() & 0o777,
                0o700,
                "{}",
                path.display()
            );
            all.extend(files(&path));
        } else {
            all.push(path.display().to_string());
        }
    }
    all
}

#[test]
fn no_name_leads_out_of_the_store() {
    let outside = tempfile::tempdir().unwrap();
    let data = outside.path().join("a/b/data");
    std::fs::create_dir_all(&data).unwrap();
    let server = Server::start_in(super::PLACE, &data);
    server.bucket("demo");
    let before = std::fs::read_dir(outside.path()).unwrap().count();
    for name in [
        "..%2F..%2F..%2Fescape",
        "%2Fetc%2Fescape",
        "..",
        "a%2F..%2F..%2F..%2Fescape",
        ".",
        "%2E%2E%2Fescape",
        "a%5C..%5Cescape",
    ] {
        let stored = server.store("demo", name, b"x");
        assert!(
            matches!(stored.status, 200 | 400),
            "{name}: {}",
            stored.text()
        );
        if stored.status == 200 {
            assert_eq!(
                server
                    .get(&format!("/storage/v1/b/demo/o/{name}?alt=media"))
                    .text(),
                "x",
                "{name}"
            );
        }
    }
    for name in ["a%00b", "a%0Ab", &"x".repeat(1025), "%FF", ""] {
        assert_eq!(
            server.store("demo", name, b"x").status,
            if name == "%FF" { 200 } else { 400 },
            "{name}"
        );
    }
    let long = "%C3%A4".repeat(512);
    assert_eq!(server.store("demo", &long, b"long").status, 200);
    assert_eq!(
        server
            .get(&format!("/storage/v1/b/demo/o/{long}?alt=media"))
            .text(),
        "long"
    );
    for bucket in ["..", "..%2F..", "%2Fetc", "A", "a%00b"] {
        assert_eq!(server.store(bucket, "x", b"x").status, 400, "{bucket}");
    }
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), before);
    let all = files(&data);
    assert!(
        all.iter()
            .all(|file| file.starts_with(data.to_str().unwrap()))
    );
    // An object may stand beside objects below its name.
    for name in ["n", "n%2Fm", "n%2F", "n%2F%2Fm"] {
        server.store("demo", name, name.as_bytes());
    }
    for name in ["n", "n%2Fm", "n%2F", "n%2F%2Fm"] {
        assert_eq!(
            server
                .get(&format!("/storage/v1/b/demo/o/{name}?alt=media"))
                .text(),
            name
        );
    }
}

#[test]
fn too_much_is_refused_and_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let limits = Limits {
        object: 1000,
        silence: Duration::from_millis(300),
        ..Limits::default()
    };
    let server = Server::with(super::PLACE, directory.path(), limits, None);
    server.bucket("demo");
    let large = server.store("demo", "x", &[b'x'; 1001]);
    assert_eq!(
        (large.status, large.reason().as_str()),
        (413, "uploadTooLarge")
    );
    assert_eq!(server.store("demo", "x", &[b'x'; 1000]).status, 200);
    let wide = format!("{{\"name\":\"{}\"}}", "x".repeat(300_000));
    assert_eq!(
        server
            .send("POST", "/storage/v1/b", &[], wide.as_bytes())
            .status,
        413
    );
    // A client that stops in the middle.
    let mut slow = server.begin(
        "POST",
        "/upload/storage/v1/b/demo/o?uploadType=media&name=slow",
        &[],
        100,
    );
    slow.write_all(b"0123").unwrap();
    let told = Reply::read(slow);
    assert_eq!(
        (told.status, told.reason().as_str()),
        (408, "requestTimeout")
    );
    // One that leaves.
    let mut gone = server.begin(
        "POST",
        "/upload/storage/v1/b/demo/o?uploadType=media&name=gone",
        &[],
        100,
    );
    gone.write_all(b"0123").unwrap();
    drop(gone);
    std::thread::sleep(Duration::from_millis(600));
    assert_eq!(server.get("/storage/v1/b/demo/o/slow").status, 404);
    assert_eq!(server.get("/storage/v1/b/demo/o/gone").status, 404);
    let staging = directory.path().join("objects/staging");
    assert_eq!(std::fs::read_dir(staging).unwrap().count(), 0);
}

#[test]
fn any_request_is_answered_without_a_fault() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start_in(super::PLACE, directory.path());
    server.bucket("demo");
    let target = "(/storage/v1|/upload/storage/v1|/download/storage/v1)(/b|/demo|/o|/x%2Fy|/\\.\\.|/rewriteTo|/compose|//){0,8}(\\?(name=[a-z%0-9/]{0,6}|&|uploadType=(media|multipart|resumable)|upload_id=[a-f0-9]{0,3}|pageToken=[a-zA-Z]{0,4}|alt=media|generation=[0-9-]{0,20}|maxResults=-?[0-9]{0,3}){0,5})?";
    let body = prop::collection::vec(
        prop::sample::select(b"{}\"name:[]-b\r\n \0\xff".to_vec()),
        0..40,
    );
    let method = prop::sample::select(vec!["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD"]);
    let mut runner = TestRunner::new(Config {
        cases: 400,
        failure_persistence: None,
        ..Config::default()
    });
    let strategy = (method, target, body);
    let run = runner.run(&strategy, |(method, target, body)| {
        let kind = [
            ("Content-Type", "multipart/related; boundary=b"),
            ("Content-Range", "bytes 0-3/9"),
        ];
        let reply = server.send(method, &target, &kind, &body);
        prop_assert!(
            reply.status < 500,
            "{} {}: {}",
            method,
            target,
            reply.text()
        );
        Ok(())
    });
    run.unwrap();
}

/// A disk of one megabyte that fills up, in namespaces of its own: needs unshare and mount, as root or with user namespaces.
#[test]
fn a_full_disk_is_told_and_nothing_stays() {
    if std::env::var_os("KILN_TEST_SMALL_DISK").is_none() {
        let this = std::env::current_exe().unwrap();
        let script = "mount -t tmpfs -o size=3m none \"$KILN_TEST_SMALL_DISK\" && exec \"$0\" --exact \"$1\" --nocapture";
        let directory = tempfile::tempdir().unwrap();
        let status = Command::new("unshare")
            .args(["--user", "--map-root-user", "--mount", "sh", "-c", script])
            .arg(this)
            .arg(std::thread::current().name().unwrap())
            .env("KILN_TEST_SMALL_DISK", directory.path())
            .status()
            .unwrap();
        assert!(status.success(), "{status}");
        return;
    }
    let disk = std::env::var_os("KILN_TEST_SMALL_DISK").unwrap();
    let disk = Path::new(&disk);
    let server = Server::start_in(super::PLACE, disk);
    server.bucket("demo");
    let full = server.store("demo", "big", &vec![7; 4 << 20]);
    assert_eq!(
        (full.status, full.reason().as_str()),
        (507, "insufficientStorage"),
        "{}",
        full.text()
    );
    let target = "/upload/storage/v1/b/demo/o?uploadType=resumable&name=big2";
    let location = server
        .send("POST", target, &[], b"")
        .header("location")
        .unwrap()
        .to_owned();
    let location = location.strip_prefix(&server.url()).unwrap();
    let full = server.send(
        "PUT",
        location,
        &[("Content-Range", "bytes 0-4194303/4194304")],
        &vec![7; 4 << 20],
    );
    assert_eq!(full.status, 507, "{}", full.text());
    assert_eq!(
        std::fs::read_dir(disk.join("objects/staging"))
            .unwrap()
            .count(),
        0
    );
    assert_eq!(
        server.get("/storage/v1/b/demo/o").json()["items"],
        serde_json::Value::Null
    );
    assert_eq!(server.store("demo", "small", b"fits").status, 200);
}
