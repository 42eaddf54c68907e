//! Builds from creation to their end.

use std::fs;

use serde_json::{Value, json};

use crate::harness::{BUILDS, PROJECT, Server, silent};

const GOOD: &str = "lang C.UTF-8\nrootpw x\n%packages\n%end\n";

fn check(file: &str) -> Value {
    json!({ "name": "kiln", "args": ["check", file] })
}

#[test]
fn a_build_runs_its_steps_and_keeps_its_artifacts() {
    let server = Server::open();
    let source = server.source(&[("good.ks", GOOD), ("other.ks", GOOD)]);
    server.bucket("out");
    let id = server.create(&json!({
        "source": source,
        "steps": [
            { "name": "kiln", "id": "look", "args": ["check", "/workspace/${_NAME}.ks"] },
            { "name": "kiln", "id": "flat", "args": ["flatten", "good.ks"], "waitFor": ["-"] },
            { "name": "kiln", "args": ["check", "missing.ks"], "allowFailure": true },
        ],
        "artifacts": { "objects": { "location": "gs://out/$BUILD_ID/", "paths": ["*.ks"] } },
        "substitutions": { "_NAME": "good" },
        "tags": ["t1"],
    }));
    let build = server.end(&id);
    let log = server.log(&id);
    assert_eq!(build["status"], "SUCCESS", "{build}\n{log}");
    assert_eq!(build["steps"][0]["args"][1], "/workspace/good.ks");
    assert_eq!(build["steps"][0]["exitCode"], 0);
    assert_eq!(build["steps"][2]["status"], "FAILURE");
    assert_eq!(build["results"]["numArtifacts"], "2");
    for name in ["FETCHSOURCE", "BUILD", "PUSH"] {
        assert!(build["timing"][name]["endTime"].is_string(), "{build}");
    }
    for line in [
        format!("starting build \"{id}\"\n"),
        "Step #1 - \"flat\": rootpw".to_owned(),
        "Finished Step #0 - \"look\"\n".to_owned(),
        "DONE\n".to_owned(),
    ] {
        assert!(log.contains(&line), "{line} is not in\n{log}");
    }
    let data = server.data().display().to_string();
    assert!(
        !log.contains(&data),
        "the log names the server's directories:\n{log}"
    );

    // Two artifacts, which are not copied, and the list of them.
    assert_eq!(server.names_of_contents("out"), [1, 2, 2]);
    let path = format!("/download/storage/v1/b/out/o/{id}%2Fgood.ks?alt=media");
    assert_eq!(
        server.request("GET", &path, "", b""),
        (200, GOOD.as_bytes().to_vec())
    );
    let path = format!("/download/storage/v1/b/out/o/{id}%2Fartifacts-{id}.json?alt=media");
    let (_, manifest) = server.request("GET", &path, "", b"");
    assert_eq!(String::from_utf8(manifest).unwrap().lines().count(), 2);
}

/// "DONE" is the last word, and no step has it.
#[test]
fn a_build_is_done_when_its_artifacts_are_kept() {
    let server = Server::open();
    let source = server.source(&[("good.ks", GOOD)]);
    let build = |bucket: &str| {
        json!({
            "source": source,
            "steps": [check("good.ks")],
            "artifacts": { "objects": { "location": format!("gs://{bucket}/x"), "paths": ["*.ks"] } },
        })
    };
    server.bucket("there");
    let id = server.create(&build("there"));
    assert_eq!(server.end(&id)["status"], "SUCCESS");
    let log = server.log(&id);
    let (_, push) = log.split_once("\nPUSH\n").expect("a phase PUSH");
    assert_eq!(push.matches("DONE\n").count(), 1, "{log}");
    assert_eq!(log.matches("DONE\n").count(), 1, "{log}");

    let id = server.create(&build("nowhere"));
    let build = server.end(&id);
    assert_eq!(
        (&build["status"], &build["failureInfo"]["type"]),
        (&json!("FAILURE"), &json!("PUSH_FAILED"))
    );
    let log = server.log(&id);
    let (_, push) = log.split_once("\nPUSH\n").expect("a phase PUSH");
    assert!(!log.contains("DONE"), "{log}");
    assert_eq!(
        push.matches("\nERROR\nERROR: could not upload artifacts")
            .count(),
        1,
        "{log}"
    );
}

