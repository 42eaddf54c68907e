//! What a build cannot do that is root in a container with every privilege: each attack is a case, and each would be seen to work.

use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, TcpListener, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::thread;

use serde_json::{Value, json};

use crate::containers::{load_busybox, load_docker, processes, wait_until};
use crate::harness::{BUILDS, OPEN, Server};

const TOOLS: &str = "gcr.io/demo-proj/tools";

/// A shell's script that says of each case whether its command succeeded.
fn script(cases: &[(&str, String)]) -> String {
    let case = |(name, command): &(&str, String)| {
        format!(
            "if ( {command} ) >/dev/null 2>&1; then echo \"reached {name}.\"; else echo \"refused {name}.\"; fi\n"
        )
    };
    let bin = "for a in $(busybox --list); do [ -e /bin/$a ] || ln -s busybox /bin/$a; done\n";
    format!("{bin}{}", cases.iter().map(case).collect::<String>())
}

/// A step that runs a script of the workspace with all that `docker run` gives.
fn privileged(script: &str) -> Value {
    json!({ "name": "gcr.io/cloud-builders/docker", "args": [
        "run", "--privileged", "--net", "host", "--userns", "host", "--ipc", "host", "--uts", "host", "--cgroupns", "host",
        "-v", "/:/host", "-v", "/workspace:/workspace", TOOLS, "sh", format!("/workspace/{script}"),
    ] })
}

/// Answers on all addresses of this machine.
fn beacon() -> u16 {
    let listener = TcpListener::bind("0.0.0.0:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.read(&mut [0; 64]);
            let _ = stream.write_all(b"HTTP/1.0 200 OK\r\n\r\n");
        }
    });
    port
}

/// This machine's address on its network, if it has one.
fn own_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    Some(socket.local_addr().ok()?.ip())
}

/// Interfaces of this machine besides loopback.
fn interfaces() -> Vec<String> {
    let text = fs::read_to_string("/proc/net/dev").expect("/proc/net/dev");
    let names = text.lines().filter_map(|line| line.split_once(':'));
    names
        .map(|(name, _)| name.trim().to_owned())
        .filter(|name| name != "lo")
        .collect()
}

/// `settimeofday`, which asks for the right before it looks at what is to be set.
#[cfg(target_arch = "x86_64")]
const CLOCK: u32 = 164;
#[cfg(not(target_arch = "x86_64"))]
const CLOCK: u32 = 170;

/// A system call of the engine's root with the machine's perl, which every Debian has; true if the kernel does it.
fn call(number: u32, arguments: &str) -> String {
    format!("chroot /host /usr/bin/perl -e 'exit(syscall({number}, {arguments}) >= 0 ? 0 : 1)'")
}

/// Asks the engine for a container with a part of its configuration, and exits as its shell's command does. The docker command checks
/// devices against a word that podman does not say.
const ASK: &str = r#"use strict;
use IO::Socket::UNIX;
sub ask {
    my ($path, $body) = @_;
    my $socket = IO::Socket::UNIX->new(Peer => "/engine/docker.sock") or exit 90;
    my $length = length $body;
    print $socket "POST $path HTTP/1.1\r\nHost: d\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: $length\r\n\r\n$body";
    local $/;
    return <$socket>;
}
my ($image, $host, $command) = @ARGV;
my $made = ask("/containers/create", "{\"Image\":\"$image\",\"HostConfig\":$host,\"Cmd\":[\"sh\",\"-c\",\"$command\"]}");
my ($id) = $made =~ /"Id":"([0-9a-f]+)"/ or exit 91;
ask("/containers/$id/start", "") =~ m,^HTTP/1.1 204, or exit 92;
my ($code) = ask("/containers/$id/wait", "") =~ /"StatusCode":(\d+)/ or exit 93;
exit $code;
"#;

fn ask(host: &Value, command: &str) -> String {
    format!("chroot /host /usr/bin/perl /workspace/ask.pl {TOOLS} '{host}' '{command}'")
}

