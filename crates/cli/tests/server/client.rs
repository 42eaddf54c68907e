//! Kiln's own commands against a server.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::harness::{PROJECT, Server, kiln, silent};

const GOOD: &str = "lang C.UTF-8\nrootpw x\n%packages\n%end\n";
const FLAT: &str = "steps:\n- name: kiln\n  args: [flatten, '${_NAME}.ks']\nartifacts:\n  objects:\n    location: gs://demo-proj_cloudbuild/out/$BUILD_ID\n    paths: ['*.ks']\nsubstitutions: {_NAME: lab}\n";

fn client(server: &Server, words: &[&str]) -> Command {
    at(server.directory.path(), &server.address.to_string(), words)
}

fn at(home: &Path, address: &str, words: &[&str]) -> Command {
    let mut command = kiln(home);
    command
        .args(words)
        .args(["--project", PROJECT, "--server"])
        .arg(format!("http://{address}"))
        .current_dir(home);
    command
}

pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

fn ran(output: Output) -> Ran {
    Ran {
        code: output.status.code(),
        out: String::from_utf8(output.stdout).expect("UTF-8"),
        err: String::from_utf8(output.stderr).expect("UTF-8"),
    }
}

pub(crate) fn run(server: &Server, words: &[&str]) -> Ran {
    ran(client(server, words).output().expect("kiln"))
}

/// Writes files below the server's own directory.
fn tree(server: &Server, dir: &str, files: &[(&str, &str)]) {
    for (name, text) in files {
        let path = server.directory.path().join(dir).join(name);
        fs::create_dir_all(path.parent().expect("a directory")).expect("a directory");
        fs::write(path, text).expect("a file");
    }
}

#[test]
fn a_directory_is_submitted_followed_and_fetched() {
    let server = Server::open();
    tree(
        &server,
        "src",
        &[("lab.ks", GOOD), ("cloudbuild.yaml", FLAT)],
    );
    let first = run(&server, &["submit", "src", "--follow", "--tag", "lab,usb"]);
    assert_eq!(first.code, Some(0), "{}\n{}", first.out, first.err);
    assert!(first.err.contains("sent"), "{}", first.err);
    let (_, list) = server.json("GET", crate::harness::BUILDS, &Value::Null);
    let id = list["builds"][0]["id"].as_str().unwrap().to_owned();
    assert!(
        first
            .err
            .contains(&format!("http://{}/builds/{id}", server.address)),
        "{}",
        first.err
    );
    // Whole, and nothing twice.
    assert_eq!(first.out, server.log(&id));
    assert_eq!(list["builds"][0]["tags"], serde_json::json!(["lab", "usb"]));

    // The same tree is not sent again, a changed one is.
    let again = run(&server, &["submit", "src"]);
    assert!(
        again.err.contains("the server has this source"),
        "{}",
        again.err
    );
    let id = again.out.trim().to_owned();
    assert_eq!(server.end(&id)["status"], "SUCCESS");
    tree(&server, "src", &[("more.ks", "lang C.UTF-8\n")]);
    let changed = run(
        &server,
        &["submit", "src", "--json", "--substitutions", "_NAME=more"],
    );
    assert!(changed.err.contains("sent"), "{}", changed.err);
    let build: Value = serde_json::from_str(&changed.out).expect("a build");
    server.end(build["id"].as_str().unwrap());

    looked_at(&server, &id);
}

