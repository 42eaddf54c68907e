//! Sources from git: by branch, tag and commit, of private repositories, and of triggers.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use kiln_testkit::GitServer;
use kiln_testkit::git::commit;
use serde_json::{Value, json};

use crate::builds::METADATA;
use crate::client::run;
use crate::harness::{BUILDS, OPEN, Server, kiln};
use crate::python::python;

const KICKSTART: &str = "lang en_US\n%packages\nbash\n%end\n";

/// A server that fetches nothing from this machine.
pub(crate) const AWAY: &[&str] = &["--open-to-this-machine"];

/// The repository `team/lab` with a kickstart, what serves it, and its working tree.
pub(crate) fn lab() -> (tempfile::TempDir, GitServer, PathBuf) {
    let dir = tempfile::tempdir().expect("a directory");
    fs::create_dir(dir.path().join("team")).expect("a directory");
    let server = GitServer::start(dir.path());
    let tree = server.repository("team/lab.git");
    fs::create_dir(tree.join("images")).expect("a directory");
    fs::write(tree.join("images/lab.ks"), KICKSTART).expect("a kickstart");
    (dir, server, tree)
}

fn flatten(url: &str, revision: Option<&str>) -> Value {
    let mut source = json!({ "url": url, "dir": "images" });
    if let Some(revision) = revision {
        source["revision"] = Value::from(revision);
    }
    json!({
        "source": { "gitSource": source },
        "steps": [{ "name": "kiln", "args": ["flatten", "lab.ks"] }],
    })
}

pub(crate) fn log(server: &Server, id: &str) -> String {
    let (status, log) = server.request("GET", &format!("/builds/{id}/log"), "", b"");
    assert_eq!(status, 200);
    String::from_utf8(log).expect("UTF-8")
}

fn resolved(build: &Value) -> &Value {
    &build["sourceProvenance"]["resolvedGitSource"]
}

#[test]
fn a_branch_is_built_and_a_retry_takes_the_same_commit() {
    let (_dir, repositories, tree) = lab();
    let first = commit(&tree, "main");
    let server = Server::open();
    let url = repositories.url("team/lab.git");
    let id = server.create(&flatten(&url, Some("main")));
    let build = server.end(&id);
    assert_eq!(build["status"], "SUCCESS", "{build}\n{}", log(&server, &id));
    let expected = json!({ "url": url, "revision": first, "dir": "images" });
    assert_eq!(resolved(&build), &expected);
    assert_eq!(build["source"]["gitSource"]["revision"], "main");
    assert!(build["timing"]["FETCHSOURCE"]["endTime"].is_string());
    assert!(log(&server, &id).contains(&format!("refs/heads/main is at {first}")));

    fs::write(tree.join("images/lab.ks"), "nonsense\n").expect("a kickstart");
    let second = commit(&tree, "main");
    let (status, answer) = server.json("POST", &format!("{BUILDS}/{id}:retry"), &json!({}));
    assert_eq!(status, 200, "{answer}");
    let again = answer["metadata"]["build"]["id"].as_str().expect("an id");
    let build = server.end(again);
    assert_eq!(build["status"], "SUCCESS", "{}", log(&server, again));
    assert_eq!(resolved(&build), &expected);

    // The default branch, as it is now.
    let id = server.create(&flatten(&url, None));
    let build = server.end(&id);
    assert_eq!(build["status"], "FAILURE");
    assert_eq!(resolved(&build)["revision"], second.as_str());
    // A commit that no branch has any more.
    let id = server.create(&flatten(&url, Some(&first)));
    assert_eq!(server.end(&id)["status"], "SUCCESS");
}

