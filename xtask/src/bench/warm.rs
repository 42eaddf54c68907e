//! Building again: with nothing changed, with one line of the last layer changed, with one package less in a lower layer.
//!
//! The peer for the one line is what a build that keeps a snapshot of the root (mkosi's incremental mode) cannot do without:
//! copy the tree, run the script in the copy, `mksquashfs`. It does nothing else, so it is a lower bound; `--mkosi` measures
//! mkosi itself too. For the package it is `bench cold`'s peer, which has to begin anew.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::cold::{FOR_OTHERS, WHY, level, quote};
use super::image::input;
use super::measure::{Cost, measure};
use super::mkosi;
use super::table::ratio_table;
use crate::peer::disk::{Squashfs, partitions};
use crate::peer::mkosi::find;
use crate::peer::{Options, build_command, need_root, tool, trouble};
use crate::{Result, process};

/// What `cargo xtask bench` says of it.
pub(super) const ABOUT: &str = "[--kiln FILE] [--mkosi] building again after nothing, one line or one package changed, \
    against a copied root + mksquashfs, and mkosi itself if asked; works on what `bench cold` left";
/// One line is changed so often; the middle one counts.
const ROUNDS: usize = 3;

/// Runs the case on the definition, the cache and the peer's root that `bench cold` left.
pub(super) fn run(words: &[&str]) -> Result<()> {
    need_root("bench warm")?;
    let (with_mkosi, words): (Vec<&str>, Vec<&str>) =
        words.iter().partition(|word| **word == "--mkosi");
    let options = Options::parse(&words)?;
    // Now, lest it fail after minutes.
    let with_mkosi = with_mkosi.first().map(|_| find()).transpose()?;
    let work = input(&[], "bench/cold")?;
    let _leftovers = options.leftovers(&work, FOR_OTHERS, WHY);
    let project = work.join("definition");
    let bench = Bench {
        kiln: options.kiln()?,
        layers: layers(&work.join("output/manifest.json"), &project)?,
        project,
        work,
    };
    bench.mark(0)?;
    bench.build(&[])?;
    let nothing = bench.build(&[])?;
    println!("nothing changed: {:.2} s", nothing.wall.as_secs_f64());
    let mut lines = Vec::new();
    for round in 1..=ROUNDS {
        bench.mark(round)?;
        lines.push(bench.build(&[])?);
    }
    lines.sort_by_key(|cost| cost.wall);
    let peer = copied_root(&bench.work)?;
    let middle = lines.get(ROUNDS / 2).copied().unwrap_or_default();
    let title = "bench warm: one line of the last layer's %post";
    let name = "copied root + mksquashfs";
    print!("{}", ratio_table(title, ("kiln", middle), (name, peer)));
    if let Some(version) = with_mkosi {
        let (name, peer) = mkosi::one_line(version, &bench.project, &bench.work)?;
        print!("{}", ratio_table(title, ("kiln", middle), (&name, peer)));
    }
    let package = bench.leave_out_a_package()?;
    let without = bench.build(&["--offline"])?;
    println!(
        "one package less in a lower layer ({package}), resolved anew: {:.2} s, processors {:.2} s",
        without.wall.as_secs_f64(),
        without.cpu.as_secs_f64()
    );
    Ok(())
}

struct Bench {
    kiln: PathBuf,
    project: PathBuf,
    work: PathBuf,
    /// Kickstart files, the lowest layer first.
    layers: Vec<PathBuf>,
}

/// The marked line, at the end of the last layer.
const MARK: &str = "echo bench > /etc/kiln-bench #";

impl Bench {
    fn build(&self, more: &[&str]) -> Result<Cost> {
        let (cache, output) = (self.work.join("cache"), self.work.join("warm-output"));
        let mut command = build_command(&self.kiln, &cache, &self.project, &output);
        measure(command.args(["--format", "raw"]).args(more))
    }

    fn layer(&self, number: usize) -> Result<PathBuf> {
        let name = self
            .layers
            .get(number)
            .ok_or("the definition has too few layers")?;
        Ok(self.project.join(name))
    }

    fn mark(&self, number: usize) -> Result<()> {
        mark(&self.layer(self.layers.len().saturating_sub(1))?, number)
    }