/// Log, list and artifacts of a build that succeeded.
fn looked_at(server: &Server, id: &str) {
    let logs = run(server, &["logs", &id[..8]]);
    assert_eq!(
        (logs.code, logs.out.as_str()),
        (Some(0), server.log(id).as_str())
    );
    let builds = run(server, &["builds", "--filter", "tags=\"lab\""]);
    assert_eq!(builds.out.lines().count(), 1, "{}", builds.out);
    assert!(
        builds.out.contains("SUCCESS") && builds.out.contains("lab,usb"),
        "{}",
        builds.out
    );
    let builds = run(server, &["builds", "--json", "-n", "2"]);
    let builds: Vec<Value> = serde_json::from_str(&builds.out).expect("a list");
    assert_eq!(builds.len(), 2);

    let list = run(server, &["artifacts", id]);
    assert!(
        list.out
            .contains(&format!("gs://demo-proj_cloudbuild/out/{id}/lab.ks")),
        "{}",
        list.out
    );
    let fetched = run(server, &["artifacts", id, "--download", "got"]);
    assert_eq!(fetched.code, Some(0), "{}", fetched.err);
    let got = server.directory.path().join("got/lab.ks");
    assert_eq!(fs::read_to_string(&got).unwrap(), GOOD);
    // What was damaged meanwhile is fetched again.
    fs::write(&got, "damaged").unwrap();
    assert_eq!(
        run(server, &["artifacts", id, "--download", "got"]).code,
        Some(0)
    );
    assert_eq!(fs::read_to_string(&got).unwrap(), GOOD);
    assert_eq!(fs::read_dir(got.parent().unwrap()).unwrap().count(), 1);
}

