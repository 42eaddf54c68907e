//! Triggers of git repositories: the commit that a run builds, and the build file in it.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use kiln_testkit::git::{commit, git};
use serde_json::{Value, json};

use crate::builds::METADATA;
use crate::git::{AWAY, lab, log};
use crate::harness::{BUILDS, OPEN, PROJECT, Server};

const TRIGGERS: &str = "/v1/projects/demo-proj/locations/global/triggers";

/// A build file whose step says what is known of the commit.
pub(crate) const FILE: &str = "steps:
- name: kiln
  args: [flatten, '${_NAME}.ks']
  dir: images
  env:
  - WHAT=$REPO_FULL_NAME $REPO_NAME $BRANCH_NAME|$TAG_NAME|$REF_NAME $TRIGGER_BUILD_CONFIG_PATH
  - COMMIT=$COMMIT_SHA $REVISION_ID $SHORT_SHA
substitutions: {_NAME: lab}
";

/// As the command line makes it: the build file is at the same ref as the source.
fn nightly(url: &str) -> Value {
    json!({
        "name": "nightly",
        "sourceToBuild": { "uri": url, "ref": "refs/heads/main", "repoType": "GITHUB" },
        "gitFileSource": {
            "path": "ci/cloudbuild.yaml", "uri": url, "revision": "refs/heads/main", "repoType": "GITHUB",
        },
    })
}

/// Writes the build file, and commits.
pub(crate) fn pushed(tree: &Path, branch: &str, file: &str) -> String {
    fs::create_dir_all(tree.join("ci")).expect("a directory");
    fs::write(tree.join("ci/cloudbuild.yaml"), file).expect("a build file");
    commit(tree, branch)
}

fn make(server: &Server, trigger: &Value) {
    let (status, made) = server.json("POST", TRIGGERS, trigger);
    assert_eq!(status, 200, "{made}");
}

/// Runs a trigger; returns the build as it is queued.
fn run(server: &Server, source: &Value) -> Value {
    let path = format!("{TRIGGERS}/nightly:run");
    let (status, answer) = server.json("POST", &path, &json!({ "source": source }));
    assert_eq!(status, 200, "{answer}");
    answer["metadata"]["build"].clone()
}

/// Why a run is refused.
fn refused(server: &Server, source: &Value) -> (Value, String) {
    let path = format!("{TRIGGERS}/nightly:run");
    let (status, answer) = server.json("POST", &path, &json!({ "source": source }));
    assert_eq!(status, 400, "{answer}");
    let error = &answer["error"];
    let message = error["message"].as_str().expect("a text").to_owned();
    (error["status"].clone(), message)
}

/// The texts in which a build file says what is known of a commit.
pub(crate) fn known(build: &Value) -> [&str; 2] {
    [0, 1].map(|at| build["steps"][0]["env"][at].as_str().expect("a text"))
}

pub(crate) fn expected(what: &str, commit: &str) -> [String; 2] {
    [
        format!("WHAT=team/lab lab {what} ci/cloudbuild.yaml"),
        format!("COMMIT={commit} {commit} {}", &commit[..7]),
    ]
}

