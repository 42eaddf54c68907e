//! The tar around the image (GNU tar manual, "Basic Tar Format"; old GNU magic).

use crate::error::{Error, Result};

const BLOCK: usize = 512;
/// GNU tar fills up to whole records of 20 blocks.
const RECORD: u64 = 20 * BLOCK as u64;
/// Largest number of eleven octal digits; larger sizes become base-256.
const MAX_OCTAL: u64 = 0o777_7777_7777;
const MAX_NAME: usize = 100;

/// The header of a regular file.
pub(super) fn member(name: &str, size: u64, mtime: u64) -> Result<Vec<u8>> {
    if name.is_empty() || name.len() > MAX_NAME || name.contains('\0') {
        return Err(Error::input(format!(
            "`{}` cannot be the name of a tar member: it has 1 to {MAX_NAME} bytes",
            name.escape_debug()
        )));
    }
    let mut out = Vec::with_capacity(BLOCK);
    out.extend(name.as_bytes());
    out.resize(MAX_NAME, 0);
    out.extend(b"0000644\0"); // 100: mode
    out.extend(b"0000000\0"); // 108: user
    out.extend(b"0000000\0"); // 116: group
    out.extend(number(size)); // 124
    out.extend(number(mtime)); // 136
    out.extend(b"        "); // 148: checksum, counted as blanks
    out.push(b'0'); // 156: regular file
    out.resize(257, 0); // 157: link name
    out.extend(b"ustar  \0"); // 257: magic and version of old GNU tar
    out.extend(b"root"); // 265
    out.resize(297, 0);
    out.extend(b"root"); // 297
    out.resize(BLOCK, 0);
    let sum: u32 = out.iter().map(|b| u32::from(*b)).sum();
    if let Some(field) = out.get_mut(148..156) {
        field.copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
    Ok(out)
}

/// Twelve bytes: octal with a NUL, or 0x80 and a big-endian number.
fn number(value: u64) -> [u8; 12] {
    let mut field = [0; 12];
    if value <= MAX_OCTAL {
        field[..11].copy_from_slice(format!("{value:011o}").as_bytes());
    } else {
        field[0] = 0x80;
        field[4..].copy_from_slice(&value.to_be_bytes());
    }
    field
}

/// What follows a member of `size` bytes that is the archive's only one: padding, two zero blocks, and zeros up to a whole record.
pub(super) fn trailer(size: u64) -> Vec<u8> {
    let block = BLOCK as u64;
    let padded = size.next_multiple_of(block);
    let end = (block + padded + 2 * block).next_multiple_of(RECORD);
    vec![0; (end - block - size) as usize]
}
