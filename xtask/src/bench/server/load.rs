//! How soon a log begins, and what the server does while many wait and many look on.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::percentile;
use crate::Result;
use crate::peer::{afresh, trouble};
use crate::served::{OFTEN, Server, builds, create, log_address, success, upload};

/// One build at a time, so that others wait.
const ONE: &[&str] = &["--cpus", "1"];
/// Builds whose first line is waited for.
const FIRSTS: usize = 30;
/// Builds that wait while the loud one runs.
const QUEUED: usize = 200;
/// Those who read the loud one's log as it grows.
const FOLLOWERS: usize = 50;
/// Steps of the loud build, and lines of each.
const STEPS: usize = 8;
const LINES: usize = 600_000;

/// Measures from sending a build to the first line of its log.
pub(super) fn first_lines(kiln: &Path, work: &Path) -> Result<()> {
    let server = Server::start(kiln, &work.join("data"), &work.join("cache"), ONE)?;
    let mut client = server.client()?;
    let mut times = Vec::new();
    for _ in 0..FIRSTS {
        let begun = Instant::now();
        let build = create(&mut client, &check())?;
        while client.request("GET", &log_address(&build), "", b"")?.0 != 200 {
            thread::sleep(Duration::from_millis(2));
        }
        times.push(begun.elapsed());
        success(&mut client, &build, OFTEN)?;
    }
    println!(
        "submit to the first line of the log, {FIRSTS} builds: median {:.0} ms, longest {:.0} ms",
        percentile(&mut times, 50),
        percentile(&mut times, 100)
    );
    Ok(())
}

/// A build that needs no file, and fails at once.
fn check() -> Value {
    json!({ "steps": [{ "name": "kiln", "args": ["check", "none.ks"], "allowFailure": true }] })
}

/// What the crowd has seen.
#[derive(Default)]
struct Seen {
    /// Times of requests for one build and for the list.
    asking: Vec<Duration>,
    /// Times of requests that made builds.
    creating: Vec<Duration>,
    /// The builds that wait.
    waiting: Vec<String>,
    /// How much of the loud log each follower has read.
    followed: Vec<u64>,
    /// From the loud build's creation to its end.
    loud: Duration,
}

/// One loud build with followers, and many that wait: how long do requests take, how much memory is taken, is anything lost?
pub(super) fn storm(kiln: &Path, work: &Path) -> Result<()> {
    let source = work.join("loud");
    afresh(&source)?;
    let file = source.join("loud.ks");
    fs::write(&file, loud()).map_err(trouble("writing", &file))?;
    let server = Server::start(kiln, &work.join("data"), &work.join("cache"), ONE)?;
    let mut client = server.client()?;
    let source = upload(&mut client, &source)?;
    let step = json!({ "name": "kiln", "args": ["flatten", "loud.ks"] });
    let steps = vec![step; STEPS];
    let build = create(&mut client, &json!({ "source": source, "steps": steps }))?;
    let begun = Instant::now();
    let (own, builds) = server.processor_time()?;
    let mut seen = crowd(&server, &build, begun)?;
    let (own, builds) = {
        let now = server.processor_time()?;
        (now.0 - own, now.1 - builds)
    };
    // The one above has been silent for so long that the server may have hung up.
    let mut client = server.client()?;
    for waited in &seen.waiting {
        success(&mut client, waited, OFTEN)?;
    }
    let all = begun.elapsed();
    let log = server.log(&build);
    let length = fs::metadata(&log).map_err(trouble("reading", &log))?.len();
    seen.print(length);
    let mib = length as f64 / f64::from(1 << 20);
    println!(
        "  processor time for a MiB of the log: {:.2} ms of the server to answer with it and the rest, {:.1} ms of the build to write it",
        own * 1e3 / (mib * FOLLOWERS as f64),
        builds * 1e3 / mib,
    );
    println!(
        "  all {QUEUED} succeeded, {:.1} s after the first began; peak memory of the server {:.0} MiB",
        all.as_secs_f64(),
        server.peak_memory()?
    );
    match seen.followed.iter().filter(|read| **read != length).count() {
        0 => Ok(()),
        lost => Err(format!("{lost} followers have not read the log as it is")),
    }
}