#[test]
fn the_same_file_runs_here_without_a_server() {
    let server = Server::open();
    tree(
        &server,
        "src",
        &[("lab.ks", GOOD), ("cloudbuild.yaml", FLAT)],
    );
    let ran_here = |words: &[&str]| {
        let mut command = kiln(server.directory.path());
        ran(command
            .args(words)
            .current_dir(server.directory.path())
            .output()
            .unwrap())
    };
    let here = ran_here(&["submit", "src", "--local", "-o", "out"]);
    assert_eq!(here.code, Some(0), "{}", here.err);
    let there = run(&server, &["submit", "src", "-f"]);
    let steps = |log: &str| {
        let lines = log
            .lines()
            .filter(|line| line.starts_with("Step #") || line.contains("SHA-256"));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    assert!(!steps(&here.out).is_empty());
    assert_eq!(steps(&here.out), steps(&there.out));
    let kept: Vec<_> = fs::read_dir(server.directory.path().join("out"))
        .unwrap()
        .flatten()
        .collect();
    assert_eq!(kept.len(), 1, "nothing but the artifact stays");
    assert_eq!(fs::read_to_string(kept[0].path()).unwrap(), GOOD);

    let failed = ran_here(&["submit", "src", "--local", "--substitutions", "_NAME=none"]);
    assert_eq!(failed.code, Some(4), "{}", failed.err);
    let config = "steps: [{name: kiln, args: [serve]}]\n";
    tree(&server, "src", &[("image.yaml", config)]);
    let refused = ran_here(&["submit", "src/image.yaml", "--local"]);
    assert_eq!(refused.code, Some(1), "{}", refused.err);
    assert!(
        refused.err.contains("src/image.yaml") && refused.err.contains("nothing else"),
        "{}",
        refused.err
    );
}

#[test]
fn a_source_that_another_put_under_our_name_is_replaced() {
    let server = Server::open();
    tree(
        &server,
        "src",
        &[("lab.ks", GOOD), ("cloudbuild.yaml", FLAT)],
    );
    let first = run(&server, &["submit", "src", "--json"]);
    let build: Value = serde_json::from_str(&first.out).expect("a build");
    let object = build["source"]["storageSource"]["object"].as_str().unwrap();
    let path = format!(
        "/upload/storage/v1/b/demo-proj_cloudbuild/o?uploadType=media&name={}",
        object.replace('/', "%2F")
    );
    assert_eq!(server.request("POST", &path, "", b"another's").0, 200);
    let again = run(&server, &["submit", "src", "--follow"]);
    assert_eq!(again.code, Some(0), "{}", again.err);
    assert!(again.err.contains("sent"), "{}", again.err);
}

#[test]
fn how_a_build_ended_is_the_exit_code() {
    let server = Server::open();
    let config = "steps:\n- name: kiln\n  args: [check, missing.ks]\n";
    tree(&server, "src", &[("a.ks", GOOD), ("fail.yaml", config)]);
    let failed = run(&server, &["submit", "src/fail.yaml", "-f"]);
    assert_eq!(failed.code, Some(4), "{}", failed.err);
    assert!(
        failed.err.contains("step exited with non-zero status"),
        "{}",
        failed.err
    );
    assert!(failed.out.contains("missing.ks"), "{}", failed.out);
    let id = run(&server, &["builds", "--json"]);
    let list: Vec<Value> = serde_json::from_str(&id.out).unwrap();
    let id = list[0]["id"].as_str().unwrap();
    let again = run(&server, &["retry", id, "-f"]);
    assert_eq!(again.code, Some(4), "{}", again.err);
    let none = run(&server, &["artifacts", id]);
    assert_eq!(none.code, Some(1));
    assert!(
        none.err.contains("has no artifacts; its status is FAILURE"),
        "{}",
        none.err
    );
    let ended = run(&server, &["cancel", id]);
    assert_eq!(ended.code, Some(1));
    assert!(
        ended.err.contains("cannot cancel build in state FAILURE"),
        "{}",
        ended.err
    );
}

fn signal(child: &Child, name: &str) {
    let pid = child.id().to_string();
    assert!(
        Command::new("kill")
            .args([name, &pid])
            .status()
            .unwrap()
            .success()
    );
}

#[test]
fn a_build_goes_on_without_its_client() {
    let server = Server::open();
    let (_listener, kickstart) = silent();
    tree(&server, "src", &[("hang.ks", &kickstart)]);
    let mut command = client(&server, &["submit", "src/hang.ks", "--follow"]);
    let following = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let id = loop {
        let (_, list) = server.json("GET", crate::harness::BUILDS, &Value::Null);
        if let Some(id) = list["builds"][0]["id"].as_str() {
            break id.to_owned();
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    server.wait(&id, &["WORKING"]);
    std::thread::sleep(Duration::from_millis(300));
    signal(&following, "-INT");
    let left = ran(following.wait_with_output().unwrap());
    assert_eq!(left.code, Some(130), "{}", left.err);
    assert!(
        left.err.contains("goes on without this command"),
        "{}",
        left.err
    );
    assert!(
        left.err.contains(&format!("kiln logs -f {id}")),
        "{}",
        left.err
    );
    assert_eq!(server.get(&id)["status"], "WORKING");

    let mut command = client(&server, &["logs", "-f"]);
    let mut killed = command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_millis(300));
    killed.kill().unwrap();
    killed.wait().unwrap();
    assert_eq!(server.get(&id)["status"], "WORKING");

    let stopped = run(&server, &["cancel", &id[..6]]);
    assert_eq!(stopped.code, Some(0), "{}", stopped.err);
    assert_eq!(server.end(&id)["status"], "CANCELLED");
    assert_eq!(run(&server, &["logs", "-f", &id]).code, Some(4));
}

/// Passes connections on to a place that may change; each ends after so many bytes of the answer.
struct Cutter {
    address: SocketAddr,
    to: Arc<Mutex<Option<SocketAddr>>>,
}

impl Cutter {
    fn new(to: SocketAddr, after: usize) -> Cutter {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let to = Arc::new(Mutex::new(Some(to)));
        let place = Arc::clone(&to);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let place = *place.lock().unwrap();
                std::thread::spawn(move || pass(client, place, after));
            }
        });
        Cutter { address, to }
    }

    fn leads_to(&self, to: Option<SocketAddr>) {
        *self.to.lock().unwrap() = to;
    }
}

fn pass(mut client: TcpStream, to: Option<SocketAddr>, after: usize) {
    let Some(mut server) = to.and_then(|to| TcpStream::connect(to).ok()) else {
        return;
    };
    let (mut up, mut from) = (server.try_clone().unwrap(), client.try_clone().unwrap());
    std::thread::spawn(move || drop(std::io::copy(&mut from, &mut up)));
    let mut left = after;
    let mut buffer = [0; 4096];
    while left > 0 {
        let most = buffer.len().min(left);
        match server.read(&mut buffer[..most]) {
            Ok(length) if length > 0 && client.write_all(&buffer[..length]).is_ok() => {
                left -= length
            }
            _ => break,
        }
    }
    for stream in [&client, &server] {
        drop(stream.shutdown(Shutdown::Both));
    }
}

