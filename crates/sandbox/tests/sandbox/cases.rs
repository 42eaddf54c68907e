//! The cases. Each gets a fresh root.

use std::fs;
use std::io::{Read, Seek, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use kiln_sandbox::{
    Body, Call, CallError, CancelToken, ErrorKind, Function, Io, Mount, Needs, Network, Root,
    Status, Stdin, Stream, Verdict,
};
use libtest_mimic::Failed;
use serde_json::{Value, json};

use crate::fixture::{Fixture, With, check, equal};
use crate::{Case, kill};

type Outcome = Result<(), Failed>;

/// Registered in the sandbox child.
pub(crate) const FUNCTIONS: &[(&str, Function)] = &[
    ("echo", echo),
    ("panic", |_| panic!("on purpose")),
    ("fail", fail),
    ("flush", flush),
    ("wait", wait),
    ("threads", threads),
];

/// Cases that root and an ordinary user must both pass.
pub(crate) const BOTH: &[(&str, Case)] = &[
    ("ids_are_mapped_and_owners_kept", ids),
    ("exit_codes_and_signals", statuses),
    ("missing_programs_are_explained", missing_programs),
    ("output_arrives_in_order", output),
    ("input_comes_from_memory", input),
    ("environment_and_directory_are_exact", environment),
    ("syslog_and_console_are_lines", syslog),
    ("calls_return_values_and_messages", calls),
    ("calls_that_fail_or_panic_say_why", failing_calls),
    ("flushing_does_nothing", flushing),
    ("network_none_and_host", network),
    ("host_mounts_are_untouched", host_mounts),
    ("host_files_are_out_of_reach", escape),
    ("read_only_mounts_stay_so", read_only),
    ("mounts_and_their_residue", mounts),
    ("another_root_is_mounted_below", tree),
    ("links_are_followed_inside_the_root", links),
    ("two_hundred_layers", layers),
    ("layers_without_a_writable_one", read_only_layers),
    ("the_same_upper_again_and_again", reuse),
    ("only_handed_descriptors_are_there", descriptors),
    ("no_new_privileges_is_off_and_the_filter_on", privileges),
    ("a_background_process_ends_with_its_script", background),
    ("a_time_limit_ends_everything", time_limit),
    ("cancelling_ends_everything", cancelling),
    ("a_gigabyte_of_output_is_dropped", flood),
    ("limits_are_set_and_only_lowered", limits),
    ("many_runs_at_once", parallel),
    ("usage_is_measured", usage),
    ("a_terminal_is_passed_through", terminal),
    ("deep_and_foreign_trees_are_removed", removal),
    ("the_doctor_finds_all_well", doctor),
    ("bad_requests_are_refused", bad_requests),
    ("a_killed_caller_leaves_nothing", kill::leaves_nothing),
];

/// Cases that only root can set up.
pub(crate) const ROOT_ONLY: &[(&str, Case)] = &[
    ("zz_oom", oom),
    ("a_root_in_a_closed_home_works", closed_home),
    ("root_inside_is_not_root_outside", shifted),
];

fn echo(call: Call) -> Result<Value, CallError> {
    for number in 0..3 {
        call.emit(json!({ "number": number }));
    }
    let mut texts = Vec::new();
    for fd in call.fds {
        let mut text = String::new();
        let mut file = fs::File::from(fd);
        let read = file
            .read_to_string(&mut text)
            .and_then(|_| file.write_all(b" and back"));
        read.map_err(|error| {
            CallError::new(ErrorKind::Internal, "using a descriptor").because(error)
        })?;
        texts.push(text);
    }
    let names: Vec<String> = fs::read_dir("/")
        .map_err(|error| CallError::new(ErrorKind::Internal, "listing /").because(error))?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect();
    Ok(
        json!({ "payload": call.payload, "texts": texts, "has_bin": names.contains(&"bin".to_owned()) }),
    )
}

fn fail(_: Call) -> Result<Value, CallError> {
    Err(CallError::new(ErrorKind::Input, "reading the list")
        .cause("line 3")
        .hint("mend it"))
}

/// What the flushing system calls return for a descriptor that cannot be flushed.
fn flush(_: Call) -> Result<Value, CallError> {
    let path = rustix::fs::open("/", rustix::fs::OFlags::PATH, rustix::fs::Mode::empty())
        .map_err(|error| CallError::new(ErrorKind::Internal, "opening /").because(error))?;
    let results = [
        rustix::fs::fsync(&path),
        rustix::fs::fdatasync(&path),
        rustix::fs::syncfs(&path),
    ];
    Ok(json!(results.map(|result| result.is_ok())))
}

fn wait(call: Call) -> Result<Value, CallError> {
    std::thread::sleep(Duration::from_secs(call.payload.as_u64().unwrap_or(0)));
    Ok(Value::Null)
}

fn threads(call: Call) -> Result<Value, CallError> {
    let threads: Vec<_> = (0..8)
        .map(|thread| {
            let emitter = call.emitter.clone();
            std::thread::spawn(move || {
                (0..50).for_each(|n| emitter.emit(json!([thread, n, "x".repeat(5000)])))
            })
        })
        .collect();
    let joined = threads.into_iter().all(|thread| thread.join().is_ok());
    Ok(json!(joined))
}

fn ids(f: &Fixture) -> Outcome {
    let script = "id -u; id -g; touch /etc/a /etc/b; chown 42:65534 /etc/a; chown 1000:7 /etc/b; stat -c %u:%g /etc/a /etc/b";
    equal(f.output_of(script)?, "0\n0\n42:65534\n1000:7".into())?;
    let data = fs::metadata(f.path("upper/etc/a"))?;
    equal(Some(data.uid()), f.sandbox.ids().host_uid(42))?;
    equal(Some(data.gid()), f.sandbox.ids().host_gid(65534))
}

fn statuses(f: &Fixture) -> Outcome {
    for (script, status) in [
        ("exit 0", Status::Exited(0)),
        ("exit 7", Status::Exited(7)),
        ("kill -TERM $$", Status::Signaled(15)),
    ] {
        let outcome = f.run(&f.script(script))?.outcome;
        equal((outcome.status, outcome.value), (status, None))?;
    }
    // A pipe whose reader has gone ends its writer, as it does outside of Rust programs.
    equal(
        f.output_of("(yes; echo $? > /root/code) | head -n 1; sleep 0.2; cat /root/code")?,
        "y\n141".into(),
    )
}

fn missing_programs(f: &Fixture) -> Outcome {
    let run = |program: &str| {
        let request = f.request(Body::Exec {
            argv: vec![program.to_owned()],
        });
        f.try_run(&request, With::default())
            .err()
            .ok_or_else(|| Failed::from(format!("{program} ran")))
    };
    let error = run("no-such-program")?;
    check(error.to_string().contains("looked for in /bin"), || {
        error.to_string()
    })?;
    equal(error.kind, ErrorKind::Step)?;
    f.output_of("printf '#!/no/such/interpreter\\n' > /bin/x; chmod 755 /bin/x; echo > /bin/y; chmod 644 /bin/y")?;
    let hint = run("x")?.hint.unwrap_or_default();
    check(hint.contains("interpreter"), || hint.clone())?;
    let hint = run("/bin/y")?.hint.unwrap_or_default();
    check(hint.contains("executable"), || hint.clone())
}

fn output(f: &Fixture) -> Outcome {
    let seen = f.run(&f.script("for i in 1 2 3; do echo out $i; sleep 0.05; echo err $i >&2; sleep 0.05; done; printf tail"))?;
    let lines: Vec<_> = seen
        .lines
        .iter()
        .map(|(stream, line)| (*stream, line.as_str()))
        .collect();
    let (out, err) = (Stream::Stdout, Stream::Stderr);
    let wanted = [
        (out, "out 1"),
        (err, "err 1"),
        (out, "out 2"),
        (err, "err 2"),
        (out, "out 3"),
        (err, "err 3"),
        (out, "tail"),
    ];
    equal(lines, wanted.to_vec())
}

fn input(f: &Fixture) -> Outcome {
    let bytes = "0123456789abcde\n".repeat(1 << 16).into_bytes();
    let seen = f.run_with(
        &f.script("wc -c; cat /dev/stdin | head -n 1"),
        With {
            stdin: Stdin::Bytes(bytes),
            ..With::default()
        },
    )?;
    // Opened again, the file begins anew, as any file does.
    equal(seen.stdout(), "1048576\n0123456789abcde".into())?;
    equal(f.output_of("wc -c")?, "0".into())
}

fn environment(f: &Fixture) -> Outcome {
    let mut request = f
        .script("env | grep -v -e ^PWD= -e ^SHLVL=; cat /proc/self/environ | wc -c; hostname; pwd");
    request.env.push(("LANG".into(), "C.UTF-8".into()));
    request.cwd = "/etc".into();
    equal(
        f.run(&request)?
            .stdout()
            .lines()
            .map(str::to_owned)
            .collect::<Vec<_>>()
            .split_off(3),
        vec!["kiln".to_owned(), "/etc".to_owned()],
    )?;
    request.cwd = "/nowhere".into();
    let error = f
        .try_run(&request, With::default())
        .err()
        .ok_or("a missing working directory was accepted")?;
    check(error.to_string().contains("/nowhere"), || error.to_string())
}

fn syslog(f: &Fixture) -> Outcome {
    let seen = f.run(&f.script(
        "logger -t unit hello; echo boot > /dev/console; echo note > /dev/kmsg; sleep 0.1",
    ))?;
    equal(seen.text(Stream::Syslog), "unit: hello".into())?;
    equal(seen.text(Stream::Console), "boot\nnote".into())
}

fn calls(f: &Fixture) -> Outcome {
    let mut file = tempfile::tempfile()?;
    file.write_all(b"there")?;
    file.rewind()?;
    let handed = OwnedFd::from(file.try_clone()?);
    let seen = f.run_with(
        &f.call("echo", json!(["x"])),
        With {
            fds: vec![handed],
            ..With::default()
        },
    )?;
    equal(
        seen.outcome.value,
        Some(Ok(
            json!({ "payload": ["x"], "texts": ["there"], "has_bin": true }),
        )),
    )?;
    equal(
        seen.messages,
        (0..3).map(|number| json!({ "number": number })).collect(),
    )?;
    let mut text = String::new();
    file.rewind()?;
    file.read_to_string(&mut text)?;
    equal(text.as_str(), "there and back")?;
    let seen = f.run(&f.call("threads", Value::Null))?;
    equal(
        (seen.messages.len(), seen.outcome.value),
        (400, Some(Ok(json!(true)))),
    )
}

fn failing_calls(f: &Fixture) -> Outcome {
    let outcome = f.run(&f.call("fail", Value::Null))?.outcome;
    let wanted = CallError::new(ErrorKind::Input, "reading the list")
        .cause("line 3")
        .hint("mend it");
    equal(
        (outcome.status, outcome.value),
        (Status::Exited(1), Some(Err(wanted))),
    )?;
    let seen = f.run(&f.call("panic", Value::Null))?;
    let error = seen
        .outcome
        .value
        .clone()
        .and_then(Result::err)
        .ok_or("a panic was no error")?;
    equal(error.kind, ErrorKind::Internal)?;
    equal(error.causes, vec!["on purpose".to_owned()])?;
    let error = f
        .try_run(&f.call("unknown", Value::Null), With::default())
        .err()
        .ok_or("an unknown function ran")?;
    equal(error.kind, ErrorKind::Internal)
}

fn flushing(f: &Fixture) -> Outcome {
    let path = rustix::fs::open("/", rustix::fs::OFlags::PATH, rustix::fs::Mode::empty())?;
    equal(rustix::fs::fsync(&path), Err(rustix::io::Errno::BADF))?;
    equal(
        f.run(&f.call("flush", Value::Null))?.outcome.value,
        Some(Ok(json!([true, true, true]))),
    )
}

fn network(f: &Fixture) -> Outcome {
    let script = "readlink /proc/self/ns/net; grep -c : /proc/net/dev; ls /sys/class/net";
    let own = fs::read_link("/proc/self/ns/net")?
        .to_string_lossy()
        .into_owned();
    let none = f.output_of(script)?;
    check(!none.contains(&own) && none.ends_with("\n1\nlo"), || {
        none.clone()
    })?;
    let up = f.output_of(
        "nc -l -p 7777 > /root/got & sleep 0.3; echo loop | nc 127.0.0.1 7777; wait; cat /root/got",
    )?;
    equal(up, "loop".into())?;
    let mut request = f.script(script);
    request.network = Network::Host;
    let host = f.run(&request)?.stdout();
    check(host.starts_with(&own), || host.clone())
}

fn host_mounts(f: &Fixture) -> Outcome {
    let before = fs::read_to_string("/proc/self/mountinfo")?;
    f.output_of("mount > /root/mounts")?;
    equal(fs::read_to_string("/proc/self/mountinfo")?, before)
}

fn escape(f: &Fixture) -> Outcome {
    // Every way up ends at the sandbox's own root.
    let marker = "bin dev etc proc root run sys tmp";
    for way in [
        "/..",
        "/dev/..",
        "/dev/pts/../..",
        "/proc/..",
        "/proc/self/root",
        "/proc/self/root/..",
    ] {
        equal(f.output_of(&format!("echo $(ls {way})"))?, marker.into())?;
    }
    equal(
        f.output_of("for way in root cwd fd; do ls /proc/1/$way/ 2>/dev/null; done; true")?,
        String::new(),
    )?;
    equal(
        f.output_of("echo 1 2>&- > /proc/sysrq-trigger || echo no")?,
        "no".into(),
    )?;
    equal(
        f.output_of("ls -d /proc/[0-9]* | wc -l")?
            .trim()
            .parse::<u32>()?
            <= 5,
        true,
    )
}

fn read_only(f: &Fixture) -> Outcome {
    let shared = f.path("shared");
    fs::create_dir(&shared)?;
    fs::set_permissions(&shared, PermissionsExt::from_mode(0o777))?;
    let mut request = f.script(
        "echo x > /mnt/x; echo $?; mount -o remount,rw,bind /mnt; echo $?; umount /proc/kcore; echo $?; \
         unshare -m true; echo $?; echo 0 > /proc/sys/kernel/hostname; echo $?",
    );
    request.mounts.push(Mount::Bind {
        source: shared.clone(),
        target: "/mnt".into(),
        writable: false,
    });
    let seen = f.run(&request)?;
    check(seen.stdout().lines().all(|code| code != "0"), || {
        format!("{seen:?}")
    })?;
    equal(fs::read_dir(shared)?.count(), 0)
}

fn mounts(f: &Fixture) -> Outcome {
    let shared = f.path("shared");
    f.sandbox.create_owned_dir(&shared, 0o755)?;
    let before = fs::metadata(f.path("base/run"))?.mtime();
    let mut request = f.script(
        "cat /run/a/b/conf; stat -c %a /run/a/b/conf; echo back > /run/host/x; readlink /tmp/link; \
         echo > /run/a/b/conf; echo $?; touch /run/kept/file",
    );
    request.mounts.extend([
        Mount::File {
            target: "/run/a/b/conf".into(),
            content: b"bytes".to_vec(),
            mode: 0o640,
        },
        Mount::Bind {
            source: shared.clone(),
            target: "/run/host".into(),
            writable: true,
        },
        Mount::Symlink {
            target: "/tmp/link".into(),
            to: "/run".into(),
        },
        Mount::Tmpfs {
            target: "/run/kept".into(),
            mode: 0o755,
        },
    ]);
    let seen = f.run(&request)?;
    equal(seen.stdout(), "bytes640\n/run\n1".into())?;
    equal(fs::read_to_string(shared.join("x"))?, "back\n".into())?;
    // Mount points that the run made are gone, and the directory they were in looks untouched.
    equal(fs::read_dir(f.path("upper/run"))?.count(), 0)?;
    equal(fs::metadata(f.path("upper/run"))?.mtime(), before)?;
    // One that is in use stays.
    let mut request = f.script("echo own > /etc/new; mkdir /run/x; true");
    request.mounts.push(Mount::Tmpfs {
        target: "/run/y".into(),
        mode: 0o755,
    });
    f.run(&request)?;
    equal(fs::read_dir(f.path("upper/run"))?.count(), 1)
}

fn tree(f: &Fixture) -> Outcome {
    f.output_of("echo own > /etc/own")?;
    let mut request = f.script("cat /run/root/etc/own; echo more > /run/root/etc/more");
    request.root = Root::Layers {
        lower: vec![f.path("base")],
    };
    request.mounts.push(Mount::Tmpfs {
        target: "/run".into(),
        mode: 0o755,
    });
    request.mounts.push(Mount::Tree {
        target: "/run/root".into(),
        tree: f.root(),
    });
    equal(f.run(&request)?.stdout(), "own".into())?;
    equal(
        fs::read_to_string(f.path("upper/etc/more"))?,
        "more\n".into(),
    )
}

fn links(f: &Fixture) -> Outcome {
    f.output_of("ln -s ../run/systemd/resolve/conf /etc/resolv.conf; ln -s /../../../etc /up; ln -s loop /loop")?;
    let mut request = f.script("cat /etc/resolv.conf /up/other");
    let file = |target: &str, text: &str| Mount::File {
        target: target.into(),
        content: text.into(),
        mode: 0o644,
    };
    request.mounts.extend([
        file("/etc/resolv.conf", "one\n"),
        file("/up/other", "two\n"),
    ]);
    equal(f.run(&request)?.stdout(), "one\ntwo".into())?;
    equal(f.output_of("ls /run; ls /etc")?, "resolv.conf".into())?;
    request.mounts = vec![file("/loop/x", "")];
    let error = f
        .try_run(&request, With::default())
        .err()
        .ok_or("a loop of links was accepted")?;
    check(
        error.to_string().contains("too many symbolic links"),
        || error.to_string(),
    )?;
    request.mounts = vec![file("/bin", "")];
    let error = f
        .try_run(&request, With::default())
        .err()
        .ok_or("a file was mounted on a directory")?;
    check(error.to_string().contains("is a directory"), || {
        error.to_string()
    })
}

fn numbered_layers(f: &Fixture, count: usize) -> Result<Vec<PathBuf>, Failed> {
    let mut lower: Vec<PathBuf> = (0..count)
        .map(|n| f.path(&format!("layer-with-a-rather-long-name-{n}")))
        .collect();
    for (number, path) in lower.iter().enumerate() {
        fs::create_dir(path)?;
        fs::write(path.join(format!("f{number}")), "x")?;
        fs::write(path.join("top"), format!("{number}\n"))?;
    }
    f.give_to_root_inside(f.dir.path())?;
    lower.push(f.path("base"));
    Ok(lower)
}

fn layers(f: &Fixture) -> Outcome {
    let mut request =
        f.script("ls / | grep -c ^f; cat /top; rm /f7; echo new > /top; ls / | grep -c ^f");
    request.root = Root::Overlay {
        lower: numbered_layers(f, 200)?,
        upper: f.path("upper"),
        work: f.path("work"),
    };
    equal(f.run(&request)?.stdout(), "200\n0\n199".into())?;
    equal(fs::read_to_string(f.path("upper/top"))?, "new\n".into())
}

fn read_only_layers(f: &Fixture) -> Outcome {
    let mut request = f.script("cat /top; echo > /etc/x; echo $?");
    request.root = Root::Layers {
        lower: numbered_layers(f, 3)?,
    };
    equal(f.run(&request)?.stdout(), "0\n1".into())?;
    request.root = Root::Layers {
        lower: vec![f.path("base")],
    };
    equal(f.run(&request)?.stdout(), "1".into())?;
    request.root = Root::Dir {
        path: f.path("base"),
        writable: false,
    };
    equal(f.run(&request)?.stdout(), "1".into())?;
    request.mounts.push(Mount::Tmpfs {
        target: "/absent".into(),
        mode: 0o755,
    });
    let error = f
        .try_run(&request, With::default())
        .err()
        .ok_or("a mount point was made in a read-only root")?;
    check(error.to_string().contains("/absent"), || error.to_string())
}

fn reuse(f: &Fixture) -> Outcome {
    for round in 0..4 {
        equal(
            f.output_of("echo x >> /etc/count; wc -l < /etc/count")?,
            format!("{}", round + 1),
        )?;
    }
    let mut request = f.script("cat /etc/count | wc -l");
    request.root = Root::Overlay {
        lower: vec![f.path("upper"), f.path("base")],
        upper: f.path("u2"),
        work: f.path("w2"),
    };
    let seen = f.run(&request)?;
    f.sandbox.remove_trees(&[f.path("u2"), f.path("w2")])?;
    equal(seen.stdout(), "4".into())
}

fn descriptors(f: &Fixture) -> Outcome {
    // Left open across exec on purpose, as a careless library would.
    let leaked = rustix::fs::open("/", rustix::fs::OFlags::RDONLY, rustix::fs::Mode::empty())?;
    let handed = leaked.try_clone()?;
    let seen = f.run_with(
        &f.script("echo /proc/self/fd/*; ls /proc/$$/fd; true"),
        With {
            fds: vec![handed],
            ..With::default()
        },
    )?;
    let numbers = seen
        .stdout()
        .lines()
        .skip(1)
        .map(str::to_owned)
        .collect::<Vec<_>>();
    equal(numbers, ["0", "1", "10", "2"].map(str::to_owned).to_vec())
}

fn privileges(f: &Fixture) -> Outcome {
    // No signal stays ignored or blocked because Kiln, or what started it, wanted it so.
    let request = f.request(Body::Exec {
        argv: ["grep", "-e", "SigBlk", "-e", "SigIgn", "/proc/self/status"]
            .map(str::to_owned)
            .to_vec(),
    });
    equal(
        f.run(&request)?.stdout(),
        "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000".into(),
    )?;
    let status = f.output_of("grep -e NoNewPrivs -e ^Seccomp: -e ^CapAmb /proc/self/status")?;
    equal(
        status,
        "CapAmb:\t0000000000000000\nNoNewPrivs:\t0\nSeccomp:\t2".into(),
    )
}

fn background(f: &Fixture) -> Outcome {
    let start = Instant::now();
    let seen =
        f.run(&f.script("(setsid sleep 1000 &); (trap '' TERM HUP; sleep 1000) & echo done"))?;
    equal(
        (seen.stdout(), seen.outcome.status),
        ("done".into(), Status::Exited(0)),
    )?;
    check(start.elapsed() < Duration::from_secs(30), || {
        format!("{:?}", start.elapsed())
    })
}

fn time_limit(f: &Fixture) -> Outcome {
    let mut request = f.script("trap '' TERM; echo begun; (setsid sleep 1000 &) ; sleep 1000");
    request.limits.seconds = Some(3);
    let start = Instant::now();
    let seen = f.run(&request)?;
    equal(
        (seen.stdout(), seen.outcome.status),
        ("begun".into(), Status::TimedOut),
    )?;
    check(start.elapsed() < Duration::from_secs(30), || {
        format!("{:?}", start.elapsed())
    })?;
    // A run that is ended still takes its mount points back.
    equal(fs::read_dir(f.path("upper"))?.count(), 0)
}

fn cancelling(f: &Fixture) -> Outcome {
    let token = CancelToken::new()?;
    let start = Instant::now();
    // From another thread, as a signal handler or a server would.
    let mut output = |_: Stream, _: &str| {
        let token = token.clone();
        std::thread::spawn(move || token.cancel());
    };
    let mut message = |_: Value| {};
    let mut io = Io::new(&mut output, &mut message);
    io.cancel = Some(&token);
    let outcome = f.sandbox.run(&f.script("echo begun; sleep 1000"), io)?;
    equal(outcome.status, Status::Cancelled)?;
    check(start.elapsed() < Duration::from_secs(30), || {
        format!("{:?}", start.elapsed())
    })?;
    let seen = f.run_with(
        &f.script("echo begun"),
        With {
            cancel: Some(&token),
            ..With::default()
        },
    )?;
    equal(
        (seen.stdout(), seen.outcome.status),
        (String::new(), Status::Cancelled),
    )
}

fn flood(f: &Fixture) -> Outcome {
    let mut request =
        f.script("dd if=/dev/zero bs=1M count=1025 2>/dev/null; yes | head -n 1000000; exit 3");
    request.limits.output_bytes = 1 << 20;
    let mut bytes = 0;
    let (mut output, mut message) = (|_: Stream, line: &str| bytes += line.len(), |_: Value| {});
    let outcome = f
        .sandbox
        .run(&request, Io::new(&mut output, &mut message))?;
    equal(outcome.status, Status::Exited(3))?;
    check(bytes < 2 << 20, || format!("{bytes} bytes were passed on"))?;
    check(outcome.dropped_output_bytes > 1 << 30, || {
        format!("{outcome:?}")
    })?;
    // With the program's own pages, far below what a buffered flood would take.
    let status = fs::read_to_string("/proc/self/status")?;
    let peak = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .unwrap_or_default();
    let peak: u64 = peak.trim().trim_end_matches(" kB").parse()?;
    check(peak < 256 << 10, || {
        format!("the caller's memory grew to {peak} KiB")
    })
}

fn limits(f: &Fixture) -> Outcome {
    let mut request = f.script("ulimit -n; ulimit -Hn; ulimit -c; dd if=/dev/zero of=/dev/null bs=300M count=1 2>/dev/null; echo $?");
    equal(f.run(&request)?.stdout(), "4096\n4096\n0\n0".into())?;
    request.limits.open_files = u64::MAX;
    request.limits.address_space = Some(200 << 20);
    let seen = f.run(&request)?.stdout();
    let hard = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum;
    let hard = hard.map_or_else(|| "unlimited".to_owned(), |number| number.to_string());
    equal(seen, format!("{hard}\n{hard}\n0\n1"))
}

fn parallel(f: &Fixture) -> Outcome {
    let failures: Vec<String> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|number| {
                scope.spawn(move || {
                    let mut request = f.script(&format!("echo {number}; sleep 0.1"));
                    request.root = Root::Layers {
                        lower: vec![f.path("base")],
                    };
                    f.run(&request)
                        .map(|seen| seen.stdout() == number.to_string())
                })
            })
            .collect();
        let results = threads.into_iter().map(|thread| thread.join());
        results
            .filter(|result| !matches!(result, Ok(Ok(true))))
            .map(|result| format!("{result:?}"))
            .collect()
    });
    equal(failures, Vec::new())
}

