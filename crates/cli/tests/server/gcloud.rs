//! The real command line tool of Google Cloud against the server, where it is installed.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use kiln_testkit::GitServer;
use kiln_testkit::git::git;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::git::lab;
use crate::harness::{BUILDS, PROJECT, Server, kiln, silent};
use crate::replay::Recorder;
use crate::repositories::{FILE, expected, known, pushed};

/// The tool with the settings that `kiln gcloud-env` prints, and what notes its requests; nothing if it is not installed.
pub(crate) struct Gcloud {
    model: Command,
    pub(crate) recorder: Recorder,
}

/// Finds the tool, for a server.
pub(crate) fn gcloud(server: &Server) -> Option<Gcloud> {
    let program = Path::new("/usr/bin/gcloud");
    if !program.exists() {
        assert!(
            std::env::var_os("KILN_REQUIRE_GCLOUD").is_none(),
            "gcloud is not on this machine"
        );
        println!("the real gcloud is not installed: `replay.rs` sends what it sent");
        return None;
    }
    let recorder = Recorder::start(server.address);
    let home = server.directory.path();
    let url = format!("http://{}", recorder.address);
    let mut command = kiln(home);
    command.args(["gcloud-env", "--server", &url]);
    let ran = command.output().expect("gcloud-env");
    assert!(ran.status.success(), "{}", text(&ran));
    let mut model = Command::new(program);
    model
        .env_clear()
        .env("HOME", home)
        .env("PATH", "/usr/bin:/bin")
        .env("CLOUDSDK_CONFIG", home.join("gcloud"))
        .current_dir(home);
    let settings = String::from_utf8(ran.stdout).expect("UTF-8");
    for line in settings.lines() {
        if let Some((name, value)) = line
            .strip_prefix("export ")
            .and_then(|line| line.split_once('='))
        {
            model.env(name, value.trim_matches(['\'', '"']));
        }
    }
    model.env("CLOUDSDK_CORE_PROJECT", PROJECT);
    Some(Gcloud { model, recorder })
}

impl Gcloud {
    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(self.model.get_program());
        command.env_clear();
        command.current_dir(self.model.get_current_dir().expect("a directory"));
        for (name, value) in self.model.get_envs() {
            command.env(name, value.expect("a value"));
        }
        command.args(words);
        command
    }

    /// How it ended, and what it said.
    pub(crate) fn run(&self, words: &[&str]) -> (i32, String) {
        let ran = self.command(words).output().expect("gcloud");
        (ran.status.code().expect("a code"), text(&ran))
    }

    /// What it prints when all is well.
    pub(crate) fn prints(&self, words: &[&str]) -> String {
        let ran = self.command(words).output().expect("gcloud");
        assert!(ran.status.success(), "{words:?}: {}", text(&ran));
        String::from_utf8(ran.stdout).expect("UTF-8")
    }
}

/// The log in what the tool prints around it.
fn shown_log(said: &str) -> &str {
    let (_, log) = said
        .split_once("REMOTE BUILD OUTPUT ------------------------------\n")
        .expect("a log");
    log.split_once("\n----------").map_or(log, |(log, _)| log)
}

fn text(output: &Output) -> String {
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    format!("{out}\n{err}")
}

/// Sources and files of builds.
fn files(home: &Path, kickstart: &str) {
    fs::create_dir(home.join("src")).unwrap();
    fs::write(home.join("src/lab.ks"), kickstart).unwrap();
    let artifacts = "artifacts:\n  objects:\n    location: gs://demo-proj_cloudbuild/out\n    paths: ['*.ks']\n";
    let step = |words: &str| format!("steps:\n- name: kiln\n  args: [{words}]\n");
    for (name, text) in [
        (
            "flat.yaml",
            step("flatten, '/workspace/$_NAME.ks'") + artifacts,
        ),
        ("fail.yaml", step("check, missing.ks")),
        ("hang.yaml", step("build, lab.ks")),
    ] {
        fs::write(home.join(name), text).unwrap();
    }
}

