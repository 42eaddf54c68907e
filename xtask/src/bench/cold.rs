//! The desktop from a warm download store, against `mmdebstrap`, `mksquashfs` and the usual partitioning tools.
//!
//! Both sides start with every package on the local disk and nothing else: Kiln with its download store, offline and
//! locked; the peer with a `file://` repository of the very same files. Kiln's codec, level and block size are read
//! off the image that it made and given to `mksquashfs`. What only Kiln does is left in its time: kickstart commands,
//! scripts, `disk.tar.gz`, digests.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::measure::{Cost, measure};
use super::table::ratio_table;
use crate::prerequisites::search_path;
use crate::{Result, process, workspace};

/// What `cargo xtask bench` says of it.
pub(super) const ABOUT: &str =
    "[DEF] an image from a warm download store, against mmdebstrap + mksquashfs";

/// The part of the lock file that the peer needs.
struct Package {
    name: String,
    size: String,
    sha256: String,
}

/// Runs the case for a definition, by default `examples/lab`.
pub(super) fn run(words: &[&str]) -> Result<()> {
    let definition = match words {
        [] => workspace::root().join("examples/lab"),
        [definition] => PathBuf::from(definition),
        _ => return Err("bench cold takes one definition at most".to_owned()),
    };
    if !rustix::process::geteuid().is_root() {
        return Err("bench cold compares with tools that need root".to_owned());
    }
    let work = workspace::target_directory()?.join("bench/cold");
    let kiln = release_binary()?;
    let project = copy_definition(&definition, &work)?;
    let store = warm_store(&kiln, &project, &work)?;
    let ours = ours(&kiln, &project, &work, &store)?;
    let image = work.join("output/disk.raw");
    let partitions = partitions(&image)?;
    let packages = read_lock(&lock_of(&project)?)?;
    let repository = repository(
        &packages,
        &work.join("cache/downloads"),
        &work.join("repository"),
    )?;
    let peer = peer(&packages, &repository, &image, &partitions, &work)?;
    println!("{}", steps_table(&work.join("output/manifest.json")));
    println!("{}", peer.steps());
    print!(
        "{}",
        ratio_table(
            "bench cold",
            ("kiln", ours),
            ("mmdebstrap + mksquashfs", peer.total())
        )
    );
    println!(
        "roots to compare: {} and {}",
        work.join("ours.squashfs").display(),
        work.join("peer").display()
    );
    Ok(())
}

fn release_binary() -> Result<PathBuf> {
    process::run(workspace::cargo().args([
        "build",
        "--release",
        "--locked",
        "--package",
        "kiln-cli",
    ]))?;
    Ok(workspace::target_directory()?.join("release/kiln"))
}

fn trouble<'a>(doing: &'a str, path: &'a Path) -> impl FnOnce(std::io::Error) -> String + 'a {
    move |error| format!("{doing} {}: {error}", path.display())
}

/// A copy, so that the lock of the benchmark does not appear among the sources.
fn copy_definition(definition: &Path, work: &Path) -> Result<PathBuf> {
    let target = work.join("definition");
    if target.exists() {
        fs::remove_dir_all(&target).map_err(trouble("removing", &target))?;
    }
    fs::create_dir_all(&target).map_err(trouble("making", &target))?;
    let mut copy = Command::new("cp");
    copy.arg("-R");
    if definition.is_dir() {
        copy.arg(definition.join("."));
    } else {
        copy.arg(definition);
    }
    process::run(copy.arg(&target))?;
    let file = definition.file_name().filter(|_| definition.is_file());
    Ok(file.map_or(target.clone(), |name| target.join(name)))
}

/// `kiln.lock` beside a `kiln.toml`, `NAME.kiln.lock` beside a kickstart file.
fn lock_of(project: &Path) -> Result<PathBuf> {
    let lock = if project.is_dir() {
        project.join("kiln.lock")
    } else {
        project.with_extension("kiln.lock")
    };
    if lock.is_file() {
        Ok(lock)
    } else {
        Err(format!("`kiln lock` wrote no {}", lock.display()))
    }
}

