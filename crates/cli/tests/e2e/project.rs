//! What a project brings beside its kickstart files, and what packages bring that no two machines may share: one image with
//! all of it, taken apart by unsquashfs and booted once.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use crate::disk::unpack;
use crate::harness::{Turn, text, tool};

const CANARY: &str = "canary of the host";

const DEFINITION: &str = r#"
name = "project"
layers = ["minimal.ks", "project.ks"]

[system]
kernel = "linux-image-amd64"

[[files]]
from = "tools"

[[files]]
from = "keys/host"

[[files]]
from = "secret.conf"
to = "/srv/"
owner = "anna"
mode = "0640"
"#;

const UNIT: &str = "[Service]\nType=oneshot\nExecStart=/usr/local/bin/hello\n[Install]\nWantedBy=multi-user.target\n";

/// Prints what the running system has.
const FACTS: &str = "#!/bin/sh
systemctl is-system-running --wait >/dev/null
echo \"kernel $(uname -r)\"
echo \"own $(ssh-keygen -y -f /etc/ssh/ssh_host_ed25519_key)\"
openssl x509 -in /etc/ssl/certs/ssl-cert-snakeoil.pem -noout && stat -c 'snakeoil %U:%G %a' /etc/ssl/private/ssl-cert-snakeoil.key
systemctl is-active ssh && echo 'sshd runs'
cat /run/hello
echo end
";

fn project(turn: &Turn) -> PathBuf {
    let at = |name: &str| turn.path("project").join(name);
    let files = [
        ("kiln.toml", DEFINITION),
        ("tools/note.txt", "only for scripts\n"),
        ("secret.conf", "secret\n"),
        ("files/project/etc/systemd/system/hello.service", UNIT),
        ("files/project/etc/skel/.welcome", "welcome\n"),
        (
            "files/project/usr/local/bin/hello",
            "#!/bin/sh\necho hello > /run/hello\n",
        ),
    ];
    for (name, content) in files {
        fs::create_dir_all(at(name).parent().expect("a directory")).expect("directories");
        fs::write(at(name), content).expect("a file");
    }
    let program = fs::Permissions::from_mode(0o700);
    fs::set_permissions(at("files/project/usr/local/bin/hello"), program).expect("a mode");
    // A link is what it is in the image, and nothing of the host.
    fs::write(turn.path("canary"), CANARY).expect("the canary");
    symlink(turn.path("canary"), at("files/project/srv-link")).expect("a link");
    fs::create_dir(at("keys")).expect("a directory");
    let key = text(&at("keys/host"));
    tool(
        "ssh-keygen",
        &["-q", "-N", "", "-t", "ed25519", "-C", "lab", "-f", &key],
    )
    .assert(0);
    fs::copy(turn.path("minimal.ks"), at("minimal.ks")).expect("the minimal definition");
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/project.ks");
    fs::copy(data, at("project.ks")).expect("the definition");
    turn.path("project")
}

#[test]
fn a_projects_files_keys_kernel_and_owners_are_what_it_says() {
    let turn = Turn::warm();
    let project = project(&turn);
    let built = turn.kiln(&["build", &text(&project), "-o", "output", "--format", "raw"]);
    built
        .assert(0)
        .says(&["SquashFS cannot hold the access control lists of /srv/listed"]);
    manifest(&turn);
    let disk = turn.path("output/disk.raw");
    root(&turn, &disk);
    boot(&turn, &disk);
    let again = turn.kiln(&["build", &text(&project), "-o", "output", "--format", "raw"]);
    again.assert(0);
    // An edit of a file that only scripts see makes the scripts run again, and nothing below them.
    fs::write(project.join("tools/note.txt"), "other\n").expect("a file");
    let edited = turn.kiln(&["build", &text(&project), "-o", "output", "--format", "raw"]);
    let reused = "cached project: copying 11 of the project's files";
    edited.assert(4).says(&["%post failed", reused]);
    let left = turn.before.of_the_machine();
    assert!(left.is_empty(), "{left:?}");
}

