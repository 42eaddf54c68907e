//! The partitions of a built image, found by a tool that Kiln did not write.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use crate::harness::{text, tool};

/// A partition.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) start: u64,
    pub(crate) size: u64,
}

const SECTOR: u64 = 512;

/// The partitions as `sfdisk` sees them.
pub(crate) fn parts(disk: &Path) -> Vec<Part> {
    let dump = tool("sfdisk", &["--json", &text(disk)]);
    dump.assert(0);
    let table: serde_json::Value = serde_json::from_str(&dump.stdout).expect("JSON");
    let parts = table["partitiontable"]["partitions"]
        .as_array()
        .expect("partitions")
        .iter();
    let bytes = |value: &serde_json::Value| value.as_u64().expect("sectors") * SECTOR;
    let part = |part: &serde_json::Value| Part {
        start: bytes(&part["start"]),
        size: bytes(&part["size"]),
    };
    parts.map(part).collect()
}

/// The partition that begins with these bytes at an offset.
pub(crate) fn part(disk: &Path, magic: (u64, &[u8])) -> Part {
    let mut image = File::open(disk).expect("the disk");
    let found = parts(disk).into_iter().find(|part| {
        let mut head = vec![0; magic.1.len()];
        image
            .seek(SeekFrom::Start(part.start + magic.0))
            .expect("a disk that long");
        image.read_exact(&mut head).is_ok_and(|()| head == magic.1)
    });
    found.unwrap_or_else(|| panic!("{} has no partition with {magic:?}", disk.display()))
}

/// Copies such a partition into a file of its own.
pub(crate) fn extract(disk: &Path, magic: (u64, &[u8]), to: PathBuf) -> PathBuf {
    let part = part(disk, magic);
    let mut image = File::open(disk).expect("the disk");
    image
        .seek(SeekFrom::Start(part.start))
        .expect("a disk that long");
    let mut file = File::create(&to).expect("a file");
    io::copy(&mut image.take(part.size), &mut file).expect("a copy");
    to
}

/// Unpacks the root into a directory, beside which its SquashFS stays.
pub(crate) fn unpack(disk: &Path, to: PathBuf) -> PathBuf {
    let squash = extract(disk, SQUASHFS, to.with_extension("squashfs"));
    let (directory, squash) = (text(&to), text(&squash));
    tool("unsquashfs", &["-q", "-n", "-d", &directory, &squash]).assert(0);
    to
}

/// What differs between two images: whole partitions by number, and what diff(1) says of the roots' files.
pub(crate) fn differences(one: &Path, other: &Path, directory: &Path) -> String {
    fs::create_dir_all(directory).expect("a directory");
    let both = [one, other];
    let [a, b] = both.map(parts);
    let mut told = String::new();
    for (number, (a, b)) in a.iter().zip(&b).enumerate() {
        let [a, b] = [(one, a), (other, b)].map(|(disk, part)| {
            let (skip, count) = ((part.start + 1).to_string(), part.size.to_string());
            let range = format!("tail -c +{skip} -- \"$1\" | head -c {count} | sha256sum");
            tool("sh", &["-c", &range, "sh", &text(disk)]).stdout
        });
        if a != b {
            told += &format!("\npartition {}", number + 1);
        }
    }
    let [a, b] = [("one", one), ("other", other)]
        .map(|(name, disk)| text(&unpack(disk, directory.join(name))));
    let files = tool(
        "diff",
        &["--recursive", "--brief", "--no-dereference", &a, &b],
    );
    told + "\n" + &files.stdout + &files.stderr
}

/// How a SquashFS, a FAT and an ext4 are known.
pub(crate) const SQUASHFS: (u64, &[u8]) = (0, b"hsqs");
pub(crate) const FAT: (u64, &[u8]) = (82, b"FAT32");
pub(crate) const EXT4: (u64, &[u8]) = (1080, &[0x53, 0xef]);
