//! Steps in containers. Images are made here of Debian's static busybox and the docker command: no registry is asked.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::harness::{BUILDS, Server, kiln};

/// Writes an image as `docker save` does: one layer of the given files, and its configuration.
fn image(dir: &Path, name: &str, config: &Value, lay_out: impl Fn(&Path)) -> std::path::PathBuf {
    let root = dir.join("root");
    fs::create_dir_all(&root).unwrap();
    lay_out(&root);
    let archive = dir.join("image");
    fs::create_dir_all(&archive).unwrap();
    tar(&root, &archive.join("layer.tar"));
    let sum = Command::new("sha256sum")
        .arg(archive.join("layer.tar"))
        .output()
        .expect("sha256sum");
    let sum = String::from_utf8_lossy(&sum.stdout[..64]).into_owned();
    let config = json!({
        "architecture": "amd64", "os": "linux", "config": config, "history": [{ "created_by": "tests" }],
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{sum}")] },
    });
    fs::write(archive.join("config.json"), config.to_string()).unwrap();
    let manifest =
        json!([{ "Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"] }]);
    fs::write(archive.join("manifest.json"), manifest.to_string()).unwrap();
    let whole = dir.join("image.tar");
    tar(&archive, &whole);
    whole
}

fn tar(dir: &Path, to: &Path) {
    let done = Command::new("tar")
        .args(["--owner=0", "--group=0", "-cf"])
        .arg(to)
        .arg("-C")
        .arg(dir)
        .arg(".")
        .status()
        .expect("tar");
    assert!(done.success());
}

/// Gives the server an image with a shell and what usually goes with it.
fn load_busybox(server: &Server, name: &str) {
    let dir = tempfile::tempdir().unwrap();
    let path = json!({ "Env": ["PATH=/bin"], "Cmd": ["/bin/sh"] });
    let archive = image(dir.path(), name, &path, |root| {
        let bin = root.join("bin");
        fs::create_dir_all(&bin).unwrap();
        fs::create_dir_all(root.join("tmp")).unwrap();
        fs::copy("/bin/busybox", bin.join("busybox")).expect("Debian's busybox-static");
        for name in [
            "sh", "cat", "echo", "id", "ls", "sleep", "mount", "logger", "wget", "touch", "env",
        ] {
            std::os::unix::fs::symlink("busybox", bin.join(name)).unwrap();
        }
    });
    load(server, &archive);
}

fn load(server: &Server, archive: &Path) {
    let loaded = kiln(server.directory.path())
        .arg("load-image")
        .arg(archive)
        .arg("--data")
        .arg(server.data())
        .output()
        .expect("kiln");
    let said = String::from_utf8_lossy(&loaded.stderr);
    assert!(loaded.status.success(), "{said}");
}

#[test]
fn any_image_runs_in_a_container() {
    let server = Server::open();
    load_busybox(&server, "gcr.io/demo-proj/tools:latest");
    let source = server.source(&[("good.ks", "lang C.UTF-8\n%packages\n%end\n")]);
    let sh =
        |script: &str| json!({ "name": "gcr.io/$PROJECT_ID/tools", "args": ["sh", "-c", script] });
    let mut with =
        sh("pwd; cat good.ks; echo $$GREETING > /v/x; echo made > out; logger from syslog");
    with["env"] = json!(["GREETING=hello"]);
    with["volumes"] = json!([{ "name": "v", "path": "/v" }]);
    let mut fails = sh("echo no >&2; exit 7");
    fails["allowExitCodes"] = json!([7]);
    let id = server.create(&json!({
        "source": source,
        "steps": [
            with,
            {
                "name": "gcr.io/demo-proj/tools", "id": "script", "dir": "below",
                "script": "cat /v/x ../out\npwd\n", "volumes": [{ "name": "v", "path": "/v" }],
            },
            fails,
            { "name": "kiln", "args": ["check", "good.ks"] },
            { "name": "gcr.io/demo-proj/tools", "entrypoint": "cat", "args": ["/workspace/out"] },
        ],
    }));
    let build = server.end(&id);
    let log = server.log(&id);
    assert_eq!(build["status"], "SUCCESS", "{build}\n{log}");
    for line in [
        "Step #0: Already have image: gcr.io/demo-proj/tools\n",
        "Step #0: /workspace\n",
        "Step #0: %packages\n",
        "Step #1 - \"script\": hello\n",
        "Step #1 - \"script\": made\n",
        "Step #1 - \"script\": /workspace/below\n",
        "Step #2: no\n",
        "Step #4: made\n",
        "from syslog",
    ] {
        assert!(log.contains(line), "{line:?} is not in\n{log}");
    }
    assert_eq!(build["steps"][2]["exitCode"], 7, "{build}");
    let image = build["results"]["buildStepImages"][0].as_str().unwrap();
    assert!(image.starts_with("sha256:"), "{build}");
    assert_eq!(build["results"]["buildStepImages"][3], "");
}

/// Processes of this machine whose command line has a word.
fn processes(word: &str) -> Vec<String> {
    let lines = fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| {
            let line = fs::read(entry.path().join("cmdline")).ok()?;
            let words = String::from_utf8_lossy(&line).replace('\0', " ");
            let name = entry.file_name().into_string().ok()?;
            words.contains(word).then(|| format!("{name} {words}"))
        });
    lines.collect()
}

fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let began = std::time::Instant::now();
    while !is_so() {
        assert!(began.elapsed().as_secs() < 30, "{what}");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}

#[test]
fn a_killed_build_leaves_no_container() {
    let server = Server::open();
    load_busybox(&server, "tools:latest");
    let step = json!({ "name": "tools", "args": ["sh", "-c", "echo up; sleep 86413"] });
    let id = server.create(&json!({ "steps": [step] }));
    wait_until("no container", || !processes("sleep 86413").is_empty());
    let agents = processes(&format!("{id}/attempt-1"));
    let agent = agents
        .iter()
        .find(|line| line.contains("run-attempt"))
        .expect("an agent");
    let (pid, _) = agent.split_once(' ').unwrap();
    let killed = Command::new("kill").args(["-9", pid]).status().unwrap();
    assert!(killed.success());
    // The build is begun again; its second container is not of the first engine.
    let attempts = server.data().join("builds").join(&id);
    wait_until("no second attempt", || {
        attempts.join("attempt-2/events.jsonl").exists()
    });
    let (status, build) = server.json("POST", &format!("{BUILDS}/{id}:cancel"), &json!({}));
    assert_eq!(status, 200, "{build}");
    server.end(&id);
    wait_until("a process is left", || processes("sleep 86413").is_empty());
    wait_until("an engine is left", || processes(&id).is_empty());
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(&id), "{mounts}");
    assert!(!attempts.join("attempt-2/engine").exists());
}