fn manifest(turn: &Turn) {
    let manifest = fs::read(turn.path("output/manifest.json")).expect("the manifest");
    let manifest: serde_json::Value = serde_json::from_slice(&manifest).expect("JSON");
    let kernel = manifest["kernel"].as_str().expect("a kernel");
    assert!(
        kernel.ends_with("-amd64") && !kernel.contains("cloud"),
        "{kernel}"
    );
    assert_eq!(
        manifest["kernels"].as_array().map(Vec::len),
        Some(2),
        "{manifest:#}"
    );
    let has = |list: &str, path: &str| {
        let list = manifest["secrets"][list].as_array().expect("a list");
        assert!(
            list.iter().any(|one| one == path),
            "{path}: {:#}",
            manifest["secrets"]
        );
    };
    has("remade", "/etc/ssl/private/ssl-cert-snakeoil.key");
    has("kept", "/etc/ssh/ssh_host_ed25519_key");
    has("removed", "/etc/ssh/ssh_host_ecdsa_key");
    assert_eq!(manifest["secrets"]["shared"], serde_json::json!([]));
    let lost = &manifest["root"]["lost"];
    assert_eq!(lost[0]["path"], "/srv/listed", "{lost:#}");
    assert_eq!(lost.as_array().map(Vec::len), Some(1), "{lost:#}");
}

fn root(turn: &Turn, disk: &Path) {
    let root = unpack(disk, turn.path("unpacked"));
    let read = |path: &str| fs::read_to_string(root.join(path)).expect(path);
    let looks = |path: &str| {
        let there = fs::symlink_metadata(root.join(path)).expect(path);
        (there.uid(), there.gid(), there.mode() & 0o7777)
    };
    assert_eq!(looks("usr/local/bin/hello"), (0, 0, 0o755));
    assert_eq!(looks("etc/systemd/system/hello.service"), (0, 0, 0o644));
    assert_eq!(read("home/anna/.welcome"), "welcome\n");
    assert_eq!(looks("home/anna/.welcome").0, 1000);
    assert_eq!(looks("srv/secret.conf"), (1000, 1000, 0o640));
    assert_eq!(looks("srv/listed").0, 70001);
    assert_eq!(looks("srv/listed").1, 70002);
    assert_eq!(looks("home/far").0, 70000);
    let link = fs::read_link(root.join("srv-link")).expect("a link");
    assert_eq!(link, turn.path("canary"));
    assert!(!root.join("run/kiln").exists());
    let (passwd, group) = (read("etc/passwd"), read("etc/group"));
    assert!(passwd.contains("anna:x:1000:1000:"), "{passwd}");
    for name in ["docker:x:", "lab:x:"] {
        let line = group.lines().find_map(|line| line.strip_prefix(name));
        let id: u32 = line
            .and_then(|l| l.split(':').next()?.parse().ok())
            .expect(name);
        assert!(id < 1000, "{name} {id}");
    }
    assert!(!root.join("etc/ssl/private/ssl-cert-snakeoil.key").exists());
    assert_eq!(tool("grep", &["-rlsF", CANARY, &text(&root)]).stdout, "");
}

fn boot(turn: &Turn, disk: &Path) {
    turn.write("facts.sh", FACTS);
    let said = turn.boot(disk, &turn.path("facts.sh"));
    let key = fs::read_to_string(turn.path("project/keys/host.pub")).expect("the key");
    let key: Vec<&str> = key.split(' ').collect();
    for line in [
        format!("own {} {}", key[0], key[1]),
        "snakeoil root:ssl-cert 640".to_owned(),
        "sshd runs".to_owned(),
        "hello".to_owned(),
    ] {
        assert!(said.contains(&line), "{line:?} is not in\n{said}");
    }
    assert!(!said.contains("cloud"), "{said}");
}
