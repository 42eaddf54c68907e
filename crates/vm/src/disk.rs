//! The image as QEMU sees it: an open file and the driver that reads it.
//!
//! An image comes from anywhere, so it does not choose its own driver: a file called `disk.raw` that is a qcow2 with a backing
//! file would make QEMU read any file of the user for the guest. It is raw unless the caller says otherwise; a format
//! that can name other files is refused when it does; and QEMU gets descriptors of what was looked at here, no paths.

mod foreign;
mod overlay;

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, FileTypeExt};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::request::ImageFormat;
use crate::work::WorkDir;

/// An image that QEMU is handed.
#[derive(Debug)]
pub(crate) struct Disk {
    /// Absolute, for people.
    pub(crate) path: PathBuf,
    /// Open for reading.
    pub(crate) file: File,
    /// QEMU's name of what reads the file itself: `file` or `host_device`.
    pub(crate) protocol: &'static str,
    /// How the file is read.
    pub(crate) format: ImageFormat,
    /// What the guest sees, in bytes.
    pub(crate) size: u64,
}

const GZIP: &[u8] = &[0x1f, 0x8b];
/// The end of the first sector of everything that a PC boots from, a protective MBR included (UEFI 2.10, section 5.2.1).
const BOOT_SIGNATURE: (usize, &[u8]) = (510, &[0x55, 0xaa]);
/// Zero runs of this many bytes become holes when an image is unpacked.
const HOLE: usize = 64 << 10;
/// No image in a `tar.gz` is larger; one that says so would be unpacked for hours.
const UNPACKED_LIMIT: u64 = 1 << 40;

impl Disk {
    /// Looks at an image; a `tar.gz` is unpacked into `work`. Without a `format` it is raw, and must not look like another.
    pub(crate) fn open(image: &Path, format: Option<ImageFormat>, work: &WorkDir) -> Result<Disk> {
        Disk::open_within(image, format, work, None)
    }

