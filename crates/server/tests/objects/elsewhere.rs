//! Contents in a store behind HTTP, and what it may do to them.

use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use kiln_server::objects::{
    Attributes, BucketName, Contents, Elsewhere, Limits, ObjectName, Objects,
};
use kiln_testkit::Trouble;

use crate::harness::{Place, Server, elsewhere, pattern, store_of};

const OWNER: &str = "bucket/a/prefix/kiln-objects1/@owner";
const DOWNLOAD: &str = "/download/storage/v1/b/demo/o/x?alt=media";

fn server(place: Place) -> (tempfile::TempDir, Server) {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start_in(place, directory.path());
    server.bucket("demo");
    (directory, server)
}

#[test]
fn contents_go_out_and_come_back() {
    for place in [Place::Bucket, Place::Google, Place::Azure] {
        let (directory, server) = server(place);
        let store = store_of(directory.path());
        // Nothing, one request, three parts.
        for size in [0, 1000, (20 << 20) + 7] {
            let content = pattern(size);
            assert_eq!(server.store("demo", "x", &content).status, 200);
            let read = server.get(DOWNLOAD);
            assert_eq!(read.status, 200);
            assert!(read.body == content, "{place:?} {size}");
            // What was replaced is gone.
            let names = store.names();
            assert_eq!(names.len(), 2, "{names:?}");
            assert_eq!(names[0], OWNER);
            assert!(
                names[1].starts_with("bucket/a/prefix/kiln-objects1/demo/x/@"),
                "{names:?}"
            );
        }
        let part = server.send("GET", DOWNLOAD, &[("Range", "bytes=9000000-9000999")], b"");
        assert_eq!(part.status, 206);
        assert!(part.body == pattern(9_001_000)[9_000_000..]);
        assert_eq!(
            server
                .send("DELETE", "/storage/v1/b/demo/o/x", &[], b"")
                .status,
            204
        );
        assert_eq!(store.names(), [OWNER]);
        assert_eq!(store.unfinished(), 0);
        assert!(!directory.path().join("objects/content").exists());
        let staged = std::fs::read_dir(directory.path().join("objects/staging")).unwrap();
        assert_eq!(staged.count(), 0);
    }
}

#[test]
fn faults_on_the_way_to_the_store_leave_no_mark() {
    for place in [Place::Bucket, Place::Google] {
        let (directory, server) = server(place);
        let store = store_of(directory.path());
        let content = pattern(20 << 20);
        for (pattern, after, times, trouble) in [
            ("PUT *partNumber=*", 1, 2, Trouble::Status(503)),
            ("PUT *partNumber=2*", 0, 1, Trouble::Close),
            ("PUT *partNumber=2*", 0, 1, Trouble::Forget),
            ("POST *uploads*", 0, 1, Trouble::Status(500)),
            ("POST *uploadId=*", 0, 1, Trouble::Status(503)),
            // Done, but the answer was lost: asked again, the store knows no such upload.
            ("POST *uploadId=*", 0, 1, Trouble::Forget),
            ("GET *demo/x*", 2, 1, Trouble::Status(503)),
            ("GET *demo/x*", 2, 1, Trouble::Cut),
            ("DELETE *", 0, 1, Trouble::Status(503)),
        ] {
            store.fault(pattern, after, times, trouble.clone());
            let stored = server.store("demo", "x", &content);
            assert_eq!(
                stored.status,
                200,
                "{pattern} {trouble:?}: {}",
                stored.text()
            );
            assert!(
                server.get(DOWNLOAD).body == content,
                "{pattern} {trouble:?}"
            );
            store.heal();
            assert_eq!(store.names().len(), 2, "{pattern} {trouble:?}");
        }
        assert_eq!(store.unfinished(), 0);
    }
}

#[test]
fn faults_of_azure_leave_no_mark() {
    let (directory, server) = server(Place::Azure);
    let store = store_of(directory.path());
    let content = pattern(20 << 20);
    for (pattern, after, times, trouble) in [
        ("PUT *comp=block&*", 1, 2, Trouble::Status(503)),
        ("PUT *comp=block&*", 0, 1, Trouble::Close),
        ("PUT *comp=block&*", 0, 1, Trouble::Forget),
        ("PUT *comp=blocklist*", 0, 1, Trouble::Status(500)),
        ("PUT *comp=blocklist*", 0, 1, Trouble::Forget),
        ("GET *demo/x*", 2, 1, Trouble::Cut),
        ("POST *comp=batch*", 0, 1, Trouble::Status(503)),
    ] {
        store.fault(pattern, after, times, trouble.clone());
        let stored = server.store("demo", "x", &content);
        let text = stored.text();
        assert_eq!(stored.status, 200, "{pattern} {trouble:?}: {text}");
        assert!(
            server.get(DOWNLOAD).body == content,
            "{pattern} {trouble:?}"
        );
        store.heal();
        assert_eq!(store.names().len(), 2, "{pattern} {trouble:?}");
    }
    assert_eq!(store.unfinished(), 0);
    store.fault("PUT *demo/x*", 0, u32::MAX, Trouble::Status(403));
    let refused = server.store("demo", "x", b"new");
    let text = refused.text();
    assert!(
        refused.status == 503 && text.contains("credentials"),
        "{text}"
    );
    assert!(!text.contains("YS1zZWNyZXQ"), "{text}");
}

