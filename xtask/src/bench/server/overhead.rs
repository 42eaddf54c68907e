//! The same build by hand and on the server, in turn.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::bench::measure::children_cpu;
use crate::peer::{Options, afresh, build_command, definition, link_downloads};
use crate::served::{Server, create, success, upload};
use crate::{Result, process, workspace};

/// Builds of each kind; the middle one counts.
const ROUNDS: usize = 3;

/// How often the build is asked for. `gcloud` asks once a second; a question every 5 ms takes a tenth of a processor from the build.
const SELDOM: Duration = Duration::from_millis(100);

/// What a build took.
#[derive(Clone, Copy)]
struct Took {
    wall: Duration,
    /// User and system time, in seconds.
    cpu: f64,
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
            match is_served {
                true => served.push(on_server(kiln, &cache, &project, &place)?),
                false => hand.push(by_hand(kiln, &cache, &project, &place)?),
            }
        }
    }
    let (hand, served) = (middle(&mut hand), middle(&mut served));
    println!("bench server: the same build, the middle of {ROUNDS}");
    for (what, took) in [("by hand  ", hand), ("on server", served)] {
        println!(
            "  {what}  {:>7.2} s, {:>6.2} s of processors",
            took.wall.as_secs_f64(),
            took.cpu
        );
    }
    println!(
        "  (on the server from sending it to its success, the source uploaded before; its own processor time included)"
    );
    println!(
        "  overhead   {:>7.1} %, {:>5.1} % of processor time",
        (served.wall.as_secs_f64() / hand.wall.as_secs_f64() - 1.0) * 100.0,
        (served.cpu / hand.cpu - 1.0) * 100.0
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
        cpu: (children_cpu()? - before).as_secs_f64(),
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
    let begun = Instant::now();
    let build = create(
        &mut client,
        &json!({ "source": source, "steps": [{ "name": "kiln", "args": args }] }),
    )?;
    success(&mut client, &build, SELDOM)?;
    let wall = begun.elapsed();
    // The build's process is waited for a moment after its last word.
    std::thread::sleep(SELDOM);
    let after = server.processor_time()?;
    let cpu = (after.0 - before.0) + (after.1 - before.1);
    Ok(Took { wall, cpu })
}

fn middle(all: &mut [Took]) -> Took {
    all.sort_unstable_by_key(|took| took.wall);
    all[all.len() / 2]
}
