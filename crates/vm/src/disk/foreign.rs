//! Formats that are not raw: how one is told, how large its disk is, and whether it names another file.
//!
//! Sources: `docs/interop/qcow2.txt`, `block/vmdk.c` and `block/vdi.c` of QEMU; VMware's "Virtual Disk Format 5.0".

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::error::{Error, Result};
use crate::request::ImageFormat;

/// Magic numbers: offset, bytes, format.
const MAGICS: [(usize, &[u8], ImageFormat); 4] = [
    (0, b"QFI\xfb", ImageFormat::Qcow2),
    (0, b"KDMV", ImageFormat::Vmdk),
    (0, DESCRIPTOR, ImageFormat::Vmdk),
    (0x40, &[0x7f, 0x10, 0xda, 0xbe], ImageFormat::Vdi),
];
/// A VMDK that is a text and names the files that hold the disk.
const DESCRIPTOR: &[u8] = b"# Disk DescriptorFile";
/// The longest name of a backing file (`docs/interop/qcow2.txt`).
const NAME_LIMIT: u32 = 1023;
/// A qcow2 whose data lie in another file says so in this incompatible feature.
const EXTERNAL_DATA: u64 = 1 << 2;
/// A descriptor within a VMDK is some hundred bytes; its place is given in sectors of 512.
const EMBEDDED_LIMIT: u64 = 20 << 10;
const SECTOR: u64 = 512;

/// What the first bytes say.
pub(super) fn looks_like(head: &[u8]) -> Option<ImageFormat> {
    let matches = |(at, magic, _): &&(usize, &[u8], ImageFormat)| {
        head.get(*at..).is_some_and(|rest| rest.starts_with(magic))
    };
    MAGICS.iter().find(matches).map(|(_, _, format)| *format)
}

/// The size in bytes of the disk that a file of this format holds.
///
/// # Errors
/// It is no file of this format, or it names another file.
pub(super) fn size(format: ImageFormat, file: &File, image: &Path) -> Result<u64> {
    let reader = Reader {
        file,
        image,
        format,
    };
    // A descriptor may be shorter than a sector.
    let mut head = [0; 512];
    let length = file
        .read_at(&mut head, 0)
        .map_err(|e| reader.error("cannot be read").cause(e))?;
    if head.get(..length).and_then(looks_like) != Some(format) {
        return Err(reader.error("does not begin like one"));
    }
    match format {
        ImageFormat::Raw => Err(Error::internal("a raw image was asked for its header")),
        ImageFormat::Qcow2 => qcow2(&reader),
        ImageFormat::Vmdk => vmdk(&reader),
        // A child of another VDI names it by number only, and QEMU refuses it.
        ImageFormat::Vdi => Ok(u64::from_le_bytes(reader.array(0x170)?)),
    }
}

fn qcow2(reader: &Reader<'_>) -> Result<u64> {
    let version = u32::from_be_bytes(reader.array(4)?);
    if !matches!(version, 2 | 3) {
        return Err(reader.error(&format!("has version {version}; 2 and 3 are known")));
    }
    let backing = u64::from_be_bytes(reader.array(8)?);
    if backing != 0 {
        let length = u32::from_be_bytes(reader.array(16)?).min(NAME_LIMIT);
        let name = reader.bytes(backing, length as usize)?;
        return Err(reader.names("backing file", &name));
    }
    if version == 3 && u64::from_be_bytes(reader.array(72)?) & EXTERNAL_DATA != 0 {
        return Err(reader
            .error("keeps its data in another file, which would be read with your permissions"));
    }
    Ok(u64::from_be_bytes(reader.array(24)?))
}

fn vmdk(reader: &Reader<'_>) -> Result<u64> {
    if reader.bytes(0, DESCRIPTOR.len())? == DESCRIPTOR {
        return Err(reader.error(
            "is a descriptor, which names the files that hold the disk; they would be read with your permissions",
        ));
    }
    let number = |at| Ok(u64::from_le_bytes(reader.array(at)?));
    let capacity = number(12)?;
    if capacity == 0 {
        return Err(reader.error("has no capacity, so its descriptor names other files"));
    }
    let (at, sectors) = (number(28)?, number(36)?);
    let length = sectors.saturating_mul(SECTOR).min(EMBEDDED_LIMIT);
    let text = match at.checked_mul(SECTOR) {
        Some(at) if length > 0 => reader.bytes(at, length as usize)?,
        _ => Vec::new(),
    };
    for line in text.split(|byte| *byte == b'\n') {
        if let Some(name) = line.strip_prefix(b"parentFileNameHint=") {
            return Err(reader.names("parent", name));
        }
    }
    capacity
        .checked_mul(SECTOR)
        .ok_or_else(|| reader.error("says that it is larger than a disk can be"))
}