fn usage(f: &Fixture) -> Outcome {
    let outcome = f
        .run(&f.script("(i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done) & wait"))?
        .outcome;
    check(outcome.cpu_seconds > 0.01 && outcome.seconds > 0.01, || {
        format!("{outcome:?}")
    })?;
    check(
        (100 << 10..1 << 30).contains(&outcome.max_rss_bytes),
        || format!("{outcome:?}"),
    )?;
    check(!outcome.out_of_memory, || format!("{outcome:?}"))
}

fn terminal(f: &Fixture) -> Outcome {
    use rustix::pty::OpenptFlags;
    let controller = rustix::pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY)?;
    rustix::pty::unlockpt(&controller)?;
    let user =
        rustix::pty::ioctl_tiocgptpeer(&controller, OpenptFlags::RDWR | OpenptFlags::NOCTTY)?;
    let size = rustix::termios::Winsize {
        ws_row: 33,
        ws_col: 99,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    rustix::termios::tcsetwinsize(&controller, size)?;
    let before = rustix::termios::tcgetattr(&user)?.local_modes;
    rustix::io::write(&controller, b"typed\n")?;
    let request =
        f.script("tty; stty size; read line; echo \"got $line\"; echo me > /dev/tty; exit 4");
    let seen = f.run_with(
        &request,
        With {
            terminal: Some(user.as_fd()),
            ..With::default()
        },
    )?;
    equal(
        (seen.outcome.status, seen.stdout()),
        (Status::Exited(4), String::new()),
    )?;
    rustix::io::ioctl_fionbio(&controller, true)?;
    let (mut text, mut buffer) = (String::new(), vec![0; 4096]);
    while let Ok(count) = rustix::io::read(&controller, &mut buffer) {
        text += &String::from_utf8_lossy(&buffer[..count]);
    }
    for wanted in ["/dev/pts/0", "33 99", "got typed", "me"] {
        check(text.contains(wanted), || text.clone())?;
    }
    equal(
        rustix::termios::tcgetattr(&user)?.local_modes == before,
        true,
    )
}

