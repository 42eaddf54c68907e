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