#[test]
fn a_failed_step_fails_the_build_and_says_so() {
    let server = Server::open();
    let id = server.create(&json!({ "steps": [check("missing.ks"), check("never.ks")] }));
    let build = server.end(&id);
    assert_eq!(build["status"], "FAILURE");
    assert_eq!(build["failureInfo"]["type"], "USER_BUILD_STEP");
    let detail = build["failureInfo"]["detail"].as_str().unwrap();
    assert!(
        detail.starts_with("build step 0 \"kiln\" failed: step exited with non-zero status"),
        "{detail}"
    );
    assert_eq!(build["steps"][1].get("status"), None);
    assert!(
        server.log(&id).contains("missing.ks"),
        "{}",
        server.log(&id)
    );

    // Again, under another id; the first one stays as it was.
    let (status, again) = server.json("POST", &format!("{BUILDS}/{id}:retry"), &json!({}));
    assert_eq!(status, 200, "{again}");
    let other = again["metadata"]["build"]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_ne!(other, id);
    assert_eq!(server.end(&other)["status"], "FAILURE");
    assert_eq!(server.get(&id), build);

    let (_, list) = server.json("GET", &format!("{BUILDS}?pageSize=1"), &Value::Null);
    assert_eq!(list["builds"][0]["id"], other.as_str());
    let token = list["nextPageToken"].as_str().unwrap();
    let (_, list) = server.json(
        "GET",
        &format!("{BUILDS}?pageSize=1&pageToken={token}"),
        &Value::Null,
    );
    assert_eq!(
        (&list["builds"][0]["id"], list.get("nextPageToken")),
        (&json!(id), None)
    );
    let none = format!("/v1/projects/{PROJECT}/builds?filter=status%3D%22WORKING%22");
    assert_eq!(server.json("GET", &none, &Value::Null), (200, json!({})));
}

#[test]
fn builds_are_stopped_by_wish_and_by_time() {
    let server = Server::open();
    let (_listener, kickstart) = silent();
    let source = server.source(&[("hang.ks", &kickstart)]);
    let step = json!({ "name": "kiln", "args": ["build", "hang.ks"] });
    let late = server.create(&json!({ "source": source, "steps": [step], "timeout": "2s" }));
    let id = server.create(&json!({ "source": source, "steps": [step] }));
    // Two processors each, and the server has four.
    let waits = server.create(&json!({ "source": source, "steps": [step] }));
    server.wait(&id, &["WORKING"]);
    let detail = server.get(&waits)["statusDetail"].clone();
    assert!(
        detail
            .as_str()
            .unwrap()
            .starts_with("waits for a processor"),
        "{detail}"
    );
    let (status, build) = server.json("POST", &format!("{BUILDS}/{waits}:cancel"), &json!({}));
    assert_eq!((status, &build["status"]), (200, &json!("CANCELLED")));

    let (status, build) = server.json("POST", &format!("{BUILDS}/{id}:cancel"), &json!({}));
    assert_eq!(
        (status, &build["status"]),
        (200, &json!("CANCELLED")),
        "{build}"
    );
    assert!(server.log(&id).contains("CANCELLED\n"));
    let (status, error) = server.json("POST", &format!("{BUILDS}/{id}:cancel"), &json!({}));
    assert_eq!(
        (status, &error["error"]["status"]),
        (400, &json!("FAILED_PRECONDITION"))
    );

    assert_eq!(server.end(&late)["status"], "TIMEOUT");
    assert!(
        server.log(&late).contains("TIMEOUT\n"),
        "{}",
        server.log(&late)
    );
}

/// A `kiln.toml` may allow directories beside its own; that of a stranger none of the server's.
#[test]
fn a_definition_reads_nothing_of_the_server() {
    let server = Server::open();
    let secret = server.directory.path().join("secret");
    fs::create_dir(&secret).unwrap();
    fs::write(secret.join("x.ks"), "# CANARY\n").unwrap();
    let include = secret.join("x.ks").display().to_string();
    let kickstart =
        format!("%include {include}\n%packages\n%end\n%post\n%include {include}\n%end\n");
    let project = format!(
        "distribution = \"debian:bookworm\"\nlayers = [\"a.ks\"]\ninclude-path = [{:?}]\n",
        secret.display().to_string()
    );
    let source = server.source(&[("kiln.toml", &project), ("a.ks", &kickstart)]);
    for words in [["plan", "."], ["check", "kiln.toml"]] {
        let step = json!({ "name": "kiln", "args": words });
        let id = server.create(&json!({ "source": source, "steps": [step] }));
        assert_eq!(server.end(&id)["status"], "FAILURE");
        let log = server.log(&id);
        assert!(log.contains("outside of what this build may read"), "{log}");
        assert!(!log.contains("CANARY"), "{log}");
    }
}

