//! Secrets: who gets their values, and who does not.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;

use serde_json::{Value, json};

use crate::containers::{load_busybox, processes, wait_until};
use crate::harness::{BUILDS, Server, kiln};

const FIRST: &str = "hunter22-first-value";
const SECOND: &str = "second;value'\"$(id)\\";

/// Runs `kiln secret`, with a value on its standard input.
fn secret(server: &Server, arguments: &[&str], value: &str) -> Result<String, String> {
    let mut command = kiln(server.directory.path());
    let command = command
        .arg("secret")
        .args(arguments)
        .arg("--data")
        .arg(server.data());
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("kiln secret");
    let mut input = child.stdin.take().expect("standard input");
    input.write_all(value.as_bytes()).expect("a value");
    drop(input);
    let ran = child.wait_with_output().expect("an end");
    match ran.status.success() {
        true => Ok(String::from_utf8(ran.stdout).expect("UTF-8")),
        false => Err(String::from_utf8_lossy(&ran.stderr).into_owned()),
    }
}

fn available(secrets: &[(&str, &str)]) -> Value {
    let secrets = secrets.iter().map(|(env, secret)| {
        json!({ "env": env, "versionName": format!("projects/$PROJECT_ID/secrets/{secret}") })
    });
    json!({ "secretManager": secrets.collect::<Vec<_>>() })
}

fn sh(script: &str) -> Value {
    json!({ "name": "tools", "args": ["sh", "-c", script] })
}

/// The files below a directory that hold a text.
fn holders(dir: &Path, text: &str, found: &mut Vec<String>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let kind = entry.file_type().expect("a type");
        let path = entry.path();
        if kind.is_dir() {
            holders(&path, text, found);
        } else if kind.is_file()
            && let Ok(bytes) = fs::read(&path)
            && bytes
                .windows(text.len())
                .any(|window| window == text.as_bytes())
        {
            found.push(path.display().to_string());
        }
    }
}

/// Everything that the server says of a build, and of all.
fn answers(server: &Server, id: &str) -> String {
    let log = format!("/download/storage/v1/b/demo-proj_cloudbuild/o/log-{id}.txt?alt=media");
    let paths = [
        format!("{BUILDS}/{id}"),
        BUILDS.to_owned(),
        log,
        format!("/builds/{id}"),
        format!("/builds/{id}/log"),
        "/".to_owned(),
        "/kiln/v1/audit".to_owned(),
        "/metrics".to_owned(),
    ];
    let said = paths.map(|path| {
        let (status, body) = server.request("GET", &path, "", b"");
        assert_eq!(status, 200, "{path}");
        String::from_utf8_lossy(&body).into_owned()
    });
    said.concat()
}

#[test]
fn secrets_are_kept_by_their_owner_alone() {
    let server = Server::open();
    secret(&server, &["create", "key"], FIRST).unwrap();
    assert_eq!(secret(&server, &["add", "key"], SECOND).unwrap(), "2\n");
    assert_eq!(secret(&server, &["list"], "").unwrap(), "key  2\n");
    let taken = secret(&server, &["create", "key"], "x").unwrap_err();
    assert!(taken.contains("kiln secret add key"), "{taken}");
    let kept = server.data().join("secrets/key/1");
    assert_eq!(kept.metadata().unwrap().permissions().mode() & 0o777, 0o600);
}

/// Files of the server that hold a value, but for where secrets are kept and what `allowed` says.
fn leaks(server: &Server, value: &str, allowed: impl Fn(&str) -> bool) -> Vec<String> {
    let mut found = Vec::new();
    holders(&server.data(), value, &mut found);
    found.retain(|path| !path.contains("/data/secrets/key/") && !allowed(path));
    found
}

