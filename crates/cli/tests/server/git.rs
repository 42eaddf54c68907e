//! Sources from git: by branch, tag and commit, of private repositories, and of triggers.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use kiln_testkit::GitServer;
use kiln_testkit::git::commit;
use serde_json::{Value, json};

use crate::builds::METADATA;
use crate::harness::{BUILDS, OPEN, Server};

const KICKSTART: &str = "lang en_US\n%packages\nbash\n%end\n";

/// A server that fetches nothing from this machine.
const AWAY: &[&str] = &["--open-to-this-machine"];

/// The repository `team/lab` with a kickstart, what serves it, and its working tree.
fn lab() -> (tempfile::TempDir, GitServer, PathBuf) {
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

fn log(server: &Server, id: &str) -> String {
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
