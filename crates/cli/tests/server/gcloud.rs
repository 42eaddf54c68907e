//! The real command line tool of Google Cloud against the server, where it is installed.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use crate::harness::{PROJECT, Server, kiln, silent};

/// The tool with the settings that `kiln gcloud-env` prints; nothing if it is not installed.
fn gcloud(server: &Server) -> Option<Command> {
    let program = Path::new("/usr/bin/gcloud");
    if !program.exists() {
        println!(
            "the real gcloud is not installed: these requests are only made by the other tests"
        );
        return None;
    }
    let home = server.directory.path();
    let url = format!("http://{}", server.address);
    let mut command = kiln(home);
    command.args(["gcloud-env", "--server", &url]);
    let ran = command.output().expect("gcloud-env");
    assert!(ran.status.success(), "{}", text(&ran));
    let mut gcloud = Command::new(program);
    gcloud
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
            gcloud.env(name, value.trim_matches(['\'', '"']));
        }
    }
    gcloud.env("CLOUDSDK_CORE_PROJECT", PROJECT);
    Some(gcloud)
}

fn text(output: &Output) -> String {
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    format!("{out}\n{err}")
}

fn run(gcloud: &Option<Command>, words: &[&str]) -> Option<(i32, String)> {
    let model = gcloud.as_ref()?;
    let mut command = Command::new(model.get_program());
    command.env_clear().current_dir(model.get_current_dir()?);
    for (name, value) in model.get_envs() {
        command.env(name, value?);
    }
    let ran = command.args(words).output().expect("gcloud");
    Some((ran.status.code().expect("a code"), text(&ran)))
}

#[test]
fn gcloud_submits_and_tells_how_builds_end() {
    let server = Server::open();
    let gcloud = gcloud(&server);
    let home = server.directory.path();
    fs::create_dir(home.join("src")).unwrap();
    fs::write(
        home.join("src/lab.ks"),
        "lang C.UTF-8\nrootpw x\n%packages\n%end\n",
    )
    .unwrap();
    fs::write(
        home.join("flat.yaml"),
        "steps:\n- name: kiln\n  args: [flatten, '/workspace/$_NAME.ks']\nartifacts:\n  objects:\n    location: gs://demo-proj_cloudbuild/out\n    paths: ['*.ks']\n",
    )
    .unwrap();
    fs::write(
        home.join("fail.yaml"),
        "steps:\n- name: kiln\n  args: [check, missing.ks]\n",
    )
    .unwrap();

    let words = [
        "builds",
        "submit",
        "src",
        "--config",
        "flat.yaml",
        "--substitutions",
        "_NAME=lab",
    ];
    let Some((code, said)) = run(&gcloud, &words) else {
        return;
    };
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("SUCCESS"), "{said}");
    assert_eq!(
        said.matches("rootpw --plaintext x").count(),
        1,
        "the log is there once:\n{said}"
    );
    assert_eq!(
        said.matches("\nDONE\n").count(),
        1,
        "the log is there once:\n{said}"
    );

    let (code, said) = run(
        &gcloud,
        &["builds", "submit", "--no-source", "--config", "fail.yaml"],
    )
    .unwrap();
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("missing.ks"), "{said}");

    let (code, said) = run(&gcloud, &["builds", "list", "--format", "value(id,status)"]).unwrap();
    assert_eq!(
        (code, said.contains("SUCCESS"), said.contains("FAILURE")),
        (0, true, true),
        "{said}"
    );
    let (code, _) = run(&gcloud, &["builds", "describe", "none"]).unwrap();
    assert_eq!(code, 1);
}

#[test]
fn gcloud_cancels_what_it_left_running() {
    let server = Server::open();
    let gcloud = gcloud(&server);
    let home = server.directory.path();
    let (_listener, kickstart) = silent();
    fs::create_dir(home.join("src")).unwrap();
    fs::write(home.join("src/lab.ks"), kickstart).unwrap();
    fs::write(
        home.join("hang.yaml"),
        "steps:\n- name: kiln\n  args: [build, lab.ks]\n",
    )
    .unwrap();
    let words = [
        "builds",
        "submit",
        "src",
        "--async",
        "--config",
        "hang.yaml",
        "--format",
        "value(id)",
    ];
    let Some((code, said)) = run(&gcloud, &words) else {
        return;
    };
    assert_eq!(code, 0, "{said}");
    let id = said.lines().next().unwrap().trim().to_owned();
    server.wait(&id, &["WORKING"]);
    let (code, said) = run(&gcloud, &["builds", "cancel", &id]).unwrap();
    assert_eq!(code, 0, "{said}");
    assert_eq!(server.end(&id)["status"], "CANCELLED");
    let (code, said) = run(&gcloud, &["builds", "log", &id]).unwrap();
    assert_eq!(
        (code, said.matches("CANCELLED\n").count()),
        (0, 1),
        "{said}"
    );
}