#[test]
fn gcloud_submits_and_tells_how_builds_end() {
    let server = Server::open();
    let Some(gcloud) = gcloud(&server) else {
        return;
    };
    files(
        server.directory.path(),
        "lang C.UTF-8\nrootpw x\n%packages\n%end\n",
    );
    let region = "--region=europe-west1";
    let said = gcloud.prints(&[
        "builds",
        "submit",
        "src",
        "--config",
        "flat.yaml",
        "--substitutions",
        "_NAME=lab",
        region,
    ]);
    assert!(said.contains("SUCCESS"), "{said}");
    let id = gcloud.prints(&["builds", "list", region, "--format", "value(id)"]);
    let id = id.trim();
    // Not a line less, not a line more.
    let log = server.log(id);
    assert!(
        log.contains("rootpw --plaintext x\n") && log.ends_with("DONE\n"),
        "{log}"
    );
    assert_eq!(shown_log(&said), log.trim_end());
    for words in [
        &["builds", "log", id, region][..],
        &["builds", "log", "--stream", id, region],
    ] {
        assert_eq!(shown_log(&gcloud.prints(words)), log.trim_end());
    }
    let kept = gcloud.prints(&["storage", "cat", "gs://demo-proj_cloudbuild/out/lab.ks"]);
    assert!(kept.contains("rootpw x"), "{kept}");

    fails_and_is_listed(&gcloud, id, region);
    gcloud.recorder.save("builds");
}

fn fails_and_is_listed(gcloud: &Gcloud, id: &str, region: &str) {
    let (code, said) = gcloud.run(&["builds", "submit", "--no-source", "--config", "fail.yaml"]);
    assert_eq!(code, 1, "{said}");
    assert!(
        said.contains("missing.ks") && said.contains("BUILD FAILURE"),
        "{said}"
    );

    let all = [
        "builds",
        "list",
        "--page-size",
        "1",
        "--format",
        "value(status)",
    ];
    assert_eq!(gcloud.prints(&all), "FAILURE\n");
    let one = [
        "builds",
        "list",
        region,
        "--filter",
        "status=SUCCESS",
        "--format",
        "value(id)",
    ];
    assert_eq!(gcloud.prints(&one).trim(), id);
    let none = [
        "builds",
        "list",
        region,
        "--ongoing",
        "--format",
        "value(id)",
    ];
    assert_eq!(gcloud.prints(&none), "");
    let status = [
        "builds",
        "describe",
        id,
        region,
        "--format",
        "value(status)",
    ];
    assert_eq!(gcloud.prints(&status), "SUCCESS\n");
    assert_eq!(gcloud.run(&["builds", "describe", "none"]).0, 1);
}

#[test]
fn gcloud_cancels_what_it_left_running() {
    let server = Server::open();
    let Some(gcloud) = gcloud(&server) else {
        return;
    };
    let (_listener, kickstart) = silent();
    files(server.directory.path(), &kickstart);
    let id = gcloud.prints(&[
        "builds",
        "submit",
        "src",
        "--async",
        "--config",
        "hang.yaml",
        "--format",
        "value(id)",
    ]);
    let id = id.trim();
    server.wait(id, &["WORKING"]);
    let mut stream = gcloud.command(&["builds", "log", "--stream", id]);
    let stream = stream
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    gcloud.prints(&["builds", "cancel", id]);
    assert_eq!(server.end(id)["status"], "CANCELLED");
    let stream = stream.wait_with_output().unwrap();
    let log = server.log(id);
    assert!(
        log.ends_with("CANCELLED\nERROR: context canceled\n"),
        "{log}"
    );
    let said = String::from_utf8(stream.stdout).unwrap();
    assert_eq!(
        (stream.status.code(), shown_log(&said)),
        (Some(0), log.trim_end())
    );
    let (code, said) = gcloud.run(&["builds", "cancel", id]);
    assert_eq!(code, 1, "{said}");
    assert!(
        said.contains("cannot cancel build in state CANCELLED"),
        "{said}"
    );
}

