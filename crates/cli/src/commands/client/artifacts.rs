//! `kiln artifacts`

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;

use kiln_client::Error;
use kiln_client::builds::{Artifact, Builds};
use kiln_digest::Sha256;
use kiln_engine::{Failure, FailureKind};
use serde_json::{Value, json};

use super::{connect, failure};
use crate::args::client::ArtifactsArgs;
use crate::commands::Context;
use crate::output;
use crate::render::text::{bytes, sanitize};

/// How often a download that was cut off goes on.
const TRIES: u32 = 5;

/// Lists what a build made, or downloads it.
pub(crate) fn run(args: &ArtifactsArgs, context: &Context<'_>) -> Result<u8, Failure> {
    let builds = connect(&args.remote, context)?;
    let id = builds.find(args.build.as_deref()).map_err(failure)?;
    let build = builds.get(&id).map_err(failure)?;
    let artifacts = builds.artifacts(&build).map_err(failure)?;
    if artifacts.is_empty() {
        let status = build["status"].as_str().unwrap_or("");
        let message = format!("the build {id} has no artifacts; its status is {status}");
        return Err(Failure::new(FailureKind::Definition, message).hint(
            "a build keeps what `artifacts.objects` of its build file names, when it has succeeded",
        ));
    }
    if let Some(dir) = &args.download {
        return download(&builds, &artifacts, dir, args.json, context);
    }
    let mut rows = Vec::new();
    for artifact in &artifacts {
        let object = builds.object(artifact).map_err(failure)?;
        let size = object["size"].as_str().and_then(|size| size.parse().ok());
        rows.push((artifact, size.unwrap_or(0)));
    }
    if args.json {
        let list: Vec<Value> = rows
            .iter()
            .map(|(artifact, size)| row(artifact, *size))
            .collect();
        output::print_json(&list)?;
        return Ok(0);
    }
    let lines = rows
        .iter()
        .map(|(artifact, size)| format!("{:>9}  {}\n", bytes(*size), sanitize(&artifact.place())));
    output::print(&lines.collect::<String>())?;
    Ok(0)
}

fn row(artifact: &Artifact, size: u64) -> Value {
    json!({
        "name": artifact.name(),
        "location": artifact.place(),
        "bytes": size,
        "sha256": artifact.sha256,
    })
}

fn download(
    builds: &Builds,
    artifacts: &[Artifact],
    dir: &Path,
    json: bool,
    context: &Context<'_>,
) -> Result<u8, Failure> {
    fs::create_dir_all(dir).map_err(|error| trouble(dir, &error))?;
    let mut rows = Vec::new();
    for artifact in artifacts {
        let name = artifact.name();
        if matches!(name, "" | "." | "..") {
            let message = format!("{} has no name for a file", artifact.place());
            return Err(Failure::new(FailureKind::Definition, message));
        }
        let target = dir.join(name);
        let size = one(builds, artifact, &target)?;
        if !json {
            let text = format!("{}, {}", target.display(), bytes(size));
            context.terminal.note("downloaded", &text);
        }
        rows.push(row(artifact, size));
    }
    if json {
        output::print_json(&rows)?;
    }
    Ok(0)
}

fn trouble(path: &Path, error: &io::Error) -> Failure {
    let message = format!("{} cannot be written", path.display());
    Failure::new(FailureKind::Environment, message).cause(error.to_string())
}

/// Downloads one file, whole or not at all, and returns its size.
fn one(builds: &Builds, artifact: &Artifact, target: &Path) -> Result<u64, Failure> {
    if let Ok(mut file) = File::open(target)
        && let Some(expected) = &artifact.sha256
        && let Ok((size, sum)) = sum(&mut file)
        && sum == *expected
    {
        return Ok(size);
    }
    let dir = target.parent().unwrap_or(Path::new("."));
    let staged = tempfile::Builder::new()
        .prefix(".kiln-download-")
        .tempfile_in(dir)
        .map_err(|error| trouble(dir, &error))?;
    let mut into = Into {
        file: staged.as_file(),
        target,
        sum: Sha256::new(),
        size: 0,
    };
    let mut lost = 0;
    loop {
        match into.rest(builds, artifact) {
            Ok(()) => break,
            Err(Ended::Here(failure)) => return Err(*failure),
            Err(Ended::There(error)) if lost >= TRIES => return Err(failure(error)),
            Err(Ended::There(error)) => {
                if error.kind != kiln_client::Kind::Unreachable {
                    return Err(failure(error));
                }
                lost += 1;
                std::thread::sleep(std::time::Duration::from_millis(200 << lost));
            }
        }
    }
    let size = into.size;
    let found: String = hex(&into.sum.finalize());
    if artifact
        .sha256
        .as_ref()
        .is_some_and(|expected| *expected != found)
    {
        let message = format!("{} did not arrive as the build made it", artifact.place());
        return Err(Failure::new(FailureKind::Environment, message)
            .cause("its SHA-256 is another one")
            .hint("download it again"));
    }
    let kept = staged.as_file().sync_all();
    kept.map_err(|error| trouble(target, &error))?;
    readable(staged.as_file()).map_err(|error| trouble(target, &error))?;
    staged
        .persist(target)
        .map_err(|error| trouble(target, &error.error))?;
    Ok(size)
}

/// As files are made everywhere else, not as temporary ones.
fn readable(file: &File) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let mask = rustix::process::umask(rustix::fs::Mode::empty());
    rustix::process::umask(mask);
    let mode = 0o666 & !mask.bits();
    file.set_permissions(fs::Permissions::from_mode(mode))
}

enum Ended {
    Here(Box<Failure>),
    There(Error),
}

struct Into<'a> {
    file: &'a File,
    target: &'a Path,
    sum: Sha256,
    size: u64,
}

impl Into<'_> {
    /// Downloads what is missing.
    fn rest(&mut self, builds: &Builds, artifact: &Artifact) -> Result<(), Ended> {
        let mut answer = builds.download(artifact, self.size).map_err(Ended::There)?;
        let mut body = answer.reader();
        let mut buffer = vec![0; 1 << 20];
        loop {
            let length = match body.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(length) => length,
                Err(error) => return Err(Ended::There(builds.connection.cut(error))),
            };
            let mut file = self.file;
            let written = file.write_all(&buffer[..length]);
            written.map_err(|error| Ended::Here(Box::new(trouble(self.target, &error))))?;
            self.sum.update(&buffer[..length]);
            self.size += length as u64;
        }
    }
}

fn sum(file: &mut File) -> io::Result<(u64, String)> {
    let mut sum = Sha256::new();
    let mut size = 0;
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok((size, hex(&sum.finalize()))),
            length => {
                sum.update(&buffer[..length]);
                size += length as u64;
            }
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