    /// The same; the file that is open in the end must be below a directory, whatever links are put on the way meanwhile.
    pub(crate) fn open_within(
        image: &Path,
        format: Option<ImageFormat>,
        work: &WorkDir,
        within: Option<&Path>,
    ) -> Result<Disk> {
        let path = image.canonicalize().map_err(|e| cannot_read(image, e))?;
        // A FIFO would wait for a writer.
        let kind = path
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
        let mut file = File::open(&path).map_err(|e| cannot_read(image, e))?;
        if let Some(within) = within {
            is_below(&file, within, image)?;
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
        if format.is_none() && head.starts_with(GZIP) {
            file.seek(SeekFrom::Start(0))
                .map_err(|e| cannot_read(image, e))?;
            return Disk::raw(unpack(file, image, work)?, image);
        }
        let protocol = if kind.is_block_device() {
            "host_device"
        } else {
            "file"
        };
        let format = match format {
            Some(format) => format,
            None => {
                check_raw(image, &head)?;
                ImageFormat::Raw
            }
        };
        let size = match format {
            ImageFormat::Raw => raw_size(&mut file).map_err(|e| cannot_read(image, e))?,
            other => foreign::size(other, &file, image)?,
        };
        Ok(Disk {
            path,
            file,
            protocol,
            format,
            size,
        })
    }

    /// What was unpacked from an archive.
    fn raw(path: PathBuf, image: &Path) -> Result<Disk> {
        let mut file = File::open(&path).map_err(|e| Error::file("opening", &path, e))?;
        let mut head = [0; 512];
        let _ = file
            .read_at(&mut head, 0)
            .map_err(|e| Error::file("reading", &path, e))?;
        check_raw(image, &head)?;
        let size = raw_size(&mut file).map_err(|e| Error::file("reading", &path, e))?;
        Ok(Disk {
            path,
            file,
            protocol: "file",
            format: ImageFormat::Raw,
            size,
        })
    }

    /// A disk over this one for what the guest writes: a file that has no name any more.
    pub(crate) fn overlay(&self, work: &WorkDir) -> Result<File> {
        overlay::make(work.path(), self.size)
    }
}

/// A block device has no length, but an end.
fn raw_size(file: &mut File) -> std::io::Result<u64> {
    file.seek(SeekFrom::End(0))
}

/// Asks the kernel where an open file is.
fn is_below(file: &File, within: &Path, image: &Path) -> Result<()> {
    let within = within.canonicalize().map_err(|e| cannot_read(image, e))?;
    let link = format!("/proc/self/fd/{}", file.as_raw_fd());
    let place = std::fs::read_link(link).map_err(|e| cannot_read(image, e))?;
    if place.starts_with(&within) {
        return Ok(());
    }
    let what = format!(
        "the image {} is not a file of the workspace",
        image.display()
    );
    Err(Error::input(what).hint("name an image that a step of this build has made"))
}

fn cannot_read(image: &Path, e: std::io::Error) -> Error {
    Error::input(format!("cannot read the image {}", image.display())).cause(e)
}

/// Fails on what is no raw disk: another format, a text, a file of any other kind. A blank disk is one.
fn check_raw(image: &Path, head: &[u8]) -> Result<()> {
    if let Some(format) = foreign::looks_like(head) {
        let name = format.name();
        return Err(Error::input(format!(
            "{} begins like a {name} image, and an image is taken for raw unless you say otherwise",
            image.display()
        ))
        .hint(format!(
            "say `--image-format {}` if the image is meant to be one",
            format.qemu()
        )));
    }
    let (at, signature) = BOOT_SIGNATURE;
    let signed = head
        .get(at..)
        .is_some_and(|rest| rest.starts_with(signature));
    if signed || head.iter().all(|byte| *byte == 0) {
        return Ok(());
    }
    let error = Error::input(format!(
        "{} is no disk image: its first sector does not end in the boot signature 55 AA",
        image.display()
    ));
    let text = std::str::from_utf8(head).is_ok_and(|text| !text.contains('\0'));
    Err(error.hint(if text {
        "it is a text; a kickstart file is built first, with `kiln build`, and its output tested"
    } else {
        "name the image that `kiln build` made, as in `output/disk.raw`"
    }))
}

/// Unpacks `disk.raw` from a `tar.gz` as Google Compute Engine imports it.
fn unpack(file: File, image: &Path, work: &WorkDir) -> Result<PathBuf> {
    let broken =
        |e: std::io::Error| Error::input(format!("cannot unpack {}", image.display())).cause(e);
    let mut archive = tar::Archive::new(flate2::read::MultiGzDecoder::new(file));
    // Raw: long names and attributes would be read into memory, however long they are.
    for entry in archive.entries().map_err(broken)?.raw(true) {
        let mut entry = entry.map_err(broken)?;
        if entry
            .path()
            .is_ok_and(|path| path.file_name() == Some("disk.raw".as_ref()))
        {
            let size = entry.header().entry_size().map_err(broken)?;
            if size > UNPACKED_LIMIT {
                return Err(Error::input(format!(
                    "the disk.raw in {} says that it has {size} bytes; more than {UNPACKED_LIMIT} are not unpacked",
                    image.display()
                )));
            }
            let path = work.file("disk.raw");
            write_sparse(&mut entry, &path, image)?;
            return Ok(path);
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
    fn what_looks_like_another_format_is_not_taken_for_raw() {
        let dir = tempfile::tempdir().unwrap();
        let work = WorkDir::new(dir.path()).unwrap();
        let path = dir.path().join("disk.raw");
        let mut head = vec![0; 1024];
        head[..8].copy_from_slice(b"QFI\xfb\0\0\0\x03");
        head[510..512].copy_from_slice(&[0x55, 0xaa]);
        std::fs::write(&path, &head).unwrap();
        let error = Disk::open(&path, None, &work).unwrap_err();
        assert!(error.to_string().contains("disk.raw begins like a qcow2"));
        assert!(error.hint_text().unwrap().contains("--image-format qcow2"));
        // Whoever says raw means it.
        let disk = Disk::open(&path, Some(ImageFormat::Raw), &work).unwrap();
        assert_eq!((disk.format, disk.size), (ImageFormat::Raw, 1024));
    }

    #[test]
    fn an_image_of_a_workspace_is_in_it() {
        let dir = tempfile::tempdir().unwrap();
        let work = WorkDir::new(&dir.path().join("work")).unwrap();
        let (inside, outside) = (dir.path().join("w"), dir.path().join("secret"));
        std::fs::create_dir(&inside).unwrap();
        std::fs::write(&outside, vec![0; 1024]).unwrap();
        std::fs::write(inside.join("disk.raw"), vec![0; 1024]).unwrap();
        std::os::unix::fs::symlink(&outside, inside.join("link.raw")).unwrap();
        let open =
            |name: &str| Disk::open_within(&inside.join(name), None, &work, Some(inside.as_path()));
        assert_eq!(open("disk.raw").unwrap().size, 1024);
        let error = open("link.raw").unwrap_err();
        assert!(error.to_string().contains("not a file of the workspace"));
    }

    #[test]
    fn a_kickstart_file_is_no_image() {
        let dir = tempfile::tempdir().unwrap();
        let work = WorkDir::new(dir.path()).unwrap();
        let path = dir.path().join("a.ks");
        std::fs::write(&path, "lang en_US.UTF-8\n".repeat(100)).unwrap();
        let error = Disk::open(&path, None, &work).unwrap_err();
        assert!(error.to_string().contains("a.ks is no disk image"));
        assert!(error.hint_text().unwrap().contains("kiln build"));
    }

    #[test]
    fn tar_gz_is_unpacked_with_holes() {
        let dir = tempfile::tempdir().unwrap();
        let mut content = vec![0u8; 4 << 20];
        content[..3].copy_from_slice(b"abc");
        content[3_000_000] = 7;
        content[510..512].copy_from_slice(&[0x55, 0xaa]);
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
        let disk = Disk::open(&path, None, &work).unwrap();
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
            let error = Disk::open(&path, None, &work).unwrap_err();
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