#[test]
fn a_lost_connection_loses_no_line_and_doubles_none() {
    let mut server = Server::open();
    let packages: String = (0..4000).map(|n| format!("package-number-{n}\n")).collect();
    let big = format!("lang C.UTF-8\nrootpw x\n%packages\n{packages}%end\n");
    tree(
        &server,
        "src",
        &[("lab.ks", &big), ("cloudbuild.yaml", FLAT)],
    );
    let cutter = Cutter::new(server.address, 20_000);
    let address = cutter.address.to_string();
    let words = ["submit", "src", "--follow"];
    let followed = ran(at(server.directory.path(), &address, &words)
        .output()
        .unwrap());
    assert_eq!(followed.code, Some(0), "{}", followed.err);
    assert!(
        followed.err.contains("the server answers again"),
        "{}",
        followed.err
    );
    let (_, list) = server.json("GET", crate::harness::BUILDS, &Value::Null);
    let id = list["builds"][0]["id"].as_str().unwrap().to_owned();
    let log = server.log(&id);
    assert!(
        log.len() > 60_000,
        "the log is cut nowhere: {} bytes",
        log.len()
    );
    assert!(
        followed.out == log,
        "{} bytes in place of {}",
        followed.out.len(),
        log.len()
    );

    // A server that is killed and started again is waited for.
    let (_listener, kickstart) = silent();
    tree(&server, "hang", &[("hang.ks", &kickstart)]);
    let hang = run(&server, &["submit", "hang"]).out.trim().to_owned();
    server.wait(&hang, &["WORKING"]);
    let mut command = at(server.directory.path(), &address, &["logs", "-f", &hang]);
    let child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_millis(300));
    cutter.leads_to(None);
    server.kill_and_start();
    std::thread::sleep(Duration::from_millis(300));
    cutter.leads_to(Some(server.address));
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!(run(&server, &["cancel", &hang]).code, Some(0));
    let followed = ran(child.wait_with_output().unwrap());
    assert_eq!(followed.code, Some(4), "{}", followed.err);
    assert_eq!(followed.out, server.log(&hang));
}

#[test]
fn an_upload_that_is_cut_goes_on() {
    let server = Server::open();
    tree(
        &server,
        "src",
        &[("lab.ks", GOOD), ("cloudbuild.yaml", FLAT)],
    );
    // Noise, so that it stays large: several pieces.
    let mut noise = vec![0_u8; 20 << 20];
    let mut state = 1_u64;
    for chunk in noise.chunks_mut(8) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        chunk.copy_from_slice(&state.to_le_bytes()[..chunk.len()]);
    }
    fs::write(server.directory.path().join("src/noise"), noise).unwrap();
    // A connection lives for one or two answers.
    let cutter = Cutter::new(server.address, 700);
    let address = cutter.address.to_string();
    let sent = ran(at(server.directory.path(), &address, &["submit", "src"])
        .output()
        .unwrap());
    let known = run(&server, &["submit", "src"]);
    assert!(
        known.err.contains("the server has this source"),
        "{}\n{}",
        sent.err,
        known.err
    );
    assert_eq!(server.end(known.out.trim())["status"], "SUCCESS");
}

