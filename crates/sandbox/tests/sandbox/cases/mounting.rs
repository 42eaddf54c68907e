//! Roots, mounts, and what is left of them.

use super::prelude::*;

pub(super) fn mounts(f: &Fixture) -> Outcome {
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

pub(super) fn tree(f: &Fixture) -> Outcome {
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

pub(super) fn links(f: &Fixture) -> Outcome {
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

pub(super) fn numbered_layers(f: &Fixture, count: usize) -> Result<Vec<PathBuf>, Failed> {
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

pub(super) fn layers(f: &Fixture) -> Outcome {
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

pub(super) fn read_only_layers(f: &Fixture) -> Outcome {
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

pub(super) fn reuse(f: &Fixture) -> Outcome {
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

pub(super) fn removal(f: &Fixture) -> Outcome {
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

pub(super) fn doctor(f: &Fixture) -> Outcome {
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

pub(super) fn heads(f: &Fixture) -> Outcome {
    let text = "# lent\nnameserver 240.0.0.53\n# so far\n";
    let run = |script: &str| -> Result<String, Failed> {
        let mut request = f.script(script);
        request.mounts.push(Mount::Head {
            target: "/etc/resolv.conf".into(),
            text: text.into(),
            marks: ["# lent", "nameserver 240.0.0.53", "# so far"]
                .map(str::to_owned)
                .into(),
        });
        Ok(f.run(&request)?.stdout())
    };
    let state = "stat -c '%F %a %Y' /etc/resolv.conf; cat /etc/resolv.conf; stat -c %Y /etc";
    // What the root had is there again, as old as it was: nothing, a file, a link that leads nowhere.
    for prepare in [
        "rm -f /etc/resolv.conf",
        "echo 'search example.org' > /etc/resolv.conf; chmod 640 /etc/resolv.conf; touch -d 2001-02-03 /etc/resolv.conf",
        "rm /etc/resolv.conf; ln -s ../run/nowhere /etc/resolv.conf; readlink /etc/resolv.conf",
    ] {
        f.output_of(prepare)?;
        f.output_of("touch -d 2002-02-03 /etc")?;
        let before = f.output_of(&format!("{state}; readlink /etc/resolv.conf; true"))?;
        let within = run("cat /etc/resolv.conf")?;
        check(within.starts_with(text.trim_end()), || within.clone())?;
        let after = f.output_of(&format!("{state}; readlink /etc/resolv.conf; true"))?;
        equal(after, before)?;
    }
    // What the run does to it stays: writing, appending, editing in another file, a link, removing.
    let of = "cat /etc/resolv.conf 2>/dev/null || readlink /etc/resolv.conf || echo none";
    for (begin, script, end) in [
        ("a", "echo b > /etc/resolv.conf", "b"),
        ("a", "echo b >> /etc/resolv.conf", "a\nb"),
        (
            "a",
            "cat /etc/resolv.conf | grep -v a > /etc/new; echo c >> /etc/new; mv /etc/new /etc/resolv.conf",
            "c",
        ),
        ("a", "ln -sf ../run/stub /etc/resolv.conf", "../run/stub"),
        ("a", "rm /etc/resolv.conf", "none"),
        ("a", "chmod 600 /etc/resolv.conf", "a"),
    ] {
        f.output_of(&format!(
            "rm -f /etc/resolv.conf; echo {begin} > /etc/resolv.conf"
        ))?;
        run(script)?;
        equal((script, f.output_of(of)?), (script, end.to_owned()))?;
    }
    // A trap in its place changes nothing outside of the root and does not stop the run.
    for trap in [
        "rm /etc/resolv.conf; mkdir /etc/resolv.conf",
        "rm -r /etc/resolv.conf; ln -s /proc/sys/kernel/hostname /etc/resolv.conf",
        "mv /etc /etc2; ln -s /proc/self /etc",
    ] {
        run(trap)?;
    }
    Ok(())
}