fn removal(f: &Fixture) -> Outcome {
    let script = "cd /root; i=0; while [ $i -lt 700 ]; do mkdir dddddddddd; touch f; chown 7:7 f; cd dddddddddd; i=$((i+1)); done; \
                  mkdir -p /root/closed/in; touch /root/closed/in/x; chown -R 9:9 /root/closed; chmod 0 /root/closed; ln -s / /root/link";
    f.output_of(script)?;
    let kept = f.path("kept");
    fs::write(&kept, "x")?;
    let link = f.path("upper-link");
    std::os::unix::fs::symlink(&kept, &link)?;
    f.sandbox
        .remove_trees(&[f.path("upper"), link.clone(), f.path("never-was")])?;
    check(
        !f.path("upper").exists() && link.symlink_metadata().is_err(),
        || "something is left".into(),
    )?;
    check(kept.exists() && f.path("base/bin/sh").exists(), || {
        "a link was followed".into()
    })
}

fn doctor(f: &Fixture) -> Outcome {
    let store = f.path("store/not/yet");
    let needs = Needs {
        store: &store,
        space: &[(&store, 1 << 20)],
        memory_bytes: 1 << 20,
    };
    let checks = kiln_sandbox::checks(&needs, None);
    let failed: Vec<_> = checks
        .iter()
        .filter(|check| check.verdict == Verdict::Fail)
        .collect();
    check(failed.is_empty(), || format!("{failed:?}"))?;
    check(checks.iter().any(|check| check.name == "overlay"), || {
        format!("{checks:?}")
    })?;
    let left =
        fs::read_dir(f.dir.path())?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    equal(left.filter(|name| name.starts_with(".kiln")).count(), 0)?;
    let space = [(store.as_path(), u64::MAX)];
    let checks = kiln_sandbox::checks(
        &Needs {
            store: &store,
            space: &space,
            memory_bytes: u64::MAX,
        },
        None,
    );
    let verdict = |name: &str| {
        checks
            .iter()
            .find(|check| check.name == name)
            .map(|check| check.verdict)
    };
    equal(
        (verdict("disk-space"), verdict("memory")),
        (Some(Verdict::Fail), Some(Verdict::Warn)),
    )
}