#[test]
fn a_run_builds_a_commit_with_the_build_file_in_it() {
    let (_dir, repositories, tree) = lab();
    let first = pushed(&tree, "main", FILE);
    git(&tree, &["tag", "-a", "-m", "a tag", "v1"]);
    git(&tree, &["push", "-q", "origin", "v1"]);
    let server = Server::open();
    let url = repositories.url("team/lab.git");
    make(&server, &nightly(&url));

    let build = run(&server, &json!({}));
    assert_eq!(known(&build), expected("main||main", &first));
    assert_eq!(
        build["source"],
        json!({ "gitSource": { "url": url, "revision": first } })
    );
    let id = build["id"].as_str().expect("an id");
    assert_eq!(server.end(id)["status"], "SUCCESS", "{}", log(&server, id));

    // Another branch has another build file, and so has the first one by now.
    let other = pushed(&tree, "next", &FILE.replace("_NAME: lab", "_NAME: none"));
    let build = run(&server, &json!({ "branchName": "next" }));
    assert_eq!(known(&build), expected("next||next", &other));
    assert_eq!(build["steps"][0]["args"][1], "none.ks");
    let moved = pushed(&tree, "main", &format!("{FILE}tags: [moved]\n"));
    let build = run(&server, &json!({ "substitutions": { "_NAME": "own" } }));
    assert_eq!(known(&build), expected("main||main", &moved));
    assert_eq!(build["steps"][0]["args"][1], "own.ks");
    assert_eq!(build["tags"][0], "moved");
    // What was tagged, and what no branch has any more, is as it was.
    let build = run(&server, &json!({ "tagName": "v1" }));
    assert_eq!(known(&build), expected("|v1|v1", &first));
    let build = run(&server, &json!({ "commitSha": first, "dir": "ci" }));
    assert_eq!(known(&build), expected("||", &first));
    assert_eq!(build["source"]["gitSource"]["dir"], "ci");
    let (status, again) = server.json("POST", &format!("{BUILDS}/{id}:retry"), &json!({}));
    assert_eq!(status, 200, "{again}");
    let again = &again["metadata"]["build"];
    assert_eq!(known(again), expected("main||main", &first));
    let id = again["id"].as_str().expect("an id");
    assert_eq!(server.end(id)["status"], "SUCCESS", "{}", log(&server, id));
}

#[test]
fn the_build_file_may_be_in_another_repository_and_the_build_in_the_trigger() {
    let (_dir, repositories, tree) = lab();
    let commit = pushed(&tree, "main", "nonsense");
    let files = repositories.repository("team/files.git");
    pushed(&files, "old", FILE);
    pushed(&files, "main", "nonsense");
    let server = Server::open();
    let mut trigger = nightly(&repositories.url("team/lab.git"));
    trigger["gitFileSource"]["uri"] = Value::from(repositories.url("team/files.git"));
    trigger["gitFileSource"]["revision"] = Value::from("old");
    make(&server, &trigger);
    let build = run(&server, &json!({}));
    assert_eq!(known(&build), expected("main||main", &commit));
    let id = build["id"].as_str().expect("an id");
    assert_eq!(server.end(id)["status"], "SUCCESS", "{}", log(&server, id));

    let step = json!({ "name": "kiln", "args": ["flatten", "images/lab.ks"], "env": ["AT=$SHORT_SHA$TRIGGER_BUILD_CONFIG_PATH"] });
    let inline = json!({ "build": { "steps": [step] } });
    let path = format!("{TRIGGERS}/nightly?updateMask=build,gitFileSource");
    let (status, changed) = server.json("PATCH", &path, &inline);
    assert_eq!(status, 200, "{changed}");
    let build = run(&server, &json!({}));
    assert_eq!(build["steps"][0]["env"][0], format!("AT={}", &commit[..7]));
    let id = build["id"].as_str().expect("an id");
    assert_eq!(server.end(id)["status"], "SUCCESS", "{}", log(&server, id));
}

/// A trigger of a forge: the message says which ref.
fn push(url: &str) -> Value {
    json!({
        "name": "push",
        "webhookConfig": { "secret": format!("projects/{PROJECT}/secrets/hook/versions/1") },
        "sourceToBuild": { "uri": url, "ref": "$_REF" },
        "filename": "ci/cloudbuild.yaml",
        "substitutions": { "_REF": "$(body.ref)", "_NAME": "${_BRANCH:-lab}", "_BRANCH": "${_REF#refs/heads/}" },
    })
}

/// Sends a forge's message; returns the status and what is said.
fn hook(server: &Server, secret: &str, message: &Value) -> (u16, String) {
    let path = format!("/v1/projects/{PROJECT}/triggers/push:webhook?key=-&secret={secret}");
    let (status, answer) = server.json("POST", &path, message);
    let said = answer["error"]["message"].as_str().unwrap_or("");
    (status, said.to_owned())
}

fn builds(server: &Server) -> Vec<Value> {
    let (_, list) = server.json("GET", BUILDS, &Value::Null);
    list["builds"].as_array().cloned().unwrap_or_default()
}

