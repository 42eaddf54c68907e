//! Requests as they are on the wire.

use kiln_server::objects::{Attributes, BucketName, ObjectName};
use serde_json::{Value, json};

use crate::harness::{Server, pattern};

fn server() -> (tempfile::TempDir, Server) {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start_in(super::PLACE, directory.path());
    server.bucket("demo");
    (directory, server)
}

#[test]
fn buckets_come_and_go() {
    let (_directory, server) = server();
    let again = server.json(
        "POST",
        "/storage/v1/b?project=demo-proj",
        &json!({ "name": "demo" }),
    );
    assert_eq!((again.status, again.reason().as_str()), (409, "conflict"));
    assert_eq!(server.get("/storage/v1/b/demo").json()["id"], "demo");
    let missing = server.get("/storage/v1/b/other");
    assert_eq!(
        (missing.status, missing.reason().as_str()),
        (404, "notFound")
    );
    server.bucket("demo2");
    let list = server
        .get("/storage/v1/b?maxResults=1000&prefix=demo&project=demo-proj")
        .json();
    assert_eq!(list["items"].as_array().unwrap().len(), 2);
    let page = server
        .get("/storage/v1/b?maxResults=1&project=demo-proj")
        .json();
    let token = page["nextPageToken"].as_str().unwrap();
    let next = server
        .get(&format!("/storage/v1/b?maxResults=1&pageToken={token}"))
        .json();
    assert_eq!(next["items"][0]["id"], "demo2");
    assert!(next["nextPageToken"].is_null());
    assert!(
        server.get("/storage/v1/b?project=another").json()["items"]
            .as_array()
            .unwrap()
            .is_empty()
    );
    server.store("demo2", "x", b"x");
    assert_eq!(
        server
            .send("DELETE", "/storage/v1/b/demo2", &[], b"")
            .status,
        409
    );
    assert_eq!(
        server
            .send("DELETE", "/storage/v1/b/demo2/o/x", &[], b"")
            .status,
        204
    );
    assert_eq!(
        server
            .send("DELETE", "/storage/v1/b/demo2", &[], b"")
            .status,
        204
    );
    let versions = json!({ "name": "demo3", "versioning": { "enabled": true } });
    assert_eq!(
        server.json("POST", "/storage/v1/b", &versions).reason(),
        "notImplemented"
    );
}

#[test]
fn an_object_has_right_digests_and_ranges() {
    let (_directory, server) = server();
    let stored = server.store("demo", "a%2Fb.txt", b"123456789").json();
    assert_eq!(stored["name"], "a/b.txt");
    assert_eq!(stored["size"], "9");
    assert_eq!(stored["crc32c"], "4waSgw==");
    assert_eq!(stored["md5Hash"], "JfnnlDI7RTiF9RgfG2JNCw==");
    assert!(
        stored["generation"]
            .as_str()
            .unwrap()
            .parse::<i64>()
            .unwrap()
            > 0
    );
    let whole = server.get("/download/storage/v1/b/demo/o/a%2Fb.txt?alt=media");
    assert_eq!((whole.status, whole.text().as_str()), (200, "123456789"));
    assert_eq!(whole.header("content-type"), Some("text/plain"));
    assert_eq!(
        whole.header("x-goog-hash"),
        Some("crc32c=4waSgw==,md5=JfnnlDI7RTiF9RgfG2JNCw==")
    );
    assert_eq!(whole.header("content-security-policy"), Some("sandbox"));
    for (range, text, shown) in [
        ("bytes=0-3", "1234", "bytes 0-3/9"),
        ("bytes=7-", "89", "bytes 7-8/9"),
        ("bytes=-2", "89", "bytes 7-8/9"),
    ] {
        let part = server.send(
            "GET",
            "/storage/v1/b/demo/o/a%2Fb.txt?alt=media",
            &[("Range", range)],
            b"",
        );
        assert_eq!((part.status, part.text().as_str()), (206, text));
        assert_eq!(part.header("content-range"), Some(shown));
    }
    let beyond = server.send(
        "GET",
        "/storage/v1/b/demo/o/a%2Fb.txt?alt=media",
        &[("Range", "bytes=9-")],
        b"",
    );
    assert_eq!(
        (beyond.status, beyond.header("content-range")),
        (416, Some("bytes */9"))
    );
    let head = server.send(
        "HEAD",
        "/download/storage/v1/b/demo/o/a%2Fb.txt?alt=media",
        &[],
        b"",
    );
    assert_eq!(
        (head.status, head.header("content-length"), head.body.len()),
        (200, Some("9"), 0)
    );
    let empty = server.store("demo", "empty", b"").json();
    assert_eq!(
        (&empty["size"], &empty["crc32c"]),
        (&json!("0"), &json!("AAAAAA=="))
    );
    assert_eq!(
        server.get("/storage/v1/b/demo/o/empty?alt=media").status,
        200
    );
}