fn device(path: &str) -> String {
    let device = json!({ "PathOnHost": path, "PathInContainer": path, "CgroupPermissions": "rwm" });
    ask(&json!({ "Devices": [device] }), &format!(": < {path}"))
}

/// `ptrace`, to attach to a process.
#[cfg(target_arch = "x86_64")]
const TRACE: &str = "syscall(101, 16, $p, 0, 0) == 0";
#[cfg(not(target_arch = "x86_64"))]
const TRACE: &str = "syscall(117, 16, $p, 0, 0) == 0";

/// What the engine is asked for by its socket, and the processes around.
fn asked(data: &Path) -> Vec<(&'static str, String)> {
    let bind = |from: &str| json!({ "Binds": [format!("{from}:/x")] });
    let trace = format!(
        "chroot /host /usr/bin/perl -e 'my %own = map {{ $_ => 1 }} @ARGV; for my $p (1..40000) {{ exit 0 if !$own{{$p}} && {TRACE} }} exit 1' $(cd /proc; ls -d [0-9]*)"
    );
    let mut cases = vec![
        (
            "the data directory by the engine",
            ask(&bind(&data.display().to_string()), "ls /x/kiln.db"),
        ),
        (
            "accounts by the engine",
            ask(&bind("/etc"), "grep . /x/shadow"),
        ),
        (
            "processes by the engine",
            ask(&json!({ "PidMode": "host" }), "true"),
        ),
        (
            "control groups by the engine",
            ask(
                &json!({ "CgroupnsMode": "host", "Privileged": true }),
                "ls /sys/fs/cgroup/*/tasks /sys/fs/cgroup/cgroup.procs | grep .",
            ),
        ),
        ("a process traced", trace),
        (
            "the sandbox's init",
            "readlink /host/proc/1/exe | grep .".to_owned(),
        ),
        (
            "the environment of the sandbox's init",
            "dd if=/host/proc/1/environ bs=1 count=1".to_owned(),
        ),
        (
            "the memory of the sandbox's init",
            "head -c 1 /host/proc/1/maps | grep .".to_owned(),
        ),
        (
            "the descriptors of the sandbox's init",
            "ls /host/proc/1/fd | grep .".to_owned(),
        ),
    ];
    for path in [
        "/dev/vda",
        "/dev/sda",
        "/dev/nvme0n1",
        "/dev/mem",
        "/dev/kvm",
        "/dev/fuse",
        "/dev/loop-control",
        "/dev/mapper/control",
    ] {
        cases.push(("a device by the engine", device(path)));
    }
    cases
}

/// What is to be reached, so that a refusal says something.
fn controls() -> Vec<(&'static str, String)> {
    vec![
        ("the engine's root", "ls /host/usr/bin/podman".to_owned()),
        ("the engine's processes", "grep -l podman /proc/[0-9]*/cmdline".to_owned()),
        ("a mount of its own", "mount -t tmpfs none /mnt || { mkdir /m && mount -t tmpfs none /m; }".to_owned()),
        ("the build's workspace", "ls /host/workspace/attack.sh".to_owned()),
        #[cfg(target_arch = "x86_64")]
        ("a system call", call(39, "0")),
        ("a device of the engine's", device("/dev/net/tun")),
        ("a mount by the engine", ask(&json!({ "Binds": ["/workspace:/x"] }), "ls /x/attack.sh")),
        ("a process of its own traced", format!("chroot /host /usr/bin/perl -e 'my $p = fork; if (!$p) {{ sleep 2; exit }} exit({TRACE} ? 0 : 1)'")),
        ("the engine's program", "for p in /host/proc/[0-9]*; do readlink $p/exe; done | grep podman".to_owned()),
        ("its own loopback", "nc -l -p 4711 -e /bin/echo HTTP & sleep 0.3; nc -w 2 127.0.0.1 4711 < /dev/null | grep HTTP".to_owned()),
    ]
}