#[test]
fn what_cannot_be_fetched_is_said_with_its_address() {
    let (_dir, repositories, tree) = lab();
    commit(&tree, "main");
    let server = Server::start(AWAY);
    let url = repositories.url("team/lab.git");
    // Nothing of this machine, unless the server is told so: neither repositories nor the server itself.
    let own = format!("http://{}/lab", server.address);
    let metadata = format!("http://{METADATA}/lab");
    for url in [url.as_str(), &own, &metadata, "http://[::1]:1/lab"] {
        let id = server.create(&flatten(url, Some("main")));
        let build = server.end(&id);
        assert_eq!(build["status"], "FAILURE");
        assert_eq!(build["failureInfo"]["type"], "FETCH_SOURCE_FAILED");
        let detail = build["failureInfo"]["detail"].as_str().expect("a text");
        assert!(
            detail.contains(url) && detail.contains("it leads to"),
            "{detail}"
        );
        assert!(log(&server, &id).contains(detail));
    }
    assert!(repositories.requests().is_empty());
    for (source, expected) in [
        (
            json!({ "url": "ssh://git@x/y" }),
            "gitSource.url: \"ssh://git@x/y\" is not https://HOST/PATH",
        ),
        (
            json!({ "url": "https://a:s3cret@x/y" }),
            "gitSource.url: the address has a name or a password",
        ),
        (
            json!({ "url": "https://x/y", "revision": "a b" }),
            "gitSource.revision: \"a b\" is no name",
        ),
        (
            json!({ "url": "https://x/y", "dir": "../.." }),
            "gitSource.dir: \"../..\" is not below",
        ),
        (
            json!({ "url": "https://x/y", "dir": "/etc" }),
            "gitSource.dir: \"/etc\" is not below",
        ),
        (json!({ "dir": "x" }), "gitSource.url: \"\" is no address"),
    ] {
        let mut build = flatten("x", None);
        build["source"]["gitSource"] = source;
        let (status, answer) = server.json("POST", BUILDS, &build);
        assert_eq!(status, 400, "{answer}");
        let answer = answer.to_string().replace('\\', "");
        assert!(answer.contains(expected), "{answer}");
        assert!(!answer.contains("s3cret"), "{answer}");
    }
}

/// The files below a directory that hold a text.
fn holders(dir: &Path, text: &str, found: &mut Vec<String>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        let kind = entry.file_type().expect("a type");
        if kind.is_dir() {
            holders(&path, text, found);
        } else if kind.is_file()
            && String::from_utf8_lossy(&fs::read(&path).unwrap_or_default()).contains(text)
        {
            found.push(path.display().to_string());
        }
    }
}

#[test]
fn a_private_repository_is_opened_by_the_servers_own_file() {
    let (dir, repositories, tree) = lab();
    let id = commit(&tree, "main");
    // bot:hunter22-token
    repositories.close("/team/lab.git", "Basic Ym90Omh1bnRlcjIyLXRva2Vu");
    let url = repositories.url("team/lab.git");
    let file = dir.path().join("credentials");
    let line = url.replace("http://", "http://bot:hunter22-token@");
    fs::write(&file, line).expect("a file");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("a mode");
    let options = ["--git-credentials", file.to_str().expect("UTF-8")];
    let server = Server::start(&[OPEN, &options].concat());
    let build = server.create(&flatten(&url, Some(&id)));
    let done = server.end(&build);
    assert_eq!(done["status"], "SUCCESS", "{}", log(&server, &build));
    assert!(!done.to_string().contains("hunter22"));
    assert!(!log(&server, &build).contains("hunter22"));
    let mut found = Vec::new();
    holders(&server.data(), "hunter22", &mut found);
    assert_eq!(found, Vec::<String>::new());

    fs::write(&file, url.replace("http://", "http://bot:wrong-token@")).expect("a file");
    let build = server.create(&flatten(&url, Some("main")));
    let done = server.end(&build);
    let detail = done["failureInfo"]["detail"].as_str().expect("a text");
    assert!(detail.contains("HTTP status 401"), "{detail}");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).expect("a mode");
    let build = server.create(&flatten(&url, Some("main")));
    let done = server.end(&build);
    let detail = done["failureInfo"]["detail"].as_str().expect("a text");
    assert!(detail.contains("chmod 600"), "{detail}");
}

/// A build file beside the kickstart.
const BESIDE: &str = "steps:
- name: kiln
  args: [flatten, '${_NAME}.ks']