#[test]
fn a_multipart_upload_is_taken_as_the_command_line_writes_it() {
    let (_directory, server) = server();
    let content = b"\x1f\x8b\r\n--=\r";
    let mut body = b"--===1==\nContent-Type: application/json\nMIME-Version: 1.0\n\n{\"metadata\":{\"k\":\"v\"}}\n--===1==\nContent-Type: application/x-tar\nMIME-Version: 1.0\nContent-Transfer-Encoding: binary\n\n".to_vec();
    body.extend_from_slice(content);
    body.extend_from_slice(b"\n--===1==--");
    let kind = [("Content-Type", "multipart/related; boundary='===1=='")];
    let target = "/upload/storage/v1/b/demo/o?uploadType=multipart&alt=json&name=source%2F1-a.tgz";
    let stored = server.send("POST", target, &kind, &body).json();
    assert_eq!(stored["name"], "source/1-a.tgz");
    assert_eq!(stored["contentType"], "application/x-tar");
    assert_eq!(stored["metadata"]["k"], "v");
    let got = server.get("/storage/v1/b/demo/o/source%2F1-a.tgz?alt=media");
    assert_eq!(got.body, content);
    // A body that is cut short stores nothing.
    let cut = server.send(
        "POST",
        &target.replace("1-a", "2-a"),
        &kind,
        &body[..body.len() - 4],
    );
    assert_eq!(cut.status, 400, "{}", cut.text());
    assert_eq!(
        server.get("/storage/v1/b/demo/o/source%2F2-a.tgz").status,
        404
    );
    let wrong = br#"--b
Content-Type: application/json

{"name":"x","md5Hash":"AAAAAAAAAAAAAAAAAAAAAA=="}
--b

abc
--b--"#;
    let kind = [("Content-Type", "multipart/related; boundary=b")];
    let refused = server.send(
        "POST",
        "/upload/storage/v1/b/demo/o?uploadType=multipart",
        &kind,
        wrong,
    );
    assert_eq!(refused.status, 400);
    assert!(
        refused.text().contains("Provided MD5 hash"),
        "{}",
        refused.text()
    );
}

#[test]
fn preconditions_hold_or_nothing_happens() {
    let (_directory, server) = server();
    let first = server.store("demo", "x&ifGenerationMatch=0", b"1").json();
    let again = server.store("demo", "x&ifGenerationMatch=0", b"2");
    assert_eq!(
        (again.status, again.reason().as_str()),
        (412, "conditionNotMet")
    );
    let generation = first["generation"].as_str().unwrap();
    let second = server
        .store("demo", &format!("x&ifGenerationMatch={generation}"), b"2")
        .json();
    assert!(second["generation"].as_str().unwrap() > generation);
    let old = server.get(&format!("/storage/v1/b/demo/o/x?generation={generation}"));
    assert_eq!(old.status, 404);
    let now = second["generation"].as_str().unwrap();
    let unchanged = server.get(&format!(
        "/storage/v1/b/demo/o/x?ifGenerationNotMatch={now}"
    ));
    assert_eq!((unchanged.status, unchanged.body.len()), (304, 0));
    let wrong = server.send(
        "DELETE",
        "/storage/v1/b/demo/o/x?ifMetagenerationMatch=2",
        &[],
        b"",
    );
    assert_eq!(wrong.status, 412);
    let patched = server
        .json(
            "PATCH",
            "/storage/v1/b/demo/o/x",
            &json!({ "contentType": "a/b", "metadata": { "k": "v" } }),
        )
        .json();
    assert_eq!(
        (&patched["metageneration"], &patched["contentType"]),
        (&json!("2"), &json!("a/b"))
    );
    assert_eq!(
        server
            .get("/storage/v1/b/demo/o/x?ifGenerationMatch=-1")
            .status,
        400
    );
}

#[test]
fn objects_are_copied_and_composed() {
    let (_directory, server) = server();
    server.bucket("other");
    server.store("demo", "a%2Fo", b"one");
    server.store("demo", "b", b"two");
    let copied = server
        .send(
            "POST",
            "/storage/v1/b/demo/o/a%2Fo/rewriteTo/b/other/o/x%2Fy",
            &[],
            b"",
        )
        .json();
    assert_eq!(
        (&copied["done"], &copied["resource"]["name"]),
        (&json!(true), &json!("x/y"))
    );
    assert_eq!(copied["resource"]["contentType"], "text/plain");
    assert_eq!(
        server.get("/storage/v1/b/other/o/x%2Fy?alt=media").text(),
        "one"
    );
    let wanted = json!({ "sourceObjects": [{ "name": "a/o" }, { "name": "b" }], "destination": { "contentType": "c/d" } });
    let made = server
        .json("POST", "/storage/v1/b/demo/o/c/compose", &wanted)
        .json();
    assert_eq!(
        (&made["size"], &made["contentType"]),
        (&json!("6"), &json!("c/d"))
    );
    assert_eq!(
        server.get("/storage/v1/b/demo/o/c?alt=media").text(),
        "onetwo"
    );
    let onto_itself = server
        .send("POST", "/storage/v1/b/demo/o/b/copyTo/b/demo/o/b", &[], b"")
        .json();
    assert_eq!(onto_itself["size"], "3");
    assert_eq!(
        server
            .send(
                "POST",
                "/storage/v1/b/demo/o/zz/copyTo/b/demo/o/b",
                &[],
                b""
            )
            .status,
        404
    );
}

