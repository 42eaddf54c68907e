//! The SquashFS writer against `mksquashfs`: from nothing, and again after one file changed, for 1, 2 and 4 times the tree.
//!
//! Warm runs work as builds do: what the tree holds is known from its manifest, the change lies in a layer above it, and the
//! blocks of the first image are in a store. The peer has no such thing and compresses everything again, so its one run stands
//! beside both of Kiln's.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::image::{example, input, sizes, work_directory};
use super::measure::{Cost, measure, ready};
use super::table::ratio_table;
use crate::peer::{afresh, need_root, tool, trouble};
use crate::{Result, process};

/// What `cargo xtask bench` says of it.
pub(super) const ABOUT: &str = "[--codec CODEC:LEVEL] [--times N,…] [TREE] the SquashFS writer, cold and with one file changed, against mksquashfs";

/// What the command line says.
struct Options {
    tree: PathBuf,
    codec: String,
    level: String,
    times: Vec<usize>,
}

impl Options {
    fn parse(words: &[&str]) -> Result<Options> {
        let (mut codec, mut times, mut rest) = ("zstd:3", "1,2,4", Vec::new());
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or(format!("{word} needs a value"));
            match *word {
                "--codec" => codec = value()?,
                "--times" => times = value()?,
                path => rest.push(path),
            }
        }
        let (codec, level) = codec
            .split_once(':')
            .ok_or_else(|| format!("{codec} is not like zstd:3"))?;
        let times: std::result::Result<Vec<usize>, _> = times.split(',').map(str::parse).collect();
        Ok(Options {
            tree: input(&rest, "bench/cold/peer")?,
            codec: codec.to_owned(),
            level: level.to_owned(),
            times: times.map_err(|error| format!("--times: {error}"))?,
        })
    }
}

/// Runs the case. Without an argument the tree is the root that `bench cold` left behind.
pub(super) fn run(words: &[&str]) -> Result<()> {
    need_root("bench squashfs")?;
    let options = Options::parse(words)?;
    let (work, _leftovers) = work_directory()?;
    let work = work.join("squashfs");
    let writer = example("squashfs_peer")?;
    for &times in &options.times {
        afresh(&work)?;
        let tree = multiplied(&options.tree, times, &work)?;
        let bench = Bench {
            writer: &writer,
            tree: &tree,
            work: &work,
            options: &options,
        };
        let title = format!(
            "{times} × {}, {}:{}, blocks of 128 KiB",
            options.tree.display(),
            options.codec,
            options.level
        );
        bench.run(&title)?;
    }
    Ok(())
}

/// The tree, or a directory that has it so many times. Copies differ in their contents: they must not be duplicates.
fn multiplied(tree: &Path, times: usize, work: &Path) -> Result<PathBuf> {
    if times == 1 {
        return Ok(tree.to_owned());
    }
    let many = work.join("many");
    fs::create_dir(&many).map_err(trouble("making", &many))?;
    for number in 0..times {
        let copy = many.join(number.to_string());
        let mut command = Command::new("cp");
        process::run(command.arg("-a").arg(tree).arg(&copy))?;
        // One byte in front of every file of the later copies makes all blocks others.
        if number > 0 {
            let script = format!(
                "find \"$0\" -xdev -type f -size +0 -links 1 -exec sed -i '1s/^/{number}/' {{}} +"
            );
            process::run(
                Command::new("sh")
                    .args(["-c", &script])
                    .arg(&copy)
                    .env("LC_ALL", "C"),
            )?;
        }
    }
    Ok(many)
}

struct Bench<'a> {
    writer: &'a Path,
    tree: &'a Path,
    work: &'a Path,
    options: &'a Options,
}

impl Bench<'_> {
    fn run(&self, title: &str) -> Result<()> {
        let cold = self.ours(&[])?;
        let target = self.work.join("peer.squashfs");
        let peer = self.peer(&target)?;
        sizes(&self.work.join("kiln.squashfs"), &target)?;
        fs::remove_file(&target).map_err(trouble("removing", &target))?;
        self.table(&format!("bench squashfs-cold: {title}"), cold, peer);

        let (store, upper) = (self.work.join("store"), self.work.join("upper"));
        let (store_word, upper_word) = (store.display().to_string(), upper.display().to_string());
        for directory in [&store, &upper] {
            fs::create_dir(directory).map_err(trouble("making", directory))?;
        }
        let first = ["--store", &store_word];
        self.ours(&first)?;
        let change = upper.join("changed-file");
        fs::write(&change, "one line\n").map_err(trouble("writing", &change))?;
        let warm = self.ours(&[first[0], first[1], "--upper", &upper_word])?;
        self.table(
            &format!("bench squashfs-warm, one file changed: {title}"),
            warm,
            peer,
        );
        let image = self.work.join("kiln.squashfs");
        let kept = self.work.join("warm.squashfs");
        fs::rename(&image, &kept).map_err(trouble("renaming", &image))?;
        let _ = fs::remove_dir_all(store.join("blocks"));
        self.ours(&[first[0], first[1], "--upper", &upper_word])?;
        process::run(tool("cmp").arg(&image).arg(&kept))?;
        println!("the warm image equals the one made without stored blocks");
        Ok(())
    }

    fn table(&self, title: &str, ours: Cost, peer: Cost) {
        print!(
            "{}",
            ratio_table(title, ("kiln", ours), ("mksquashfs", peer))
        );
    }

    fn ours(&self, more: &[&str]) -> Result<Cost> {
        let mut command = Command::new(self.writer);
        command.arg(self.tree);
        command.arg(format!("{}:{}", self.options.codec, self.options.level));
        command.args(["--no-peer", "--keep"]).arg(self.work);
        // The old image is not part of the cost.
        let _ = fs::remove_file(self.work.join("kiln.squashfs"));
        ready(self.tree)?;
        measure(command.args(more))
    }

    fn peer(&self, target: &Path) -> Result<Cost> {
        let mut command = tool("mksquashfs");
        command.arg(self.tree).arg(target);
        command.args(["-noappend", "-no-progress", "-quiet", "-b", "131072"]);
        command.args(["-comp", &self.options.codec]);
        match self.options.codec.as_str() {
            "lz4" => drop(command.arg("-Xhc")),
            // mksquashfs has no levels of xz.
            "xz" => {}
            _ => drop(command.args(["-Xcompression-level", &self.options.level])),
        }
        ready(self.tree)?;
        measure(&mut command)
    }
}