/// Waits for a file of a build's process: it runs from then on.
fn appears(file: &std::path::Path) {
    let began = std::time::Instant::now();
    while !file.exists() {
        assert!(began.elapsed().as_secs() < 60, "no {}", file.display());
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

#[test]
fn a_killed_server_loses_no_build() {
    let mut server = Server::open();
    let (_listener, kickstart) = silent();
    let source = server.source(&[("hang.ks", &kickstart), ("good.ks", GOOD)]);
    let step = json!({ "name": "kiln", "args": ["build", "hang.ks"] });
    let running = server.create(&json!({ "source": source, "steps": [step] }));
    let ends = server.create(&json!({ "source": source, "steps": [check("good.ks")] }));
    server.wait(&running, &["WORKING"]);
    let attempts = server.data().join("builds").join(&running);
    appears(&attempts.join("attempt-1/events.jsonl"));
    server.kill_and_start();
    assert_eq!(server.end(&ends)["status"], "SUCCESS");
    // The process went on without the server, which follows it again: no second attempt.
    assert_eq!(server.get(&running)["status"], "WORKING");
    assert_eq!(fs::read_dir(&attempts).unwrap().count(), 1);

    // Now the build's own process goes: there is another attempt, and the log goes on.
    let shown = server.log(&running);
    let pid = fs::read_dir("/proc").unwrap().flatten().find(|entry| {
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let words = String::from_utf8_lossy(&line).into_owned();
        words.contains("run-attempt") && words.contains(running.as_str())
    });
    let pid = pid.expect("the agent").file_name().into_string().unwrap();
    assert!(
        std::process::Command::new("kill")
            .args(["-9", &pid])
            .status()
            .unwrap()
            .success()
    );
    appears(&attempts.join("attempt-2/events.jsonl"));
    assert!(server.log(&running).starts_with(&shown));
    assert!(server.log(&running).contains("again, attempt 2"));
    let (status, build) = server.json("POST", &format!("{BUILDS}/{running}:cancel"), &json!({}));
    assert_eq!((status, &build["status"]), (200, &json!("CANCELLED")));
}

/// Where clouds hand out credentials.
pub(crate) const METADATA: &str = "169.254.169.254";

/// Whoever may build may not ask what listens on the server's machine.
#[test]
fn a_definition_fetches_nothing_from_the_servers_machine() {
    let server = Server::start(&["--open-to-this-machine"]);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let port = listener.local_addr().unwrap().port();
    let at = |address: &str| {
        format!("url --url={address} --noverifyssl\nlang C.UTF-8\nrootpw x\n%packages\n%end\n")
    };
    let source = server.source(&[
        (
            "address.ks",
            &at(&format!("http://127.0.0.1:{port}/debian/dists/bookworm")),
        ),
        (
            "name.ks",
            &at(&format!("http://localhost:{port}/debian/dists/bookworm")),
        ),
        (
            "metadata.ks",
            &at(&format!("http://{METADATA}/debian/dists/bookworm")),
        ),
        ("file.ks", &at("file:///etc/dists/bookworm")),
        (
            "include.ks",
            &format!("%include http://127.0.0.1:{port}/a.ks\n"),
        ),
    ]);
    for file in [
        "address.ks",
        "name.ks",
        "metadata.ks",
        "file.ks",
        "include.ks",
    ] {
        let args = ["lock", file, "--distribution", "debian:bookworm"];
        let id = server
            .create(&json!({ "source": source, "steps": [{ "name": "kiln", "args": args }] }));
        assert_eq!(server.end(&id)["status"], "FAILURE", "{file}");
        let log = server.log(&id);
        assert!(
            log.contains("builds of others get nothing from there"),
            "{file}:\n{log}"
        );
    }
    assert!(listener.accept().is_err(), "somebody has asked");
}

#[test]
fn what_is_wrong_is_refused() {
    let server = Server::start(&["--open-to-this-machine", "--engine", "none"]);
    for (build, expected) in [
        (
            json!({ "steps": [{ "name": "ubuntu" }] }),
            "needs a container engine",
        ),
        (
            json!({ "stps": [] }),
            "Unknown name \"stps\" at 'build': Cannot find field.",
        ),
        (
            json!({ "steps": [{ "name": "kiln", "id": "a", "waitFor": ["a"], "args": ["check", "x"] }] }),
            "waits for itself",
        ),
        (
            json!({ "steps": [{ "name": "kiln", "args": ["check", "/etc/passwd"] }] }),
            "not below /workspace",
        ),
        (json!([]), "must be a message"),
    ] {
        let (status, error) = server.json("POST", BUILDS, &build);
        let message = error["error"]["message"].as_str().unwrap();
        assert_eq!(
            (status, &error["error"]["status"]),
            (400, &json!("INVALID_ARGUMENT"))
        );
        assert!(message.contains(expected), "{message}");
    }
    let (status, _) = server.request("POST", BUILDS, "", b"{");
    assert_eq!(status, 400);
    let (status, _) = server.request("POST", BUILDS, "", &vec![b' '; 5 << 20]);
    assert_eq!(status, 400);
    for path in [
        "/v1/projects/demo-proj/builds/none",
        "/v1/projects/demo-proj/triggers/none",
        "/v1/x",
        "/builds/..%2F..%2Fetc/log",
    ] {
        let (status, error) = server.json("GET", path, &Value::Null);
        assert_eq!(
            (status, &error["error"]["status"]),
            (404, &json!("NOT_FOUND")),
            "{path}"
        );
    }
    assert_eq!(server.json("GET", BUILDS, &Value::Null), (200, json!({})));
}

#[test]
fn tokens_open_what_their_role_says() {
    let server = Server::start(&[]);
    let token = |arguments: &[&str]| server.token(arguments);
    let (view, submit) = (
        token(&["create", "ann"]),
        token(&["create", "bob", "--role", "submit"]),
    );
    let ask = |method: &str, path: &str, token: &str| {
        let header = format!("Authorization: Bearer {token}\r\n");
        let body = json!({ "steps": [check("x.ks")], "name": "b" }).to_string();
        server
            .request(
                method,
                path,
                &header,
                if method == "POST" {
                    body.as_bytes()
                } else {
                    b""
                },
            )
            .0
    };
    assert_eq!(server.request("GET", "/healthz", "", b"").0, 200);
    for path in [BUILDS, "/storage/v1/b?project=p"] {
        assert_eq!(server.request("GET", path, "", b"").0, 401, "{path}");
        assert_eq!(ask("GET", path, "kiln_wrong"), 401, "{path}");
        assert_eq!(ask("GET", path, &view), 200, "{path}");
        assert_eq!(ask("POST", path, &view), 403, "{path}");
    }
    assert_eq!(ask("POST", BUILDS, &submit), 200);
    assert!(token(&["list"]).starts_with("ann  view"));
    token(&["revoke", "ann"]);
    assert_eq!(ask("GET", BUILDS, &view), 401);
    let mode = std::os::unix::fs::MetadataExt::mode(&fs::metadata(server.data()).unwrap());
    assert_eq!(mode & 0o777, 0o700);
}

#[test]
fn a_client_of_python_gets_numbers_and_operations() {
    let server = Server::open();
    let source = server.source(&[("good.ks", GOOD)]);
    let body = json!({ "source": source, "steps": [check("good.ks")], "options": { "substitutionOption": 1, "logging": 2 } });
    let path = format!("/v1/projects/{PROJECT}/builds?%24alt=json%3Benum-encoding%3Dint");
    let (status, operation) = server.json("POST", &path, &body);
    assert_eq!(
        (status, &operation["metadata"]["build"]["status"]),
        (200, &json!(1)),
        "{operation}"
    );
    let id = operation["metadata"]["build"]["id"].as_str().unwrap();
    server.end(id);
    let name = operation["name"].as_str().unwrap();
    let (status, done) = server.json(
        "GET",
        &format!("/v1/{name}?%24alt=json%3Benum-encoding%3Dint"),
        &Value::Null,
    );
    assert_eq!(
        (status, &done["done"], &done["response"]["status"]),
        (200, &json!(true), &json!(3)),
        "{done}"
    );
    assert_eq!(
        done["response"]["@type"],
        "type.googleapis.com/google.devtools.cloudbuild.v1.Build"
    );
}
