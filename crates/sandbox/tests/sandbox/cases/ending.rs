//! Limits and ends.

use super::prelude::*;

pub(super) fn background(f: &Fixture) -> Outcome {
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

pub(super) fn time_limit(f: &Fixture) -> Outcome {
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

pub(super) fn cancelling(f: &Fixture) -> Outcome {
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

/// The outer process may be killed just after it started the init, which then has nobody who ends it but the caller.
pub(super) fn cancelling_at_any_moment(f: &Fixture) -> Outcome {
    let start = Instant::now();
    for step in 0..600 {
        let token = CancelToken::new()?;
        let switch = token.clone();
        let stopper = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_micros(20 * step));
            switch.cancel();
        });
        let with = With {
            cancel: Some(&token),
            ..With::default()
        };
        let seen = f.run_with(&f.script("sleep 1000"), with)?;
        stopper.join().map_err(|_| "a thread panicked")?;
        equal(seen.outcome.status, Status::Cancelled)?;
    }
    check(start.elapsed() < Duration::from_secs(120), || {
        format!("{:?}", start.elapsed())
    })
}

pub(super) fn flood(f: &Fixture) -> Outcome {
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

pub(super) fn limits(f: &Fixture) -> Outcome {
    let mut request = f.script("ulimit -n; ulimit -Hn; ulimit -c; dd if=/dev/zero of=/dev/null bs=300M count=1 2>/dev/null; echo $?");
    equal(f.run(&request)?.stdout(), "4096\n4096\n0\n0".into())?;
    request.limits.open_files = u64::MAX;
    request.limits.address_space = Some(200 << 20);
    let seen = f.run(&request)?.stdout();
    let hard = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum;
    let hard = hard.map_or_else(|| "unlimited".to_owned(), |number| number.to_string());
    equal(seen, format!("{hard}\n{hard}\n0\n1"))
}

pub(super) fn processes(f: &Fixture) -> Outcome {
    // The last two need no process of their own.
    let mut request = f.script(
        "grep -o 'Max processes *[0-9]*' /proc/self/limits; cat /proc/sys/kernel/pid_max; \
         (i=0; while [ $i -lt 200 ]; do sleep 60 & i=$((i+1)); done) 2>/dev/null; \
         set -- /proc/[0-9]*; echo $#",
    );
    request.limits.processes = Some(80);
    let seen = f.run(&request)?.stdout();
    let numbers: Vec<u64> = seen
        .lines()
        .filter_map(|line| line.split(' ').next_back()?.parse().ok())
        .collect();
    let [most, numbered, count] = numbers[..] else {
        return Err(seen.into());
    };
    // Linux numbers each namespace on its own from 6.14 on; before, the number is the host's.
    let host = fs::read_to_string("/proc/sys/kernel/pid_max")?;
    let numbered = numbered == 380 || numbered.to_string() == host.trim();
    // With the init, which belongs to the same id.
    check(most == 80 && numbered && (20..=82).contains(&count), || {
        seen.clone()
    })
}

pub(super) fn memory(f: &Fixture) -> Outcome {
    // The one is a process's own, the other lies in a tmpfs.
    for script in [
        "echo begun; dd if=/dev/zero of=/dev/null bs=200M count=1000000",
        "echo begun; dd if=/dev/zero of=/tmp/file bs=1M count=150; sleep 1000",
    ] {
        let mut request = f.script(script);
        request.limits.memory = Some(100 << 20);
        let seen = f.run(&request)?;
        equal(
            (seen.stdout(), seen.outcome.status),
            ("begun".into(), Status::OverMemory),
        )?;
        check(seen.outcome.seconds < 30.0, || format!("{seen:?}"))?;
    }
    let mut request = f.script("dd if=/dev/zero of=/tmp/file bs=1M count=50; sleep 2");
    request.limits.memory = Some(100 << 20);
    equal(f.run(&request)?.outcome.status, Status::Exited(0))
}

pub(super) fn scratch(f: &Fixture) -> Outcome {
    let fill = "dd if=/dev/zero of=$place/file bs=1M count=4 2>/dev/null && echo $place held all of it; \
                stat -c %s $place/file";
    let mut request = f.script(&format!(
        "for place in /tmp /run /dev/shm /dev; do {fill}; done"
    ));
    request.mounts.push(Mount::Tmpfs {
        target: "/run".into(),
        mode: 0o755,
    });
    request.limits.tmp = Some(1 << 20);
    request.limits.run = Some(2 << 20);
    request.limits.shm = Some(3 << 20);
    let sizes = [1, 2, 3, 1].map(|mib: u64| (mib << 20).to_string());
    equal(f.run(&request)?.stdout(), sizes.join("\n"))?;
    // Unless something is said, together they leave an eighth of the machine's memory.
    let kib = f.output_of("grep ^MemTotal /proc/meminfo | grep -o '[0-9]*'")?;
    let total = kib.parse::<u64>()? << 10;
    let fitted = kiln_sandbox::Limits::default().fitted(total);
    let all = [fitted.tmp, fitted.run, fitted.shm]
        .into_iter()
        .flatten()
        .sum::<u64>();
    check(
        fitted
            .memory
            .is_some_and(|most| all < most && most <= total / 8 * 7),
        || format!("{fitted:?}"),
    )
}

pub(super) fn limited_together(f: &Fixture) -> Outcome {
    let limits = kiln_sandbox::Limits {
        seconds: Some(3),
        tmp: Some(1 << 20),
        ..kiln_sandbox::Limits::default()
    };
    let sandbox = f.sandbox.limited(limits);
    let run = |script: &str| {
        let (mut output, mut message) = (|_: Stream, _: &str| {}, |_: Value| {});
        let mut request = f.script(script);
        request.limits.seconds = None;
        sandbox.run(&request, Io::new(&mut output, &mut message))
    };
    let full = "dd if=/dev/zero of=/tmp/file bs=1M count=2 2>/dev/null";
    equal(run(full)?.status, Status::Exited(1))?;
    let start = Instant::now();
    equal(run("sleep 1000")?.status, Status::TimedOut)?;
    equal(run("sleep 1000")?.status, Status::TimedOut)?;
    check(start.elapsed() < Duration::from_secs(30), || {
        format!("{:?}", start.elapsed())
    })
}

pub(super) fn parallel(f: &Fixture) -> Outcome {
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

pub(super) fn usage(f: &Fixture) -> Outcome {
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
