//! GUIDs: how they are written, stored and derived.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};

/// A GUID, kept in the order of its text form (`C12A7328-F81F-…` starts with 0xC1).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Guid([u8; 16]);

impl Guid {
    /// From the bytes in the order of the text form.
    pub const fn from_text_order(bytes: [u8; 16]) -> Self {
        Guid(bytes)
    }

    /// From the five groups of the text form: `Guid::from_groups(0xc12a7328, 0xf81f, 0x11d2, 0xba4b, 0x00a0c93ec93b)`.
    pub const fn from_groups(a: u32, b: u16, c: u16, d: u16, e: u64) -> Self {
        let value = (a as u128) << 96
            | (b as u128) << 80
            | (c as u128) << 64
            | (d as u128) << 48
            | e as u128;
        Guid(value.to_be_bytes())
    }

    /// Makes a GUID that depends on `parts` alone: the same build gives the same disk. It carries version 8 (RFC 9562
    /// section 5.8, vendor specific) and the RFC's variant bits; the rest is from SHA-256.
    pub fn derived(parts: &[&[u8]]) -> Self {
        let mut hash = Sha256::new();
        hash.update(b"kiln guid 1\0");
        for part in parts {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        let digest = hash.finalize();
        let mut bytes = [0; 16];
        for (to, from) in bytes.iter_mut().zip(digest.iter()) {
            *to = *from;
        }
        bytes[6] = bytes[6] & 0x0f | 0x80;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        Guid(bytes)
    }

    /// As GPT stores it: the first three groups little endian, the rest as written (UEFI 2.10, appendix A).
    pub fn to_disk(self) -> [u8; 16] {
        let b = self.0;
        [
            b[3], b[2], b[1], b[0], b[5], b[4], b[7], b[6], b[8], b[9], b[10], b[11], b[12], b[13],
            b[14], b[15],
        ]
    }

    /// Reads what [`Guid::to_disk`] writes.
    pub fn from_disk(b: [u8; 16]) -> Self {
        Guid(Guid(b).to_disk())
    }
}

/// Lower case, as in `/dev/disk/by-partuuid/`.
impl fmt::Display for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, byte) in self.0.iter().enumerate() {
            if matches!(i, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Guid {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = || {
            Error::input(format!("`{text}` is not a GUID"))
                .with_hint("write it as 8-4-4-4-12 hexadecimal digits")
        };
        let lengths: Vec<usize> = text.split('-').map(str::len).collect();
        if lengths != [8, 4, 4, 4, 12] {
            return Err(wrong());
        }
        let mut bytes = [0; 16];
        hex::decode_to_slice(text.replace('-', ""), &mut bytes).map_err(|_| wrong())?;
        Ok(Guid(bytes))
    }
}

impl Serialize for Guid {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Guid {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_disk_order() {
        let guid: Guid = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B".parse().unwrap();
        assert_eq!(guid.to_string(), "c12a7328-f81f-11d2-ba4b-00a0c93ec93b");
        assert_eq!(
            guid.to_disk()[..8],
            [0x28, 0x73, 0x2a, 0xc1, 0x1f, 0xf8, 0xd2, 0x11]
        );
        assert_eq!(Guid::from_disk(guid.to_disk()), guid);
        assert_eq!(
            guid,
            Guid::from_groups(0xc12a7328, 0xf81f, 0x11d2, 0xba4b, 0x00a0c93ec93b)
        );
    }

    #[test]
    fn derived_guids_depend_on_every_part() {
        let a = Guid::derived(&[b"ab", b"c"]);
        assert_eq!(a, Guid::derived(&[b"ab", b"c"]));
        assert_ne!(a, Guid::derived(&[b"a", b"bc"]));
        assert_eq!(&a.to_string()[14..15], "8");
    }

    #[test]
    fn nonsense_is_refused() {
        for text in [
            "",
            "c12a7328",
            "c12a7328-f81f-11d2-ba4b-00a0c93ec93",
            "g12a7328-f81f-11d2-ba4b-00a0c93ec93b",
        ] {
            assert!(text.parse::<Guid>().is_err(), "{text}");
        }
    }
}
