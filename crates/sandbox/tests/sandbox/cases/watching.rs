//! Programs whose accesses to the root are noted.

use super::prelude::*;

pub(super) fn looks(f: &Fixture) -> Outcome {
    let base = f.path("base");
    for name in ["a", "rel", "secret", "old", "ld.so.cache"] {
        fs::write(base.join("etc").join(name), name)?;
    }
    std::os::unix::fs::symlink("a", base.join("etc/l"))?;
    f.give_to_root_inside(&base.join("etc"))?;
    let mut request = f.script(
        "cat /etc/a; [ -e /etc/missing ]; cd /etc; readlink l; cat ../etc/rel; ls /bin; \
         cat /etc/ld.so.cache; ln -s /etc/secret /tmp/link; cat /tmp/link; mv /etc/old /tmp/new; cat /tmp/new; : >/dev/null",
    );
    request.watch = Some(Watch {
        ignored: ["/dev", "/proc", "/tmp"].map(str::to_owned).to_vec(),
        ..Watch::default()
    });
    let seen = f.run(&request)?;
    equal(seen.outcome.status, Status::Exited(0))?;
    let trace = seen.outcome.trace.ok_or("nothing was noted")?;
    equal(&trace.incomplete, &None)?;
    let look = |path: &str| {
        let found = trace.paths.get(path);
        found.ok_or_else(|| Failed::from(format!("{path} is not in {:#?}", trace.paths)))
    };
    for path in ["/etc/a", "/etc/rel", "/etc/secret", "/etc/old"] {
        check(look(path)?.content, || format!("{path} was read"))?;
    }
    for path in ["/etc/missing", "/etc/l"] {
        check(!look(path)?.content, || format!("{path} was not read"))?;
    }
    // Not the dynamic linker: `cat` reads all of it.
    check(look("/etc/ld.so.cache")?.content, || {
        "the linker's cache was read".into()
    })?;
    check(look("/bin")?.names, || "/bin was listed".into())?;
    check(!look("/etc")?.names, || "/etc was not listed".into())?;
    check(look("/bin/sh")?.executed, || "/bin/sh was executed".into())?;
    let outside = |path: &&String| {
        ["/tmp/", "/dev/", "/proc/"]
            .iter()
            .any(|p| path.starts_with(p))
    };
    equal(trace.paths.keys().find(outside), None)
}

/// An overlay copies a file when its attributes change; that counts as reading where it is asked for.
pub(super) fn changes(f: &Fixture) -> Outcome {
    let base = f.path("base");
    for name in ["mode", "owner", "time", "left"] {
        fs::write(base.join("etc").join(name), name)?;
    }
    f.give_to_root_inside(&base.join("etc"))?;
    let script = "chmod 600 /etc/mode; chown 0:0 /etc/owner; touch /etc/time; [ -e /etc/left ]";
    let mut request = f.script(script);
    let mut content = |changes: bool| -> Result<Vec<String>, Failed> {
        request.watch = Some(Watch {
            changes,
            ..Watch::default()
        });
        let trace = f.run(&request)?.outcome.trace.ok_or("nothing was noted")?;
        equal(&trace.incomplete, &None)?;
        let read = trace.paths.into_iter().filter(|(_, access)| access.content);
        Ok(read.map(|(path, _)| path).collect())
    };
    let has = |paths: &[String], name: &str| paths.iter().any(|path| path == name);
    let all = content(true)?;
    for name in ["/etc/mode", "/etc/owner", "/etc/time"] {
        check(has(&all, name), || format!("{name} is not in {all:?}"))?;
    }
    check(!has(&all, "/etc/left"), || "/etc/left was not read".into())?;
    let opened = content(false)?;
    check(!has(&opened, "/etc/mode"), || format!("{opened:?}"))
}

/// What a function reads itself, and what the programs read that it starts.
pub(super) fn functions(f: &Fixture) -> Outcome {
    let base = f.path("base");
    fs::write(base.join("etc/own"), "own")?;
    fs::write(base.join("etc/others"), "others")?;
    f.give_to_root_inside(&base.join("etc"))?;
    let mut request = f.call("read", json!(["/etc/own", "cat /etc/others"]));
    request.watch = Some(Watch::default());
    let outcome = f.run(&request)?.outcome;
    equal(outcome.value, Some(Ok(json!("own others"))))?;
    let trace = outcome.trace.ok_or("nothing was noted")?;
    equal(&trace.incomplete, &None)?;
    for path in ["/etc/own", "/etc/others"] {
        let read = trace.paths.get(path).is_some_and(|access| access.content);
        check(read, || format!("{path} is not in {:#?}", trace.paths))?;
    }
    Ok(())
}

pub(super) fn unwatched(f: &Fixture) -> Outcome {
    equal(f.run(&f.script("true"))?.outcome.trace, None)
}

/// Its end is noticed, and what it notes does not keep a killed run alive.
pub(super) fn killed(f: &Fixture) -> Outcome {
    let mut request = f.script("while :; do cat /etc/hostname; done");
    request.watch = Some(Watch::default());
    request.limits.seconds = Some(2);
    let start = Instant::now();
    let seen = f.run(&request)?;
    equal(seen.outcome.status, Status::TimedOut)?;
    check(start.elapsed() < Duration::from_secs(30), || {
        format!("{:?}", start.elapsed())
    })
}
