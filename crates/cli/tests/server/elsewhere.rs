//! Steps in an engine that the administrator runs: a podman service of the test's own.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use serde_json::json;
use tempfile::TempDir;

use crate::containers::{busybox, wait_until};
use crate::harness::{BUILDS, OPEN, Server};

/// What makes podman do without control groups and bridges.
const CONTAINERS: &str = "[engine]\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"file\"\nruntime = \"crun\"\n\
    [containers]\ncgroups = \"disabled\"\nlog_driver = \"k8s-file\"\nnetns = \"host\"\nkeyring = false\n\
    default_ulimits = [\"nofile=1024:1024\", \"nproc=1024:1024\"]\n";

struct Podman {
    dir: TempDir,
    service: Child,
}

impl Podman {
    fn start() -> Podman {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).display().to_string();
        fs::write(dir.path().join("containers.conf"), CONTAINERS).unwrap();
        let storage = format!(
            "[storage]\ndriver = \"overlay\"\ngraphroot = \"{}\"\nrunroot = \"{}\"\n",
            path("graph"),
            path("run")
        );
        fs::write(dir.path().join("storage.conf"), storage).unwrap();
        let mut service = in_mounts(&dir, &["system", "service", "--time=0"]);
        let service = service
            .arg(format!("unix://{}", path("socket")))
            .stderr(Stdio::null())
            .spawn()
            .expect("unshare (Debian package util-linux)");
        let podman = Podman { dir, service };
        wait_until("no podman", || UnixStream::connect(podman.socket()).is_ok());
        podman
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("socket")
    }

    fn address(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    fn podman(&self, arguments: &[&str]) -> String {
        let ran = in_mounts(&self.dir, arguments).output().expect("podman");
        assert!(
            ran.status.success(),
            "{}",
            String::from_utf8_lossy(&ran.stderr)
        );
        String::from_utf8(ran.stdout).unwrap().trim().to_owned()
    }
}

/// Podman with an empty place for control groups, of which crun takes no mixture: root's, or that of a user with ids.
fn in_mounts(dir: &TempDir, arguments: &[&str]) -> Command {
    let is_root = rustix::process::geteuid().is_root();
    let mut command = Command::new(if is_root { "unshare" } else { "podman" });
    if is_root {
        command.arg("--mount");
    } else {
        command.arg("unshare");
    }
    command
        .args([
            "sh",
            "-c",
            "mount -t tmpfs none /sys/fs/cgroup && exec podman \"$@\"",
            "sh",
        ])
        .args(arguments)
        .env("CONTAINERS_CONF", dir.path().join("containers.conf"))
        .env("CONTAINERS_STORAGE_CONF", dir.path().join("storage.conf"));
    command
}

impl Drop for Podman {
    fn drop(&mut self) {
        drop(self.service.kill());
        drop(self.service.wait());
        // A mount of an overlay's place may be there in the service's own namespace only.
        drop(in_mounts(&self.dir, &["system", "reset", "--force"]).output());
    }
}

#[test]
fn an_engine_of_the_administrators_runs_steps() {
    let engine = Podman::start();
    let server = Server::start(&[OPEN, &["--engine", &engine.address()]].concat());
    let dir = tempfile::tempdir().unwrap();
    engine.podman(&[
        "load",
        "-i",
        busybox(dir.path(), "tools:latest").to_str().unwrap(),
    ]);
    let step = |script: &str| json!({ "name": "localhost/tools", "script": script, "volumes": [{ "name": "v", "path": "/v" }] });
    let id = server.create(&json!({ "steps": [
        step("echo made > out; echo kept > /v/x; ls /var/run/docker.sock || echo no socket; printf out > $BUILDER_OUTPUT/output"),
        { "name": "kiln", "args": ["check", "missing.ks"], "allowFailure": true },
        step("cat out /v/x; busybox mknod disk b 8 0 || echo no disk; cat $BUILDER_OUTPUT/output; exit 9"),
    ] }));
    let build = server.end(&id);
    let log = server.log(&id);
    assert_eq!(build["status"], "FAILURE", "{build}\n{log}");
    assert_eq!(build["steps"][2]["exitCode"], 9, "{build}\n{log}");
    let outputs = &build["results"]["buildStepOutputs"];
    assert_eq!(outputs, &json!(["b3V0", "", ""]), "{log}");
    for line in [
        "Step #0: no socket\n",
        "Step #2: made\n",
        "Step #2: kept\n",
        "Step #2: no disk\n",
    ] {
        assert!(log.contains(line), "{line:?} is not in\n{log}");
    }
    assert_eq!(engine.podman(&["ps", "--all", "--quiet"]), "");
    assert_eq!(engine.podman(&["volume", "ls", "--quiet"]), "");
    // What such an engine's containers may still hold is no object: artifacts are copied.
    server.bucket("out");
    let id = server.create(&json!({
        "steps": [step("echo made > out")],
        "artifacts": { "objects": { "location": "gs://out", "paths": ["out"] } },
    }));
    let build = server.end(&id);
    assert_eq!(build["status"], "SUCCESS", "{build}\n{}", server.log(&id));
    assert_eq!(server.names_of_contents("out"), [1, 1]);
    drop(engine);
    let (status, error) = server.json("POST", BUILDS, &json!({ "steps": [step("true")] }));
    assert_eq!(status, 400, "{error}");
    assert!(error.to_string().contains("does not answer"), "{error}");
}