#[test]
fn a_push_to_a_forge_builds_what_was_pushed() {
    let (_dir, repositories, tree) = lab();
    fs::write(
        tree.join("images/release.ks"),
        "lang C.UTF-8\n%packages\n%end\n",
    )
    .expect("a kickstart");
    let main = pushed(&tree, "main", FILE);
    let release = pushed(&tree, "release", &format!("{FILE}tags: [release]\n"));
    let server = Server::open();
    let secret = server.token(&["create", "hook", "--role", "webhook"]);
    make(&server, &push(&repositories.url("team/lab.git")));
    let message = json!({ "ref": "refs/heads/release", "after": main });
    assert_eq!(hook(&server, &secret, &message), (200, String::new()));
    let all = builds(&server);
    assert_eq!(known(&all[0]), expected("release||release", &release));
    assert_eq!(all[0]["tags"][0], "release");
    let id = all[0]["id"].as_str().expect("an id");
    assert_eq!(server.end(id)["status"], "SUCCESS", "{}", log(&server, id));

    // The commit of the message, wherever the branch is by now.
    let change = json!({ "substitutions": { "_REF": "$(body.after)", "_NAME": "lab" } });
    let path = format!("{TRIGGERS}/push?updateMask=substitutions");
    assert_eq!(server.json("PATCH", &path, &change).0, 200);
    assert_eq!(hook(&server, &secret, &message), (200, String::new()));
    assert_eq!(known(&builds(&server)[0]), expected("||", &main));
}

#[test]
fn a_push_that_cannot_be_built_is_answered_with_the_reason() {
    let (_dir, repositories, tree) = lab();
    pushed(&tree, "yaml", "steps:\n- name: [kiln\n");
    pushed(&tree, "twice", "steps: []\nsteps: []\n");
    pushed(&tree, "field", "steps:\n- nme: kiln\n");
    pushed(&tree, "step", "steps:\n- name: kiln\n  args: [serve]\n");
    pushed(
        &tree,
        "source",
        &format!("{FILE}source: {{gitSource: {{url: 'https://x/y'}}}}\n"),
    );
    pushed(&tree, "long", &"#".repeat(2 << 20));
    fs::remove_file(tree.join("ci/cloudbuild.yaml")).expect("a file");
    symlink("/etc/passwd", tree.join("ci/cloudbuild.yaml")).expect("a link");
    commit(&tree, "link");
    fs::remove_dir_all(tree.join("ci")).expect("a directory");
    symlink("images", tree.join("ci")).expect("a link");
    fs::write(tree.join("images/cloudbuild.yaml"), FILE).expect("a file");
    commit(&tree, "directory");
    fs::remove_file(tree.join("ci")).expect("a link");
    let none = commit(&tree, "none");
    let server = Server::open();
    let secret = server.token(&["create", "hook", "--role", "webhook"]);
    let url = repositories.url("team/lab.git");
    make(&server, &push(&url));
    for (name, expected) in [
        ("yaml", "ci/cloudbuild.yaml:"),
        ("twice", "ci/cloudbuild.yaml:2:1: "),
        ("field", "Unknown name \"nme\" at 'build.steps[0]'"),
        ("step", "invalid build.steps[0].args"),
        ("source", "build.source: a build has one source"),
        ("long", "has more than 1048576 bytes"),
        ("link", "\"cloudbuild.yaml\" is a link"),
        ("directory", "\"ci\" is a link"),
        ("none", "there is no file \"ci/cloudbuild.yaml\""),
        (
            "gone",
            "there is no branch, tag or reference \"refs/heads/gone\"",
        ),
        ("a..b", "is no name of a branch"),
    ] {
        let message = json!({ "ref": format!("refs/heads/{name}") });
        let (status, said) = hook(&server, &secret, &message);
        assert_eq!(status, 400, "{said}");
        assert!(said.contains(expected), "{name}: {said}");
        assert!(name == "a..b" || said.contains(&url), "{name}: {said}");
    }
    let (_, said) = hook(&server, &secret, &json!({ "ref": "main" }));
    assert!(said.contains("neither refs/heads/NAME"), "{said}");
    let (_, said) = hook(
        &server,
        &secret,
        &json!({ "ref": none.replace(|_| true, "0") }),
    );
    assert!(said.contains(&url), "{said}");
    assert_eq!(builds(&server), Vec::<Value>::new());
    let (_, audit) = server.json("GET", "/kiln/v1/audit", &Value::Null);
    let audit = audit.to_string();
    assert!(
        audit.contains("webhook refused: ci/cloudbuild.yaml:2:1"),
        "{audit}"
    );
}

