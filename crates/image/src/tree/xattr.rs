//! Extended attributes.

use std::ffi::CStr;
use std::io;
use std::path::Path;

use rustix::fs::{lgetxattr, llistxattr};
use rustix::io::Errno;

/// A value of an extended attribute is at most this long: Linux's `XATTR_SIZE_MAX`.
const VALUE_MAX: usize = 65_536;
/// All names together are at most this long: Linux's `XATTR_LIST_MAX`.
const LIST_MAX: usize = 65_536;

/// What overlayfs keeps for itself in upper layers; it means nothing in an image.
const OVERLAY_PRIVATE: [&[u8]; 2] = [b"trusted.overlay.", b"user.overlay."];

/// The namespaces that an image can hold.
const STORABLE: [&[u8]; 3] = [b"user.", b"trusted.", b"security."];

/// One extended attribute.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Xattr {
    /// The full name, such as `security.capability`.
    pub name: Box<[u8]>,
    /// The value.
    pub value: Box<[u8]>,
}

impl Xattr {
    /// Makes an attribute with its full name.
    pub fn new(name: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> Self {
        Xattr {
            name: name.into().into_boxed_slice(),
            value: value.into().into_boxed_slice(),
        }
    }
}

/// What [`Reader::read`] found at a path.
#[derive(Default)]
pub(super) struct Found {
    pub(super) kept: Vec<Xattr>,
    /// Names in a namespace that no image holds, such as `system.posix_acl_access`.
    pub(super) skipped: Vec<Vec<u8>>,
}

/// Reads extended attributes with buffers that are used again.
pub(super) struct Reader {
    names: Vec<u8>,
    value: Vec<u8>,
    /// Reads overlayfs's own, too.
    overlay_marks: bool,
}

impl Reader {
    pub(super) fn new(overlay_marks: bool) -> Self {
        Reader {
            overlay_marks,
            names: vec![0; LIST_MAX],
            value: vec![0; VALUE_MAX],
        }
    }

    /// All attributes of the file itself; a symbolic link is not followed. `drop` are further prefixes to leave out.
    pub(super) fn read(&mut self, path: &Path, drop: &[Vec<u8>]) -> io::Result<Found> {
        let mut found = Found::default();
        let length = match llistxattr(path, &mut self.names[..]) {
            Ok(0) | Err(Errno::NOTSUP) => return Ok(found),
            Ok(length) => length,
            Err(e) => return Err(e.into()),
        };
        for name in self.names[..length].split_inclusive(|b| *b == 0) {
            let Ok(name) = CStr::from_bytes_with_nul(name) else {
                continue;
            };
            let bytes = name.to_bytes();
            if (!self.overlay_marks && is_overlay_private(bytes)) || starts_with_any(bytes, drop) {
                continue;
            }
            if !starts_with_any(bytes, &STORABLE) {
                found.skipped.push(bytes.to_vec());
                continue;
            }
            match lgetxattr(path, name, &mut self.value[..]) {
                Ok(length) => found.kept.push(Xattr::new(bytes, &self.value[..length])),
                // Listed and gone: another process took it away, or the kernel hides it from this namespace.
                Err(Errno::NODATA) => {}
                Err(e) => return Err(e.into()),
            }
        }
        found.kept.sort();
        Ok(found)
    }
}

pub(super) fn is_overlay_private(name: &[u8]) -> bool {
    starts_with_any(name, &OVERLAY_PRIVATE)
}

fn starts_with_any(name: &[u8], prefixes: &[impl AsRef<[u8]>]) -> bool {
    prefixes
        .iter()
        .any(|prefix| name.starts_with(prefix.as_ref()))
}
