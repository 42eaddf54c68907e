//! `kiln cache ls|du|gc|verify`

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use kiln_engine::cache::{Limits, blocks_usage, collect_blocks};
use kiln_engine::{Failure, FailureKind, counted};
use kiln_packages::DownloadStore;
use kiln_rootfs::sandbox_error;
use kiln_rootfs::{Layer, Store};
use kiln_sandbox::Sandbox;
use serde::Serialize;

use super::Context;
use crate::args::{CacheArgs, CacheCommand};
use crate::output;
use crate::render::text::{bytes, duration, sanitize};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Does what was asked for.
pub(crate) fn run(args: &CacheArgs, context: &Context<'_>) -> Result<u8, Failure> {
    let cache = context.settings.cache_dir()?;
    match &args.command {
        CacheCommand::Ls { json } => list(cache, *json, context)?,
        CacheCommand::Du { json } => {
            if cache.exists() {
                context.notices(&kiln_rootfs::store::private(cache).open()?);
            }
            usage(cache, *json)?;
        }
        CacheCommand::Gc {
            keep_days,
            max_layers,
            max_blocks,
            dry_run,
        } => {
            let most = |mib: &Option<u64>| mib.map(|mib| mib.saturating_mul(1 << 20));
            let limits = Limits {
                age: Some(DAY * *keep_days),
                bytes: most(max_blocks),
                dry_run: *dry_run,
            };
            collect(cache, DAY * *keep_days, most(max_layers), &limits, context)?;
        }
        CacheCommand::Verify => return verify(cache, context),
    }
    Ok(0)
}

/// Opening the store reclaims what killed builds left, so every one of these commands does.
fn store(cache: &Path, context: &Context<'_>) -> Result<Store, Failure> {
    let sandbox = Arc::new(Sandbox::detect().map_err(sandbox_error)?);
    let store = Store::open(cache, sandbox)?;
    context.notices(store.notices());
    Ok(store)
}

/// A layer as `ls` shows it.
#[derive(Serialize)]
struct Row {
    id: String,
    title: String,
    bytes: u64,
    /// Seconds since it was made or last used.
    idle_seconds: u64,
}

fn list(cache: &Path, json: bool, context: &Context<'_>) -> Result<(), Failure> {
    let mut rows: Vec<Row> = store(cache, context)?.layers()?.iter().map(row).collect();
    rows.sort_by_key(|row| row.idle_seconds);
    rows.extend(blocks_row(cache)?);
    if json {
        return output::print_json(&rows);
    }
    let text = rows.iter().map(|row| {
        let id: String = row.id.chars().take(12).collect();
        let idle = duration(Duration::from_secs(row.idle_seconds));
        format!(
            "{id}  {:>9}  {idle:>12}  {}\n",
            bytes(row.bytes),
            sanitize(&row.title)
        )
    });
    output::print(&text.collect::<String>())
}

fn row(layer: &Layer) -> Row {
    Row {
        id: layer.info.id.to_string(),
        title: layer.info.title.clone(),
        bytes: allocated(&layer.fs),
        idle_seconds: idle(layer).as_secs(),
    }
}

/// The blocks of earlier images, all in one.
fn blocks_row(cache: &Path) -> Result<Option<Row>, Failure> {
    let usage = blocks_usage(cache)?;
    let row = Row {
        id: "blocks".to_owned(),
        title: format!("{} compressed blocks of earlier images", usage.blocks),
        bytes: usage.bytes,
        idle_seconds: age(&cache.join("blocks")).as_secs(),
    };
    Ok((usage.blocks > 0).then_some(row))
}

/// Compares layers with their manifests; the status is 4 where one was damaged.
fn verify(cache: &Path, context: &Context<'_>) -> Result<u8, Failure> {
    let store = store(cache, context)?;
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let damaged = kiln_engine::cache::verify(&store, threads)?;
    for damage in &damaged {
        let what = match damage.paths.first() {
            Some(path) => format!(
                "layer {}: {} changed, /{path} among them",
                damage.title,
                counted(damage.paths.len(), "file")
            ),
            None => format!("layer {}: made after a damaged one", damage.title),
        };
        context.terminal.note("removing", &what);
    }
    output::print(&format!("{} removed\n", counted(damaged.len(), "layer")))?;
    Ok(if damaged.is_empty() { 0 } else { 4 })
}

/// Since the layer was made, or since a build that used it touched its directory.
fn idle(layer: &Layer) -> Duration {
    let directory = layer.fs.parent().unwrap_or(&layer.fs);
    age(directory)
}

/// What cannot be told, or lies ahead, counts as used just now.
fn age(path: &Path) -> Duration {
    let changed = path.symlink_metadata().and_then(|m| m.modified());
    changed.map_or(Duration::ZERO, |changed| {
        let age = SystemTime::now().duration_since(changed);
        age.unwrap_or(Duration::ZERO)
    })
}

