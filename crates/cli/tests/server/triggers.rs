//! Triggers: kept, changed, run by hand and by webhooks.

use serde_json::{Value, json};

use crate::harness::{PROJECT, Server};

const TRIGGERS: &str = "/v1/projects/demo-proj/locations/global/triggers";
const GOOD: &str = "lang C.UTF-8\nrootpw x\n%packages\n%end\n";

fn trigger(source: &Value) -> Value {
    json!({
        "name": "nightly",
        "description": "every night",
        "build": {
            "source": source,
            "steps": [{ "name": "kiln", "args": ["check", "${_NAME}.ks"], "env": ["WHO=$TRIGGER_NAME at $BRANCH_NAME"] }],
            "substitutions": { "_NAME": "missing" },
        },
        "substitutions": { "_NAME": "good" },
        "tags": ["lab"],
    })
}

fn ask(server: &Server, method: &str, path: &str, body: &Value) -> (u16, Value) {
    server.json(method, &format!("{TRIGGERS}{path}"), body)
}

#[test]
fn a_trigger_is_kept_changed_and_run() {
    let mut server = Server::open();
    let source = server.source(&[("good.ks", GOOD), ("other.ks", GOOD)]);
    let (status, made) = ask(&server, "POST", "", &trigger(&source));
    assert_eq!(status, 200, "{made}");
    let id = made["id"].as_str().unwrap().to_owned();
    assert_eq!(
        made["resourceName"],
        format!("projects/{PROJECT}/locations/global/triggers/{id}")
    );
    let (status, twice) = ask(&server, "POST", "", &trigger(&source));
    assert_eq!(
        (status, &twice["error"]["status"]),
        (409, &json!("ALREADY_EXISTS"))
    );
    server.kill_and_start();
    for which in ["nightly", &id] {
        let (_, found) = ask(
            &server,
            "GET",
            &format!("/{which}?triggerId={which}"),
            &Value::Null,
        );
        assert_eq!(found, made);
    }
    let regionless = format!("/v1/projects/{PROJECT}/triggers");
    for path in [TRIGGERS, &regionless] {
        let (_, list) = server.json("GET", path, &Value::Null);
        assert_eq!(list, json!({ "triggers": [made] }));
    }

    let (status, operation) = ask(
        &server,
        "POST",
        "/nightly:run",
        &json!({ "triggerId": "nightly", "source": { "branchName": "main" } }),
    );
    assert_eq!(status, 200, "{operation}");
    let build = &operation["metadata"]["build"];
    assert_eq!(build["buildTriggerId"], id.as_str());
    assert_eq!(build["steps"][0]["args"][1], "good.ks");
    assert_eq!(build["steps"][0]["env"][0], "WHO=nightly at main");
    assert_eq!(build["substitutions"]["TRIGGER_NAME"], "nightly");
    let built = build["id"].as_str().unwrap();
    assert_eq!(server.end(built)["status"], "SUCCESS");
    // The form without a region takes the source alone.
    let body = json!({ "substitutions": { "_NAME": "other" } });
    let (status, operation) = server.json("POST", &format!("{regionless}/{id}:run"), &body);
    assert_eq!(status, 200, "{operation}");
    let build = &operation["metadata"]["build"];
    assert_eq!(build["steps"][0]["args"][1], "other.ks");
    let other = build["id"].as_str().unwrap();
    assert_eq!(server.end(other)["status"], "SUCCESS");
    let filter = format!("/v1/projects/{PROJECT}/builds?filter=trigger_id%3D%22{id}%22");
    let (_, list) = server.json("GET", &filter, &Value::Null);
    assert_eq!(list["builds"].as_array().unwrap().len(), 2);
    let (_, again) = server.json(
        "POST",
        &format!("/v1/projects/{PROJECT}/builds/{built}:retry"),
        &json!({}),
    );
    assert_eq!(again["metadata"]["build"]["buildTriggerId"], id.as_str());
    changed_and_removed(&server, &source, &id);
    assert_eq!(server.get(built)["buildTriggerId"], id.as_str());
}

fn changed_and_removed(server: &Server, source: &Value, id: &str) {
    let change = json!({ "description": "each night", "name": "weekly" });
    let (status, changed) = ask(server, "PATCH", "/nightly?updateMask=description", &change);
    assert_eq!((status, &changed["name"]), (200, &json!("nightly")));
    assert_eq!(
        (&changed["description"], &changed["tags"]),
        (&json!("each night"), &json!(["lab"]))
    );
    let mut whole = trigger(source);
    whole.as_object_mut().unwrap().remove("tags");
    whole["name"] = json!("weekly");
    let (status, changed) = ask(server, "PATCH", &format!("/{id}"), &whole);
    assert_eq!((status, &changed["name"]), (200, &json!("weekly")));
    assert_eq!(changed.get("tags"), None);
    assert_eq!(ask(server, "GET", "/nightly", &Value::Null).0, 404);
    assert_eq!(
        ask(server, "DELETE", "/weekly", &Value::Null),
        (200, json!({}))
    );
    assert_eq!(ask(server, "DELETE", "/weekly", &Value::Null).0, 404);
    assert_eq!(ask(server, "GET", "", &Value::Null), (200, json!({})));
}