#[test]
fn secrets_reach_the_steps_that_name_them_and_nothing_else() {
    let server = Server::open();
    load_busybox(&server, "tools:latest");
    secret(&server, &["create", "key"], FIRST).unwrap();
    secret(&server, &["add", "key"], SECOND).unwrap();

    // What it prints in two pieces is one value all the same.
    let mut first = sh(
        "echo of $${#A} $${#B}; printf %s \"$${A%-value}\"; sleep 1; echo -value; echo \"got $$B\"; test -z \"$$C\"",
    );
    first["secretEnv"] = json!(["A"]);
    let mut waits = sh("echo length $${#A}; until [ -e go ]; do sleep 0.1; done");
    waits["secretEnv"] = json!(["A"]);
    let build = json!({
        "steps": [first, waits, sh("echo none $${#A}; echo $$B > out; echo \"$$B\" > $$BUILDER_OUTPUT/output")],
        "availableSecrets": available(&[("A", "key/versions/1"), ("B", "key/versions/latest")]),
        "options": { "secretEnv": ["B"] },
    });
    let id = server.create(&build);
    let beside = server.create(&json!({
        "steps": [{ "name": "tools", "script": "echo \"len ${#B}\"; env", "secretEnv": ["B"] }],
        "availableSecrets": available(&[("B", "key/versions/1")]),
    }));
    wait_until("no second step", || {
        let log = server
            .request("GET", &format!("/builds/{id}/log"), "", b"")
            .1;
        String::from_utf8_lossy(&log).contains("Step #1: length 20")
    });
    // While a step has it, no command line does, and of the server's files only those of the build's own engine.
    for value in [FIRST, SECOND] {
        assert_eq!(processes(value), Vec::<String>::new());
        let of_engines = |path: &str| path.contains("/attempt-1/engine/");
        assert_eq!(leaks(&server, value, of_engines), Vec::<String>::new());
        assert!(!answers(&server, &id).contains(value));
    }
    let attempt = server.data().join("builds").join(&id).join("attempt-1");
    fs::write(attempt.join("workspace/go"), "").unwrap();
    let ended = server.end(&id);
    let log = server.log(&id);
    assert_eq!(ended["status"], "SUCCESS", "{ended}\n{log}");
    let second = SECOND.len();
    assert_eq!(
        ended["results"]["buildStepOutputs"],
        json!(["", "", "KioqCg=="])
    );
    for line in [
        format!("Step #0: of 20 {second}\n"),
        "Step #0: ***\n".to_owned(),
        "Step #0: got ***\n".to_owned(),
        "Step #2: none 0\n".to_owned(),
    ] {
        assert!(log.contains(&line), "{line:?} is not in\n{log}");
    }
    let other = server.end(&beside);
    let log = server.log(&beside);
    assert_eq!(other["status"], "SUCCESS", "{other}\n{log}");
    assert!(log.contains("len 20\n") && log.contains("B=***\n"), "{log}");
    // What a step wrote into the workspace is its own affair; nothing else is left.
    for value in [FIRST, SECOND] {
        let of_the_step = |path: &str| path.ends_with("/workspace/out");
        assert_eq!(leaks(&server, value, of_the_step), Vec::<String>::new());
        assert!(
            !answers(&server, &id).contains(value) && !answers(&server, &beside).contains(value)
        );
    }
}

#[test]
fn a_repetition_names_the_version_again() {
    let server = Server::open();
    load_busybox(&server, "tools:latest");
    secret(&server, &["create", "key"], FIRST).unwrap();
    let first = server.create(&json!({
        "steps": [{ "name": "tools", "script": "echo \"len ${#B}\"", "secretEnv": ["B"] }],
        "availableSecrets": available(&[("B", "key/versions/1")]),
    }));
    server.end(&first);
    secret(&server, &["delete", "key"], "").unwrap();
    let (status, error) = server.json("POST", &format!("{BUILDS}/{first}:retry"), &json!({}));
    assert_eq!(status, 400, "{error}");
    secret(&server, &["create", "key"], "0123456789").unwrap();
    let (status, answer) = server.json("POST", &format!("{BUILDS}/{first}:retry"), &json!({}));
    assert_eq!(status, 200, "{answer}");
    let again = answer["metadata"]["build"]["id"].as_str().unwrap();
    server.end(again);
    assert!(
        server.log(again).contains("len 10\n"),
        "{}",
        server.log(again)
    );
}