fn bad_requests(f: &Fixture) -> Outcome {
    let refused = |change: fn(&mut kiln_sandbox::Request)| {
        let mut request = f.script("true");
        change(&mut request);
        f.try_run(&request, With::default())
            .err()
            .ok_or_else(|| Failed::from(format!("accepted: {request:?}")))
    };
    refused(|request| request.cwd = "etc".into())?;
    refused(|request| request.hostname = "x".repeat(65))?;
    refused(|request| request.body = Body::Exec { argv: Vec::new() })?;
    refused(|request| {
        request.body = Body::Exec {
            argv: vec!["a\0b".into()],
        }
    })?;
    refused(|request| {
        request.mounts.push(Mount::Tmpfs {
            target: "x".into(),
            mode: 0,
        })
    })?;
    refused(|request| request.root = Root::Layers { lower: Vec::new() })?;
    let error = refused(|request| {
        request.root = Root::Dir {
            path: "/no/such/root".into(),
            writable: false,
        }
    })?;
    check(error.to_string().contains("/no/such/root"), || {
        error.to_string()
    })
}

fn closed_home(f: &Fixture) -> Outcome {
    let home = f.path("home");
    fs::create_dir(&home)?;
    let (upper, work) = (home.join("cache/upper"), home.join("cache/work"));
    let lower = home.join("cache/base");
    fs::create_dir_all(&lower)?;
    std::process::Command::new("cp")
        .arg("-a")
        .arg(f.path("base/."))
        .arg(&lower)
        .status()?;
    let secret = home.join("file");
    fs::write(&secret, "bound\n")?;
    fs::set_permissions(&home, PermissionsExt::from_mode(0o700))?;
    let mut request = f.script("cat /etc/bound; echo x > /etc/new");
    request.root = Root::Overlay {
        lower: vec![lower],
        upper: upper.clone(),
        work,
    };
    request.mounts.push(Mount::Bind {
        source: secret,
        target: "/etc/bound".into(),
        writable: false,
    });
    equal(f.run(&request)?.stdout(), "bound".into())?;
    equal(fs::read_to_string(upper.join("etc/new"))?, "x\n".into())
}

fn shifted(f: &Fixture) -> Outcome {
    let map = f.output_of("cat /proc/self/uid_map")?;
    let outside: u32 = map
        .split_ascii_whitespace()
        .nth(1)
        .ok_or("no map")?
        .parse()?;
    check(outside != 0, || map.clone())?;
    // Files of the host's root are nobody's, and closed.
    let secret = f.path("secret");
    fs::write(&secret, "x")?;
    fs::set_permissions(&secret, PermissionsExt::from_mode(0o600))?;
    let mut request = f.script("stat -c %u /etc/secret; cat /etc/secret; echo $?");
    request.mounts.push(Mount::Bind {
        source: secret,
        target: "/etc/secret".into(),
        writable: true,
    });
    equal(f.run(&request)?.stdout(), "65534\n1".into())
}

fn oom(f: &Fixture) -> Outcome {
    let seen = f.run(&f.script("dd if=/dev/zero of=/dev/null bs=300M count=1; echo $?; exit 1"))?;
    eprintln!("OOM {seen:?}");
    Ok(())
}