/// Bytes that a tree takes on disk. What an ordinary user cannot look into, inside directories of mapped owners, is
/// left out.
fn allocated(path: &Path) -> u64 {
    let Ok(metadata) = path.symlink_metadata() else {
        return 0;
    };
    let own = metadata.blocks() * 512;
    if !metadata.is_dir() {
        // Each name of a file has its share.
        return own / metadata.nlink().max(1);
    }
    let children = fs::read_dir(path).into_iter().flatten().flatten();
    own + children.map(|child| allocated(&child.path())).sum::<u64>()
}

/// One line of `du`.
#[derive(Serialize)]
struct Share {
    name: String,
    bytes: u64,
}

fn usage(cache: &Path, json: bool) -> Result<(), Failure> {
    let entries = match fs::read_dir(cache) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return print_usage(&[], json),
        Err(error) => return Err(unreadable(cache, &error)),
    };
    let mut shares = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|error| unreadable(cache, &error))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        shares.push(Share {
            name,
            bytes: allocated(&entry.path()),
        });
    }
    shares.sort_by(|a, b| a.name.cmp(&b.name));
    print_usage(&shares, json)
}

fn print_usage(shares: &[Share], json: bool) -> Result<(), Failure> {
    if json {
        return output::print_json(&shares);
    }
    let total: u64 = shares.iter().map(|share| share.bytes).sum();
    let mut text: String = shares
        .iter()
        .map(|share| format!("{:>9}  {}\n", bytes(share.bytes), sanitize(&share.name)))
        .collect();
    text += &format!("{:>9}  in all\n", bytes(total));
    output::print(&text)
}

/// Removes what has been idle for long, and the layers that were used longest ago until the others are small enough. Builds may
/// go on meanwhile: what they use stays.
fn collect(
    cache: &Path,
    keep: Duration,
    most_of_layers: Option<u64>,
    limits: &Limits,
    context: &Context<'_>,
) -> Result<(), Failure> {
    let dry_run = limits.dry_run;
    let store = store(cache, context)?;
    let mut freed = collect_downloads(cache, keep, dry_run, context)?;
    for (layer, size) in too_old_or_too_large(&store, keep, most_of_layers)? {
        if dry_run || store.collect(layer.info.id)? {
            freed += size;
            let what = format!("layer {}", layer.info.title);
            context.terminal.note("removing", &what);
        } else {
            let what = format!("layer {}: a build uses it", layer.info.title);
            context.terminal.note("keeping", &what);
        }
    }
    if !dry_run
        && store
            .last_failed()
            .map(|failed| age(&failed))
            .is_some_and(|age| age >= keep)
    {
        store.forget_failed()?;
    }
    freed += collect_blocks(cache, limits)?.bytes;
    // Metadata of vendored directories, copied by each build that uses one; and what signed metadata vouched for.
    for notes in ["vendored", "signed"] {
        freed += collect_old(&cache.join(notes), keep, dry_run)?;
    }
    let word = if dry_run { "would free" } else { "freed" };
    output::print(&format!("{word} {}\n", bytes(freed)))
}

/// Layers that are to go, each with its size on disk: the idle ones, and of the others those used longest ago.
fn too_old_or_too_large(
    store: &Store,
    keep: Duration,
    most: Option<u64>,
) -> Result<Vec<(Layer, u64)>, Failure> {
    let mut layers = store.layers()?;
    layers.sort_by_cached_key(idle);
    let mut kept = 0;
    let mut going = Vec::new();
    for layer in layers {
        let size = allocated(&layer.fs);
        if idle(&layer) >= keep || most.is_some_and(|most| kept + size > most) {
            going.push((layer, size));
        } else {
            kept += size;
        }
    }
    Ok(going)
}

/// Packages are left alone while a build runs.
fn collect_downloads(
    cache: &Path,
    keep: Duration,
    dry_run: bool,
    context: &Context<'_>,
) -> Result<u64, Failure> {
    let directory = cache.join("downloads");
    if !directory.is_dir() {
        return Ok(0);
    }
    let freed = DownloadStore::open(&directory)
        .and_then(|downloads| downloads.collect(keep, SystemTime::now(), dry_run))
        .map_err(|error| download_failure(&error))?;
    if freed.is_none() {
        context
            .terminal
            .note("keeping", "downloads: a build is running");
    }
    Ok(freed.unwrap_or(0))
}

/// Directories that builds made for themselves, and can do without.
fn collect_old(directory: &Path, keep: Duration, dry_run: bool) -> Result<u64, Failure> {
    let mut freed = 0;
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        // A build reads them at its beginning.
        let long_enough = keep.max(Duration::from_secs(3600));
        if age(&path) >= long_enough {
            freed += allocated(&path);
            if !dry_run {
                fs::remove_dir_all(&path).map_err(|error| unreadable(&path, &error))?;
            }
        }
    }
    Ok(freed)
}

fn download_failure(error: &kiln_packages::Error) -> Failure {
    Failure::new(FailureKind::Environment, error.to_string())
}

fn unreadable(path: &Path, error: &io::Error) -> Failure {
    Failure::new(
        FailureKind::Environment,
        format!("{} cannot be cleaned or read", path.display()),
    )
    .cause(error.to_string())
}