/// Locks, and fills a download store by building once; returns the store.
fn warm_store(kiln: &Path, project: &Path, work: &Path) -> Result<PathBuf> {
    let cache = work.join("warm");
    let output = work.join("warm-output");
    process::run(command(kiln, &cache).arg("lock").arg(project))?;
    process::run(
        command(kiln, &cache)
            .args(["build", "--locked", "-o"])
            .arg(&output)
            .arg(project),
    )?;
    fs::remove_dir_all(&output).map_err(trouble("removing", &output))?;
    Ok(cache.join("downloads"))
}

fn command(kiln: &Path, cache: &Path) -> Command {
    let mut command = Command::new(kiln);
    command
        .arg("--cache-dir")
        .arg(cache)
        .arg("--state-dir")
        .arg(cache.join("state"));
    command
}

/// Kiln's part: a new cache that holds nothing but the downloads.
fn ours(kiln: &Path, project: &Path, work: &Path, store: &Path) -> Result<Cost> {
    let cache = work.join("cache");
    for stale in [&cache, &work.join("output")] {
        if stale.exists() {
            fs::remove_dir_all(stale).map_err(trouble("removing", stale))?;
        }
    }
    fs::create_dir_all(&cache).map_err(trouble("making", &cache))?;
    // Hard links: both caches keep the files, none is copied.
    process::run(Command::new("cp").arg("-al").arg(store).arg(&cache))?;
    let mut build = command(kiln, &cache);
    measure(
        build
            .args(["build", "--locked", "--offline", "-o"])
            .arg(work.join("output"))
            .arg(project),
    )
}

/// `NAME VERSION ARCHITECTURE SIZE SHA256 auto|asked URL`; the other lines have a key word and fewer fields.
fn read_lock(path: &Path) -> Result<Vec<Package>> {
    let text = fs::read_to_string(path).map_err(trouble("reading", path))?;
    let packages: Vec<Package> = text.lines().filter_map(lock_line).collect();
    if packages.is_empty() {
        Err(format!("{} names no package", path.display()))
    } else {
        Ok(packages)
    }
}

fn lock_line(line: &str) -> Option<Package> {
    let fields: Vec<&str> = line.split(' ').collect();
    let [
        name,
        _version,
        _architecture,
        size,
        sha256,
        "auto" | "asked",
        _url,
    ] = fields[..]
    else {
        return None;
    };
    Some(Package {
        name: name.to_owned(),
        size: size.to_owned(),
        sha256: sha256.to_owned(),
    })
}

/// A flat repository of links into the download store; the stanzas are the packages' own.
fn repository(packages: &[Package], store: &Path, target: &Path) -> Result<PathBuf> {
    if target.exists() {
        fs::remove_dir_all(target).map_err(trouble("removing", target))?;
    }
    fs::create_dir_all(target).map_err(trouble("making", target))?;
    let mut index = String::new();
    for Package { name, size, sha256 } in packages {
        let directory = sha256
            .get(..2)
            .ok_or_else(|| format!("{name} has the digest `{sha256}`"))?;
        let file = format!("{sha256}.deb");
        let link = target.join(&file);
        symlink(store.join("sha256").join(directory).join(sha256), &link)
            .map_err(trouble("linking", &link))?;
        let control = process::output(Command::new("dpkg-deb").arg("--field").arg(&link))?;
        let _ = write!(
            index,
            "{}\nFilename: ./{file}\nSize: {size}\nSHA256: {sha256}\n\n",
            control.trim_end()
        );
    }
    let path = target.join("Packages");
    fs::write(&path, index).map_err(trouble("writing", &path))?;
    Ok(target.to_path_buf())
}

/// A partition of Kiln's image, in sectors.
struct Partition {
    start: u64,
    sectors: u64,
    kind: String,
}

const SECTOR: u64 = 512;
/// Partition types of the EFI system partition and of Linux file system data (UEFI 2.10, 5.3.3; Discoverable
/// Partitions).
const EFI_SYSTEM: &str = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B";

fn partitions(image: &Path) -> Result<Vec<Partition>> {
    let text = process::output(tool("sfdisk").arg("--json").arg(image))?;
    let table: Value =
        serde_json::from_str(&text).map_err(|error| format!("sfdisk printed no JSON: {error}"))?;
    let list = table["partitiontable"]["partitions"]
        .as_array()
        .ok_or("sfdisk lists no partitions")?;
    let partition = |value: &Value| {
        Some(Partition {
            start: value["start"].as_u64()?,
            sectors: value["size"].as_u64()?,
            kind: value["type"].as_str()?.to_owned(),
        })
    };
    list.iter()
        .map(|value| partition(value).ok_or_else(|| "sfdisk's list is incomplete".to_owned()))
        .collect()
}