fn files(data: &Path, word: &str) -> Vec<(&'static str, String)> {
    let data = data.display();
    vec![
        (
            "the data directory",
            format!("ls -d {data} /host{data} | grep ."),
        ),
        (
            "the data directory of another root",
            format!("ls -d /proc/[0-9]*/root{data} | grep ."),
        ),
        (
            "the data directory of a working directory",
            "ls -d /proc/[0-9]*/cwd/kiln.db /proc/[0-9]*/cwd/data/kiln.db | grep .".to_owned(),
        ),
        (
            "the database",
            "find /host -xdev -name kiln.db | grep .".to_owned(),
        ),
        (
            "a descriptor of the server's",
            "ls -l /proc/[0-9]*/fd | grep -e kiln.db -e authority.json".to_owned(),
        ),
        (
            "another build's workspace",
            format!(
                "find /host/workspace /host/builder /host/var /host/root /host/tmp -name {word} | grep ."
            ),
        ),
        (
            "images of all builds",
            "mount -o remount,bind,rw /host/images; touch /host/images/attacked; ls -A /host/images | grep -v attacked"
                .to_owned(),
        ),
        (
            "the machine's programs",
            "mount -o remount,bind,rw /host/usr; touch /host/usr/attacked".to_owned(),
        ),
        (
            "the machine's accounts",
            "grep . /host/etc/shadow".to_owned(),
        ),
    ]
}

fn machine(word: &str) -> Vec<(&'static str, String)> {
    vec![
        ("processes of the server", "grep -l -a -e --open-to-this-machin[e] /proc/[0-9]*/cmdline".to_owned()),
        ("processes of another build", format!("grep -l -a -e {word} /proc/[0-9]*/cmdline")),
        ("a block device made", "mknod /tmp/block b 7 0".to_owned()),
        ("the memory's device made", "mknod /tmp/mem c 1 1".to_owned()),
        ("a loop device", "ls /dev/loop* /host/dev/loop* | grep .".to_owned()),
        ("a file mounted by a loop device", "dd if=/dev/zero of=/tmp/fs bs=1M count=1 && mount -o loop /tmp/fs /host/mnt".to_owned()),
        ("a disk", "ls /dev/sd* /dev/vd* /dev/nvme* /host/dev/sd* /host/dev/vd* | grep .".to_owned()),
        ("devtmpfs", "mkdir -p /d && mount -t devtmpfs none /d".to_owned()),
        ("debugfs", "mkdir -p /d && mount -t debugfs none /d".to_owned()),
        ("a setting of the kernel", "cat /proc/sys/kernel/panic > /tmp/v; cat /tmp/v > /proc/sys/kernel/panic".to_owned()),
        ("a setting of memory", "echo 1 > /proc/sys/vm/drop_caches".to_owned()),
        ("the core pattern", "cat /proc/sys/kernel/core_pattern > /tmp/v; cat /tmp/v > /proc/sys/kernel/core_pattern".to_owned()),
        ("sysrq", "echo h > /proc/sysrq-trigger".to_owned()),
        ("the kernel's memory", "dd if=/proc/kcore bs=1 count=1 | grep .".to_owned()),
        ("a control group", "ls /host/sys/fs/cgroup/* || { mkdir -p /c && mount -t cgroup2 none /c && mkdir /c/attack; } || { mount -t cgroup -o memory none /c && { mkdir /c/attack || echo /x > /c/release_agent; }; }".to_owned()),
        ("the clock", call(CLOCK, "0, 0")),
        ("a module", "insmod /tmp/v".to_owned()),
        ("a reboot", "reboot -f".to_owned()),
        ("the time of its namespaces' makers", "nsenter -t 1 -U true && nsenter -t 1 -m ls /home/*/.ssh".to_owned()),
    ]
}