impl Gcloud {
    fn triggers(&self, words: &[&str]) -> (i32, String) {
        self.run(&[&["builds", "triggers"], words].concat())
    }

    /// What it says when all is well.
    fn well(&self, words: &[&str]) -> String {
        let (code, said) = self.triggers(words);
        assert_eq!(code, 0, "{words:?}: {said}");
        said
    }

    /// A field of a trigger.
    fn value(&self, name: &str, path: &str) -> String {
        let format = format!("value({path})");
        let said = self.well(&["describe", name, "--format", &format]);
        said.trim().to_owned()
    }
}

#[test]
fn gcloud_keeps_and_runs_triggers() {
    let server = Server::open();
    let Some(gcloud) = gcloud(&server) else {
        return;
    };
    let home = server.directory.path();
    files(home, "");
    gcloud.well(&[
        "create",
        "manual",
        "--name",
        "nightly",
        "--inline-config",
        "fail.yaml",
        "--description",
        "every night",
        "--substitutions",
        "_A=1",
    ]);
    gcloud.well(&[
        "update",
        "manual",
        "nightly",
        "--update-substitutions",
        "_B=2",
        "--description",
        "each",
    ]);
    assert_eq!(gcloud.value("nightly", "description"), "each");
    assert_eq!(
        gcloud.value("nightly", "substitutions._A,substitutions._B"),
        "1\t2"
    );
    let ran = gcloud.well(&[
        "run",
        "nightly",
        "--branch",
        "main",
        "--format",
        "value(metadata.build.id)",
    ]);
    let build = server.end(ran.trim());
    assert_eq!(build["substitutions"]["BRANCH_NAME"], "main");
    assert_eq!(
        build["buildTriggerId"],
        gcloud.value("nightly", "id").as_str()
    );

    a_webhook_is_changed_and_moved(&gcloud, home);
    gcloud.recorder.save("triggers");
}

fn a_webhook_is_changed_and_moved(gcloud: &Gcloud, home: &Path) {
    let secret =
        |version: u32| format!("--secret=projects/demo-proj/secrets/hook/versions/{version}");
    gcloud.well(&[
        "create",
        "webhook",
        "--name",
        "push",
        &secret(1),
        "--inline-config",
        "flat.yaml",
        "--substitutions",
        "_NAME=$(body.name)",
    ]);
    gcloud.well(&["update", "webhook", "push", &secret(2)]);
    assert_eq!(
        gcloud.value("push", "webhookConfig.state"),
        "SECRET_DELETED"
    );
    let file = home.join("push.yaml");
    let words = [
        "beta",
        "builds",
        "triggers",
        "export",
        "push",
        "--destination=push.yaml",
    ];
    gcloud.prints(&words);
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.contains("secrets/hook/versions/2"), "{text}");
    fs::write(&file, format!("{text}description: imported\n")).unwrap();
    gcloud.well(&["import", "--source", "push.yaml"]);
    assert_eq!(gcloud.value("push", "description"), "imported");
    let named = text.replace("name: push", "name: other");
    let fresh: Vec<&str> = named
        .lines()
        .filter(|line| !line.starts_with("id:"))
        .collect();
    fs::write(&file, fresh.join("\n")).unwrap();
    gcloud.well(&["import", "--source", "push.yaml"]);
    let list = gcloud.well(&["list", "--format", "value(name)"]);
    assert_eq!(list.trim(), "other\npush\nnightly");
    for name in ["other", "push", "nightly"] {
        gcloud.well(&["delete", name]);
    }
    assert_eq!(gcloud.triggers(&["delete", "nightly"]).0, 1);
}

/// The same repository each time, to the last digit of its commits: `main` with the tag `v1`, and `next`. Returns the commits.
pub(crate) fn repository() -> (TempDir, GitServer, [String; 2]) {
    let (dir, repositories, tree) = lab();
    let main = pushed(&tree, "main", FILE);
    git(&tree, &["tag", "-a", "-m", "a tag", "v1"]);
    git(&tree, &["push", "-q", "origin", "v1"]);
    let next = pushed(&tree, "next", &format!("{FILE}tags: [next]\n"));
    (dir, repositories, [main, next])
}