/// A trigger by hand whose repository answers as it should not.
fn only(server: &Server, url: &str) {
    let mut trigger = nightly(url);
    trigger["gitFileSource"]["uri"] = Value::from(url);
    drop(server.json("DELETE", &format!("{TRIGGERS}/nightly"), &Value::Null));
    make(server, &trigger);
}

#[test]
fn a_trigger_reaches_nothing_that_a_build_may_not() {
    let (_dir, repositories, tree) = lab();
    pushed(&tree, "main", FILE);
    let server = Server::start(AWAY);
    let own = format!("http://{}/lab", server.address);
    let metadata = format!("http://{METADATA}/lab");
    let local = repositories.url("team/lab.git");
    for url in [local.as_str(), &own, &metadata, "http://[::1]:1/lab"] {
        only(&server, url);
        let (status, said) = refused(&server, &json!({}));
        assert_eq!(status, "FAILED_PRECONDITION");
        assert!(said.contains(url) && said.contains("it leads to"), "{said}");
    }
    // The file alone is looked for there.
    let mut trigger = nightly("https://git.invalid/lab");
    trigger["name"] = Value::from("file");
    trigger["gitFileSource"]["uri"] = Value::from("https://a:s3cret@git.invalid/x");
    let (status, answer) = server.json("POST", TRIGGERS, &trigger);
    assert_eq!(status, 400, "{answer}");
    assert!(!answer.to_string().contains("s3cret"), "{answer}");
    assert!(repositories.requests().is_empty());
    assert_eq!(builds(&server), Vec::<Value>::new());
    for (source, expected) in [
        (
            json!({ "commitSha": "c0ffee" }),
            "is not a commit's forty digits",
        ),
        (
            json!({ "branchName": "a b" }),
            "invalid request.source.branchName",
        ),
        (
            json!({ "tagName": "../x" }),
            "invalid request.source.tagName",
        ),
        (json!({ "invertRegex": true }), "names are no patterns"),
    ] {
        let (status, said) = refused(&server, &source);
        assert_eq!(status, "INVALID_ARGUMENT");
        assert!(said.contains(expected), "{said}");
    }
}

#[test]
fn credentials_open_a_triggers_repository_and_are_never_shown() {
    let (dir, repositories, tree) = lab();
    pushed(&tree, "main", FILE);
    // bot:hunter22-token
    repositories.close("/team/lab.git", "Basic Ym90Omh1bnRlcjIyLXRva2Vu");
    repositories.answer_with(|request| {
        let page = kiln_testkit::git::answer("200 OK", "text/html", b"<html>");
        request.target.starts_with("/html/").then_some(page)
    });
    let url = repositories.url("team/lab.git");
    let file = dir.path().join("credentials");
    let line = |password: &str| url.replace("http://", &format!("http://bot:{password}@"));
    fs::write(&file, line("hunter22-token")).expect("a file");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("a mode");
    let options = ["--git-credentials", file.to_str().expect("UTF-8")];
    let server = Server::start(&[OPEN, &options].concat());
    make(&server, &nightly(&url));
    let build = run(&server, &json!({}));
    assert!(!build.to_string().contains("hunter22"));
    let id = build["id"].as_str().expect("an id");
    assert_eq!(server.end(id)["status"], "SUCCESS", "{}", log(&server, id));

    fs::write(&file, line("hunter22-wrong")).expect("a file");
    let (_, said) = refused(&server, &json!({}));
    assert!(said.contains("HTTP status 401"), "{said}");
    assert!(!said.contains("hunter22"), "{said}");
    only(&server, &repositories.url("html/lab"));
    let (_, said) = refused(&server, &json!({}));
    assert!(said.contains("what answers is no repository"), "{said}");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).expect("a mode");
    let (_, said) = refused(&server, &json!({}));
    assert!(said.contains("chmod 600"), "{said}");
}