/// Keyrings belong to no namespace, and the other calls reach past all of them.
fn calls() -> Vec<(&'static str, String)> {
    #[cfg(target_arch = "x86_64")]
    const NUMBERS: [(&str, u32, &str); 6] = [
        ("keyctl", 250, "0, -3, 1"),
        ("a new keyring", 250, "1, 0"),
        ("a key", 248, "\"user\", \"attack\", \"x\", 1, -3"),
        ("bpf", 321, "5, \"\\0\" x 72, 72"),
        (
            "a performance counter",
            298,
            "\"\\1\\0\\0\\0\" . \"\\0\" x 124, -1, 0, -1, 0",
        ),
        ("the kernel's log", 103, "10, 0, 0"),
    ];
    #[cfg(not(target_arch = "x86_64"))]
    const NUMBERS: [(&str, u32, &str); 2] =
        [("keyctl", 219, "0, -3, 1"), ("a new keyring", 219, "1, 0")];
    let case = |(name, number, arguments)| (name, call(number, arguments));
    NUMBERS.map(case).to_vec()
}

fn network(server: u16, beacon: u16) -> Vec<(&'static str, String)> {
    let web = |host: &str, port: u16| {
        format!(
            "printf 'GET /healthz HTTP/1.0\\r\\n\\r\\n' | timeout 2 nc {host} {port} | grep -a HTTP"
        )
    };
    let mut cases = vec![
        ("the server on loopback", web("127.0.0.1", server)),
        ("the server on another loopback", web("127.1.2.3", beacon)),
        ("the server on ::1", web("::1", server)),
        ("the address of nothing", web("0.0.0.0", beacon)),
        ("the metadata service", web("169.254.169.254", 80)),
        ("a link-local address", web("169.254.1.1", beacon)),
        (
            "an abstract socket",
            "grep -a -e @/tmp/dbus -e systemd /proc/net/unix".to_owned(),
        ),
    ];
    if let Some(own) = own_address() {
        cases.push(("the machine's own address", web(&own.to_string(), beacon)));
        cases.push(("an echo of the machine", format!("ping -c 1 -W 1 {own}")));
    }
    for name in interfaces() {
        cases.push((
            "an interface of the machine",
            format!("grep ' *{name}:' /proc/net/dev"),
        ));
    }
    cases
}

#[test]
fn no_container_reaches_the_machine_or_another_build() {
    let server = Server::open();
    load_docker(&server);
    load_busybox(&server, &format!("{TOOLS}:latest"));
    let word = "theirs-4f1c";
    let victim = json!({ "name": TOOLS, "args": ["sh", "-c", format!("touch {word}; sleep 86421; : {word}")] });
    let victim = server.create(&json!({ "steps": [victim] }));
    wait_until("no victim", || !processes("sleep 86421").is_empty());

    let reached = controls();
    let mut refused = files(&server.data(), word);
    refused.extend(machine("8642[1]"));
    refused.extend(calls());
    refused.extend(asked(&server.data()));
    refused.extend(network(server.address.port(), beacon()));
    let source = server.source(&[
        (
            "attack.sh",
            &script(&[reached.clone(), refused.clone()].concat()),
        ),
        ("ask.pl", ASK),
        ("end.sh", "kill -9 -1\n"),
    ]);
    let build = server.create(&json!({ "source": source, "steps": [privileged("attack.sh")] }));
    let ended = server.end(&build);
    let log = server.log(&build);
    assert_eq!(ended["status"], "SUCCESS", "{ended}\n{log}");
    let wrong = |word: &str, cases: &[(&str, String)]| -> Vec<String> {
        let lines = cases.iter().map(|(name, _)| format!("{word} {name}."));
        lines.filter(|line| !log.contains(line)).collect()
    };
    let missing = [wrong("reached", &reached), wrong("refused", &refused)].concat();
    assert!(missing.is_empty(), "{missing:#?} are not in\n{log}");
    // Several cases have one name.
    let names = refused.iter().map(|(name, _)| format!("reached {name}."));
    let worked: Vec<String> = names.filter(|line| log.contains(line)).collect();
    assert!(worked.is_empty(), "{worked:#?} are in\n{log}");
    assert!(!server.data().join("images/attacked").exists());

    // A container without control groups has its own processes, or there is none.
    let step = json!({ "name": "gcr.io/cloud-builders/docker", "args": ["run", "--pid", "host", TOOLS, "ps"] });
    let build = server.create(&json!({ "steps": [step] }));
    let ended = server.end(&build);
    assert_eq!(ended["steps"][0]["exitCode"], 125, "{ended}");
    assert!(server.log(&build).contains("private PID namespace"));

    // Killing all that can be seen ends the build that does it, and nothing else.
    let build = server.create(&json!({ "source": source, "steps": [privileged("end.sh")] }));
    let ended = server.end(&build);
    assert_eq!(
        ended["status"],
        "FAILURE",
        "{ended}\n{}",
        server.log(&build)
    );
    assert_eq!(server.request("GET", "/healthz", "", b"").0, 200);
    assert_eq!(server.get(&victim)["status"], "WORKING");
    assert!(!processes("sleep 86421").is_empty());
    server.json("POST", &format!("{BUILDS}/{victim}:cancel"), &json!({}));
    server.end(&victim);
}

