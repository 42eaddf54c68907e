//! Running programs and functions, and what they are connected with.

use super::prelude::*;

pub(super) fn ids(f: &Fixture) -> Outcome {
    let script = "id -u; id -g; touch /etc/a /etc/b; chown 42:65534 /etc/a; chown 1000:7 /etc/b; stat -c %u:%g /etc/a /etc/b";
    equal(f.output_of(script)?, "0\n0\n42:65534\n1000:7".into())?;
    let data = fs::metadata(f.path("upper/etc/a"))?;
    equal(Some(data.uid()), f.sandbox.ids().host_uid(42))?;
    equal(Some(data.gid()), f.sandbox.ids().host_gid(65534))
}

pub(super) fn statuses(f: &Fixture) -> Outcome {
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

pub(super) fn missing_programs(f: &Fixture) -> Outcome {
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

pub(super) fn output(f: &Fixture) -> Outcome {
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

pub(super) fn input(f: &Fixture) -> Outcome {
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

pub(super) fn environment(f: &Fixture) -> Outcome {
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

pub(super) fn syslog(f: &Fixture) -> Outcome {
    let seen = f.run(&f.script(
        "logger -t unit hello; echo boot > /dev/console; echo note > /dev/kmsg; sleep 0.1",
    ))?;
    equal(seen.text(Stream::Syslog), "unit: hello".into())?;
    equal(seen.text(Stream::Console), "boot\nnote".into())
}

pub(super) fn calls(f: &Fixture) -> Outcome {
    let mut file = tempfile::tempfile()?;
    file.write_all(b"there")?;
    file.rewind()?;
    let handed = OwnedFd::from(file.try_clone()?);
    let seen = f.run_with(
        &f.call_with_file("echo", json!(["x"])),
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

pub(super) fn failing_calls(f: &Fixture) -> Outcome {
    let outcome = f.run(&f.call("fail", Value::Null))?.outcome;
    let wanted = Error::new(ErrorKind::Input, "reading the list")
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

pub(super) fn descriptors(f: &Fixture) -> Outcome {
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

pub(super) fn terminal(f: &Fixture) -> Outcome {
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

pub(super) fn bad_requests(f: &Fixture) -> Outcome {
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
