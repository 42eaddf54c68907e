//! Names of objects: SHA-1 of what they are and hold.

use std::fmt;

use ring::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY};

/// The kinds of objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Commit,
    Tree,
    Blob,
    Tag,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Commit => "commit",
            Kind::Tree => "tree",
            Kind::Blob => "blob",
            Kind::Tag => "tag",
        }
    }
}

/// An object's name.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Id(pub(crate) [u8; 20]);

impl Id {
    /// Forty hexadecimal digits.
    pub(crate) fn parse(text: &[u8]) -> Option<Id> {
        let mut bytes = [0; 20];
        hex::decode_to_slice(text, &mut bytes).ok()?;
        Some(Id(bytes))
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// SHA-1 of bytes that come in pieces.
pub(crate) struct Sum(Context);

impl Sum {
    pub(crate) fn new() -> Self {
        Sum(Context::new(&SHA1_FOR_LEGACY_USE_ONLY))
    }

    /// Of an object, which its content follows.
    pub(crate) fn of(kind: Kind, size: u64) -> Self {
        let mut sum = Sum::new();
        sum.add(format!("{} {size}\0", kind.name()).as_bytes());
        sum
    }

    pub(crate) fn add(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    pub(crate) fn end(self) -> Id {
        let digest = self.0.finish();
        let mut bytes = [0; 20];
        bytes.copy_from_slice(digest.as_ref());
        Id(bytes)
    }
}

impl std::io::Write for Sum {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.add(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
