//! What has to be true when a batch has ended.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::Chore;
use super::batch::{Batch, Build, Kind, LINES};
use crate::peer::trouble;
use crate::served::{Client, OFTEN, PROJECT, create, log_address, success};
use crate::{Result, process};

/// Attempts at a build whose process is killed: no more are made.
const MOST_ATTEMPTS: usize = 3;

/// Checks a batch: ends, logs, artifacts; then, without the server, what is left on the machine and in the index.
pub(super) fn batch(chore: &Chore, batch: &Batch) -> Result<()> {
    let mut client = batch.server.client()?;
    let (mut bytes, mut files, mut attempts) = (0, 0, 0);
    for build in &batch.builds {
        let told = |what: String| {
            format!(
                "{:?} build {} ({}): {what}",
                build.kind, build.id, build.number
            )
        };
        let number = end(chore, build).map_err(told)?;
        bytes += log(chore, &mut client, build, number).map_err(told)?;
        attempts += number;
        if build.end["status"] == "SUCCESS" {
            files += artifacts(chore, &mut client, build).map_err(told)?;
        }
    }
    same_images(chore, &batch.builds)?;
    // The next build clears what a killed one staged.
    let last = create(
        &mut client,
        &serde_json::json!({
            "source": batch.builds.first().map(|build| build.end["source"].clone()),
            "steps": [{ "name": "kiln", "args": ["build", "--locked", "image-0.ks", "--distribution", "debian:bookworm"] }],
        }),
    )?;
    success(&mut client, &last, OFTEN)?;
    println!(
        "killed: the server {} times, processes of builds {} times; {} builds with {attempts} attempts ended as they had to",
        batch.servers,
        batch.agents,
        batch.builds.len()
    );
    println!(
        "  {bytes} bytes of logs were shown and are there, none twice; {files} artifacts are whole"
    );
    Ok(())
}