artifacts: {objects: {location: gs://demo-proj_cloudbuild/out, paths: ['images/*.ks']}}
substitutions: {_NAME: none}
";

#[test]
fn kiln_submits_a_commit_with_the_build_file_in_it() {
    let (_dir, repositories, tree) = lab();
    fs::write(tree.join("images/cloudbuild.yaml"), BESIDE).expect("a build file");
    let first = commit(&tree, "main");
    let server = Server::open();
    let url = repositories.url("team/lab.git");
    let at = |rest: &str| format!("{url}#{rest}");
    let words = ["submit", &at("main:images"), "--substitutions", "_NAME=lab"];
    let ran = run(&server, &[&words[..], &["--follow"]].concat());
    assert_eq!(ran.code, Some(0), "{}{}", ran.out, ran.err);
    let (_, list) = server.json("GET", BUILDS, &Value::Null);
    let build = &list["builds"][0];
    // What was looked into is what is built.
    let source = json!({ "url": url, "revision": first, "dir": "images" });
    assert_eq!(build["source"]["gitSource"], source);
    assert_eq!(build["results"]["numArtifacts"], "1");
    let id = build["id"].as_str().expect("an id");
    let kept = run(&server, &["artifacts", id]);
    assert!(kept.out.contains("out/lab.ks"), "{}{}", kept.out, kept.err);

    let submitted = |words: &[&str]| {
        let ran = run(&server, &[&["submit", "--json"], words].concat());
        assert_eq!(ran.code, Some(0), "{}{}", ran.out, ran.err);
        serde_json::from_str::<Value>(&ran.out).expect("JSON")
    };
    // A kickstart, a project, and a build file of this machine: nothing is looked into but for the project.
    let build = submitted(&[&at("main:images/lab.ks")]);
    assert_eq!(build["steps"][0]["args"], json!(["build", "lab.ks"]));
    assert_eq!(
        build["artifacts"]["objects"]["paths"],
        json!(["images/output/*"])
    );
    let source = json!({ "url": url, "revision": "main", "dir": "images" });
    assert_eq!(build["source"]["gitSource"], source);
    fs::remove_file(tree.join("images/cloudbuild.yaml")).expect("a file");
    fs::write(tree.join("kiln.toml"), "").expect("a file");
    let second = commit(&tree, "main");
    let build = submitted(&[&url]);
    assert_eq!(build["steps"][0]["args"], json!(["build", "."]));
    assert_eq!(
        build["source"]["gitSource"],
        json!({ "url": url, "revision": second })
    );
    let build = submitted(&[&at(":images")]);
    assert_eq!(build["steps"][0]["args"], json!(["build", "lab.ks"]));
    fs::write(server.directory.path().join("own.yaml"), BESIDE).expect("a build file");
    let build = submitted(&[&url, "--config", "own.yaml"]);
    assert_eq!(build["source"]["gitSource"], json!({ "url": url }));
}

#[test]
fn kiln_says_why_a_repository_cannot_be_submitted() {
    let (_dir, repositories, tree) = lab();
    fs::write(tree.join("cloudbuild.yaml"), "steps: []\nsteps: []\n").expect("a build file");
    fs::create_dir(tree.join("two")).expect("a directory");
    for name in ["two/a.ks", "two/b.ks"] {
        fs::write(tree.join(name), KICKSTART).expect("a kickstart");
    }
    commit(&tree, "main");
    repositories.close("/team/closed.git", "Basic Ym90Omh1bnRlcjIyLXRva2Vu");
    let server = Server::open();
    let url = repositories.url("team/lab.git");
    let closed = repositories.url("team/closed.git");
    let with_password = url.replace("http://", "http://bot:s3cret@");
    for (words, code, expected) in [
        (&[url.as_str()][..], 1, "cloudbuild.yaml:2:1"),
        (
            &[&format!("{url}#gone")],
            3,
            "no branch, tag or reference \"gone\"",
        ),
        (
            &[&format!("{url}#main:gone")],
            1,
            "there is no directory \"gone\"",
        ),
        (&[&format!("{url}#main:two")], 2, ":two/a.ks"),
        (
            &[&format!("{url}#main:../x")],
            2,
            "is not below the repository",
        ),
        (&[&closed], 3, "say what is to be built"),
        (&[&with_password], 2, "a name or a password"),
        (&["ssh://git@x/y"], 2, "is not https://HOST/PATH"),
    ] {
        let ran = run(&server, &[&["submit"], words].concat());
        assert_eq!(ran.code, Some(code), "{words:?}: {}", ran.err);
        assert!(ran.err.contains(expected), "{words:?}: {}", ran.err);
        assert!(!ran.err.contains("s3cret"), "{}", ran.err);
    }
    let (_, list) = server.json("GET", BUILDS, &Value::Null);
    assert_eq!(list, json!({}));
    let mut local = kiln(server.directory.path());
    let local = local.args(["submit", &url, "--local"]).output();
    let local = local.expect("kiln");
    let said = String::from_utf8_lossy(&local.stderr);
    assert_eq!(local.status.code(), Some(2), "{said}");
    assert!(said.contains("git clone"), "{said}");
}

/// An authority of one's own, `ca.pem`, and a certificate for this machine that it vouches for.
fn authority(dir: &Path) {
    let key = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2";
    let ca = "-subj /CN=authority -keyout ca.key -out ca.pem";
    let own = "-CA ca.pem -CAkey ca.key -subj /CN=forge -addext subjectAltName=IP:127.0.0.1 \
               -addext basicConstraints=critical,CA:FALSE -keyout key.pem -out cert.pem";
    for words in [ca, own] {
        let mut openssl = Command::new("openssl");
        openssl.args(key.split_whitespace());
        let made = openssl
            .args(words.split_whitespace())
            .current_dir(dir)
            .output();
        let made = made.expect("openssl (Debian package openssl)");
        assert!(
            made.status.success(),
            "{}",
            String::from_utf8_lossy(&made.stderr)
        );
    }
}

/// TLS in front of a port of this machine; says its own.
const TLS: &str = r#"
import socket, ssl, sys, threading
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("cert.pem", "key.pem")
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)

def copy(source, target):
    try:
        while data := source.recv(65536):
            target.sendall(data)
    except OSError:
        pass

def serve(raw):
    try:
        client = context.wrap_socket(raw, server_side=True)
    except OSError:
        return
    server = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
    threading.Thread(target=copy, args=(client, server), daemon=True).start()
    copy(server, client)
    client.close()

while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
"#;

/// A program that ends with the test.
struct Ends(Child);

impl Drop for Ends {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[test]
fn a_forge_with_an_authority_of_its_own_is_trusted_where_it_is_named() {
    let (dir, repositories, tree) = lab();
    let first = commit(&tree, "main");
    authority(dir.path());
    let plain = repositories.url("team/lab.git");
    let port = plain.split([':', '/']).nth(4).expect("a port");
    let mut front = Command::new(python());
    front.args(["-c", TLS, port]).current_dir(dir.path());
    let mut front = Ends(front.stdout(Stdio::piped()).spawn().expect("python3"));
    let mut line = String::new();
    let said = front.0.stdout.take().expect("standard output");
    BufReader::new(said).read_line(&mut line).expect("a port");
    let url = format!("https://127.0.0.1:{}/team/lab.git", line.trim());

    let server = Server::open();
    let id = server.create(&flatten(&url, Some("main")));
    let detail = server.end(&id)["failureInfo"]["detail"].to_string();
    assert!(
        detail.contains("certificate") && detail.contains(&url),
        "{detail}"
    );
    assert!(repositories.requests().is_empty());

    let trusted = dir.path().join("ca.pem");
    let variables = [("SSL_CERT_FILE", trusted.to_str().expect("UTF-8"))];
    let server = Server::start_with(&variables, OPEN);
    let id = server.create(&flatten(&url, Some("main")));
    let build = server.end(&id);
    assert_eq!(build["status"], "SUCCESS", "{}", log(&server, &id));
    assert_eq!(resolved(&build)["revision"], first.as_str());
    // Triggers look into it from another process.
    let trigger = json!({
        "name": "forge",
        "sourceToBuild": { "uri": url, "ref": "refs/heads/main" },
        "build": { "steps": [{ "name": "kiln", "args": ["flatten", "images/lab.ks"] }] },
    });
    let triggers = BUILDS.replace("/builds", "/triggers");
    assert_eq!(server.json("POST", &triggers, &trigger).0, 200);
    let (status, ran) = server.json("POST", &format!("{triggers}/forge:run"), &json!({}));
    assert_eq!(status, 200, "{ran}");
    assert_eq!(
        ran["metadata"]["build"]["source"]["gitSource"]["revision"],
        first.as_str()
    );
}
