//! Programs whose accesses to the root are told to an observer.

use std::sync::{Arc, Mutex};

use kiln_sandbox::{AccessKind, Observer, PathAccess, Request};

use super::prelude::*;
use crate::fixture::Seen;

/// What an observer was told.
#[derive(Debug, Default)]
struct Told {
    accesses: Vec<(String, AccessKind)>,
    command_lines: Vec<Vec<String>>,
    /// Whose code opened the dynamic linker's cache.
    openers: Vec<String>,
    incomplete: Option<String>,
}

impl Told {
    fn has(&self, path: &str, kind: AccessKind) -> bool {
        let mut accesses = self.accesses.iter();
        accesses.any(|(told, of)| told == path && *of == kind)
    }

    fn is_told(&self, path: &str) -> bool {
        self.accesses.iter().any(|(told, _)| told == path)
    }
}

struct Writer(Arc<Mutex<Told>>);

impl Observer for Writer {
    fn accessed(&mut self, access: &PathAccess<'_>) {
        let mut told = self.0.lock().expect("a lock");
        told.accesses.push((access.path.to_owned(), access.kind));
        told.command_lines.extend(access.command_line(8));
        if access.path == "/etc/ld.so.cache" && access.kind == AccessKind::Open {
            told.openers.extend(access.caller());
        }
    }

    fn incomplete(&mut self, why: String) {
        self.0.lock().expect("a lock").incomplete = Some(why);
    }
}

fn observed(f: &Fixture, request: &Request) -> Result<(Seen, Told), Failed> {
    let told = Arc::new(Mutex::new(Told::default()));
    let with = With {
        observer: Some(Box::new(Writer(Arc::clone(&told)))),
        ..With::default()
    };
    let seen = f.run_with(request, with)?;
    check(seen.outcome.watched, || "nothing was watched".into())?;
    let told = std::mem::take(&mut *told.lock().expect("a lock"));
    equal(&told.incomplete, &None)?;
    Ok((seen, told))
}

pub(super) fn accesses(f: &Fixture) -> Outcome {
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
    let (seen, told) = observed(f, &request)?;
    equal(seen.outcome.status, Status::Exited(0))?;
    for path in ["/etc/a", "/etc/rel", "/etc/secret", "/etc/old"] {
        check(told.has(path, AccessKind::Open), || {
            format!("{path} was read: {told:#?}")
        })?;
    }
    for path in ["/etc/missing", "/etc/l"] {
        check(told.is_told(path), || format!("{path} was asked for"))?;
        check(!told.has(path, AccessKind::Open), || {
            format!("{path} was not read")
        })?;
    }
    // Not the dynamic linker: `cat` reads all of it.
    let linker = |file: &String| file.contains("/ld-linux");
    check(!told.openers.iter().all(linker), || {
        format!("{:?}", told.openers)
    })?;
    check(told.has("/bin", AccessKind::List), || {
        "/bin was listed".into()
    })?;
    check(!told.has("/etc", AccessKind::List), || {
        "/etc was not listed".into()
    })?;
    check(told.has("/bin/sh", AccessKind::Execute), || {
        "/bin/sh was executed".into()
    })?;
    let is_script = |line: &Vec<String>| line.starts_with(&["sh".to_owned(), "-c".to_owned()]);
    check(told.command_lines.iter().any(is_script), || {
        format!("{:?}", told.command_lines)
    })?;
    let outside = |(path, _): &&(String, AccessKind)| {
        ["/tmp/", "/dev/", "/proc/"]
            .iter()
            .any(|p| path.starts_with(p))
    };
    equal(told.accesses.iter().find(outside), None)
}

/// An overlay copies a file when its attributes change; that counts as opening it where it is asked for.
pub(super) fn changes(f: &Fixture) -> Outcome {
    let base = f.path("base");
    for name in ["mode", "owner", "time", "left"] {
        fs::write(base.join("etc").join(name), name)?;
    }
    f.give_to_root_inside(&base.join("etc"))?;
    let script = "chmod 600 /etc/mode; chown 0:0 /etc/owner; touch /etc/time; [ -e /etc/left ]";
    let mut request = f.script(script);
    let mut told = |changes: bool| -> Result<Told, Failed> {
        request.watch = Some(Watch {
            changes,
            ..Watch::default()
        });
        Ok(observed(f, &request)?.1)
    };
    let all = told(true)?;
    for name in ["/etc/mode", "/etc/owner", "/etc/time"] {
        check(all.has(name, AccessKind::Open), || {
            format!("{name} is not in {all:?}")
        })?;
    }
    check(!all.has("/etc/left", AccessKind::Open), || {
        "/etc/left was not read".into()
    })?;
    let opened = told(false)?;
    check(!opened.has("/etc/mode", AccessKind::Open), || {
        format!("{opened:?}")
    })
}

/// What a function reads itself, and what the programs read that it starts.
pub(super) fn functions(f: &Fixture) -> Outcome {
    let base = f.path("base");
    fs::write(base.join("etc/own"), "own")?;
    fs::write(base.join("etc/others"), "others")?;
    f.give_to_root_inside(&base.join("etc"))?;
    let mut request = f.call("read", json!(["/etc/own", "cat /etc/others"]));
    request.watch = Some(Watch::default());
    let (seen, told) = observed(f, &request)?;
    equal(seen.outcome.value, Some(Ok(json!("own others"))))?;
    for path in ["/etc/own", "/etc/others"] {
        check(told.has(path, AccessKind::Open), || {
            format!("{path} is not in {told:#?}")
        })?;
    }
    Ok(())
}

pub(super) fn unwatched(f: &Fixture) -> Outcome {
    equal(f.run(&f.script("true"))?.outcome.watched, false)
}

/// Its end is noticed, and an observer does not keep a killed run alive. Nobody needs to be told.
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
