//! The page in a browser: Chromium without a screen, driven by `browser.py` beside this file. axe-core judges every page, in both themes
//! and at two widths; what the browser complains of fails the test.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{Server, silent};
use crate::python::python;

const GOOD: &str = "lang C.UTF-8\nrootpw x\n%packages\n%end\n";
const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/server/browser.py");

/// Where the pictures go, for whoever wants to look at them.
fn pictures() -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    target.join("browser")
}

/// A browser at work. It prints a line where the server has to do something, and goes on when it is told so.
struct Browser {
    child: Child,
    said: BufReader<ChildStdout>,
    told: ChildStdin,
}

impl Browser {
    fn start(what: &str, server: &Server, builds: &Value) -> Browser {
        let pictures = pictures();
        fs::create_dir_all(&pictures).expect("a directory");
        let mut child = Command::new(python())
            .args([SCRIPT, what, &format!("http://{}", server.address)])
            .arg(builds.to_string())
            .arg(&pictures)
            .env("HOME", server.directory.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 is installed");
        let said = BufReader::new(child.stdout.take().expect("its output"));
        let told = child.stdin.take().expect("its input");
        Browser { child, said, told }
    }

    /// Waits for the browser's next word.
    fn says(&mut self, word: &str) {
        let mut line = String::new();
        self.said.read_line(&mut line).expect("a line");
        assert_eq!(
            line.trim(),
            word,
            "the browser's own words are above; where axe_playwright_python is missing, run `cargo xtask prerequisites`"
        );
    }

    fn go_on(&mut self) {
        self.told.write_all(b"go on\n").expect("the browser");
    }

    fn end(mut self) {
        self.says("done");
        assert!(self.child.wait().expect("an end").success());
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn kiln(args: &[&str]) -> Value {
    json!({ "name": "kiln", "args": args })
}

/// A definition that one waits for without end, and many lines of complaints about another.
fn source(server: &Server) -> (TcpListener, Value) {
    let (listener, hang) = silent();
    let seen = server.directory.path().join("source/seen");
    fs::create_dir_all(&seen).expect("a directory");
    fs::write(seen.join("desktop.png"), PICTURE).expect("a picture");
    fs::write(seen.join("boot.json"), BOOT).expect("a record");
    let nonsense: String = (0..400).map(|at| format!("nonsense{at} --x\n")).collect();
    let source = server.source(&[
        ("good.ks", GOOD),
        ("hang.ks", &hang),
        ("bad.ks", &format!("{GOOD}{nonsense}")),
        ("manifest.json", MANIFEST),
        ("kiln.lock", LOCK),
        ("desktop.png", "no picture at all"),
    ]);
    (listener, source)
}

const BOOT: &str = r#"{"verdict":"passed","firmware":"bios","accel":"tcg","seconds":48.2,"os":"Debian GNU/Linux 12","stages":[{"name":"login"}]}"#;
/// A grey dot.
pub(crate) const PICTURE: &[u8] = &[
    137, 80, 78, 71, 13, 10, 26, 10, 0, 0, 0, 13, 73, 72, 68, 82, 0, 0, 0, 1, 0, 0, 0, 1, 8, 0, 0,
    0, 0, 58, 126, 155, 85, 0, 0, 0, 10, 73, 68, 65, 84, 120, 156, 99, 104, 0, 0, 0, 130, 0, 129,
    119, 205, 114, 182, 0, 0, 0, 0, 73, 69, 78, 68, 174, 66, 96, 130,
];

const MANIFEST: &str = r#"{"name":"lab","image":"sha256:0011223344556677","plan":"sha256:8899aabbccddeeff","kernel":"6.1.0-1-amd64",
"packages":[{"name":"bash","version":"5.2-1","architecture":"amd64"},{"name":"zsh","version":"5.9-1","architecture":"amd64"}],
"warnings":["a warning of the build"]}"#;
const LOCK: &str = "layer base\npackage bash 5.2-1 size=1500000\npackage zsh 5.9-1 size=900000\n";

/// Kills the process of an attempt until the server has no patience left.
fn kill_three_times(server: &Server, id: &str) {
    for attempt in 1..=3 {
        let events = format!("builds/{id}/attempt-{attempt}/events.jsonl");
        let events = server.data().join(events);
        let since = Instant::now();
        while !events.exists() {
            assert!(since.elapsed() < Duration::from_secs(60), "no attempt");
            std::thread::sleep(Duration::from_millis(20));
        }
        let processes = fs::read_dir("/proc").expect("processes").flatten();
        let agents = processes.filter(|entry| {
            let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let words = String::from_utf8_lossy(&line).into_owned();
            words.contains("run-attempt") && words.contains(id)
        });
        for agent in agents {
            let pid = agent.file_name();
            let killed = Command::new("kill").arg("-9").arg(pid).status();
            assert!(killed.expect("kill").success());
        }
    }
    assert_eq!(server.end(id)["status"], "INTERNAL_ERROR");
}

#[test]
fn everybody_can_use_every_page() {
    let server = Server::open();
    let (_listener, source) = source(&server);
    let hang = kiln(&["build", "hang.ks"]);
    server.bucket("out");
    let colours =
        json!({ "name": "kiln", "args": ["check", "bad.ks"], "env": ["CLICOLOR_FORCE=1"] });
    let ended = |build: Value| {
        let id = server.create(&build);
        server.end(&id);
        id
    };
    let lost = server.create(&json!({ "source": source, "steps": [hang] }));
    kill_three_times(&server, &lost);
    let image = json!({
        "source": source, "steps": [kiln(&["check", "good.ks"])], "tags": ["nightly"],
        "artifacts": { "objects": { "location": "gs://out/x", "paths": ["good.ks", "desktop.png"] } },
    });
    ended(image.clone());
    let done = ended(image);
    let failed = ended(json!({ "source": source, "steps": [colours] }));
    let refused = ended(json!({ "source": source, "steps": [kiln(&["build", "good.ks"])] }));
    let running = server.create(&json!({ "source": source, "steps": [hang] }));
    let other = server.create(&json!({ "source": source, "steps": [hang] }));
    server.wait(&running, &["WORKING"]);
    server.wait(&other, &["WORKING"]);
    let queued = server.create(&json!({ "source": source, "steps": [hang] }));
    let builds = json!({
        "done": done, "failed": failed, "refused": refused, "lost": lost, "running": running, "queued": queued,
    });
    Browser::start("pages", &server, &builds).end();
}

#[test]
fn a_build_is_followed_cancelled_and_repeated_in_a_browser() {
    let mut server = Server::open();
    let (_listener, source) = source(&server);
    let hang = kiln(&["build", "hang.ks"]);
    let build = |steps: Vec<Value>| json!({ "source": source, "steps": steps });
    let first = server.create(&build(vec![hang.clone()]));
    let second = server.create(&build(vec![hang.clone()]));
    server.wait(&first, &["WORKING"]);
    server.wait(&second, &["WORKING"]);
    let mut steps = vec![kiln(&["check", "good.ks"]); 150];
    steps.push(hang);
    let live = server.create(&build(steps));
    let builds = json!({ "live": live, "first": first, "second": second });
    let mut browser = Browser::start("live", &server, &builds);
    browser.says("restart");
    server.kill_and_start_here();
    browser.go_on();
    browser.says("cancelled");
    assert_eq!(server.end(&live)["status"], "CANCELLED");
    browser.go_on();
    browser.end();
}

#[test]
fn the_page_works_without_script() {
    let server = Server::open();
    let (_listener, source) = source(&server);
    let failed = server.create(&json!({ "source": source, "steps": [kiln(&["check", "bad.ks"])] }));
    server.end(&failed);
    let (_repository, hang) = silent();
    let lab = server.directory.path().join("lab");
    fs::create_dir(&lab).expect("a directory");
    fs::write(lab.join("lab.ks"), "nonsense 1\n").expect("a kickstart");
    let archive = server.directory.path().join("lab.tar.gz");
    let mut tar = Command::new("tar");
    let packed = tar
        .arg("-czf")
        .arg(&archive)
        .arg("-C")
        .arg(&lab)
        .arg(".")
        .status();
    assert!(packed.expect("tar").success());
    let builds =
        json!({ "failed": failed, "kickstart": hang, "directory": lab, "archive": archive });
    Browser::start("plain", &server, &builds).end();
}