#[test]
fn gcloud_builds_commits_of_repositories() {
    let (_dir, repositories, [main, next]) = repository();
    let server = Server::open();
    let Some(gcloud) = gcloud(&server) else {
        return;
    };
    let url = repositories.url("team/lab.git");
    let home = server.directory.path();
    fs::write(
        home.join("flat.yaml"),
        "steps:\n- name: kiln\n  args: [flatten, lab.ks]\n",
    )
    .unwrap();
    let said = gcloud.prints(&[
        "builds",
        "submit",
        &url,
        "--config=flat.yaml",
        "--git-source-revision=main",
        "--git-source-dir=images",
    ]);
    assert!(said.contains("SUCCESS"), "{said}");
    assert!(
        shown_log(&said).contains(&format!("refs/heads/main is at {main}")),
        "{said}"
    );

    gcloud.well(&[
        "create",
        "manual",
        "--name=nightly",
        &format!("--repo={url}"),
        "--repo-type=GITHUB",
        "--branch=main",
        "--build-config=ci/cloudbuild.yaml",
    ]);
    for (words, what, commit) in [
        (&[][..], "main||main", &main),
        (&["--branch=next"], "next||next", &next),
        (&["--tag=v1"], "|v1|v1", &main),
        (&["--sha", &next], "||", &next),
    ] {
        let build = gcloud.runs("nightly", words, &server);
        assert_eq!(known(&build), expected(what, commit), "{words:?}");
        assert_eq!(build["status"], "SUCCESS");
    }
    let (code, said) = gcloud.triggers(&["run", "nightly", "--branch=gone"]);
    assert_eq!(code, 1);
    assert!(said.contains("reference \"refs/heads/gone\""), "{said}");
    gcloud.well(&[
        "update",
        "manual",
        "nightly",
        "--source-to-build-branch=next",
        "--git-file-source-branch=next",
    ]);
    assert_eq!(gcloud.value("nightly", "gitFileSource.uri"), url);
    let build = gcloud.runs("nightly", &[], &server);
    assert_eq!(known(&build), expected("next||next", &next));
    a_webhook_of_a_forge(&gcloud, &server, &url, &next);
    gcloud.recorder.save("repositories");
}

fn a_webhook_of_a_forge(gcloud: &Gcloud, server: &Server, url: &str, next: &str) {
    gcloud.well(&[
        "create",
        "webhook",
        "--name=push",
        "--secret=projects/demo-proj/secrets/hook/versions/1",
        &format!("--repo={url}"),
        "--repo-type=GITHUB",
        "--branch=$_BRANCH",
        "--build-config=ci/cloudbuild.yaml",
        "--substitutions=_REF=$(body.ref),_BRANCH=${_REF#refs/heads/}",
    ]);
    assert_eq!(
        gcloud.value("push", "sourceToBuild.ref"),
        "refs/heads/$_BRANCH"
    );
    // What follows is not recorded: the secret is another one each time.
    let secret = server.token(&["create", "hook", "--role", "webhook"]);
    let path = format!("/v1/projects/{PROJECT}/triggers/push:webhook?key=-&secret={secret}");
    let (status, answer) = server.json("POST", &path, &json!({ "ref": "refs/heads/next" }));
    assert_eq!(status, 200, "{answer}");
    let (_, list) = server.json("GET", BUILDS, &Value::Null);
    assert_eq!(known(&list["builds"][0]), expected("next||next", next));
    let id = list["builds"][0]["id"].as_str().expect("an id");
    assert_eq!(server.end(id)["status"], "SUCCESS", "{}", server.log(id));
}

impl Gcloud {
    /// Runs a trigger to the end of its build.
    fn runs(&self, name: &str, words: &[&str], server: &Server) -> Value {
        let run = ["run", name, "--format", "value(metadata.build.id)"];
        let ran = self.well(&[&run[..], words].concat());
        server.end(ran.trim())
    }
}
