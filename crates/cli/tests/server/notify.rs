//! Who is told how builds go: targets that fail, hang and lead elsewhere, and a server that is killed in between.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{OPEN, Server};

/// What a target got: the request's head, and its body.
type Got = (String, String);

/// Listens, answers requests in turn with these heads (the last one again and again), and hands on what it got.
fn target(answers: &'static [&'static str]) -> (SocketAddr, Receiver<Got>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, got) = channel();
    std::thread::spawn(move || {
        for (at, stream) in listener.incoming().enumerate() {
            let answer = answers.get(at).or(answers.last()).unwrap();
            let mut stream = stream.unwrap();
            let request = request(&stream);
            if sender.send(request).is_err() {
                return;
            }
            drop(write!(
                stream,
                "HTTP/1.1 {answer}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            ));
        }
    });
    (address, got)
}

fn request(stream: &TcpStream) -> Got {
    let mut lines = BufReader::new(stream);
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        lines.read_line(&mut line).unwrap();
        if line.trim().is_empty() {
            break;
        }
        let lower = line.to_ascii_lowercase();
        if let Some(value) = lower.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        head.push_str(&lower);
    }
    let mut body = vec![0; length];
    lines.read_exact(&mut body).unwrap();
    (head, String::from_utf8(body).unwrap())
}

/// A mail server that takes one mail.
fn mail_server() -> (SocketAddr, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, got) = channel();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut lines = BufReader::new(stream.try_clone().unwrap());
        let mut mail = String::new();
        let mut inside = false;
        stream.write_all(b"220 here\r\n").unwrap();
        let mut line = String::new();
        while lines.read_line(&mut line).unwrap_or(0) > 0 {
            let answer = match (inside, line.trim_end()) {
                (true, ".") => {
                    inside = false;
                    sender.send(std::mem::take(&mut mail)).unwrap();
                    "250 taken"
                }
                (true, _) => "",
                (false, "DATA") => {
                    inside = true;
                    "354 go on"
                }
                (false, _) => "250 fine",
            };
            mail.push_str(&line);
            if !answer.is_empty() {
                stream
                    .write_all(format!("{answer}\r\n").as_bytes())
                    .unwrap();
            }
            line.clear();
        }
    });
    (address, got)
}

fn configure(server: &Server, text: &str) {
    fs::write(server.data().join("secret"), "s3cret\n").unwrap();
    fs::set_permissions(
        server.data().join("secret"),
        fs::Permissions::from_mode(0o600),
    )
    .unwrap();
    fs::write(server.data().join("notify.toml"), text).unwrap();
}

fn build() -> Value {
    json!({
        "steps": [{ "name": "kiln", "args": ["check", "none.ks"] }],
        "substitutions": { "_COMMIT_SHA": "0123abcd" },
        "options": { "substitutionOption": "ALLOW_LOOSE" },
        "tags": ["lab"],
    })
}

fn targets([silence, hook, phone, git, away, staff]: [SocketAddr; 6]) -> String {
    format!(
        "[[target]]\nname = \"silent\"\nkind = \"webhook\"\nurl = \"http://{silence}/\"\n\
             [[target]]\nname = \"hook\"\nkind = \"webhook\"\nurl = \"http://{hook}/h\"\nsecret-file = \"secret\"\n\
             [[target]]\nname = \"phone\"\nkind = \"ntfy\"\nurl = \"http://{phone}/t\"\ntoken-file = \"secret\"\n\
             [[target]]\nname = \"git\"\nkind = \"commit-status\"\nurl = \"http://{git}/s/{{commit}}\"\ntoken-file = \"secret\"\non = [\"failure\"]\n\
             [[target]]\nname = \"away\"\nkind = \"webhook\"\nurl = \"http://{away}/\"\n\
             [[target]]\nname = \"other\"\nkind = \"ntfy\"\nurl = \"http://{phone}/other\"\nbuilds = \"tagged\"\n\
             [[target]]\nname = \"staff\"\nkind = \"mail\"\nserver = \"smtp+plain://{staff}\"\nfrom = \"Kiln <kiln@x.example>\"\nto = [\"a@x.example\"]\n"
    )
}

fn header(head: &str, name: &str) -> String {
    let line = head.lines().find_map(|line| line.strip_prefix(name));
    let value = line.unwrap_or_else(|| panic!("{name} is not in {head}"));
    value.trim().to_owned()
}