fn with_token(
    server: &Server,
    method: &str,
    path: &str,
    token: &str,
    body: &Value,
) -> (u16, Value) {
    let header = match token {
        "" => String::new(),
        token => format!("Authorization: Bearer {token}\r\n"),
    };
    let (status, answer) = server.request(method, path, &header, body.to_string().as_bytes());
    (status, serde_json::from_slice(&answer).unwrap())
}

/// A trigger whose webhook needs the token `hook`.
fn push() -> Value {
    json!({
        "name": "push",
        "webhookConfig": { "secret": format!("projects/{PROJECT}/secrets/hook/versions/1") },
        "build": { "steps": [{ "name": "kiln", "args": ["check", "${_BRANCH}.ks"], "env": ["SAID=$_SAID"] }] },
        "substitutions": {
            "_BRANCH": "${_REF#refs/heads/}", "_REF": "$(body.ref)", "_SAID": "$(body.commits[0].message)",
        },
    })
}

#[test]
fn a_webhook_needs_its_secret_and_takes_values_from_its_message() {
    let server = Server::start(&[]);
    let admin = server.token(&["create", "root", "--role", "admin"]);
    let secret = server.token(&["create", "hook", "--role", "webhook"]);
    let other = server.token(&["create", "other", "--role", "webhook"]);
    let ask = |method: &str, path: &str, token: &str, body: &Value| {
        with_token(&server, method, path, token, body)
    };
    let (status, made) = ask("POST", TRIGGERS, &admin, &push());
    assert_eq!(status, 200, "{made}");
    assert_eq!(made["webhookConfig"]["state"], "OK");

    let message =
        json!({ "ref": "refs/heads/main", "commits": [{ "message": "costs $_REF ${_X}" }] });
    let hook = |place: &str, secret: &str, message: &Value| {
        let path = format!("/v1/projects/{PROJECT}{place}:webhook?key=any&secret={secret}");
        ask("POST", &path, "", message)
    };
    for (place, secret) in [
        ("/triggers/push", ""),
        ("/triggers/push", "kiln_wrong"),
        ("/triggers/push", other.as_str()),
        ("/triggers/push", admin.as_str()),
        ("/triggers/none", secret.as_str()),
        ("/locations/europe/triggers/push", secret.as_str()),
    ] {
        let (status, error) = hook(place, secret, &message);
        assert_eq!(
            (status, &error["error"]["status"]),
            (403, &json!("PERMISSION_DENIED")),
            "{place} {secret}"
        );
    }
    // The secret opens nothing else.
    assert_eq!(ask("GET", TRIGGERS, &secret, &Value::Null).0, 403);
    assert_eq!(
        ask("POST", &format!("{TRIGGERS}/push:run"), &secret, &json!({})).0,
        403
    );
    let lacks = json!({ "ref": "refs/heads/main" });
    let (status, error) = hook("/triggers/push", &secret, &lacks);
    let said = error["error"]["message"].as_str().unwrap();
    assert_eq!(status, 400);
    assert!(said.contains("$(body.commits[0].message)"), "{said}");

    for place in ["/triggers/push", "/locations/global/triggers/push"] {
        assert_eq!(hook(place, &secret, &message), (200, json!({})));
    }
    let builds = format!("/v1/projects/{PROJECT}/builds");
    let (_, list) = ask("GET", &builds, &admin, &Value::Null);
    let builds = list["builds"].as_array().unwrap();
    assert_eq!(builds.len(), 2);
    let step = &builds[0]["steps"][0];
    assert_eq!(
        (&step["args"][1], &step["env"][0]),
        (&json!("main.ks"), &json!("SAID=costs $_REF ${_X}"))
    );

    let off = json!({ "disabled": true });
    let path = format!("{TRIGGERS}/push?updateMask=disabled");
    assert_eq!(ask("PATCH", &path, &admin, &off).1["disabled"], json!(true));
    let (_, error) = hook("/triggers/push", &secret, &message);
    assert_eq!(error["error"]["status"], "FAILED_PRECONDITION");
    server.token(&["revoke", "hook"]);
    assert_eq!(hook("/triggers/push", &secret, &message).0, 403);
    let (_, found) = ask("GET", &format!("{TRIGGERS}/push"), &admin, &Value::Null);
    assert_eq!(found["webhookConfig"]["state"], "SECRET_DELETED");
}

fn with(name: &str, value: Value) -> Value {
    let mut body = trigger(&json!({}));
    body["build"] = json!({ "steps": [{ "name": "kiln", "args": ["check", "x.ks"] }] });
    body[name] = value;
    body
}

/// A trigger of a repository.
fn from_file(more: Value) -> Value {
    let mut body = json!({ "sourceToBuild": { "uri": "https://x/y", "ref": "refs/heads/main" } });
    let more = more.as_object().unwrap().clone();
    body.as_object_mut().unwrap().extend(more);
    body
}