/// What containers leave in a workspace: links and pipes are not read, a link is no way out for Kiln's own step, and files of any
/// owner and mode go when the build goes.
#[test]
fn what_containers_leave_does_no_harm() {
    let server = Server::open();
    load_busybox(&server, &format!("{TOOLS}:latest"));
    server.bucket("out");
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("secret"), "secret").unwrap();
    let at = outside.path().display();
    let leave = script(&[])
        + &format!(
            "mkdir -p a/b c && echo kept > a/kept && ln -s {at}/secret a/secret && ln -s {at} c/out && mkfifo a/pipe manifest.json kiln.lock\n\
         ln -s {at} out && echo x > a/b/deep && chown -R 4242:4343 a/b && chmod 000 a/b && chmod 4755 /bin/busybox\n\
         cp /bin/busybox a/setuid && chmod 6755 a/setuid && chown 1:1 a/setuid && mkdir -p 'z\n z' && chmod 0 'z\n z'\n"
        );
    let steps = json!([{ "name": TOOLS, "script": leave }]);
    let with = |steps: &Value, paths: Value| {
        server.create(&json!({
            "steps": steps, "artifacts": { "objects": { "location": "gs://out/", "paths": paths } },
        }))
    };
    let kept = with(&steps, json!(["a/kept"]));
    let build = server.end(&kept);
    assert_eq!(build["status"], "SUCCESS", "{build}\n{}", server.log(&kept));
    for path in ["a/secret", "a/pipe", "c/out/secret", "out/secret"] {
        let id = with(&steps, json!([path]));
        let build = server.end(&id);
        assert_eq!(
            build["failureInfo"]["type"], "PUSH_FAILED",
            "{path}: {build}"
        );
    }
    let mut kiln = steps.clone();
    let step = json!({ "name": "kiln", "args": ["check", "x.ks"], "dir": "out/made" });
    kiln.as_array_mut().unwrap().push(step);
    let id = server.create(&json!({ "steps": kiln }));
    let build = server.end(&id);
    let log = server.log(&id);
    assert_eq!(build["status"], "FAILURE", "{build}");
    assert!(log.contains("is not below /workspace"), "{log}");
    assert!(!outside.path().join("made").exists());

    // Retention removes all of it: two days later, as the server sees it.
    let back = "import sqlite3,sys; c = sqlite3.connect(sys.argv[1]); c.execute(\"UPDATE builds SET build = json_set(build, '$.finishTime', '2026-01-01T00:00:00Z')\"); c.commit()";
    let done = Command::new("python3")
        .args(["-c", back])
        .arg(server.data().join("kiln.db"))
        .status()
        .expect("python3");
    assert!(done.success());
    let mut server = server;
    server.kill_and_start_with(&[OPEN, &["--keep-for", "1"]].concat());
    let builds = server.data().join("builds");
    wait_until("a build is left", || {
        fs::read_dir(&builds).unwrap().next().is_none()
    });
}