#[test]
fn what_the_store_does_not_take_is_not_stored() {
    let (directory, server) = server(Place::Bucket);
    let store = store_of(directory.path());
    assert_eq!(server.store("demo", "x", b"old").status, 200);
    let content = pattern(20 << 20);
    for (pattern, trouble, size, expected) in [
        (
            "PUT *partNumber=3*",
            Trouble::Status(400),
            content.len(),
            "cannot be used",
        ),
        (
            "PUT *partNumber=3*",
            Trouble::Status(403),
            content.len(),
            "credentials",
        ),
        (
            "POST *uploadId=*",
            Trouble::Status(401),
            content.len(),
            "credentials",
        ),
        ("PUT *demo/x*", Trouble::Status(403), 10, "credentials"),
        ("PUT *demo/x*", Trouble::Status(404), 10, "bucket"),
        ("PUT *demo/x*", Trouble::Close, 10, "cannot be used"),
        ("PUT *demo/x*", Trouble::Status(503), 10, "cannot be used"),
    ] {
        store.fault(pattern, 0, u32::MAX, trouble.clone());
        let refused = server.store("demo", "x", &content[..size]);
        let text = refused.text();
        assert_eq!(refused.status, 503, "{pattern} {trouble:?}: {text}");
        assert!(text.contains(expected), "{pattern} {trouble:?}: {text}");
        assert!(!text.contains("a-secret"), "{text}");
        store.heal();
        assert_eq!(server.get(DOWNLOAD).text(), "old");
        assert_eq!(store.names().len(), 2, "{pattern} {trouble:?}");
        assert_eq!(store.unfinished(), 0, "{pattern} {trouble:?}");
    }
}

#[test]
fn what_comes_back_changed_is_not_passed_on_whole() {
    let (directory, server) = server(Place::Bucket);
    let store = store_of(directory.path());
    let content = pattern(5 << 20);
    server.store("demo", "x", &content);
    // The last of three requests; then the only one of a small object.
    store.fault("GET *demo/x*", 2, 1, Trouble::Flip);
    let read = server.get(DOWNLOAD);
    assert_eq!(read.header("content-length"), Some("5242880"));
    assert!(read.body.len() < content.len());
    assert!(server.get(DOWNLOAD).body == content);
    server.store("demo", "x", b"small");
    store.fault("GET *demo/x*", 0, 1, Trouble::Flip);
    assert_eq!(server.get(DOWNLOAD).body, b"");
    // Somebody has replaced it in the store itself.
    let name = store.names().pop().unwrap();
    store.put(&name, b"SMALL");
    assert_eq!(server.get(DOWNLOAD).body, b"");
    let name = store.names().pop().unwrap();
    store.remove(&name);
    assert_eq!(server.get(DOWNLOAD).body, b"");
}

#[test]
fn a_server_starts_while_the_store_is_away() {
    let (directory, server) = server(Place::Bucket);
    let store = store_of(directory.path());
    server.store("demo", "x", b"content");
    // What is removed now stays until the store takes it.
    store.trouble(Some(Trouble::Status(400)));
    assert_eq!(
        server
            .send("DELETE", "/storage/v1/b/demo/o/x", &[], b"")
            .status,
        204
    );
    assert_eq!(store.names().len(), 2);
    drop(server);
    let server = Server::start_in(Place::Bucket, directory.path());
    assert!(server.objects.trouble().unwrap().is_away());
    let refused = server.store("demo", "x", b"new");
    assert_eq!(refused.status, 503, "{}", refused.text());
    store.heal();
    let since = Instant::now();
    while server.objects.trouble().is_some() || store.names().len() > 1 {
        assert!(
            since.elapsed() < Duration::from_secs(30),
            "{:?}",
            store.names()
        );
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(server.store("demo", "x", b"new").status, 200);
    assert_eq!(server.get(DOWNLOAD).text(), "new");
}

fn refused(data: &std::path::Path, url: &str) -> String {
    let contents = elsewhere(Place::Bucket, url).contents().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let opened = runtime.block_on(Objects::open(data, contents, Limits::default()));
    opened.unwrap_err().to_string()
}

#[test]
fn a_place_is_one_servers() {
    let (directory, server) = server(Place::Bucket);
    let store = store_of(directory.path());
    server.store("demo", "x", b"content");
    let other = tempfile::tempdir().unwrap();
    let error = refused(other.path(), &store.url());
    assert!(error.contains("another server's"), "{error}");
    // Credentials that the store does not take; a bucket that is not there.
    for (status, expected) in [
        (403, "credentials"),
        (401, "credentials"),
        (404, "no such bucket"),
    ] {
        store.trouble(Some(Trouble::Status(status)));
        let error = refused(other.path(), &store.url());
        assert!(error.contains(expected), "{error}");
    }
    store.heal();
    // The index names objects, and this place has none of them.
    drop(server);
    let empty = kiln_testkit::Bucket::start();
    let error = refused(&directory.path().join("objects"), &empty.url());
    assert!(error.contains("not in this place"), "{error}");
    assert!(empty.names().is_empty());
    // Whoever copies the contents may go on there.
    for name in store.names() {
        empty.put(&name, &store.content(&name).unwrap());
    }
    let contents = elsewhere(Place::Bucket, &empty.url()).contents().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let data = directory.path().join("objects");
        let objects = Objects::open(&data, contents, Limits::default())
            .await
            .unwrap();
        let (bucket, name) = (
            BucketName::new("demo").unwrap(),
            ObjectName::new("x").unwrap(),
        );
        let opened = objects.open_object(&bucket, &name, None).await.unwrap();
        assert_eq!(opened.bytes(100).await.unwrap(), "content");
    });
}