#[test]
fn what_is_wrong_with_secrets_is_said_when_a_build_is_created() {
    let server = Server::open();
    secret(&server, &["create", "key"], "value").unwrap();
    let step = |names: Value| json!([{ "name": "tools", "secretEnv": names }]);
    let key = available(&[("A", "key/versions/1")]);
    for (steps, secrets, said) in [
        (
            step(json!(["A"])),
            Value::Null,
            "secretEnv \"A\" is used without being defined",
        ),
        (
            step(json!([])),
            key.clone(),
            "secretEnv \"A\" is defined without being used",
        ),
        (
            step(json!(["A"])),
            available(&[("A", "no/versions/1")]),
            "Secret [projects/demo-proj/secrets/no] not found or has no versions",
        ),
        (
            step(json!(["A"])),
            available(&[("A", "key/versions/7")]),
            "Secret Version [projects/demo-proj/secrets/key/versions/7] not found",
        ),
        (
            step(json!(["A"])),
            available(&[("A", "../key/versions/1")]),
            "is not projects/PROJECT/secrets/NAME/versions/VERSION",
        ),
        (
            step(json!(["A"])),
            available(&[("A", "key/versions/1"), ("A", "key/versions/1")]),
            "is defined more than once",
        ),
        (
            json!([{ "name": "kiln", "args": ["check", "a.ks"], "secretEnv": ["A"] }]),
            key.clone(),
            "hands no environment",
        ),
        (
            step(json!(["A"])),
            json!({ "inline": [{ "kmsKeyName": "k", "envMap": { "A": "eA==" } }] }),
            "availableSecrets.inline: there is no KMS",
        ),
    ] {
        let build = json!({ "steps": steps, "availableSecrets": secrets });
        let (status, error) = server.json("POST", BUILDS, &build);
        assert_eq!(status, 400, "{error}");
        let message = error["error"]["message"].as_str().unwrap();
        assert!(message.contains(said), "{message}");
    }
    assert!(
        secret(&server, &["create", "empty"], "")
            .unwrap_err()
            .contains("empty")
    );
    assert!(
        secret(&server, &["create", "../x"], "v")
            .unwrap_err()
            .contains("no name of a secret")
    );
    assert!(
        secret(&server, &["create", "long"], &"x".repeat(70_000))
            .unwrap_err()
            .contains("64 KiB")
    );
}

#[test]
fn a_trigger_names_secrets_too() {
    let server = Server::open();
    load_busybox(&server, "tools:latest");
    secret(&server, &["create", "key"], FIRST).unwrap();
    let triggers = "/v1/projects/demo-proj/locations/global/triggers";
    let trigger = json!({ "name": "nightly", "build": {
        "steps": [{ "name": "tools", "script": "echo \"len ${#B} $B\"", "secretEnv": ["B"] }],
        "availableSecrets": available(&[("B", "key/versions/latest")]),
    }});
    let (status, answer) = server.json("POST", triggers, &trigger);
    assert_eq!(status, 200, "{answer}");
    let run = || server.json("POST", &format!("{triggers}/nightly:run"), &json!({}));
    let (status, answer) = run();
    assert_eq!(status, 200, "{answer}");
    let id = answer["metadata"]["build"]["id"].as_str().unwrap();
    server.end(id);
    let log = server.log(id);
    assert!(log.contains("len 20 ***\n"), "{log}");
    secret(&server, &["delete", "key"], "").unwrap();
    let (status, error) = run();
    assert_eq!(status, 400, "{error}");
}

/// A build that is killed leaves its containers' configuration, environment and all, to be removed.
#[test]
fn a_killed_build_leaves_no_secret() {
    let server = Server::open();
    load_busybox(&server, "tools:latest");
    secret(&server, &["create", "key"], FIRST).unwrap();
    let mut step = sh("echo up; sleep 86414");
    step["secretEnv"] = json!(["A"]);
    let id = server.create(&json!({
        "steps": [step], "availableSecrets": available(&[("A", "key/versions/latest")]),
    }));
    wait_until("no container", || !processes("sleep 86414").is_empty());
    // It is cancelled as its process is killed: nobody begins it again.
    let agents = processes(&format!("{id}/attempt-1"));
    let agent = agents
        .iter()
        .find(|line| line.contains("run-attempt"))
        .expect("an agent");
    let (pid, _) = agent.split_once(' ').unwrap();
    assert!(
        std::process::Command::new("kill")
            .args(["-STOP", pid])
            .status()
            .unwrap()
            .success()
    );
    let (status, _) = server.json("POST", &format!("{BUILDS}/{id}:cancel"), &json!({}));
    assert_eq!(status, 200);
    assert!(
        std::process::Command::new("kill")
            .args(["-9", pid])
            .status()
            .unwrap()
            .success()
    );
    let build = server.end(&id);
    assert_eq!(build["status"], "CANCELLED", "{build}");
    let mut found = Vec::new();
    holders(&server.data(), FIRST, &mut found);
    assert_eq!(
        found,
        [server.data().join("secrets/key/1").display().to_string()]
    );
}