    /// Takes the last package of the second layer out of its list, and has the lock renewed.
    fn leave_out_a_package(&self) -> Result<String> {
        let file = self.layer(1)?;
        let text = fs::read_to_string(&file).map_err(trouble("reading", &file))?;
        let (text, package) = without_last_package(&text)
            .ok_or_else(|| format!("{} asks for no package", file.display()))?;
        fs::write(&file, text).map_err(trouble("writing", &file))?;
        let mut lock = std::process::Command::new(&self.kiln);
        lock.arg("--cache-dir").arg(self.work.join("cache"));
        process::run(lock.args(["lock", "--offline"]).arg(&self.project))?;
        Ok(package)
    }
}

/// Changes one line of a kickstart's last script, or adds it.
pub(super) fn mark(file: &Path, number: usize) -> Result<()> {
    let text = fs::read_to_string(file).map_err(trouble("reading", file))?;
    let text = match text.find(MARK) {
        Some(at) => text.get(..at).unwrap_or(&text).to_owned(),
        None => format!("{text}\n%post\n"),
    };
    let text = format!("{text}{MARK} {number}\n%end\n");
    fs::write(file, text).map_err(trouble("writing", file))
}

/// Copies the peer's root, runs one command in the copy, and compresses it as Kiln's image is.
pub(super) fn copied_root(work: &Path) -> Result<Cost> {
    let image = work.join("output/disk.raw");
    let like = Squashfs::find(&image, &partitions(&image)?)?;
    let level = level(&work.join("output/manifest.json"));
    let copy = work.join("peer-copy");
    let squashfs = work.join("peer-copy.squashfs");
    let script = format!(
        "rm -rf {copy} {squashfs}; cp -a {root} {copy}; chroot {copy} sh -c 'echo bench > /etc/kiln-bench'\n\
         mksquashfs {copy} {squashfs} -noappend -no-progress -quiet -wildcards {options} -e 'boot/initrd.img-*' 'boot/initramfs-*.img'",
        root = quote(&work.join("peer")),
        copy = quote(&copy),
        squashfs = quote(&squashfs),
        options = like.options(level.as_deref()).join(" "),
    );
    let mut command = tool("bash");
    let cost = measure(command.args(["-euo", "pipefail", "-c", &script]))?;
    fs::remove_dir_all(&copy).map_err(trouble("removing", &copy))?;
    fs::remove_file(&squashfs).map_err(trouble("removing", &squashfs))?;
    Ok(cost)
}

/// A kickstart without the last plain name of its last `%packages` section, and that name.
fn without_last_package(text: &str) -> Option<(String, String)> {
    let (before, after) = text.rsplit_once("%packages")?;
    let (section, rest) = after.split_once("%end")?;
    let plain = |line: &&str| line.starts_with(|c: char| c.is_ascii_lowercase());
    // The first line has the section's options.
    let name = section.lines().skip(1).filter(plain).last()?;
    let kept = section.replacen(&format!("\n{name}\n"), "\n", 1);
    Some((
        format!("{before}%packages{kept}%end{rest}"),
        name.to_owned(),
    ))
}

/// The layers' files, as the manifest names them; the layers that Kiln adds have none.
fn layers(manifest: &Path, project: &Path) -> Result<Vec<PathBuf>> {
    let text = fs::read_to_string(manifest).map_err(trouble("reading", manifest))?;
    let value: Value = serde_json::from_str(&text)
        .map_err(|error| format!("{} is no JSON: {error}", manifest.display()))?;
    let layers = value["layers"]
        .as_array()
        .ok_or("the manifest lists no layers")?;
    let names = layers
        .iter()
        .filter_map(|layer| layer.as_str().or(layer["name"].as_str()));
    let files = names.map(|name| PathBuf::from(format!("{name}.ks")));
    Ok(files.filter(|file| project.join(file).is_file()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_name_goes_and_nothing_else() {
        let text =
            "lang C\n%packages --nocore\nvim\n# more\nnano\n-sl\n@x\n%end\n%post\nnano\n%end\n";
        let (without, name) = without_last_package(text).unwrap();
        assert_eq!(name, "nano");
        assert_eq!(
            without,
            "lang C\n%packages --nocore\nvim\n# more\n-sl\n@x\n%end\n%post\nnano\n%end\n"
        );
        assert!(without_last_package("%packages\n@x\n%end\n").is_none());
    }
}