/// Follows the loud build, asks, and makes builds that wait, until the loud one has ended.
fn crowd(server: &Server, build: &str, begun: Instant) -> Result<Seen> {
    let ended = AtomicBool::new(false);
    let mut client = server.client()?;
    thread::scope(|scope| {
        let followers: Vec<_> = (0..FOLLOWERS)
            .map(|_| scope.spawn(|| follow(server, build, &ended)))
            .collect();
        let asker = scope.spawn(|| ask(server, build, &ended));
        let mut seen = Seen::default();
        let mut work = || {
            for _ in 0..QUEUED {
                let sent = Instant::now();
                seen.waiting.push(create(&mut client, &check())?);
                seen.creating.push(sent.elapsed());
            }
            success(&mut client, build, OFTEN)?;
            seen.loud = begun.elapsed();
            Ok::<_, String>(())
        };
        let result = work();
        ended.store(true, Ordering::SeqCst);
        seen.asking = asker.join().map_err(|_| "the asker panicked")??;
        for follower in followers {
            let read = follower.join().map_err(|_| "a follower panicked")??;
            seen.followed.push(read);
        }
        result.map(|()| seen)
    })
}

impl Seen {
    fn print(&mut self, length: u64) {
        let mib = length as f64 / f64::from(1 << 20);
        let seconds = self.loud.as_secs_f64();
        println!(
            "{QUEUED} builds waiting, {FOLLOWERS} followers of one that wrote {mib:.0} MiB in {seconds:.1} s"
        );
        println!(
            "  the log: {:.0} MiB/s written, {:.0} MiB/s sent to followers",
            mib / seconds,
            mib * FOLLOWERS as f64 / seconds
        );
        for (what, times) in [
            ("get and list", &mut self.asking),
            ("create", &mut self.creating),
        ] {
            println!(
                "  {what}, {} requests: median {:.1} ms, 99 % within {:.1} ms",
                times.len(),
                percentile(times, 50),
                percentile(times, 99)
            );
        }
    }
}

/// A kickstart file whose flattened form is a log of nearly 60 MB.
fn loud() -> String {
    let mut text = "lang C.UTF-8\nrootpw x\n%packages\n%end\n%post\n".to_owned();
    for line in 0..LINES {
        let _ = writeln!(
            text,
            "echo line {line:08} of a log whose lines are as long as the lines of logs are, more or less"
        );
    }
    text.push_str("%end\n");
    text
}

/// How much others of this machine go before the followers, who are on other machines in life: nice(1).
const NICE: i32 = 10;

/// Reads a log as gcloud does, by ranges, and compares it with the file. Returns how many bytes were the same.
fn follow(server: &Server, build: &str, ended: &AtomicBool) -> Result<u64> {
    // A thread has a priority of its own.
    let thread = Some(rustix::thread::gettid());
    rustix::process::setpriority_process(thread, NICE)
        .map_err(|e| format!("standing back: {e}"))?;
    let mut client = server.client()?;
    let path = server.log(build);
    let mut read = 0_u64;
    let (mut file, mut expected) = (None, Vec::new());
    loop {
        let last = ended.load(Ordering::SeqCst);
        let range = format!("Range: bytes={read}-\r\n");
        let mut at = read;
        let mut compare = |status, piece: &[u8]| {
            if status != 206 {
                return Ok(());
            }
            let opened = match &mut file {
                Some(opened) => opened,
                None => file.insert(fs::File::open(&path).map_err(trouble("reading", &path))?),
            };
            expected.resize(piece.len(), 0);
            opened
                .read_exact_at(&mut expected, at)
                .map_err(trouble("reading", &path))?;
            at += piece.len() as u64;
            match expected == piece {
                true => Ok(()),
                false => Err(format!(
                    "a follower was sent other bytes than the log's before byte {at}"
                )),
            }
        };
        let status = client.read(&log_address(build), &range, &mut compare)?;
        if status == 206 {
            read = at;
        } else if last {
            return Ok(read);
        }
        if !last {
            thread::sleep(Duration::from_secs(1));
        }
    }
}

/// Asks for one build and for the list in turn.
fn ask(server: &Server, build: &str, ended: &AtomicBool) -> Result<Vec<Duration>> {
    let mut client = server.client()?;
    let paths = [builds(&format!("/{build}")), builds("?pageSize=20")];
    let mut times = Vec::new();
    for path in paths.iter().cycle() {
        if ended.load(Ordering::SeqCst) {
            break;
        }
        let sent = Instant::now();
        client.json("GET", path, &Value::Null)?;
        times.push(sent.elapsed());
        thread::sleep(Duration::from_millis(10));
    }
    Ok(times)
}
