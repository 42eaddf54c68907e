//! Steps in containers. Images are made here of Debian's static busybox and the docker command: no registry is asked.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::harness::{BUILDS, OPEN, Server, kiln};

/// Writes an image as `docker save` does: one layer of the given files, and its configuration.
fn image(dir: &Path, name: &str, config: &Value, lay_out: impl Fn(&Path)) -> PathBuf {
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
pub(crate) fn load_busybox(server: &Server, name: &str) {
    let dir = tempfile::tempdir().unwrap();
    load(server, &busybox(dir.path(), name));
}

/// The archive of that image.
pub(crate) fn busybox(dir: &Path, name: &str) -> PathBuf {
    let path = json!({ "Env": ["PATH=/bin"], "Cmd": ["/bin/sh"] });
    image(dir, name, &path, |root| {
        let bin = root.join("bin");
        fs::create_dir_all(&bin).unwrap();
        fs::create_dir_all(root.join("tmp")).unwrap();
        fs::copy("/bin/busybox", bin.join("busybox")).expect("Debian's busybox-static");
        for name in [
            "sh", "cat", "chmod", "cp", "echo", "id", "ls", "sleep", "mount", "logger", "wget",
            "touch", "env", "mkfifo", "mkdir", "ln", "dd",
        ] {
            std::os::unix::fs::symlink("busybox", bin.join(name)).unwrap();
        }
    })
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

/// What steps say to programs is what they wrote, and neither what a link leads to nor what never ends.
#[test]
fn steps_have_outputs_and_nobody_elses() {
    let server = Server::open();
    load_busybox(&server, "tools:latest");
    std::fs::write(server.data().join("of-the-server"), "private").unwrap();
    let sh = |script: &str| json!({ "name": "tools", "script": script, "allowFailure": true });
    let here = server.data().join("of-the-server").display().to_string();
    let id = server.create(&json!({ "steps": [
        sh("printf out > $BUILDER_OUTPUT/output"),
        sh("cat $BUILDER_OUTPUT/output"),
        sh(&format!("ln -s {here} $BUILDER_OUTPUT/output")),
        sh("mkfifo $BUILDER_OUTPUT/output"),
        sh("mkdir $BUILDER_OUTPUT/output"),
        sh("dd if=/dev/zero of=$BUILDER_OUTPUT/output bs=1M seek=1000000 count=1; printf begin > /tmp/x; dd if=/tmp/x of=$BUILDER_OUTPUT/output conv=notrunc"),
        sh("ln -s /workspace $BUILDER_OUTPUT/output"),
        sh("printf last > $BUILDER_OUTPUT/output; exit 3"),
    ] }));
    let build = server.end(&id);
    let log = server.log(&id);
    assert_eq!(build["status"], "SUCCESS", "{build}\n{log}");
    // 50 KiB: `begin`, and zeros.
    let large = format!("YmVnaW4A{}AAA=", "AAAA".repeat(17_064));
    assert_eq!(
        build["results"]["buildStepOutputs"],
        json!(["b3V0", "", "", "", "", large, "", "bGFzdA=="]),
        "{log}"
    );
    for (step, why) in [(2, ""), (3, "it is no file"), (4, "it is no file"), (6, "")] {
        let said = format!("Step #{step}: WARNING: $BUILDER_OUTPUT/output is not kept: {why}");
        assert!(log.contains(&said), "{said:?} is not in\n{log}");
    }
}

/// Processes of this machine whose command line has a word.
pub(crate) fn processes(word: &str) -> Vec<String> {
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

pub(crate) fn wait_until(what: &str, is_so: impl Fn() -> bool) {
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

/// Gives the server the docker command under the name that it has on Cloud Build.
pub(crate) fn load_docker(server: &Server) {
    let dir = tempfile::tempdir().unwrap();
    let program = ["/usr/local/bin/docker", "/usr/bin/docker"];
    let program = program.into_iter().find(|path| Path::new(path).is_file());
    let program = program.expect("docker (Debian package docker.io)");
    let config = json!({ "Env": ["PATH=/bin"], "Entrypoint": ["/bin/docker"] });
    let archive = image(
        dir.path(),
        "gcr.io/cloud-builders/docker:latest",
        &config,
        |root| {
            fs::create_dir_all(root.join("bin")).unwrap();
            fs::create_dir_all(root.join("tmp")).unwrap();
            fs::copy(program, root.join("bin/docker")).unwrap();
            // Debian's is not static.
            let listed = Command::new("ldd").arg(program).output().expect("ldd");
            let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
            for library in listed
                .split_whitespace()
                .filter(|word| word.starts_with('/'))
            {
                let to = root.join(library.trim_start_matches('/'));
                fs::create_dir_all(to.parent().unwrap()).unwrap();
                fs::copy(library, to).unwrap();
            }
        },
    );
    load(server, &archive);
}

/// The two build files of those who build on Cloud Build: one makes the image of their builder and keeps it, the other runs it
/// with all privileges on a kickstart. Here the builder says what it was given, and makes the file that is kept.
#[test]
fn a_build_makes_the_builder_and_another_runs_it() {
    let server = Server::open();
    load_docker(&server);
    server.bucket("out");
    let script = "#!/bin/busybox sh\n/bin/busybox cat \"$1\"\n/bin/busybox mkdir -p output && /bin/busybox cp \"$1\" output/disk.tar.gz\n";
    let source = server.source(&[
        ("Dockerfile", "FROM scratch\nCOPY busybox builder /bin/\nWORKDIR /workspace\nENTRYPOINT [\"/bin/builder\"]\n"),
        ("builder", script),
        ("lab.ks", "lang C.UTF-8\n%packages\n%end\n"),
    ]);
    let docker = |args: Value| json!({ "name": "gcr.io/cloud-builders/docker", "args": args });
    let name = "gcr.io/$PROJECT_ID/image-build";
    let first = json!({
        "source": source,
        "steps": [
            // The source of the tests is text: programs come with a step.
            { "name": "gcr.io/demo-proj/tools", "script": "cp /bin/busybox . && chmod 755 builder" },
            docker(json!(["build", "-t", name, "."])),
        ],
        "images": [name],
    });
    load_busybox(&server, "gcr.io/demo-proj/tools:latest");
    let id = server.create(&first);
    let build = server.end(&id);
    assert_eq!(build["status"], "SUCCESS", "{build}\n{}", server.log(&id));
    let kept = &build["results"]["images"][0];
    assert_eq!(kept["name"], "gcr.io/demo-proj/image-build");
    assert!(
        kept["digest"].as_str().unwrap().starts_with("sha256:"),
        "{build}"
    );
    let second = json!({
        "source": source,
        "steps": [docker(json!(["run", "--privileged", "--volume", "/workspace:/workspace", name, "/workspace/lab.ks"]))],
        "artifacts": { "objects": { "location": "gs://out/", "paths": ["output/disk.tar.gz"] } },
    });
    let id = server.create(&second);
    let build = server.end(&id);
    let log = server.log(&id);
    assert_eq!(build["status"], "SUCCESS", "{build}\n{log}");
    assert!(log.contains("%packages\n"), "{log}");
    let path = "/download/storage/v1/b/out/o/disk.tar.gz?alt=media";
    assert_eq!(server.request("GET", path, "", b"").0, 200);

    // What no step has made is not kept, and no build changes another project's images.
    let mut other = first.clone();
    other["images"] = json!(["gcr.io/demo-proj/nothing"]);
    let build = server.end(&server.create(&other));
    assert_eq!(
        build["failureInfo"]["type"], "PUSH_IMAGE_NOT_FOUND",
        "{build}"
    );
    for name in [
        "gcr.io/cloud-builders/docker",
        "docker.io/me/x",
        "gcr.io/demo-proj/../x/y",
        "gcr.io/demo-proj/",
    ] {
        other["images"] = json!([name]);
        let (status, error) = server.json("POST", BUILDS, &other);
        assert_eq!(status, 400, "{name}: {error}");
    }
}

/// `docker build` in a step: programs of a step (`RUN`) too, with what people write around them.
#[test]
fn a_dockerfile_runs_programs() {
    let server = Server::open();
    load_docker(&server);
    load_busybox(&server, "gcr.io/demo-proj/tools:latest");
    let dockerfile = "FROM gcr.io/demo-proj/tools AS first\nARG WORD=none\nRUN echo \"$WORD\" > /tmp/word && id > /tmp/root\n\
        RUN touch /tmp/owned && busybox chown 100:65534 /tmp/owned && chmod 2755 /tmp/owned && ls -ln /tmp/owned | busybox grep -e '-rwxr-sr-x.* 100 .* 65534'\n\
        RUN : <> /dev/ptmx && ls /dev/pts/ptmx\n\
        FROM gcr.io/demo-proj/tools\nCOPY --from=first /tmp/word /tmp/root /\nCOPY . /context/\nRUN touch /id && chmod 666 /id\nUSER 1234:1234\n\
        RUN [\"sh\", \"-c\", \"id > /id\"]\n\
        CMD [\"cat\", \"/word\", \"/root\", \"/id\"]\n";
    let source = server.source(&[
        ("Dockerfile", dockerfile),
        (".dockerignore", "hidden\n"),
        ("hidden", "x"),
        ("seen", "x"),
    ]);
    let docker = |args: Value| json!({ "name": "gcr.io/cloud-builders/docker", "args": args });
    let id = server.create(&json!({ "source": source, "steps": [
        docker(json!(["build", "--build-arg", "WORD=given", "-t", "made", "."])),
        docker(json!(["run", "made"])),
        docker(json!(["run", "made", "ls", "/context"])),
        { "name": "gcr.io/cloud-builders/docker", "allowExitCodes": [7],
          "args": ["run", "--rm", "made", "sh", "-c", "exit 7"] },
    ] }));
    let build = server.end(&id);
    let log = server.log(&id);
    assert_eq!(build["status"], "SUCCESS", "{build}\n{log}");
    for line in [
        "Step #1: given\n",
        "Step #1: uid=0",
        "Step #1: uid=1234",
        "Step #2: seen\n",
    ] {
        assert!(log.contains(line), "{line:?} is not in\n{log}");
    }
    assert!(!log.contains("Step #2: hidden"), "{log}");
    assert_eq!(build["steps"][3]["exitCode"], 7, "{build}\n{log}");
}

/// What a step said last is in the log, however it ended.
#[test]
fn a_step_that_is_ended_has_its_last_lines_in_the_log() {
    let server = Server::start(&[OPEN, &["--build-memory", "200"]].concat());
    load_busybox(&server, "tools:latest");
    let step = |script: &str, more: Value| {
        let mut step = json!({ "name": "tools", "args": ["sh", "-c", script] });
        step.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        server.create(&json!({ "steps": [step] }))
    };
    let raised =
        "echo Traceback >&2; echo '  File \"x.py\", line 1' >&2; echo 'ValueError: no' >&2; exit 1";
    load_docker(&server);
    let files = [
        "run",
        "--tmpfs",
        "/t:size=1g",
        "tools",
        "sh",
        "-c",
        "echo fills; dd if=/dev/zero of=/t/x bs=1M count=400; sleep 20",
    ];
    let files = json!({ "name": "gcr.io/cloud-builders/docker", "args": files });
    let files = server.create(&json!({ "steps": [files] }));
    let raised = step(raised, json!({}));
    let late = step(
        "echo one; echo two >&2; sleep 86415",
        json!({ "timeout": "2s" }),
    );
    // The shell's variable doubles until the limit.
    let large = step(
        "echo begins; x=0123456789abcdef; i=0; while true; do x=$$x$$x; i=$$((i+1)); [ $$i -lt 18 ] || { echo grows >&2; sleep 0.3; }; done",
        json!({}),
    );
    let build = server.end(&raised);
    let log = server.log(&raised);
    assert_eq!(build["status"], "FAILURE", "{build}");
    assert!(
        log.contains("Traceback\n  File \"x.py\", line 1\nValueError: no\n"),
        "{log}"
    );
    let build = server.end(&late);
    let log = server.log(&late);
    assert_eq!(build["status"], "TIMEOUT", "{build}");
    assert!(log.contains("one\n") && log.contains("two\n"), "{log}");
    for (id, lines) in [
        (large, ["begins\n", "grows\n"]),
        (files, ["fills\n", "fills\n"]),
    ] {
        let build = server.end(&id);
        let log = server.log(&id);
        assert_eq!(build["status"], "FAILURE", "{build}");
        assert!(lines.iter().all(|line| log.contains(line)), "{log}");
        assert!(
            log.contains("together they took more than the 200 MiB of memory"),
            "{build}\n{log}"
        );
    }
}

/// Limits of one container: the one that takes more ends, and its sibling does not.
#[test]
fn a_container_has_the_limits_that_it_asks_for() {
    let server = Server::open();
    load_docker(&server);
    load_busybox(&server, "tools:latest");
    let run = |options: &[&str], script: &str| {
        let args = [&["run"], options, &["tools", "sh", "-c", script]].concat();
        json!({ "name": "gcr.io/cloud-builders/docker", "args": args, "allowFailure": true })
    };
    let grow = "x=0123456789abcdef; while true; do x=$$x$$x; sleep 0.1; done";
    let id = server.create(&json!({ "steps": [
        run(&["-d", "--name", "sibling", "--memory", "64m", "--pids-limit", "5"], "exec sleep 86416"),
        run(&["--name", "large", "--memory", "64m"], grow),
        run(&["--name", "files", "--memory", "64m", "--tmpfs", "/t:size=1g"],
            "dd if=/dev/zero of=/t/x bs=1M count=100; sleep 20"),
        run(&["--name", "many", "--pids-limit", "5"], "for i in 1 2 3 4 5 6 7 8; do sleep 20 & done; wait"),
        run(&["--memory", "64m", "--pids-limit", "5"], "echo small; exit 5"),
        { "name": "gcr.io/cloud-builders/docker", "args": ["inspect", "-f", "sibling {{.State.Running}}", "sibling"] },
    ] }));
    let build = server.end(&id);
    let log = server.log(&id);
    assert_eq!(build["status"], "SUCCESS", "{build}\n{log}");
    for (step, code) in [(0, 0), (1, 137), (2, 137), (3, 137), (4, 5), (5, 0)] {
        assert_eq!(
            build["steps"][step]["exitCode"], code,
            "{step}: {build}\n{log}"
        );
    }
    for line in [
        "\ncontainer large was ended: it took more than the 64 MiB of memory that --memory gave it\n",
        "\ncontainer files was ended: it took more than the 64 MiB of memory that --memory gave it\n",
        "\ncontainer many was ended: it took more than the 5 processes that --pids-limit gave it\n",
        "Step #4: small\n",
        "Step #5: sibling true\n",
    ] {
        assert!(log.contains(line), "{line:?} is not in\n{log}");
    }
}

/// Kiln's own step has the workspace to itself: it waits for a step in a container beside it, and what containers have left behind ends.
#[test]
fn no_container_runs_beside_kiln() {
    let server = Server::open();
    load_docker(&server);
    load_busybox(&server, "tools:latest");
    let swap =
        "cd /workspace; while true; do echo x >> ticks; ln -s /etc output; busybox rm output; done";
    let id = server.create(&json!({ "steps": [
        { "name": "gcr.io/cloud-builders/docker", "id": "left", "waitFor": ["-"],
          "args": ["run", "-d", "-v", "/workspace:/workspace", "tools", "sh", "-c", swap] },
        { "name": "tools", "id": "beside", "waitFor": ["-"], "script": "sleep 3; echo container ends" },
        { "name": "kiln", "id": "kiln", "waitFor": ["left"], "args": ["check", "missing.ks"], "allowFailure": true },
        { "name": "tools", "waitFor": ["beside", "kiln"], "id": "after",
          "script": "set -e; busybox test -s ticks; cp ticks a; sleep 1; busybox cmp ticks a; echo still" },
    ] }));
    let build = server.end(&id);
    let log = server.log(&id);
    assert_eq!(build["status"], "SUCCESS", "{build}\n{log}");
    assert!(log.contains("Step #3 - \"after\": still\n"), "{log}");
    let at = |text: &str| {
        log.find(text)
            .unwrap_or_else(|| panic!("{text:?} is not in\n{log}"))
    };
    assert!(
        at("container ends\n") < at("\nStep #2 - \"kiln\": "),
        "{log}"
    );
}
