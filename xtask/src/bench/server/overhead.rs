//! The same build by hand and on the server, in turn.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::bench::measure::children_cpu;
use crate::peer::{Options, afresh, build_command, definition, link_downloads};
use crate::served::{Client, Server, builds, create, success, upload};
use crate::{Result, process, workspace};

/// Builds of each kind; the middle one counts.
const ROUNDS: usize = 5;

/// How often the build is asked for. `gcloud` asks once a second; a question every 5 ms takes a tenth of a processor from the build.
const SELDOM: Duration = Duration::from_millis(100);

/// What a build took.
#[derive(Clone, Copy)]
struct Took {
    wall: Duration,
    /// User and system time of the build, in seconds.
    build: f64,
    /// The same of the server itself.
    server: f64,
    /// Milliseconds from the request to the beginning of the step, and from its end to the build's. Unlike the difference of two
    /// builds, whose times vary by more than a tenth on a rented machine, they say what the server adds.
    around: Option<(i64, i64)>,
}

impl Took {
    fn cpu(&self) -> f64 {
        self.build + self.server
    }

    fn print(&self, what: &str) {
        println!(
            "  {what:<9}  {:>7.2} s, {:>6.2} s of processors for the build, {:>5.2} s for the server",
            self.wall.as_secs_f64(),
            self.build,
            self.server
        );
        if let Some((before, after)) = self.around {
            println!(
                "             its step began {before} ms after the request and ended {after} ms before the build"
            );
        }
    }
}

/// Builds with nothing but downloads in the cache, and prints both times.
pub(super) fn compare(kiln: &Path, options: &Options, work: &Path) -> Result<()> {
    let named = options.definition.clone();
    let original = named.unwrap_or_else(|| workspace::root().join("examples/minimal.ks"));
    let project = work.join("definition");
    let project = definition::copy(&original, &project)?;
    let warm = options.warm_cache(kiln, &project, work)?;
    let (mut hand, mut served) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        // Who comes first finds the disk and the caches otherwise than who comes second.
        for is_served in [round % 2 == 1, round % 2 == 0] {
            let kind = if is_served { "served" } else { "hand" };
            // A place of its own: what is removed shortly before is paid for by whoever comes next (`bench::measure`).
            let place = work.join(format!("{kind}-{round}"));
            let cache = fresh_cache(&warm, &place)?;
            rustix::fs::sync();
            let took = match is_served {
                true => on_server(kiln, &cache, &project, &place)?,
                false => by_hand(kiln, &cache, &project, &place)?,
            };
            took.print(kind);
            match is_served {
                true => served.push(took),
                false => hand.push(took),
            }
        }
    }
    let (hand, served) = (middle(&mut hand), middle(&mut served));
    println!("bench server: the same build, the middle of {ROUNDS}");
    hand.print("by hand");
    served.print("on server");
    println!(
        "  (on the server from sending it to its success, the source uploaded before; its own processor time included)"
    );
    println!(
        "  overhead   {:>7.1} %, {:>5.1} % of processor time",
        (served.wall.as_secs_f64() / hand.wall.as_secs_f64() - 1.0) * 100.0,
        (served.cpu() / hand.cpu() - 1.0) * 100.0
    );
    Ok(())
}

fn by_hand(kiln: &Path, cache: &Path, project: &Path, work: &Path) -> Result<Took> {
    let mut command = build_command(kiln, cache, project, &work.join("output"));
    let before = children_cpu()?;
    // Nothing looks at it meanwhile, as nothing looks at the one on the server.
    let begun = Instant::now();
    process::run(command.args(["--format", "raw"]))?;
    Ok(Took {
        wall: begun.elapsed(),
        build: (children_cpu()? - before).as_secs_f64(),
        server: 0.0,
        around: None,
    })
}

fn fresh_cache(warm: &Path, work: &Path) -> Result<PathBuf> {
    let cache = work.join("cache");
    afresh(&cache)?;
    link_downloads(warm, &cache)?;
    Ok(cache)
}

fn on_server(kiln: &Path, cache: &Path, project: &Path, work: &Path) -> Result<Took> {
    let source = match project.is_dir() {
        true => project.to_owned(),
        false => project.parent().map(Path::to_owned).unwrap_or_default(),
    };
    let server = Server::start(kiln, &work.join("data"), cache, &[])?;
    let mut client = server.client()?;
    let source = upload(&mut client, &source)?;
    let name = match project.is_dir() {
        true => ".".to_owned(),
        false => project
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned(),
    };
    let mut args = vec![
        "build".to_owned(),
        "--locked".to_owned(),
        "--format".to_owned(),
        "raw".to_owned(),
        name,
    ];
    if !project.is_dir() {
        args.extend(["--distribution".to_owned(), "debian:bookworm".to_owned()]);
    }
    let before = server.processor_time()?;
    let (begun, asked) = (Instant::now(), Timestamp::now());
    let build = create(
        &mut client,
        &json!({ "source": source, "steps": [{ "name": "kiln", "args": args }] }),
    )?;
    success(&mut client, &build, SELDOM)?;
    let wall = begun.elapsed();
    // The build's process is waited for a moment after its last word.
    std::thread::sleep(SELDOM);
    let after = server.processor_time()?;
    Ok(Took {
        wall,
        build: after.1 - before.1,
        server: after.0 - before.0,
        around: Some(around(&mut client, &build, asked)?),
    })
}

/// What lies before and behind the only step of a build that was asked for then, in milliseconds.
fn around(client: &mut Client, build: &str, asked: Timestamp) -> Result<(i64, i64)> {
    let done = client.json("GET", &builds(&format!("/{build}")), &Value::Null)?;
    let time = |place: &str| {
        let text = done.pointer(place).and_then(Value::as_str);
        text.and_then(|text| text.parse::<Timestamp>().ok())
            .ok_or_else(|| format!("the build has no time at {place}: {done}"))
    };
    let step = |which: &str| time(&format!("/steps/0/timing/{which}"));
    let before = step("startTime")?.duration_since(asked);
    let after = time("/finishTime")?.duration_since(step("endTime")?);
    let millis = |time: jiff::SignedDuration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
    Ok((millis(before), millis(after)))
}

fn middle(all: &mut [Took]) -> Took {
    all.sort_unstable_by_key(|took| took.wall);
    all[all.len() / 2]
}