/// Reads numbers of a header.
struct Reader<'a> {
    file: &'a File,
    image: &'a Path,
    format: ImageFormat,
}

impl Reader<'_> {
    fn bytes(&self, at: u64, length: usize) -> Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        self.file
            .read_exact_at(&mut bytes, at)
            .map_err(|e| self.error("is cut short").cause(e))?;
        Ok(bytes)
    }

    fn array<const N: usize>(&self, at: u64) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        self.file
            .read_exact_at(&mut bytes, at)
            .map_err(|e| self.error("is cut short").cause(e))?;
        Ok(bytes)
    }

    fn error(&self, what: &str) -> Error {
        Error::input(format!(
            "{} cannot be used as a {} image: it {what}",
            self.image.display(),
            self.format.name()
        ))
    }

    /// It refers to another file.
    fn names(&self, role: &str, name: &[u8]) -> Error {
        let name = String::from_utf8_lossy(name);
        self.error(&format!(
            "names the {role} {name:?}, which would be read with your permissions"
        ))
        .hint(format!(
            "if you trust it, make an image that stands alone: `qemu-img convert -O raw {} disk.raw`",
            self.image.display()
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a file with this beginning is taken for.
    fn verdict(format: ImageFormat, parts: &[(usize, &[u8])]) -> Result<u64> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("image");
        let mut content = vec![0; 4096];
        for (at, bytes) in parts {
            content[*at..at + bytes.len()].copy_from_slice(bytes);
        }
        std::fs::write(&path, content).unwrap();
        size(format, &File::open(&path).unwrap(), &path)
    }

    fn refused(format: ImageFormat, parts: &[(usize, &[u8])]) -> String {
        verdict(format, parts).unwrap_err().to_string()
    }

    const QCOW2: (usize, &[u8]) = (0, b"QFI\xfb\0\0\0\x03");

    #[test]
    fn a_qcow2_with_another_file_below_is_refused_by_name() {
        let size = (24, &0x1234_0000u64.to_be_bytes()[..]);
        assert_eq!(
            verdict(ImageFormat::Qcow2, &[QCOW2, size]).unwrap(),
            0x1234_0000
        );
        let backing = (8, &1024u64.to_be_bytes()[..]);
        let length = (16, &14u32.to_be_bytes()[..]);
        let said = refused(
            ImageFormat::Qcow2,
            &[QCOW2, backing, length, (1024, b"/home/me/id_rsa")],
        );
        assert!(
            said.contains(r#"the backing file "/home/me/id_rs""#),
            "{said}"
        );
        let external = (72, &EXTERNAL_DATA.to_be_bytes()[..]);
        let said = refused(ImageFormat::Qcow2, &[QCOW2, external]);
        assert!(said.contains("data in another file"), "{said}");
        // Beyond the end of the file.
        let far = (8, &u64::MAX.to_be_bytes()[..]);
        let said = refused(ImageFormat::Qcow2, &[QCOW2, far, length]);
        assert!(said.contains("cut short"), "{said}");
    }

    #[test]
    fn a_vmdk_that_names_files_is_refused() {
        let head = (0, &b"KDMV"[..]);
        let capacity = (12, &8u64.to_le_bytes()[..]);
        assert_eq!(verdict(ImageFormat::Vmdk, &[head, capacity]).unwrap(), 4096);
        let said = refused(ImageFormat::Vmdk, &[(0, b"# Disk DescriptorFile\n")]);
        assert!(said.contains("descriptor"), "{said}");
        let said = refused(ImageFormat::Vmdk, &[head]);
        assert!(said.contains("no capacity"), "{said}");
        let place = (28, &1u64.to_le_bytes()[..]);
        let length = (36, &1u64.to_le_bytes()[..]);
        let text = (512, &b"version=1\nparentFileNameHint=\"/etc/shadow\"\n"[..]);
        let said = refused(ImageFormat::Vmdk, &[head, capacity, place, length, text]);
        assert!(
            said.contains("parent") && said.contains("/etc/shadow"),
            "{said}"
        );
    }

    #[test]
    fn a_file_of_another_format_is_refused() {
        for format in [ImageFormat::Qcow2, ImageFormat::Vmdk, ImageFormat::Vdi] {
            let said = refused(format, &[]);
            assert!(said.contains("does not begin like one"), "{said}");
        }
    }
}
