//! A step that boots an image: what is kept of it, and that no machine outlives its build.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{BUILDS, Server};

/// The machines that work in a server's directory.
fn machines(server: &Server) -> usize {
    let place = server.directory.path().display().to_string();
    let processes = fs::read_dir("/proc").expect("processes").flatten();
    let words = processes.map(|entry| fs::read(entry.path().join("cmdline")).unwrap_or_default());
    let machines = words.filter(|words| {
        let words = String::from_utf8_lossy(words);
        words.contains("qemu-system") && words.contains(&place)
    });
    machines.count()
}

fn until(what: &str, is_so: impl Fn() -> bool) {
    let since = Instant::now();
    while !is_so() {
        assert!(since.elapsed() < Duration::from_secs(60), "{what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A blank disk does not come up, which is what a build is told.
#[test]
fn a_boot_is_shown_and_ends_with_its_build() {
    let server = Server::open();
    let source = server.directory.path().join("source");
    fs::create_dir_all(&source).expect("a directory");
    fs::write(source.join("blank.raw"), vec![0; 1 << 20]).expect("a disk");
    let source = server.source(&[]);
    let build = |args: &[&str]| {
        let args = [&["test", "blank.raw", "--accel=tcg"], args].concat();
        let step = json!({ "name": "kiln", "args": args });
        server.create(&json!({ "source": source, "steps": [step] }))
    };
    let failed = build(&["--timeout=3", "--output=seen"]);
    assert_eq!(server.end(&failed)["status"], "FAILURE");
    let get = |path: &str| server.answer("GET", path, "", b"");
    let (_, _, shown) = get(&format!("/builds/{failed}"));
    let shown = String::from_utf8(shown).expect("UTF-8");
    assert!(
        shown.contains("BIOS, emulated: does not come up"),
        "{shown}"
    );
    let (status, _, picture) = get(&format!("/builds/{failed}/kept/desktop.png?number=0"));
    assert_eq!(status, 200, "{shown}");
    assert!(picture.starts_with(b"\x89PNG"));

    let cancelled = build(&[]);
    until("no machine", || machines(&server) == 1);
    let (status, _) = server.json(
        "POST",
        &format!("{BUILDS}/{cancelled}:cancel"),
        &Value::Null,
    );
    assert_eq!(status, 200);
    assert_eq!(server.end(&cancelled)["status"], "CANCELLED");
    until("a machine is left", || machines(&server) == 0);
}