/// A system tool, also where the `PATH` of an ordinary user does not lead.
fn tool(name: &str) -> Command {
    let mut command = Command::new(name);
    command.env(
        "PATH",
        std::env::join_paths(search_path()).unwrap_or_default(),
    );
    command
}

/// The peer's steps with their costs.
struct Peer(Vec<(&'static str, Cost)>);

impl Peer {
    fn total(&self) -> Cost {
        self.0
            .iter()
            .fold(Cost::default(), |sum, (_, cost)| sum + *cost)
    }

    fn steps(&self) -> String {
        let mut out = "the peer's seconds:\n".to_owned();
        for (name, cost) in &self.0 {
            let _ = writeln!(out, "  {:>8.2}  {name}", cost.wall.as_secs_f64());
        }
        out
    }
}

fn peer(
    packages: &[Package],
    mirror: &Path,
    image: &Path,
    partitions: &[Partition],
    work: &Path,
) -> Result<Peer> {
    let root = work.join("peer");
    if root.exists() {
        fs::remove_dir_all(&root).map_err(trouble("removing", &root))?;
    }
    let squashfs = work.join("peer.squashfs");
    let _ = fs::remove_file(&squashfs);
    let like = Squashfs::of(image, partitions, &work.join("ours.squashfs"))?;
    let mut steps = vec![(
        "mmdebstrap",
        measure(&mut mmdebstrap(packages, mirror, &root))?,
    )];
    let mut mksquashfs = tool("mksquashfs");
    mksquashfs
        .arg(&root)
        .arg(&squashfs)
        .args(["-noappend", "-no-progress", "-quiet"])
        .args(like.options());
    steps.push(("mksquashfs", measure(&mut mksquashfs)?));
    let script = disk_script(image, partitions, &like, work)?;
    steps.push((
        "partition and file systems",
        measure(tool("bash").args(["-euo", "pipefail", "-c", &script]))?,
    ));
    Ok(Peer(steps))
}

fn mmdebstrap(packages: &[Package], mirror: &Path, root: &Path) -> Command {
    let names: Vec<&str> = packages
        .iter()
        .map(|package| package.name.as_str())
        .collect();
    let mut command = tool("mmdebstrap");
    command.args([
        "--quiet",
        "--mode=root",
        "--variant=apt",
        "--format=directory",
        "--skip=check/empty",
    ]);
    command.arg("--hook-dir=/usr/share/mmdebstrap/hooks/file-mirror-automount");
    command.arg(format!("--include={}", names.join(",")));
    // The suite's name has no meaning for a flat repository.
    command
        .arg("bookworm")
        .arg(root)
        .arg(format!("deb [trusted=yes] file://{} ./", mirror.display()));
    command
}

/// How Kiln's SquashFS was made.
struct Squashfs {
    partition: usize,
    codec: String,
    level: Option<String>,
    block: String,
}

impl Squashfs {
    /// Finds the root among the partitions, keeps a copy of it for comparisons and asks `unsquashfs` about it.
    fn of(image: &Path, partitions: &[Partition], copy: &Path) -> Result<Squashfs> {
        for (number, partition) in partitions.iter().enumerate() {
            let mut ask = tool("unsquashfs");
            ask.args(["-stat", "-offset"])
                .arg((partition.start * SECTOR).to_string())
                .arg(image);
            let Ok(said) = process::output(&mut ask) else {
                continue;
            };
            process::run(&mut extract(image, partition, copy))?;
            let word_after = |name: &str| {
                let line = said
                    .lines()
                    .find_map(|line| line.trim().strip_prefix(name))?;
                line.split_whitespace().next().map(str::to_owned)
            };
            return Ok(Squashfs {
                partition: number,
                codec: word_after("Compression ").ok_or("unsquashfs names no codec")?,
                level: word_after("compression-level "),
                block: word_after("Block size ").ok_or("unsquashfs names no block size")?,
            });
        }
        Err(format!("{} has no SquashFS partition", image.display()))
    }

    fn options(&self) -> Vec<String> {
        let mut options = vec![
            "-comp".to_owned(),
            self.codec.clone(),
            "-b".to_owned(),
            self.block.clone(),
        ];
        if let Some(level) = &self.level {
            options.extend(["-Xcompression-level".to_owned(), level.clone()]);
        }
        options
    }
}

fn extract(image: &Path, partition: &Partition, target: &Path) -> Command {
    let mut dd = tool("dd");
    let value = |key: &str, value: &dyn std::fmt::Display| format!("{key}={value}");
    dd.args([
        value("if", &image.display()),
        value("of", &target.display()),
        value("bs", &"1M"),
    ]);
    dd.args([
        value("skip", &(partition.start * SECTOR)),
        value("count", &(partition.sectors * SECTOR)),
    ]);
    dd.args(["iflag=skip_bytes,count_bytes", "conv=sparse", "status=none"]);
    dd
}

/// The same table, a FAT with kernel and initrd, the SquashFS, and an ext4 where Kiln has one.
fn disk_script(
    image: &Path,
    partitions: &[Partition],
    like: &Squashfs,
    work: &Path,
) -> Result<String> {
    let table = work.join("table.sfdisk");
    let dump = process::output(tool("sfdisk").arg("--dump").arg(image))?;
    fs::write(&table, dump).map_err(trouble("writing", &table))?;
    let bytes = fs::metadata(image)
        .map_err(trouble("reading", image))?
        .len();
    let quoted = |path: &Path| format!("'{}'", path.display().to_string().replace('\'', r"'\''"));
    let (disk, root) = (quoted(&work.join("peer.raw")), quoted(&work.join("peer")));
    let scratch = quoted(&work.join("peer.part"));
    let mut script = format!(
        "rm -f {disk} {scratch}; truncate -s {bytes} {disk}\nsfdisk -q {disk} < {}\n",
        quoted(&table)
    );
    let place = |source: &str, start: u64| {
        format!(
            "dd if={source} of={disk} bs=1M seek={} oflag=seek_bytes conv=notrunc,sparse status=none\n",
            start * SECTOR
        )
    };
    for (
        number,
        Partition {
            start,
            sectors,
            kind,
        },
    ) in partitions.iter().enumerate()
    {
        let size = sectors * SECTOR;
        if number == like.partition {
            script += &place(&quoted(&work.join("peer.squashfs")), *start);
        } else if kind.eq_ignore_ascii_case(EFI_SYSTEM) {
            let _ = writeln!(
                script,
                "truncate -s {size} {scratch}; mkfs.fat -F 32 {scratch} > {scratch}.log"
            );
            let _ = writeln!(
                script,
                "mcopy -i {scratch} {root}/boot/vmlinuz-* {root}/boot/initrd.img-* ::/"
            );
            script += &place(&scratch, *start);
            let _ = writeln!(script, "rm -f {scratch}");
        } else if number > like.partition {
            let _ = writeln!(
                script,
                "truncate -s {size} {scratch}; mke2fs -q -t ext4 {scratch}"
            );
            script += &place(&scratch, *start);
            let _ = writeln!(script, "rm -f {scratch}");
        }
    }
    Ok(script)
}

/// Where Kiln's seconds went, as its manifest says.
fn steps_table(manifest: &Path) -> String {
    let mut out = "Kiln's seconds:\n".to_owned();
    let text = fs::read_to_string(manifest).unwrap_or_default();
    let value: Value = serde_json::from_str(&text).unwrap_or_default();
    for step in value["timings"].as_array().into_iter().flatten() {
        let (name, seconds) = (step["step"].as_str(), step["seconds"].as_f64());
        if let (Some(name), Some(seconds)) = (name, seconds) {
            let _ = writeln!(out, "  {seconds:>8.2}  {name}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_packages_are_read_from_a_lock() {
        assert!(lock_line("format 1").is_none());
        assert!(lock_line("repository a b c d").is_none());
        let found =
            lock_line("libc6 2.36-9 amd64 2752360 abcd auto http://mirror.example/libc6.deb")
                .unwrap();
        assert_eq!(
            (
                found.name.as_str(),
                found.size.as_str(),
                found.sha256.as_str()
            ),
            ("libc6", "2752360", "abcd")
        );
    }
}