/// Without a server: nothing of it is on the machine any more, and the index says what is there.
pub(super) fn nothing_left(chore: &Chore) -> Result<()> {
    let work = chore.work.display().to_string();
    let began = Instant::now();
    loop {
        let mut left: Vec<String> = process::running()?
            .into_iter()
            .map(|(pid, words)| format!("process {pid}: {}", words.join(" ")))
            .filter(|line| line.contains(&work) && !line.contains("xtask"))
            .collect();
        let mounts = Path::new("/proc/self/mountinfo");
        let mounts = fs::read_to_string(mounts).map_err(trouble("reading", mounts))?;
        left.extend(
            mounts
                .lines()
                .filter(|line| line.contains(&work))
                .map(str::to_owned),
        );
        if left.is_empty() {
            break;
        }
        if began.elapsed() > Duration::from_secs(10) {
            return Err(format!("this is left:\n{}", left.join("\n")));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    let staging = chore.cache().join("staging");
    if let Ok(mut entries) = fs::read_dir(&staging)
        && let Some(Ok(entry)) = entries.next()
    {
        return Err(format!("{} is left", entry.path().display()));
    }
    let found = chore.ask("check", &chore.data(), &[])?;
    match found["wrong"].as_array() {
        Some(wrong) if wrong.is_empty() => {
            println!(
                "  nothing is left on the machine; {} objects are as the index says",
                found["objects"]
            );
            Ok(())
        }
        _ => Err(format!("the server's data: {found:#}")),
    }
}

/// The status is right, and there were no more attempts than kills. Returns how many there were.
fn end(chore: &Chore, build: &Build) -> Result<usize> {
    let status = build.end["status"].as_str().unwrap_or("");
    let given_up = status == "INTERNAL_ERROR" && build.agents >= MOST_ATTEMPTS;
    if status != build.kind.status() && !given_up {
        return Err(format!(
            "ended as {status}, killed {} times: {}",
            build.agents, build.end
        ));
    }
    let dir = chore.data().join("builds").join(&build.id);
    let attempts = match fs::read_dir(&dir) {
        Ok(entries) => entries.count(),
        // Cancelled before it began.
        Err(_) => 0,
    };
    if attempts > build.agents + 1 || attempts > MOST_ATTEMPTS {
        return Err(format!("{attempts} attempts, but {} kills", build.agents));
    }
    Ok(attempts)
}

/// The log is what was shown and more, each attempt's is the beginning of the next one's, and no line is there twice.
fn log(chore: &Chore, client: &mut Client, build: &Build, attempts: usize) -> Result<usize> {
    if attempts == 0 {
        return Ok(0);
    }
    let (status, log) = client.request("GET", &log_address(&build.id), "", b"")?;
    if status != 200 {
        return Err(format!("the log: {status}"));
    }
    if log != build.shown {
        let same = log
            .iter()
            .zip(&build.shown)
            .take_while(|(a, b)| a == b)
            .count();
        return Err(format!(
            "{} bytes were shown, {} are there; the first {same} are the same",
            build.shown.len(),
            log.len()
        ));
    }
    let dir = chore.data().join("builds").join(&build.id);
    for number in 1..=attempts {
        let path = dir.join(format!("attempt-{number}/log.txt"));
        let text = fs::read(&path).map_err(trouble("reading", &path))?;
        let whole = text
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(0, |at| at + 1);
        if !log.starts_with(&text[..whole]) {
            return Err(format!("attempt {number} has lines that the log has not"));
        }
    }
    let text = String::from_utf8(log).map_err(|error| format!("the log: {error}"))?;
    let expected = match build.end["status"].as_str() {
        Some("SUCCESS") => "\nDONE\n",
        Some("CANCELLED") => "\nCANCELLED\n",
        Some("TIMEOUT") => "\nTIMEOUT\n",
        _ => "\nERROR\n",
    };
    let (begun, ended) = (
        text.matches("starting build \"").count(),
        text.matches(expected).count(),
    );
    if begun > attempts || ended != 1 {
        return Err(format!(
            "the log begins {begun} times, and ends {ended} times:\n{text:.2000}"
        ));
    }
    if build.kind == Kind::Loud {
        lines(&text, build.end["status"] == "SUCCESS")?;
    }
    Ok(text.len())
}

/// Each attempt's lines of a loud build come one after the other; those of the last one are all there.
fn lines(text: &str, is_whole: bool) -> Result<()> {
    for attempt in text.split("starting build \"").skip(1) {
        let is_last = text.ends_with(attempt);
        for step in 0..3 {
            let prefix = format!("Step #{step}: echo line ");
            let numbers = attempt
                .lines()
                .filter_map(|line| line.strip_prefix(&prefix));
            let mut next = 0;
            for rest in numbers {
                let number = rest
                    .get(..8)
                    .and_then(|digits| digits.parse::<usize>().ok());
                if number != Some(next) {
                    return Err(format!(
                        "step {step}: line {next} is missing before `{rest}`"
                    ));
                }
                next += 1;
            }
            if is_last && is_whole && next != LINES {
                return Err(format!("step {step} has {next} lines of {LINES}"));
            }
        }
    }
    Ok(())
}

/// Each file of the list has the digest that the list says. Returns how many they are.
fn artifacts(chore: &Chore, client: &mut Client, build: &Build) -> Result<usize> {
    let Some(list) = build.end["results"]["artifactManifest"].as_str() else {
        return if build.kind == Kind::Failing {
            Ok(0)
        } else {
            Err("it has no artifacts".to_owned())
        };
    };
    let bucket = format!("{PROJECT}_out");
    let fetch = |client: &mut Client, place: &str| -> Result<Vec<u8>> {
        let name = place
            .strip_prefix(&format!("gs://{bucket}/"))
            .unwrap_or(place);
        let name = name.split('#').next().unwrap_or(name).replace('/', "%2F");
        let path = format!("/download/storage/v1/b/{bucket}/o/{name}?alt=media");
        match client.request("GET", &path, "", b"")? {
            (200, body) => Ok(body),
            (status, _) => Err(format!("{place}: {status}")),
        }
    };
    let text = fetch(client, list)?;
    let mut count = 0;
    for line in String::from_utf8_lossy(&text).lines() {
        let entry: Value =
            serde_json::from_str(line).map_err(|error| format!("{list}: {error}"))?;
        let place = entry["location"].as_str().unwrap_or("");
        let file = chore.work.join("fetched");
        fs::write(&file, fetch(client, place)?).map_err(trouble("writing", &file))?;
        let said = process::output(Command::new("sha256sum").arg(&file))?;
        if entry["file_hash"][0]["file_hash"][1]["value"].as_str() != said.split(' ').next() {
            return Err(format!("{place} is not what the list says: {said}"));
        }
        count += 1;
    }
    Ok(count)
}

/// Images of one definition are the same, whatever was killed.
fn same_images(chore: &Chore, all: &[Build]) -> Result<()> {
    for build in all.iter().filter(|build| build.kind == Kind::Image) {
        let twin = all.iter().find(|other| {
            other.kind == Kind::Image
                && other.number % super::batch::IMAGES == build.number % super::batch::IMAGES
        });
        let (Some(twin), true) = (twin, build.end["status"] == "SUCCESS") else {
            continue;
        };
        let disk = |build: &Build| {
            let attempts = chore.data().join("builds").join(&build.id);
            let dirs = fs::read_dir(&attempts)
                .into_iter()
                .flatten()
                .flatten()
                .count();
            attempts.join(format!("attempt-{dirs}/workspace/output/disk.raw"))
        };
        if twin.id != build.id && twin.end["status"] == "SUCCESS" {
            let (one, other) = (disk(twin), disk(build));
            process::run(Command::new("cmp").arg(one).arg(other))?;
        }
    }
    Ok(())
}
