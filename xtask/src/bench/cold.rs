//! The desktop from a warm download store, against `mmdebstrap`, `mksquashfs` and the usual partitioning tools.
//!
//! Both sides start with every package on the local disk and nothing else: Kiln with its download store, offline and
//! locked; the peer with a `file://` repository of the very same files. Kiln's codec, level and block size are read
//! off the image that it made and given to `mksquashfs`. Both end with a raw disk. What only Kiln does is left in its time:
//! kickstart commands, scripts, digests.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use serde_json::Value;

use super::measure::{Cost, measure, settle};
use super::table::ratio_table;
use crate::peer::disk::{Partition, SECTOR, Squashfs, partitions};
use crate::peer::repository::Package;
use crate::peer::{Options, afresh, definition, link_downloads, mmdebstrap, need_root};
use crate::peer::{build_command, repository, tool, trouble};
use crate::{Result, process, workspace};

/// What `cargo xtask bench` says of it.
pub(super) const ABOUT: &str = "[--definition DEF] [--kiln FILE] [--warm CACHE] [--profile NAME] [--keep] \
    an image from a warm download store, against mmdebstrap + mksquashfs";

/// What the other cases begin with.
pub(super) const FOR_OTHERS: &[&str] = &[
    "definition",
    "cache",
    "peer",
    "output/disk.raw",
    "output/manifest.json",
];
pub(super) const WHY: &str =
    "for `bench warm`, `bench tar.gz` and `bench squashfs`; remove it after them";

/// Runs the case for a definition, by default `examples/lab`.
pub(super) fn run(words: &[&str]) -> Result<()> {
    need_root("bench cold")?;
    let options = Options::parse(words)?;
    let lab = || workspace::root().join("examples/lab");
    let source = options.definition.clone().unwrap_or_else(lab);
    let work = workspace::target_directory()?.join("bench/cold");
    let _leftovers = options.leftovers(&work, FOR_OTHERS, WHY);
    let kiln = options.kiln()?;
    let project = definition::copy(&source, &work.join("definition"))?;
    let warm = options.warm_cache(&kiln, &project, &work)?;
    let packages = repository::installed(&definition::lock_of(&project)?)?;
    let mirror = work.join("repository");
    repository::make(&packages, &warm.join("downloads"), &mirror)?;

    let ours = ours(&kiln, &project, &work, &warm, options.profile.as_deref())?;
    let peer = Peer {
        packages: &packages,
        mirror: &mirror,
        image: &work.join("output/disk.raw"),
        no_docs: definition::excludes_docs(&project)?,
        level: level(&work.join("output/manifest.json")),
        work: &work,
    };
    let theirs = peer.run()?;
    print!("{}", steps_table(&work.join("output/manifest.json"))?);
    print!("{}", seconds("the peer's seconds", &theirs));
    let total = theirs
        .iter()
        .fold(Cost::default(), |sum, (_, cost)| sum + *cost);
    let profile = options.profile.as_deref().unwrap_or(Path::new("default"));
    let title = format!(
        "bench cold {}, profile {}: {} packages",
        source.display(),
        profile.display(),
        packages.len()
    );
    print!(
        "{}",
        ratio_table(&title, ("kiln", ours), ("mmdebstrap + mksquashfs", total))
    );
    Ok(())
}

/// Kiln's part: a new cache that holds nothing but the downloads.
fn ours(
    kiln: &Path,
    project: &Path,
    work: &Path,
    warm: &Path,
    profile: Option<&Path>,
) -> Result<Cost> {
    let (cache, output) = (work.join("cache"), work.join("output"));
    afresh(&cache)?;
    afresh(&output)?;
    link_downloads(warm, &cache)?;
    let mut build = build_command(kiln, &cache, project, &output);
    build.args(["--offline", "--format", "raw"]);
    if let Some(profile) = profile {
        build.arg("--profile").arg(profile);
    }
    settle(&cache.join("downloads"))?;
    measure(&mut build)
}

/// What Kiln's compression level was: gzip's and zstd's are not in the file system where they are the default.
pub(super) fn level(manifest: &Path) -> Option<String> {
    let value: Value = serde_json::from_str(&fs::read_to_string(manifest).ok()?).ok()?;
    Some(value["compression"]["level"].as_u64()?.to_string())
}

/// The same image by other means.
struct Peer<'a> {
    packages: &'a [Package],
    mirror: &'a Path,
    image: &'a Path,
    no_docs: bool,
    level: Option<String>,
    work: &'a Path,
}