fn refused_repositories() -> Vec<(Value, &'static str)> {
    vec![
        (
            with("sourceToBuild", json!({ "uri": "https://x/y" })),
            "invalid trigger.sourceToBuild.ref: \"\" does not begin with refs/",
        ),
        (
            with(
                "sourceToBuild",
                json!({ "uri": "https://x/y", "ref": "main" }),
            ),
            "invalid trigger.sourceToBuild.ref: \"main\" does not begin with refs/",
        ),
        (
            with(
                "sourceToBuild",
                json!({ "uri": "https://x/y", "ref": "$(body.ref)" }),
            ),
            "put that into a substitution, _REF=$(body.ref)",
        ),
        (
            with(
                "sourceToBuild",
                json!({ "uri": "git@x:y", "ref": "refs/heads/a" }),
            ),
            "invalid trigger.sourceToBuild.uri",
        ),
        (
            with("sourceToBuild", json!({ "repository": "projects/p" })),
            "invalid trigger.sourceToBuild.repository: repositories are not connected",
        ),
        (
            with("gitFileSource", json!({ "path": "x" })),
            "invalid trigger.sourceToBuild: there is none",
        ),
        (
            with("filename", json!("cloudbuild.yaml")),
            "invalid trigger.sourceToBuild: there is none",
        ),
        (
            from_file(json!({ "filename": "c.yaml", "build": { "steps": [{ "name": "kiln" }] } })),
            "invalid trigger.build: filename names a build file",
        ),
        (
            from_file(json!({ "filename": "c.yaml", "gitFileSource": { "path": "d.yaml" } })),
            "invalid trigger.gitFileSource: filename names a build file",
        ),
        (
            from_file(json!({ "filename": "../c.yaml" })),
            "invalid trigger.filename: \"../c.yaml\" is no path",
        ),
        (
            from_file(json!({ "gitFileSource": { "path": "/" } })),
            "invalid trigger.gitFileSource.path: \"/\" is no path",
        ),
        (
            from_file(json!({ "gitFileSource": { "path": "c.yaml", "revision": "a b" } })),
            "invalid trigger.gitFileSource.revision: \"a b\" is no name",
        ),
        (
            from_file(
                json!({ "build": { "steps": [{ "name": "kiln" }], "source": { "gitSource": { "url": "https://x/y" } } } }),
            ),
            "invalid trigger.build.source: a build has one source",
        ),
    ]
}

fn refused() -> Vec<(Value, &'static str)> {
    vec![
        (
            with("github", json!({ "owner": "x" })),
            "invalid trigger.github: triggers are run by hand or by a webhook",
        ),
        (with("filter", json!("true")), "there is no CEL"),
        (
            with("includedFiles", json!(["*"])),
            "invalid trigger.includedFiles",
        ),
        (
            with("cron", json!({ "schedule": "* * * * *" })),
            "invalid trigger.cron",
        ),
        (with("eventType", json!(3)), "invalid trigger.eventType"),
        (
            with("eventType", json!("WEBHOOK")),
            "invalid trigger.webhookConfig",
        ),
        (
            with("webhookConfig", json!({ "secret": "x" })),
            "kiln token create NAME --role webhook",
        ),
        (with("name", json!("-x")), "invalid trigger.name"),
        (with("name", json!("a/../b")), "invalid trigger.name"),
        (
            with("substitutions", json!({ "PROJECT_ID": "x" })),
            "does not begin with _",
        ),
        (with("build", json!({})), "there are no steps"),
        (
            with("build", json!({ "stps": [] })),
            "Unknown name \"stps\" at 'trigger.build': Cannot find field.",
        ),
        (
            with("nme", json!("x")),
            "Unknown name \"nme\" at 'trigger': Cannot find field.",
        ),
    ]
}

#[test]
fn what_a_trigger_cannot_be_is_refused_by_name() {
    let server = Server::open();
    for (body, expected) in refused().into_iter().chain(refused_repositories()) {
        let (status, error) = server.json("POST", TRIGGERS, &body);
        let message = error["error"]["message"].as_str().unwrap();
        assert_eq!(
            (status, &error["error"]["status"]),
            (400, &json!("INVALID_ARGUMENT")),
            "{message}"
        );
        assert!(message.contains(expected), "{message}");
    }
    let made = server.json("POST", TRIGGERS, &with("name", json!("good")));
    assert_eq!(made.0, 200, "{}", made.1);
    let path = format!("{TRIGGERS}/good?updateMask=nothing");
    assert_eq!(server.json("PATCH", &path, &json!({})).0, 400);
    // The trigger is right, its build is not until it runs.
    let ubuntu = with(
        "build",
        json!({ "steps": [{ "name": "kiln", "args": ["serve"] }] }),
    );
    assert_eq!(
        server.json("PATCH", &format!("{TRIGGERS}/good"), &ubuntu).0,
        200
    );
    let (status, error) = server.json("POST", &format!("{TRIGGERS}/nightly:run"), &json!({}));
    assert_eq!(status, 400, "{error}");
}