#[test]
fn what_is_wrong_is_said_with_what_to_do() {
    let server = Server::start(&[]);
    tree(
        &server,
        "src",
        &[("lab.ks", GOOD), ("cloudbuild.yaml", FLAT)],
    );
    let closed = run(&server, &["builds"]);
    assert_eq!(closed.code, Some(3));
    assert!(
        closed.err.contains("wants a token") && closed.err.contains("kiln token create"),
        "{}",
        closed.err
    );
    let mut command = client(&server, &["builds"]);
    let wrong = ran(command.env("KILN_TOKEN", "kiln_wrong").output().unwrap());
    assert!(
        wrong.err.contains("does not take the token"),
        "{}",
        wrong.err
    );
    assert!(!wrong.err.contains("kiln_wrong"), "{}", wrong.err);

    let file = server.directory.path().join("token");
    fs::write(&file, token(&server, "ann", "view")).unwrap();
    let bare = run(&server, &["builds", "--token-file", "token"]);
    assert!(
        bare.err.contains("others may read the token file"),
        "{}",
        bare.err
    );
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    fs::set_permissions(&file, mode).unwrap();
    assert_eq!(
        run(&server, &["builds", "--token-file", "token"]).code,
        Some(0)
    );
    let role = run(&server, &["submit", "src", "--token-file", "token"]);
    assert!(
        role.err.contains("does not allow that") && role.err.contains("needs submit"),
        "{}",
        role.err
    );

    let gone = ran(at(server.directory.path(), "127.0.0.1:1", &["builds"])
        .output()
        .unwrap());
    assert_eq!(gone.code, Some(3));
    assert!(
        gone.err.contains("no server answers at http://127.0.0.1:1"),
        "{}",
        gone.err
    );
    assert!(gone.err.contains("kiln serve"), "{}", gone.err);
}

/// A token of a server.
fn token(server: &Server, name: &str, role: &str) -> String {
    let mut command = kiln(server.directory.path());
    command.args(["token", "create", name, "--role", role, "--data"]);
    ran(command.arg(server.data()).output().unwrap()).out
}

#[test]
fn a_login_keeps_a_token_for_its_own_server() {
    let server = Server::start(&[]);
    tree(
        &server,
        "src",
        &[("lab.ks", GOOD), ("cloudbuild.yaml", FLAT)],
    );
    let mut login = kiln(server.directory.path());
    let url = format!("http://{}", server.address);
    login
        .args(["login", &url, "--project", PROJECT])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped());
    let mut login = login.spawn().unwrap();
    login
        .stdin
        .take()
        .unwrap()
        .write_all(token(&server, "bob", "submit").as_bytes())
        .unwrap();
    assert!(login.wait().unwrap().success());
    let mut plain = kiln(server.directory.path());
    let plain = ran(plain
        .args(["submit", "-f"])
        .arg(server.directory.path().join("src"))
        .output()
        .unwrap());
    assert_eq!(plain.code, Some(0), "{}", plain.err);
    let other = Server::start(&[]);
    let shown = ran(at(
        server.directory.path(),
        &other.address.to_string(),
        &["builds"],
    )
    .output()
    .unwrap());
    assert!(shown.err.contains("wants a token"), "{}", shown.err);
}

#[test]
fn a_build_file_that_is_wrong_says_where() {
    let server = Server::open();
    let bomb: String = (1..20)
        .map(|n| {
            format!(
                "a{n}: &a{n} [{}]\n",
                vec![format!("*a{}", n - 1); 20].join(", ")
            )
        })
        .collect();
    let bomb = format!("a0: &a0 [x]\n{bomb}");
    for (name, text, expected) in [
        ("a.yaml", "steps:\n- name: [kiln\n", "src/a.yaml:"),
        ("b.yaml", "steps: []\nsteps: []\n", "src/b.yaml:2:1"),
        ("c.yaml", bomb.as_str(), "src/c.yaml"),
        ("d.json", "{\n  \"steps\": [}", "src/d.json:2:13"),
        ("e.yaml", "stps: []\n", "Unknown name \"stps\""),
        (
            "f.yaml",
            "steps: [{name: kiln, args: [check, /etc/passwd]}]\n",
            "not below /workspace",
        ),
    ] {
        tree(&server, "src", &[(name, text)]);
        let began = Instant::now();
        let wrong = run(&server, &["submit", &format!("src/{name}")]);
        assert_eq!(wrong.code, Some(1), "{name}: {}", wrong.err);
        assert!(wrong.err.contains(expected), "{name}: {}", wrong.err);
        assert!(began.elapsed() < Duration::from_secs(10));
    }
    let several = {
        tree(&server, "two", &[("a.ks", GOOD), ("b.ks", GOOD)]);
        run(&server, &["submit", "two"])
    };
    assert_eq!(several.code, Some(2));
    assert!(
        several.err.contains("several kickstarts") && several.err.contains("a.ks, b.ks"),
        "{}",
        several.err
    );
    let (_, list) = server.json("GET", crate::harness::BUILDS, &Value::Null);
    assert_eq!(list, serde_json::json!({}), "nothing was queued");
}

