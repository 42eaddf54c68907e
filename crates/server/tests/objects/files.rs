//! What stands in the directory of contents.

use std::os::unix::fs::symlink;

use crate::harness::Server;

#[test]
fn planted_links_are_not_followed() {
    let directory = tempfile::tempdir().unwrap();
    let outside = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path());
    server.bucket("demo");
    let generation = server.store("demo", "a%2Fx", b"inside").json()["generation"].clone();
    let content = directory.path().join("objects/content/demo");
    symlink(outside.path(), content.join("planted")).unwrap();
    let refused = server.store("demo", "planted%2Fx", b"x");
    assert_eq!(refused.status, 500);
    assert!(refused.text().contains("is a link"), "{}", refused.text());
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
    let secret = outside.path().join("secret");
    std::fs::write(&secret, "secret").unwrap();
    let place = content.join(format!("a/x/@{}", generation.as_str().unwrap()));
    std::fs::remove_file(&place).unwrap();
    symlink(&secret, &place).unwrap();
    let stream = server.begin("GET", "/storage/v1/b/demo/o/a%2Fx?alt=media", &[], 0);
    let mut text = String::new();
    let _ = std::io::Read::read_to_string(&mut &stream, &mut text);
    assert!(!text.contains("secret"), "{text}");
}

#[test]
fn what_a_killed_server_left_behind_is_removed() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path());
    server.bucket("demo");
    server.store("demo", "kept", b"kept");
    drop(server);
    let objects = directory.path().join("objects");
    std::fs::write(objects.join("staging/request-7"), "half").unwrap();
    let orphan = objects.join("content/demo/orphan");
    std::fs::create_dir(&orphan).unwrap();
    std::fs::write(orphan.join("@5"), "orphan").unwrap();
    let index = rusqlite::Connection::open(objects.join("index.db")).unwrap();
    index
        .execute("INSERT INTO doomed VALUES ('demo/orphan/@5')", [])
        .unwrap();
    drop(index);
    let server = Server::start(directory.path());
    assert!(!orphan.exists());
    assert_eq!(
        std::fs::read_dir(objects.join("staging")).unwrap().count(),
        0
    );
    assert_eq!(
        server.get("/storage/v1/b/demo/o/kept?alt=media").text(),
        "kept"
    );
}
