//! The image as QEMU sees it: which format, and unpacked where QEMU cannot read it.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::work::WorkDir;

/// A disk that QEMU can open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Disk {
    /// Absolute.
    pub(crate) path: PathBuf,
    /// QEMU's name of the format.
    pub(crate) format: &'static str,
}

/// Magic numbers: offset, bytes, format. Sources: `docs/interop/qcow2.txt` and `block/{vmdk,vhdx,vdi}.c` of QEMU.
const MAGICS: [(usize, &[u8], &str); 5] = [
    (0, b"QFI\xfb", "qcow2"),
    (0, b"KDMV", "vmdk"),
    (0, b"# Disk DescriptorFile", "vmdk"),
    (0, b"vhdxfile", "vhdx"),
    (0x40, &[0x7f, 0x10, 0xda, 0xbe], "vdi"),
];
const GZIP: &[u8] = &[0x1f, 0x8b];
/// Zero runs of this many bytes become holes when an image is unpacked.
const HOLE: usize = 64 << 10;

impl Disk {
    /// Looks at an image; a `tar.gz` is unpacked into `work`.
    pub(crate) fn open(image: &Path, work: &WorkDir) -> Result<Disk> {
        let path = image.canonicalize().map_err(|e| cannot_read(image, e))?;
        let mut file = File::open(&path).map_err(|e| cannot_read(image, e))?;
        let kind = file
            .metadata()
            .map_err(|e| cannot_read(image, e))?
            .file_type();
        if !kind.is_file() && !kind.is_block_device() {
            return Err(Error::input(format!(
                "{} is no disk image but a directory or a special file",
                image.display()
            ))
            .hint("name the image file itself, as in `output/disk.raw`"));
        }
        let mut head = Vec::new();
        Read::by_ref(&mut file)
            .take(512)
            .read_to_end(&mut head)
            .map_err(|e| cannot_read(image, e))?;
        if head.is_empty() {
            return Err(Error::input(format!(
                "{} is empty, so it is no disk image",
                image.display()
            )));
        }
        if head.starts_with(GZIP) {
            file.seek(SeekFrom::Start(0))
                .map_err(|e| cannot_read(image, e))?;
            return unpack(file, image, work);
        }
        Ok(Disk {
            path,
            format: format_of(&head),
        })
    }
}

fn cannot_read(image: &Path, e: std::io::Error) -> Error {
    Error::input(format!("cannot read the image {}", image.display())).cause(e)
}

fn format_of(head: &[u8]) -> &'static str {
    let matches = |(at, magic, _): &&(usize, &[u8], &str)| {
        head.get(*at..).is_some_and(|rest| rest.starts_with(magic))
    };
    MAGICS
        .iter()
        .find(matches)
        .map_or("raw", |(_, _, format)| format)
}

/// Unpacks `disk.raw` from a `tar.gz` as Google Compute Engine imports it.
fn unpack(file: File, image: &Path, work: &WorkDir) -> Result<Disk> {
    let broken =
        |e: std::io::Error| Error::input(format!("cannot unpack {}", image.display())).cause(e);
    let mut archive = tar::Archive::new(flate2::read::MultiGzDecoder::new(file));
    for entry in archive.entries().map_err(broken)? {
        let mut entry = entry.map_err(broken)?;
        if entry
            .path()
            .is_ok_and(|path| path.file_name() == Some("disk.raw".as_ref()))
        {
            let path = work.file("disk.raw");
            write_sparse(&mut entry, &path, image)?;
            return Ok(Disk {
                path,
                format: "raw",
            });
        }
    }
    Err(Error::input(format!(
        "{} holds no disk.raw",
        image.display()
    )))
}

fn write_sparse(from: &mut impl Read, path: &Path, image: &Path) -> Result<()> {
    let cannot_write = |e| {
        Error::file("writing", path, e)
            .hint("the working directory needs room for the unpacked image")
    };
    let mut file = File::create(path).map_err(cannot_write)?;
    let mut block = Vec::with_capacity(HOLE);
    let mut length = 0u64;
    loop {
        block.clear();
        let count = from
            .take(HOLE as u64)
            .read_to_end(&mut block)
            .map_err(|e| Error::input(format!("cannot unpack {}", image.display())).cause(e))?;
        if count == 0 {
            break;
        }
        if block.iter().all(|byte| *byte == 0) {
            file.seek(SeekFrom::Current(count as i64))
                .map_err(cannot_write)?;
        } else {
            file.write_all(&block).map_err(cannot_write)?;
        }
        length += count as u64;
    }
    file.set_len(length).map_err(cannot_write)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn formats_are_known_by_their_magic() {
        assert_eq!(format_of(b"QFI\xfb\0\0\0\x03"), "qcow2");
        assert_eq!(format_of(b"KDMV"), "vmdk");
        let mut vdi = vec![0; 0x44];
        vdi[0x40..].copy_from_slice(&[0x7f, 0x10, 0xda, 0xbe]);
        assert_eq!(format_of(&vdi), "vdi");
        assert_eq!(format_of(&[0; 512]), "raw");
        assert_eq!(format_of(b"Q"), "raw");
    }

    #[test]
    fn tar_gz_is_unpacked_with_holes() {
        let dir = tempfile::tempdir().unwrap();
        let mut content = vec![0u8; 4 << 20];
        content[..3].copy_from_slice(b"abc");
        content[3_000_000] = 7;
        let path = dir.path().join("disk.tar.gz");
        let gzip = flate2::write::GzEncoder::new(
            File::create(&path).unwrap(),
            flate2::Compression::fast(),
        );
        let mut tar = tar::Builder::new(gzip);
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        tar.append_data(&mut header, "disk.raw", content.as_slice())
            .unwrap();
        tar.into_inner().unwrap().finish().unwrap();
        let work = WorkDir::new(dir.path()).unwrap();
        let disk = Disk::open(&path, &work).unwrap();
        assert_eq!(std::fs::read(&disk.path).unwrap(), content);
        assert!(disk.path.metadata().unwrap().blocks() * 512 < 1 << 20);
    }

    #[test]
    fn what_is_no_image_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let work = WorkDir::new(dir.path()).unwrap();
        let empty = dir.path().join("empty.raw");
        std::fs::write(&empty, b"").unwrap();
        let cut = dir.path().join("cut.tar.gz");
        std::fs::write(&cut, [0x1f, 0x8b, 8, 0, 0]).unwrap();
        for path in [
            empty,
            cut,
            dir.path().to_path_buf(),
            dir.path().join("missing.raw"),
        ] {
            let error = Disk::open(&path, &work).unwrap_err();
            assert_eq!(error.kind(), crate::ErrorKind::Input);
            assert!(
                error
                    .to_string()
                    .contains(path.file_name().unwrap().to_str().unwrap()),
                "{error}"
            );
        }
    }
}
