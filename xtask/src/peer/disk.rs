//! Kiln's disk image as other tools see it.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::tool;
use crate::{Result, process};

/// Bytes.
pub(crate) const SECTOR: u64 = 512;

/// A partition of an image, in sectors.
pub(crate) struct Partition {
    /// Its first sector.
    pub(crate) start: u64,
    /// Its length.
    pub(crate) sectors: u64,
    /// Its type's GUID.
    pub(crate) kind: String,
}

/// What `sfdisk` finds in an image.
pub(crate) fn partitions(image: &Path) -> Result<Vec<Partition>> {
    let text = process::output(tool("sfdisk").arg("--json").arg(image))?;
    let table: Value =
        serde_json::from_str(&text).map_err(|error| format!("sfdisk printed no JSON: {error}"))?;
    let list = table["partitiontable"]["partitions"].as_array();
    let partition = |value: &Value| {
        Some(Partition {
            start: value["start"].as_u64()?,
            sectors: value["size"].as_u64()?,
            kind: value["type"].as_str()?.to_owned(),
        })
    };
    list.ok_or("sfdisk lists no partitions")?
        .iter()
        .map(|value| partition(value).ok_or_else(|| "sfdisk's list is incomplete".to_owned()))
        .collect()
}

/// How the SquashFS of an image was made.
pub(crate) struct Squashfs {
    /// Its index among the partitions.
    pub(crate) partition: usize,
    /// Where it begins, in bytes.
    pub(crate) offset: u64,
    codec: String,
    level: Option<String>,
    block: String,
}

impl Squashfs {
    /// Finds it among the partitions by asking `unsquashfs`.
    pub(crate) fn find(image: &Path, partitions: &[Partition]) -> Result<Squashfs> {
        for (partition, Partition { start, .. }) in partitions.iter().enumerate() {
            let offset = start * SECTOR;
            let mut ask = tool("unsquashfs");
            ask.args(["-stat", "-offset", &offset.to_string()])
                .arg(image);
            let Ok(said) = process::output(&mut ask) else {
                continue;
            };
            let word_after = |name: &str| {
                let mut lines = said.lines();
                let line = lines.find_map(|line| line.trim().strip_prefix(name))?;
                line.split_whitespace().next().map(str::to_owned)
            };
            return Ok(Squashfs {
                partition,
                offset,
                codec: word_after("Compression ").ok_or("unsquashfs names no codec")?,
                level: word_after("compression-level "),
                block: word_after("Block size ").ok_or("unsquashfs names no block size")?,
            });
        }
        Err(format!("{} has no SquashFS partition", image.display()))
    }

    /// The options that make `mksquashfs` do the same. `level` stands in where the image does not record one.
    pub(crate) fn options(&self, level: Option<&str>) -> Vec<String> {
        let mut options = vec!["-comp", &self.codec, "-b", &self.block];
        if let Some(level) = self.level.as_deref().or(level) {
            options.extend(["-Xcompression-level", level]);
        }
        options.into_iter().map(str::to_owned).collect()
    }

    /// Has `mksquashfs` make the same of `root`.
    pub(crate) fn compress(&self, root: &Path, target: &Path, level: Option<&str>) -> Command {
        let mut command = tool("mksquashfs");
        command.arg(root).arg(target);
        command.args(["-noappend", "-no-progress", "-quiet", "-wildcards"]);
        command.args(self.options(level));
        // Kiln leaves these out too. Whatever follows -e is a name, so it comes last.
        command.args(["-e", "boot/initrd.img-*", "boot/initramfs-*.img"]);
        command.args(["proc/*", "sys/*", "dev/*"]);
        command
    }

    /// Unpacks it with its owners.
    pub(crate) fn extract(&self, image: &Path, target: &Path) -> Command {
        let mut command = tool("unsquashfs");
        command.args(["-no-progress", "-quiet", "-force", "-offset"]);
        command.arg(self.offset.to_string());
        command.arg("-dest").arg(target).arg(image);
        command
    }
}
