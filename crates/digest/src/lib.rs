//! SHA-256: packages, indices, artifacts, ids and tokens all go through [`Sha256`].
//!
//! `ring`, which `rustls` is made of anyway, asks the processor when it runs: it has code for SHA instructions, for AVX and SSSE3,
//! and for those of ARM. Compared with other libraries in `docs/performance.md`.

use std::fmt;
use std::io;

use ring::digest::{Context, SHA256, digest};

/// A hash that goes on: bytes are added piece by piece. A copy goes on by itself.
#[derive(Clone)]
pub struct Sha256(Context);

impl Sha256 {
    /// Returns the hash of nothing yet.
    pub fn new() -> Self {
        Sha256(Context::new(&SHA256))
    }

    /// Returns the digest of `bytes`.
    pub fn digest(bytes: impl AsRef<[u8]>) -> [u8; 32] {
        array(&digest(&SHA256, bytes.as_ref()))
    }

    /// Adds bytes.
    pub fn update(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.update(bytes.as_ref());
    }

    /// Adds bytes.
    #[must_use]
    pub fn chain_update(mut self, bytes: impl AsRef<[u8]>) -> Self {
        self.update(bytes);
        self
    }

    /// Returns the digest of all that was added.
    pub fn finalize(self) -> [u8; 32] {
        array(&self.0.finish())
    }
}

/// Anything but 32 bytes would be another algorithm.
fn array(digest: &ring::digest::Digest) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest.as_ref());
    bytes
}

impl Default for Sha256 {
    fn default() -> Self {
        Self::new()
    }
}

/// Shows nothing: what is hashed may be a secret.
impl fmt::Debug for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sha256 { .. }")
    }
}

impl io::Write for Sha256 {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// FIPS 180-4's own examples, by NIST.
    #[test]
    fn digests_are_those_of_the_standard() {
        let million = vec![b'a'; 1_000_000];
        for (bytes, digest) in [
            (
                &b""[..],
                "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            ),
            (
                b"abc",
                "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
            ),
            (
                b"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
                "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1",
            ),
            (
                &million,
                "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0",
            ),
        ] {
            assert_eq!(hex::encode(Sha256::digest(bytes)), digest);
        }
    }

    #[test]
    fn pieces_of_any_length_make_the_digest_of_the_whole() {
        let bytes: Vec<u8> = (0..700u32).map(|n| n.to_le_bytes()[0]).collect();
        let whole = Sha256::digest(&bytes);
        for length in [1, 3, 55, 56, 63, 64, 65, 129, 700] {
            let mut hash = Sha256::new();
            for piece in bytes.chunks(length) {
                hash.update(piece);
            }
            let copy = hash.clone().chain_update(b"x");
            assert_eq!(hash.finalize(), whole, "pieces of {length}");
            assert_ne!(copy.finalize(), whole);
        }
    }
}
