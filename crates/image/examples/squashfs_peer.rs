//! Compares the SquashFS writer with `mksquashfs` on one tree: seconds, bytes, peak memory, and their ratios.
//!
//! ```text
//! cargo run --release -p kiln-image --example squashfs_peer -- /usr zstd:3 [--block 131072] [--threads 2] [--no-peer] [--tail-ends] [--keep DIR] [--store DIR [--upper DIR]]
//! ```
//!
//! With `--store`, compressed blocks and manifests are kept in a directory, as a build does. The first run fills it; a later
//! run believes it, so the tree must not change. Changes lie in the directory `--upper`, as an overlay has them; its
//! manifest is made once, too.
//!
//! The peer is `mksquashfs` from `PATH`. Both get the same codec, level, block size and number of threads; Kiln's run is a
//! process of its own so that its peak memory can be told.
#![allow(clippy::print_stdout)]

use std::error::Error;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use kiln_image::blocks::PackStore;
use kiln_image::squashfs::{self, BlockStore, Codec, Options};
use kiln_image::tree::{Manifest, ScanOptions, Tree};

type Outcome<T> = Result<T, Box<dyn Error>>;

/// What the command line says.
struct Job {
    source: PathBuf,
    codec: String,
    level: i32,
    block: u32,
    threads: usize,
    peer: bool,
    tail_ends: bool,
    keep: PathBuf,
    child: bool,
    store: Option<PathBuf>,
    upper: Option<PathBuf>,
}

/// One run.
struct Cost {
    seconds: f64,
    /// User and system time of all threads: what can be compared on a machine with other work.
    processor: f64,
    bytes: u64,
    peak: u64,
}

fn main() -> Outcome<()> {
    let job = Job::from_arguments()?;
    if job.child {
        return job.write();
    }
    let ours = job.keep.join("kiln.squashfs");
    let kiln = measure(&mut job.again()?, &ours)?;
    report("kiln", &kiln);
    if job.peer {
        let theirs = job.keep.join("peer.squashfs");
        let peer = measure(&mut job.mksquashfs(&theirs), &theirs)?;
        report("mksquashfs", &peer);
        println!(
            "ratio: {:.2}x speed, {:.2}x by processor time, {:.4} of the size, {:.3} of the memory",
            peer.seconds / kiln.seconds,
            peer.processor / kiln.processor,
            kiln.bytes as f64 / peer.bytes as f64,
            kiln.peak as f64 / peer.peak as f64,
        );
    }
    Ok(())
}

impl Job {
    fn from_arguments() -> Outcome<Self> {
        let mut job = Job {
            source: PathBuf::new(),
            codec: "zstd".into(),
            level: 3,
            block: 128 << 10,
            threads: 2,
            peer: true,
            tail_ends: false,
            keep: std::env::temp_dir(),
            child: false,
            store: None,
            upper: None,
        };
        let mut words = Vec::new();
        let mut arguments = std::env::args().skip(1);
        while let Some(word) = arguments.next() {
            let mut value = || arguments.next().ok_or("an option lacks its value");
            match word.as_str() {
                "--block" => job.block = value()?.parse()?,
                "--threads" => job.threads = value()?.parse()?,
                "--keep" => job.keep = value()?.into(),
                "--store" => job.store = Some(value()?.into()),
                "--upper" => job.upper = Some(value()?.into()),
                "--no-peer" => job.peer = false,
                "--tail-ends" => job.tail_ends = true,
                "--child" => job.child = true,
                _ => words.push(word),
            }
        }
        let [source, codec] = words.as_slice() else {
            return Err("give a directory and CODEC:LEVEL".into());
        };
        let (codec, level) = codec.split_once(':').ok_or("give CODEC:LEVEL")?;
        job.source = source.into();
        job.codec = codec.into();
        job.level = level.parse()?;
        Ok(job)
    }

