//! What keeps the host out of reach.

use super::prelude::*;

pub(super) fn flushing(f: &Fixture) -> Outcome {
    let path = rustix::fs::open("/", rustix::fs::OFlags::PATH, rustix::fs::Mode::empty())?;
    equal(rustix::fs::fsync(&path), Err(rustix::io::Errno::BADF))?;
    equal(
        f.run(&f.call("flush", Value::Null))?.outcome.value,
        Some(Ok(json!([true, true, true]))),
    )
}

pub(super) fn network(f: &Fixture) -> Outcome {
    let script = "readlink /proc/self/ns/net; grep -c : /proc/net/dev; ls /sys/class/net";
    let own = fs::read_link("/proc/self/ns/net")?
        .to_string_lossy()
        .into_owned();
    let none = f.output_of(script)?;
    check(!none.contains(&own) && none.ends_with("\n1\nlo"), || {
        none.clone()
    })?;
    // A listener whose own input is at its end says so, and whoever called may leave before it has sent anything.
    let up = f.output_of(
        "busybox mkfifo /root/held && exec 3<>/root/held
        nc -l -p 7777 <&3 > /root/got & until echo loop | nc 127.0.0.1 7777; do sleep 0.1; done; wait; cat /root/got",
    )?;
    equal(up, "loop".into())?;
    let mut request = f.script(script);
    request.network = Network::Host;
    let host = f.run(&request)?.stdout();
    check(host.starts_with(&own), || host.clone())
}

/// Where this machine itself has no such sockets, it could not be told who refused them.
pub(super) fn families(f: &Fixture) -> Outcome {
    for network in [Network::None, Network::Host] {
        let mut request = f.call("families", Value::Null);
        request.network = network;
        equal(
            f.run(&request)?.outcome.value,
            Some(Ok(json!([true, true, false]))),
        )?;
    }
    Ok(())
}

pub(super) fn host_mounts(f: &Fixture) -> Outcome {
    let before = fixture::mounts()?;
    f.output_of("mount > /root/mounts")?;
    fixture::no_new_mounts(&before)
}

pub(super) fn escape(f: &Fixture) -> Outcome {
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

pub(super) fn read_only(f: &Fixture) -> Outcome {
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

pub(super) fn privileges(f: &Fixture) -> Outcome {
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

/// What a program can do to the function that started it: one line for each thing that it managed.
const PLANTED: &str = "\
    mount -o remount,rw,bind /proc/sys && echo remounted; \
    echo planted > /proc/sys/kernel/hostname && echo renamed; \
    umount /proc/kcore && echo uncovered; \
    for pid in 1 $PPID; do \
      dd if=/proc/$pid/mem of=/dev/null bs=1 count=0 && echo memory of $pid opened; \
      for file in environ maps; do cat /proc/$pid/$file && echo $file of $pid read; done; \
      for link in exe root cwd fd/0 fd/1 fd/3; do readlink /proc/$pid/$link && echo $link of $pid seen; done; \
    done; \
    unshare -r -m mount -o remount,rw,bind /proc/sys && echo remounted below";

pub(super) fn programs(f: &Fixture) -> Outcome {
    let rights = "grep -e ^CapEff -e ^CapBnd -e ^NoNewPrivs /proc/self/status; ls /proc/self/fd";
    let scripted = f.output_of("grep -e ^CapEff -e ^CapBnd /proc/self/status")?;
    for watch in [None, Some(Watch::default())] {
        let answer = |script: &str| -> Result<String, Failed> {
            let mut request = f.call("program", json!(script));
            request.watch = watch.clone();
            let value = f.run(&request)?.outcome.value;
            let text = value.and_then(Result::ok).ok_or("no answer")?;
            Ok(text.as_str().unwrap_or_default().trim_end().to_owned())
        };
        equal(answer(PLANTED)?, String::new())?;
        // As much as a program that is started alone, and its own standard files; the last one lists the directory.
        let wanted = format!("{scripted}\nNoNewPrivs:\t1\n0\n1\n2\n3");
        equal(answer(&format!("{{ {rights}; }} | sort"))?, sorted(&wanted))?;
        equal(
            f.run(&{
                let mut request = f.script(PLANTED);
                request.watch = watch.clone();
                request
            })?
            .stdout(),
            String::new(),
        )?;
    }
    Ok(())
}

fn sorted(text: &str) -> String {
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    lines.join("\n")
}

pub(super) fn kept(f: &Fixture) -> Outcome {
    let file = OwnedFd::from(fs::File::open("/dev/null")?);
    let seen = f.run_with(
        &f.call_with_file("open-files", Value::Null),
        With {
            fds: vec![file],
            ..With::default()
        },
    )?;
    // Standard files, two copies of the socket to the caller, what was handed over, and the directory that is listed.
    let wanted = [
        "/dev/null",
        "/dev/null",
        "/proc/2/fd",
        "pipe",
        "pipe",
        "socket",
        "socket",
    ];
    equal(seen.outcome.value.and_then(Result::ok), Some(json!(wanted)))
}

pub(super) fn no_new_privileges(f: &Fixture) -> Outcome {
    let mut request = f.script("grep ^NoNewPrivs /proc/self/status");
    request.no_new_privs = true;
    equal(f.run(&request)?.stdout(), "NoNewPrivs:\t1".into())
}

pub(super) fn chroot_detection(f: &Fixture) -> Outcome {
    // As systemd's running_in_chroot() and ischroot(1) of debianutils compare; what cannot be looked at is no answer.
    let script = "own=$(stat -L -c %d:%i /) && init=$(stat -L -c %d:%i /proc/1/root) && \
                  [ \"$own\" != \"$init\" ] && [ ! -e /run/systemd/system ] && echo in a chroot";
    equal(f.output_of(script)?, "in a chroot".into())
}

pub(super) fn own_program(f: &Fixture) -> Outcome {
    let seen = f.run(&f.call("own-program", Value::Null))?;
    let answer = seen.outcome.value.and_then(Result::ok).ok_or("no answer")?;
    let own = fs::metadata("/proc/self/exe")?;
    // As long as the file, but not the file, and closed to writers for good.
    equal(&answer[2], &json!(own.len()))?;
    check(
        answer[0] != json!(own.dev()) || answer[1] != json!(own.ino()),
        || format!("the function runs from the host's file: {answer}"),
    )?;
    equal((&answer[3], &answer[4]), (&json!(true), &json!(true)))
}

pub(super) fn shifted(f: &Fixture) -> Outcome {
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
pub(super) fn closed_home(f: &Fixture) -> Outcome {
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
