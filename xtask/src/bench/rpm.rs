//! An RPM distribution's desktop, cold and again, against plain dnf: `dnf --installroot`, the script, dracut, `mksquashfs`.
//!
//! The distribution is the generated one. Both sides start with every package on the local disk: Kiln with its download store, offline and
//! locked; dnf with a `file://` repository of the same files, asked for the very packages of the lock. dracut has Kiln's arguments, and
//! `mksquashfs` the codec, level and block size of Kiln's image. The peer's kernel package makes no initramfs of its own while it is installed; the peer
//! makes no disk. So the peer's time is a lower bound. Plain dnf keeps nothing that another run could begin with: after a change, the peer
//! begins anew. What one gets that keeps a copy of the root is measured beside it.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use super::cold::{level, seconds, steps_table};
use super::measure::{Cost, measure, settle};
use super::table::ratio_table;
use super::warm::{copied_root, mark};
use crate::peer::disk::{Squashfs, partitions};
use crate::peer::{
    Leftovers, Options, afresh, build_command, definition, link_downloads, need_root, repository,
    trouble,
};
use crate::rpm::SETS;
use crate::rpm::dnf::{Dnf, around, streams};
use crate::rpm::served::{LAYER, Served};
use crate::{Result, prerequisites, workspace};

/// What `cargo xtask bench` says of it.
pub(super) const ABOUT: &str = "[KICKSTART] [--kiln FILE] [--profile NAME] [--keep] an RPM distribution cold, with one line changed and with nothing, \
    against dnf --installroot + dracut + mksquashfs";
/// One line is changed so often; the middle one counts.
const ROUNDS: usize = 3;

/// Runs the case for a kickstart whose repository is `--url=URL`, by default the generated distribution's desktop.
pub(super) fn run(words: &[&str]) -> Result<()> {
    need_root("bench rpm")?;
    let options = Options::parse(words)?;
    let desktop = || workspace::root().join(SETS).join("desktop.ks");
    let kickstart = options.definition.clone().unwrap_or_else(desktop);
    prerequisites::install()?;
    let work = workspace::target_directory()?.join("bench/rpm");
    let _leftovers = match options.keep {
        true => Leftovers::all(&work),
        false => Leftovers::new(&work, &[], ""),
    };
    let kiln = options.kiln()?;
    let served = Served::new(&work)?;
    let project = work.join("definition");
    served.define(&kickstart, &project)?;
    let bench = Bench {
        profile: options.profile.clone(),
        layer: project.join(LAYER),
        kiln,
        project,
        work,
    };
    mark(&bench.layer, 0)?;
    let warm = options.warm_cache(&bench.kiln, &bench.project, &bench.work)?;
    load("before");
    let cold = bench.cold(&warm)?;
    let peer = bench.peer(&served)?;
    print!("{}", steps_table(&bench.work.join("output/manifest.json"))?);
    print!("{}", seconds("the peer's seconds", &peer));
    let total = peer
        .iter()
        .fold(Cost::default(), |sum, (_, cost)| sum + *cost);
    let (line, copied) = (bench.line()?, copied_root(&bench.work)?);
    let nothing = bench.build("output", &[])?;
    load("after");
    let plain = "dnf + dracut + mksquashfs";
    let mut out = String::new();
    for (title, ours, name, theirs) in [
        ("cold", cold, plain, total),
        ("one line of %post", line, plain, total),
        (
            "one line of %post",
            line,
            "copied root + mksquashfs",
            copied,
        ),
        ("nothing changed", nothing, plain, total),
    ] {
        let title = format!("bench rpm {}: {title}", kickstart.display());
        out += &ratio_table(&title, ("kiln", ours), (name, theirs));
    }
    let _ = writeln!(out, "nothing changed: {:.2} s", nothing.wall.as_secs_f64());
    print!("{out}");
    Ok(())
}

/// How much the machine has to do, which every figure is to be read with.
fn load(when: &str) {
    // A figure without it is worth less, but is one.
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    println!("load {when}: {}", load.trim());
}