#[test]
fn lists_have_prefixes_and_pages() {
    let (_directory, server) = server();
    for name in ["a", "d%2F1", "d%2F2", "d%2Fe%2F3", "z"] {
        server.store("demo", name, b"x");
    }
    let names = |list: &Value| -> Vec<String> {
        let items = list["items"].as_array().cloned().unwrap_or_default();
        items
            .iter()
            .map(|item| item["name"].as_str().unwrap().to_owned())
            .collect()
    };
    let top = server.get("/storage/v1/b/demo/o?delimiter=%2F").json();
    assert_eq!(
        (names(&top), &top["prefixes"]),
        (vec!["a".to_owned(), "z".to_owned()], &json!(["d/"]))
    );
    let mut token = String::new();
    let mut all = Vec::new();
    for _ in 0..5 {
        let page = server
            .get(&format!(
                "/storage/v1/b/demo/o?maxResults=1&pageToken={token}"
            ))
            .json();
        all.extend(names(&page));
        token = page["nextPageToken"].as_str().unwrap_or("").to_owned();
    }
    assert_eq!(
        (all.join(" "), token.as_str()),
        ("a d/1 d/2 d/e/3 z".to_owned(), "")
    );
    assert_eq!(server.get("/storage/v1/b/demo/o?pageToken=%21").status, 400);
    assert_eq!(
        server.get("/storage/v1/b/demo/o?matchGlob=a*").reason(),
        "notImplemented"
    );
    assert_eq!(server.get("/storage/v1/b/nobody/o").status, 404);
}

#[test]
fn what_is_stored_survives_the_server() {
    let directory = tempfile::tempdir().unwrap();
    let content = pattern(3_000_000);
    let server = Server::start_in(super::PLACE, directory.path());
    server.bucket("demo");
    let before = server.store("demo", "big", &content).json();
    drop(server);
    let server = Server::start_in(super::PLACE, directory.path());
    let after = server.get("/storage/v1/b/demo/o/big").json();
    assert_eq!(before["generation"], after["generation"]);
    assert_eq!(
        server.get("/storage/v1/b/demo/o/big?alt=media").body,
        content
    );
}

#[test]
fn the_library_stores_and_reads_what_requests_see() {
    let (_directory, server) = server();
    let (bucket, name) = (
        BucketName::new("demo").unwrap(),
        ObjectName::new("out/disk.tar.gz").unwrap(),
    );
    server.wait(async {
        let objects = &server.objects;
        let kind = Attributes::of_type("application/gzip");
        objects
            .put_bytes(&bucket, &name, "content", kind)
            .await
            .unwrap();
        let opened = objects.open_object(&bucket, &name, None).await.unwrap();
        // It stays readable though it is replaced and removed.
        objects
            .put_bytes(&bucket, &name, "new", Attributes::default())
            .await
            .unwrap();
        assert_eq!(opened.bytes(100).await.unwrap(), "content");
        assert_eq!(
            objects
                .list(&bucket, "out/", "")
                .await
                .unwrap()
                .objects
                .len(),
            1
        );
    });
    assert_eq!(
        server
            .get("/storage/v1/b/demo/o/out%2Fdisk.tar.gz?alt=media")
            .text(),
        "new"
    );
}

#[test]
fn a_log_is_shown_at_whole_lines() {
    let (directory, server) = server();
    let path = directory.path().join("log");
    server.logs.add("demo", "log-1.txt", &path);
    let target = "/download/storage/v1/b/demo/o/log-1.txt?alt=media";
    assert_eq!(server.get(target).status, 404);
    std::fs::write(&path, "half").unwrap();
    assert_eq!(server.get(target).status, 404);
    std::fs::write(&path, "one\ntwo\nthr").unwrap();
    let part = server.send(
        "GET",
        target,
        &[("Range", "bytes=4-"), ("Accept-Encoding", "gzip")],
        b"",
    );
    assert_eq!((part.status, part.text().as_str()), (206, "two\n"));
    assert_eq!(part.header("content-range"), Some("bytes 4-7/8"));
    assert_eq!(part.header("content-encoding"), None);
    assert_eq!(
        server
            .send("GET", target, &[("Range", "bytes=8-")], b"")
            .status,
        416
    );
    assert_eq!(server.get(target).text(), "one\ntwo\n");
    assert_eq!(
        server
            .send("GET", target, &[("Range", "lines=1")], b"")
            .status,
        400
    );
    assert_eq!(
        server.get("/storage/v1/b/demo/o/log-1.txt").json()["size"],
        "8"
    );
}
