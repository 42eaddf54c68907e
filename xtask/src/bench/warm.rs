//! Building again: with nothing changed, with one line of the last layer changed, with one package less in the last layer or in a lower
//! one, and on a second machine that has a shared cache. A cold build of the same run stands beside those.
//!
//! The peer for the one line is what a build that keeps a snapshot of the root (mkosi's incremental mode) cannot do without:
//! copy the tree, run the script in the copy, `mksquashfs`. It does nothing else, so it is a lower bound; `--mkosi` measures
//! mkosi itself too.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::cold::{FOR_OTHERS, WHY, level, quote};
use super::image::input;
use super::measure::{Cost, measure, rest, settle};
use super::mkosi;
use super::table::ratio_table;
use crate::peer::definition::lock_of;
use crate::peer::disk::{Squashfs, partitions};
use crate::peer::mkosi::find;
use crate::peer::{
    Options, afresh, build_command, link_downloads, need_root, resolving_command, tool, trouble,
};
use crate::{Result, process};

/// What `cargo xtask bench` says of it.
pub(super) const ABOUT: &str = "[--kiln FILE] [--mkosi] building again after nothing, one line or one package changed, and on a second \
    machine, against a copied root + mksquashfs, mkosi itself if asked, and a cold build; works on what `bench cold` left";
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
    let cold = bench.first(&[])?;
    println!("a cold build: {}", shown(cold));
    bench.mark(0)?;
    bench.build(&[])?;
    let nothing = bench.build(&[])?;
    println!("nothing changed, with a lock: {}", shown(nothing));
    bench.without_lock()?;
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
    let (second, changed) = bench.second_machine()?;
    bench.compare("a second machine, from a shared cache", second, cold);
    bench.compare("one line, on a second machine", changed, cold);
    for (number, place) in [
        (bench.layers.len().saturating_sub(1), "the last layer"),
        (1, "a lower layer"),
    ] {
        let (package, less) = bench.without_a_package(number)?;
        let case = format!("one package less in {place} ({package})");
        bench.compare(&case, less, cold);
    }
    Ok(())
}

/// A cost in one line.
fn shown(cost: Cost) -> String {
    let (wall, cpu) = (cost.wall.as_secs_f64(), cost.cpu.as_secs_f64());
    format!("{wall:.2} s, processors {cpu:.2} s")
}

struct Bench {
    kiln: PathBuf,
    project: PathBuf,
    work: PathBuf,
    /// Kickstart files, the lowest layer first.
    layers: Vec<PathBuf>,
}

/// What all builds have in common.
const SAME: [&str; 3] = ["--offline", "--format", "raw"];
/// The marked line, at the end of the last layer.
const MARK: &str = "echo bench > /etc/kiln-bench #";

impl Bench {
    fn build(&self, more: &[&str]) -> Result<Cost> {
        self.build_from("cache", more)
    }

    fn build_from(&self, cache: &str, more: &[&str]) -> Result<Cost> {
        let (cache, output) = (self.work.join(cache), self.work.join("warm-output"));
        let mut command = build_command(&self.kiln, &cache, &self.project, &output);
        measure(command.args(SAME).args(more))
    }

    /// A build in a cache of its own, which has downloads and nothing else, and an output directory that has nothing.
    fn first(&self, more: &[&str]) -> Result<Cost> {
        let cache = self.work.join("first");
        afresh(&cache)?;
        afresh(&self.work.join("warm-output"))?;
        link_downloads(&self.work.join("cache"), &cache)?;
        settle(&cache.join("downloads"))?;
        let cost = self.build_from("first", more)?;
        fs::remove_dir_all(&cache).map_err(trouble("removing", &cache))?;
        Ok(cost)
    }

    /// The first build asks what the lock would have said, the second has its answer.
    fn without_lock(&self) -> Result<()> {
        let lock = lock_of(&self.project)?;
        let aside = self.work.join("lock-aside");
        let (cache, output) = (self.work.join("cache"), self.work.join("warm-output"));
        let build = || {
            let mut command = resolving_command(&self.kiln, &cache, &self.project, &output);
            measure(command.args(SAME))
        };
        fs::rename(&lock, &aside).map_err(trouble("moving", &lock))?;
        let nothing = build().and_then(|_| build());
        fs::rename(&aside, &lock).map_err(trouble("moving", &aside))?;
        println!("nothing changed, without a lock: {}", shown(nothing?));
        Ok(())
    }

    /// The first machine fills a directory from its cache, the second has that directory. Of a definition with another line that has the
    /// layers and blocks alone.
    fn second_machine(&self) -> Result<(Cost, Cost)> {
        let shared = self.work.join("shared");
        if shared.exists() {
            fs::remove_dir_all(&shared).map_err(trouble("removing", &shared))?;
        }
        let url = format!("file://{}", shared.display());
        let from = ["--shared-cache", url.as_str()];
        // What is there already is no work, but is sent: the artifacts have to be made again.
        self.mark(ROUNDS + 1)?;
        self.build(&from)?;
        let from = [&from[..], &["--shared-cache-mode", "read"]].concat();
        let whole = self.first(&from)?;
        self.mark(ROUNDS + 2)?;
        let changed = self.first(&from)?;
        fs::remove_dir_all(&shared).map_err(trouble("removing", &shared))?;
        Ok((whole, changed))
    }

    fn compare(&self, case: &str, cost: Cost, cold: Cost) {
        let title = format!("bench warm: {case}");
        print!("{}", ratio_table(&title, ("kiln", cost), ("cold", cold)));
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

    /// Takes the last package of a layer out of its list, has the lock renewed and builds. All is then as it was before.
    fn without_a_package(&self, number: usize) -> Result<(String, Cost)> {
        let (file, lock) = (self.layer(number)?, lock_of(&self.project)?);
        let text = fs::read_to_string(&file).map_err(trouble("reading", &file))?;
        let locked = fs::read(&lock).map_err(trouble("reading", &lock))?;
        let (changed, package) = without_last_package(&text)
            .ok_or_else(|| format!("{} asks for no package", file.display()))?;
        fs::write(&file, changed).map_err(trouble("writing", &file))?;
        let mut renew = std::process::Command::new(&self.kiln);
        renew.arg("--cache-dir").arg(self.work.join("cache"));
        process::run(renew.args(["lock", "--offline"]).arg(&self.project))?;
        rest();
        let cost = self.build(&[])?;
        fs::write(&file, text).map_err(trouble("writing", &file))?;
        fs::write(&lock, locked).map_err(trouble("writing", &lock))?;
        Ok((package, cost))
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