/// The same files as `gcloud builds submit` sends.
#[test]
fn ignore_files_choose_what_gcloud_chooses() {
    let server = Server::open();
    let Some(gcloud) = crate::gcloud::gcloud(&server) else {
        return;
    };
    let home = server.directory.path();
    let config = "steps:\n- name: kiln\n  args: [check, a.ks]\n";
    fs::write(home.join("c.yaml"), config).unwrap();
    tree(
        &server,
        "src",
        &[
            ("a.ks", GOOD),
            (
                ".gcloudignore",
                "*.iso\n/top\n!keep.iso\nout/\n**/deep/*.txt\n# no\n\\#odd\ntrail \n#!include:.gitignore\n",
            ),
            (
                ".gitignore",
                "build\nlogs/*.log\n!logs/keep.log\n[xy]z\nq?q\n",
            ),
            ("big.iso", ""),
            ("keep.iso", ""),
            ("top/x", ""),
            ("sub/top/x", ""),
            ("sub/out/x", ""),
            ("sub/out.txt", ""),
            ("deep/a.txt", ""),
            ("sub/deep/b.txt", ""),
            ("sub/deep/more/c.txt", ""),
            ("#odd", ""),
            ("trail", ""),
            ("build/x", ""),
            ("sub/build", ""),
            ("logs/a.log", ""),
            ("logs/keep.log", ""),
            ("sub/logs/b.log", ""),
            ("xz", ""),
            ("yz/in", ""),
            ("az", ""),
            ("qxq", ""),
            ("q/q", ""),
            (".hidden/x", ""),
            ("sub/.gitignore", "*\n"),
            ("with space/ü.txt", ""),
        ],
    );
    let words = ["builds", "submit", "src", "--async", "--config", "c.yaml"];
    let (code, said) = gcloud.run(&words);
    assert_eq!(code, 0, "{said}");
    let ours = run(&server, &["submit", "src", "--config", "c.yaml"]);
    assert_eq!(ours.code, Some(0), "{}", ours.err);
    let (_, list) = server.json("GET", crate::harness::BUILDS, &Value::Null);
    let [ours, theirs] = [0, 1].map(|at| sent(&server, &list["builds"][at]));
    assert_eq!(ours, theirs);
}

/// The files of a build's source.
fn sent(server: &Server, build: &Value) -> Vec<String> {
    let source = &build["source"]["storageSource"];
    let object = source["object"].as_str().unwrap().replace('/', "%2F");
    let bucket = source["bucket"].as_str().unwrap();
    let path = format!("/download/storage/v1/b/{bucket}/o/{object}?alt=media");
    let (status, bytes) = server.request("GET", &path, "", b"");
    assert_eq!(status, 200);
    let file = server.directory.path().join("sent.tgz");
    fs::write(&file, bytes).unwrap();
    let listed = Command::new("tar")
        .args(["-tz", "--quoting-style=literal", "-f"])
        .arg(&file)
        .output()
        .unwrap();
    let text = String::from_utf8(listed.stdout).unwrap();
    let mut names: Vec<String> = text
        .lines()
        .map(|name| name.trim_start_matches("./").to_owned())
        .filter(|name| !name.is_empty() && !name.ends_with('/'))
        .collect();
    names.sort();
    names
}