/// A server that is killed before it has written down what a target answered tells that target again. Here it has not to: it is
/// waited until no more than `open` deliveries are to be made.
fn wait_for_answers_written_down(server: &Server, open: u32) {
    let end = Instant::now() + LONG;
    loop {
        let (_, metrics) = server.request("GET", "/metrics", "", b"");
        let metrics = String::from_utf8(metrics).unwrap();
        let line = metrics
            .lines()
            .find_map(|line| line.strip_prefix("kiln_deliveries_open "));
        let count: f64 = line.expect("the metric is there").parse().unwrap();
        if count <= f64::from(open) {
            return;
        }
        assert!(Instant::now() < end, "{count} deliveries are still open");
        std::thread::sleep(Duration::from_millis(10));
    }
}

const LONG: Duration = Duration::from_secs(60);

#[test]
fn everybody_is_told_once_whatever_others_do() {
    let mut server = Server::start(OPEN);
    let (hook, hooked) = target(&["500 Not Now", "204 Done"]);
    let (phone, rang) = target(&["200 OK"]);
    let (git, marked) = target(&["201 Created"]);
    let elsewhere = format!("307 There\r\nLocation: http://{phone}/stolen");
    let (away, sent_away) = target(Box::leak(Box::new([&*elsewhere.leak()])));
    let (staff, mailed) = mail_server();
    // It takes connections, and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let addresses = [silent.local_addr().unwrap(), hook, phone, git, away, staff];
    configure(&server, &targets(addresses));
    server.kill_and_start();
    let id = server.create(&build());
    server.end(&id);

    let (head, body) = rang.recv_timeout(LONG).unwrap();
    assert!(
        head.starts_with("post /t ") && head.contains("authorization: bearer s3cret"),
        "{head}"
    );
    assert!(head.contains("(lab) failed"), "{head}");
    assert!(
        body.contains(&format!("/builds/{id}")) && body.contains("build step 0"),
        "{body}"
    );
    let (head, body) = marked.recv_timeout(LONG).unwrap();
    let status: Value = serde_json::from_str(&body).unwrap();
    assert!(head.starts_with("post /s/0123abcd "), "{head}");
    assert_eq!(
        (&status["state"], &status["context"]),
        (&json!("failure"), &json!("kiln"))
    );
    let mail = mailed.recv_timeout(LONG).unwrap();
    assert!(
        mail.contains("Subject: Build") && mail.contains("To: a@x.example"),
        "{mail}"
    );
    sent_away.recv_timeout(LONG).unwrap();

    // The first try failed. The server is killed before the next; that is made by the next server, and is the same delivery.
    let (first, body) = hooked.recv_timeout(LONG).unwrap();
    wait_for_answers_written_down(&server, 2);
    server.kill_and_start();
    let (second, again) = hooked.recv_timeout(LONG).unwrap();
    assert_eq!(
        header(&first, "x-kiln-delivery:"),
        header(&second, "x-kiln-delivery:")
    );
    let told: Value = serde_json::from_str(&again).unwrap();
    assert_eq!(
        (&told["status"], &told["build"]["id"]),
        (&json!("FAILURE"), &json!(id))
    );
    let before: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(before["build"], told["build"]);
    let signed = signature(&header(&second, "x-kiln-timestamp:"), &again);
    assert_eq!(header(&second, "x-kiln-signature:"), signed);

    // Nobody is told twice, and the redirect led nowhere.
    std::thread::sleep(Duration::from_secs(1));
    for got in [&hooked, &rang, &marked] {
        assert!(got.try_recv().is_err());
    }
    let data = fs::read(server.data().join("kiln.db-wal")).unwrap();
    assert!(!String::from_utf8_lossy(&data).contains("s3cret"));
}

/// An outsider signs the same.
fn signature(seconds: &str, body: &str) -> String {
    let script = "import hashlib, hmac, sys; print('sha256=' + hmac.new(b's3cret', sys.stdin.buffer.read(), hashlib.sha256).hexdigest())";
    let mut python = std::process::Command::new("python3")
        .args(["-c", script])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("python3");
    let mut input = python.stdin.take().unwrap();
    write!(input, "{seconds}.{body}").unwrap();
    drop(input);
    let output = python.wait_with_output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[test]
fn a_server_does_not_start_with_targets_that_it_does_not_understand() {
    let mut server = Server::start(OPEN);
    configure(
        &server,
        "[[target]]\nname = \"a\"\nkind = \"ntfy\"\nurl = \"http://n.example\"\ntoken-file = \"secret\"\n",
    );
    let said = server.kill_and_fail();
    assert!(
        said.contains("notify.toml") && said.contains("in the clear"),
        "{said}"
    );
}