impl Peer<'_> {
    /// The steps with their costs.
    fn run(&self) -> Result<Vec<(String, Cost)>> {
        let (root, squashfs) = (self.work.join("peer"), self.work.join("peer.squashfs"));
        afresh(&root)?;
        let _ = fs::remove_file(&squashfs);
        let partitions = partitions(self.image)?;
        let like = Squashfs::find(self.image, &partitions)?;
        let mut install = mmdebstrap::command(self.packages, self.mirror, &root, self.no_docs);
        let mut compress = like.compress(&root, &squashfs, self.level.as_deref());
        let script = self.disk_script(&partitions, &like)?;
        let mut assemble = tool("bash");
        assemble.args(["-euo", "pipefail", "-c", &script]);
        let steps = [
            ("mmdebstrap", &mut install),
            ("mksquashfs", &mut compress),
            ("partition and file systems", &mut assemble),
        ];
        settle(self.mirror)?;
        let cost = |(name, command): (&str, &mut _)| Ok((name.to_owned(), measure(command)?));
        steps.into_iter().map(cost).collect()
    }

    /// The same table, a FAT with kernel and initrd, the SquashFS, and an ext4 where Kiln has one.
    fn disk_script(&self, partitions: &[Partition], like: &Squashfs) -> Result<String> {
        let table = self.work.join("table.sfdisk");
        let dump = process::output(tool("sfdisk").arg("--dump").arg(self.image))?;
        fs::write(&table, dump).map_err(trouble("writing", &table))?;
        let metadata = fs::metadata(self.image).map_err(trouble("reading", self.image))?;
        let quoted = |name: &str| quote(&self.work.join(name));
        let (disk, root, part) = (quoted("peer.raw"), quoted("peer"), quoted("peer.part"));
        let mut script = format!(
            "rm -f {disk} {part}; truncate -s {} {disk}\nsfdisk -q {disk} < {}\n",
            metadata.len(),
            quote(&table)
        );
        for (
            number,
            Partition {
                start,
                sectors,
                kind,
            },
        ) in partitions.iter().enumerate()
        {
            let new = format!("truncate -s {} {part}", sectors * SECTOR);
            let source = if number == like.partition {
                quoted("peer.squashfs")
            } else if kind.eq_ignore_ascii_case(EFI_SYSTEM) {
                let _ = writeln!(script, "{new}; mkfs.fat -F 32 {part} > /dev/null");
                let _ = writeln!(
                    script,
                    "mcopy -i {part} {root}/boot/vmlinuz-* {root}/boot/initrd.img-* ::/"
                );
                part.clone()
            } else if number > like.partition {
                let _ = writeln!(script, "{new}; mke2fs -q -t ext4 {part}");
                part.clone()
            } else {
                continue;
            };
            let _ = writeln!(
                script,
                "dd if={source} of={disk} bs=1M seek={} oflag=seek_bytes conv=notrunc,sparse status=none; rm -f {part}",
                start * SECTOR
            );
        }
        Ok(script)
    }
}

/// The type of the EFI system partition (UEFI 2.10, table 5.7).
const EFI_SYSTEM: &str = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B";

/// A path as a word for a shell.
pub(super) fn quote(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', r"'\''"))
}

/// Where Kiln's seconds went, as its manifest says.
pub(super) fn steps_table(manifest: &Path) -> Result<String> {
    let text = fs::read_to_string(manifest).map_err(trouble("reading", manifest))?;
    let value: Value = serde_json::from_str(&text)
        .map_err(|error| format!("{} is no JSON: {error}", manifest.display()))?;
    let steps = value["steps"]
        .as_array()
        .ok_or("the manifest lists no steps")?;
    let mut out = "Kiln's seconds (steps may overlap):\n".to_owned();
    for step in steps {
        let seconds = step["seconds"].as_f64().ok_or("a step has no seconds")?;
        let name = step["step"].as_str().ok_or("a step has no name")?;
        let peak = step["peak_memory"].as_u64();
        let peak = peak.map_or(String::new(), |bytes| format!(", peak {} MiB", bytes >> 20));
        let _ = writeln!(out, "  {seconds:>8.2}  {name}{peak}");
    }
    Ok(out)
}

/// A list of steps with what they cost.
pub(super) fn seconds(title: &str, steps: &[(String, Cost)]) -> String {
    let mut out = format!("{title}:\n");
    for (name, cost) in steps {
        let (wall, cpu) = (cost.wall.as_secs_f64(), cost.cpu.as_secs_f64());
        let peak = cost.peak_memory >> 20;
        let _ = writeln!(
            out,
            "  {wall:>8.2}  {name}, processors {cpu:.2} s, peak {peak} MiB"
        );
    }
    out
}