#[test]
fn a_client_that_does_not_wait_finds_its_upload_done() {
    let (directory, server) = server(Place::Bucket);
    let store = store_of(directory.path());
    let target = "/resumable/upload/storage/v1/b/demo/o?uploadType=resumable&name=x";
    let started = server.send("POST", target, &[], b"");
    let location = started.header("location").unwrap();
    let target = location.strip_prefix(&server.url()).unwrap().to_owned();
    let content = pattern(20 << 20);
    // The store is slow enough for the client to be gone: two tries fail, half a second.
    store.fault("PUT *partNumber=1*", 0, 2, Trouble::Status(503));
    let length = content.len().to_string();
    let mut stream = server.begin("PUT", &target, &[], content.len());
    std::io::Write::write_all(&mut stream, &content).unwrap();
    while store.unfinished() == 0 {
        std::thread::sleep(Duration::from_millis(5));
    }
    drop(stream);
    let range = format!("bytes */{length}");
    let asked = server.send("PUT", &target, &[("Content-Range", &range)], b"");
    assert_eq!(asked.status, 200, "{}", asked.text());
    assert!(server.get(DOWNLOAD).body == content);
    let begun = store
        .requests()
        .iter()
        .filter(|line| line.contains("?uploads"))
        .count();
    assert_eq!(begun, 1);
}

#[test]
fn what_a_killed_server_left_in_the_store_is_removed() {
    let (directory, server) = server(Place::Bucket);
    let store = store_of(directory.path());
    server.store("demo", "x", b"kept");
    drop(server);
    let orphan = "bucket/a/prefix/kiln-objects1/demo/orphan/@5";
    store.put(orphan, b"orphan");
    let index = rusqlite::Connection::open(directory.path().join("objects/index.db")).unwrap();
    let doom = "INSERT INTO doomed VALUES ('demo/orphan/@5')";
    index.execute(doom, []).unwrap();
    drop(index);
    let server = Server::start_in(Place::Bucket, directory.path());
    assert_eq!(store.content(orphan), None);
    assert_eq!(server.get(DOWNLOAD).text(), "kept");
}

#[test]
fn contents_may_be_in_another_directory() {
    let (data, place) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut wanted = elsewhere(Place::Bucket, "");
    let open = |wanted: &Elsewhere| {
        let contents = wanted.contents()?;
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let opened = runtime.block_on(Objects::open(data.path(), contents, Limits::default()));
        opened.map(|objects| (runtime, objects))
    };
    wanted.url = "file://relative".to_owned();
    open(&wanted).unwrap_err();
    wanted.url = format!("file://{}", place.path().display());
    let (runtime, objects) = open(&wanted).unwrap();
    let (bucket, name) = (
        BucketName::new("demo").unwrap(),
        ObjectName::new("x").unwrap(),
    );
    runtime.block_on(async {
        objects.create_bucket(&bucket, "").await.unwrap();
        let kind = Attributes::default();
        objects
            .put_bytes(&bucket, &name, "content", kind)
            .await
            .unwrap();
    });
    drop((runtime, objects));
    let root = place.path().join("kiln-objects1");
    for directory in ["content", "staging"] {
        let mode = root
            .join(directory)
            .metadata()
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o700);
    }
    assert!(root.join("content/demo/x").is_dir());
    let (runtime, objects) = open(&wanted).unwrap();
    runtime.block_on(async {
        let opened = objects.open_object(&bucket, &name, None).await.unwrap();
        assert_eq!(opened.bytes(100).await.unwrap(), "content");
    });
    drop((runtime, objects));
    // A server that is started without the option has none of the contents, and does not take it for granted.
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let opened = runtime.block_on(Objects::open(
        data.path(),
        Contents::Here,
        Limits::default(),
    ));
    let error = opened.unwrap_err().to_string();
    assert!(error.contains("--objects"), "{error}");
}