struct Bench {
    kiln: PathBuf,
    project: PathBuf,
    layer: PathBuf,
    work: PathBuf,
    profile: Option<PathBuf>,
}

impl Bench {
    fn build(&self, output: &str, more: &[&str]) -> Result<Cost> {
        let (cache, output) = (self.work.join("cache"), self.work.join(output));
        let mut command = build_command(&self.kiln, &cache, &self.project, &output);
        if let Some(profile) = &self.profile {
            command.arg("--profile").arg(profile);
        }
        measure(command.args(["--format", "raw"]).args(more))
    }

    /// A new cache that holds nothing but the downloads.
    fn cold(&self, warm: &Path) -> Result<Cost> {
        let cache = self.work.join("cache");
        afresh(&cache)?;
        afresh(&self.work.join("output"))?;
        link_downloads(warm, &cache)?;
        settle(&cache.join("downloads"))?;
        self.build("output", &["--offline"])
    }

    /// The same root by other means: the steps with their costs.
    fn peer(&self, served: &Served) -> Result<Vec<(String, Cost)>> {
        let (root, squashfs) = (self.work.join("peer"), self.work.join("peer.squashfs"));
        afresh(&root)?;
        let text = fs::read_to_string(&self.layer).map_err(trouble("reading", &self.layer))?;
        let dnf = Dnf::new(served, &self.work.join("dnf-home"), &self.project)?;
        let mut what = streams(&text);
        let packages = repository::installed(&definition::lock_of(&self.project)?)?;
        what.extend(packages.iter().map(repository::Package::nevra));
        let image = self.work.join("output/disk.raw");
        let level = level(&self.work.join("output/manifest.json"));
        let like = Squashfs::find(&image, &partitions(&image)?)?;

        let mut install = dnf.install(&root, &what)?;
        let mut script = around(&root);
        script.arg("chroot").arg(&root).args(["/bin/bash", "-c"]);
        script.arg(scripts(&text));
        let mut dracut = around(&root);
        dracut
            .arg("chroot")
            .arg(&root)
            .args(["/bin/sh", "-ec", DRACUT]);
        let mut compress = like.compress(&root, &squashfs, level.as_deref());
        let steps = [
            ("dnf --installroot", &mut install),
            ("%post", &mut script),
            ("dracut", &mut dracut),
            ("mksquashfs", &mut compress),
        ];
        settle(&served.made)?;
        let cost = |(name, command): (&str, &mut _)| Ok((name.to_owned(), measure(command)?));
        steps.into_iter().map(cost).collect()
    }

    /// The middle one of some builds after one line was changed.
    fn line(&self) -> Result<Cost> {
        let mut lines = Vec::new();
        for round in 1..=ROUNDS {
            mark(&self.layer, round)?;
            lines.push(self.build("output", &[])?);
        }
        lines.sort_by_key(|cost| cost.wall);
        Ok(lines.get(ROUNDS / 2).copied().unwrap_or_default())
    }
}

/// Kiln's arguments, but for the compressor's level of profiles that say one.
const DRACUT: &str = "version=$(ls /usr/lib/modules)\n\
    exec dracut --force --quiet --no-hostonly --add dmsquash-live --filesystems 'squashfs overlay ext4 vfat iso9660' \
    --compress 'zstd -q -T0 -3' \"/boot/initramfs-$version.img\" \"$version\"";

/// The `%post` scripts of a kickstart, one after the other.
fn scripts(text: &str) -> String {
    let mut scripts = String::new();
    let mut inside = false;
    for line in text.lines() {
        match line.split(' ').next() {
            Some("%post") => inside = true,
            Some("%end") => inside = false,
            _ if inside => {
                scripts.push_str(line);
                scripts.push('\n');
            }
            _ => {}
        }
    }
    scripts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_are_those_of_post() {
        let text =
            "%packages\n@core\n%end\n%post --erroronfail\na\n%end\n%pre\nb\n%end\n%post\nc\n%end\n";
        assert_eq!(scripts(text), "a\nc\n");
    }
}
