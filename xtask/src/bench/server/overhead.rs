//! The same build by hand and on the server, in turn.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::peer::{Options, afresh, build_command, definition, link_downloads};
use crate::served::{Server, create, success, upload};
use crate::{Result, process, workspace};

/// Builds of each kind; the middle one counts.
const ROUNDS: usize = 3;

/// How often the build is asked for. `gcloud` asks once a second; a question every 5 ms takes a tenth of a processor from the build.
const SELDOM: Duration = Duration::from_millis(100);

/// Builds with nothing but downloads in the cache, and prints both times.
pub(super) fn compare(kiln: &Path, options: &Options, work: &Path) -> Result<()> {
    let named = options.definition.clone();
    let original = named.unwrap_or_else(|| workspace::root().join("examples/minimal.ks"));
    let project = work.join("definition");
    let project = definition::copy(&original, &project)?;
    let warm = options.warm_cache(kiln, &project, work)?;
    let source = match project.is_dir() {
        true => project.clone(),
        false => project.parent().map(Path::to_owned).unwrap_or_default(),
    };
    let (mut hand, mut served) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let cache = fresh_cache(&warm, work)?;
        let mut command = build_command(kiln, &cache, &project, &work.join("output"));
        // Nothing looks at it meanwhile, as nothing looks at the one on the server.
        let begun = Instant::now();
        process::run(command.args(["--format", "raw"]))?;
        hand.push(begun.elapsed());
        let cache = fresh_cache(&warm, work)?;
        served.push(on_server(kiln, &cache, &source, &project, work)?);
    }
    let (hand, served) = (middle(&mut hand), middle(&mut served));
    println!("bench server: the same build, the middle of {ROUNDS}");
    println!("  by hand    {:>7.2} s", hand.as_secs_f64());
    println!(
        "  on server  {:>7.2} s, from sending it to its success, the source uploaded before",
        served.as_secs_f64()
    );
    println!(
        "  overhead   {:>7.1} %",
        (served.as_secs_f64() / hand.as_secs_f64() - 1.0) * 100.0
    );
    Ok(())
}

fn fresh_cache(warm: &Path, work: &Path) -> Result<PathBuf> {
    let cache = work.join("cache");
    afresh(&cache)?;
    link_downloads(warm, &cache)?;
    Ok(cache)
}

fn on_server(
    kiln: &Path,
    cache: &Path,
    source: &Path,
    project: &Path,
    work: &Path,
) -> Result<Duration> {
    let server = Server::start(kiln, &work.join("data"), cache, &[])?;
    let mut client = server.client()?;
    let source = upload(&mut client, source)?;
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
    let begun = Instant::now();
    let build = create(
        &mut client,
        &json!({ "source": source, "steps": [{ "name": "kiln", "args": args }] }),
    )?;
    success(&mut client, &build, SELDOM)?;
    Ok(begun.elapsed())
}

fn middle(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}