    fn write(&self) -> Outcome<()> {
        let start = Instant::now();
        let tree = match &self.store {
            Some(store) => self.stacked(store)?,
            None => Tree::scan(&self.source, &ScanOptions::default())?,
        };
        println!("  tree {:.2} s", start.elapsed().as_secs_f64());
        let packs = match &self.store {
            Some(store) => Some(open_store(&store.join("blocks"))?),
            None => None,
        };
        let codec = match self.codec.as_str() {
            "gzip" => Codec::Gzip,
            "xz" => Codec::Xz,
            "lz4" => Codec::Lz4,
            _ => Codec::Zstd,
        };
        let options = Options {
            level: self.level,
            block_size: self.block,
            threads: self.threads,
            tail_ends: self.tail_ends,
            block_store: packs.clone().map(|packs| packs as Arc<dyn BlockStore>),
            ..Options::new(codec)
        };
        let out = File::create(self.keep.join("kiln.squashfs"))?;
        let summary = squashfs::write(&tree, out, &options, &|_, _| {})?;
        println!("  {summary:?}");
        println!("  written {:.2} s", start.elapsed().as_secs_f64());
        if let Some(packs) = packs {
            println!("  {:?}", packs.finish());
        }
        Ok(())
    }

    /// The tree, by itself or below the changes in `--upper`, from manifests; they are made where they are missing.
    fn stacked(&self, store: &Path) -> Outcome<Tree> {
        let mut layers = Vec::new();
        let mut roots = Vec::new();
        for (root, name) in self
            .upper
            .iter()
            .map(|upper| (upper, "upper"))
            .chain([(&self.source, "source")])
        {
            let known = store.join(format!("manifest-{name}"));
            layers.push(match std::fs::read(&known) {
                Ok(bytes) => Manifest::decode(&bytes).ok_or("the manifest is damaged")?,
                Err(_) => {
                    let made = Manifest::record(root, self.block, self.threads)?;
                    std::fs::write(&known, made.encode())?;
                    made
                }
            });
            roots.push(root.clone());
        }
        let tree = Tree::stack(&layers, &roots, &ScanOptions::default())?;
        Ok(tree.ok_or("the tree has marks of another overlay")?)
    }

    fn again(&self) -> Outcome<Command> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(std::env::args_os().skip(1)).arg("--child");
        Ok(command)
    }

    fn mksquashfs(&self, target: &Path) -> Command {
        let mut command = Command::new("mksquashfs");
        command.arg(&self.source).arg(target);
        command.args(["-noappend", "-no-progress", "-quiet", "-comp", &self.codec]);
        command.args(["-b", &self.block.to_string()]);
        command.args(["-processors", &self.threads.to_string()]);
        match self.codec.as_str() {
            "lz4" => drop(command.arg("-Xhc")),
            _ if self.tail_ends => drop(command.arg("-always-use-fragments")),
            _ => {}
        }
        match self.codec.as_str() {
            "lz4" | "xz" => {}
            _ => drop(command.args(["-Xcompression-level", &self.level.to_string()])),
        }
        command
    }
}

fn open_store(blocks: &Path) -> Outcome<Arc<PackStore>> {
    std::fs::create_dir_all(blocks)?;
    Ok(Arc::new(PackStore::open(File::open(blocks)?.into())?))
}

fn measure(command: &mut Command, target: &Path) -> Outcome<Cost> {
    let start = Instant::now();
    let mut child = command.spawn()?;
    let (mut peak, mut processor) = (0, 0.0);
    let status = loop {
        processor = processor_seconds(child.id()).max(processor);
        peak = peak.max(resident_peak(child.id()));
        if let Some(status) = child.try_wait()? {
            break status;
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    };
    let seconds = start.elapsed().as_secs_f64();
    if !status.success() {
        return Err(format!("{command:?} failed: {status}").into());
    }
    let bytes = std::fs::metadata(target)?.len();
    Ok(Cost {
        seconds,
        processor,
        bytes,
        peak,
    })
}

/// Fields 14 and 15 of `/proc/PID/stat`, in ticks of 10 ms; 0 once the process is gone.
fn processor_seconds(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    let ticks = fields.split_whitespace().skip(11).take(2);
    ticks
        .filter_map(|tick| tick.parse::<f64>().ok())
        .sum::<f64>()
        / 100.0
}

/// `VmHWM` in bytes; 0 once the process is gone.
fn resident_peak(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kilobytes.unwrap_or(0) * 1024
}

fn report(name: &str, cost: &Cost) {
    println!(
        "{name}: {:.2} s, {:.2} s of processor, {} bytes, peak {} MiB",
        cost.seconds,
        cost.processor,
        cost.bytes,
        cost.peak >> 20
    );
}
