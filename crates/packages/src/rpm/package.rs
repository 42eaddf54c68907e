//! Package files: proven by a signature on the header, and by the header's digest of the payload.
//!
//! ```text
//! 0    96 bytes     lead: magic, type; all else in it has had no meaning for decades
//! 96   header       signatures and sizes; nothing in it is signed
//! …    0–7 bytes    so that the next one begins at a multiple of 8
//! …    header       what the package is; signed
//! …    payload      a compressed cpio archive; its SHA-256 is in the header
//! ```

use std::fs::File;
use std::io::{BufReader, Read, Seek};
use std::path::Path;
use std::time::SystemTime;

use base64::Engine;

use super::files::{self, FileInfo};
use super::header::{self, Header, bad};
use super::version::Evr;
use crate::digest::Hasher;
use crate::openpgp::{Keyring, Signer};
use crate::{Digest, Error, ErrorKind, Result};

const LEAD: usize = 96;
const LEAD_MAGIC: [u8; 4] = [0xed, 0xab, 0xee, 0xdb];
/// SHA-256 among OpenPGP's hash algorithms.
const SHA256: u64 = 8;

/// Tags of the signature header: of the header alone, by DSA or EdDSA, by RSA, and (since rpm 6) any number in base64.
const SIGNATURES: [u32; 2] = [267, 268];
const SIGNATURE_LIST: u32 = 278;
/// Tags of signatures of header and payload together, as rpm 3 made them, by RSA, and by DSA or EdDSA. They prove a header only to
/// who has read all of the file, so they count for nothing here: rpm has signed headers beside them since 4.0, and newer ones alone.
const OF_HEADER_AND_PAYLOAD: [u32; 2] = [1002, 1005];

mod tag {
    pub(super) const NAME: u32 = 1000;
    pub(super) const VERSION: u32 = 1001;
    pub(super) const RELEASE: u32 = 1002;
    pub(super) const EPOCH: u32 = 1003;
    pub(super) const BUILD_TIME: u32 = 1006;
    pub(super) const ARCH: u32 = 1022;
    pub(super) const SOURCE_RPM: u32 = 1044;
    pub(super) const PROVIDE_NAME: u32 = 1047;
    pub(super) const PAYLOAD_FORMAT: u32 = 1124;
    pub(super) const PAYLOAD_COMPRESSOR: u32 = 1125;
    pub(super) const PAYLOAD_DIGEST: u32 = 5092;
    pub(super) const PAYLOAD_DIGEST_ALGORITHM: u32 = 5093;
    pub(super) const MODULARITY_LABEL: u32 = 5096;
}

/// A package that was proven.
#[derive(Debug)]
pub struct PackageFile {
    file: File,
    name: String,
    header: Header,
    /// Who signed it.
    pub signer: Signer,
    payload: u64,
}

impl PackageFile {
    /// Opens a package file and proves it: a key of the ring signed its header, and the payload is what the header says. Nothing
    /// of the header is read before that.
    ///
    /// # Errors
    /// [`ErrorKind::Unsigned`], [`ErrorKind::BadSignature`], [`ErrorKind::HashMismatch`] for another payload,
    /// [`ErrorKind::Malformed`], [`ErrorKind::Io`].
    pub fn verify(path: &Path, keyring: &Keyring, now: SystemTime) -> Result<Self> {
        let failed = |e| Error::io(format_args!("opening {}", path.display()), e);
        let file = File::open(path).map_err(failed)?;
        PackageFile::verify_file(file, &path.display().to_string(), keyring, now)
    }

    /// Like [`PackageFile::verify`], of an open file; `name` is for messages.
    ///
    /// # Errors
    /// As [`PackageFile::verify`].
    pub fn verify_file(
        mut file: File,
        name: &str,
        keyring: &Keyring,
        now: SystemTime,
    ) -> Result<Self> {
        let mut reader = BufReader::new(&mut file);
        let bad = |why: String| header::bad(name, &why);
        let mut lead = [0; LEAD];
        reader
            .read_exact(&mut lead)
            .map_err(|_| bad("it has not even a lead".into()))?;
        if lead[..4] != LEAD_MAGIC {
            return Err(bad("it does not begin as one".into()));
        }
        let signatures = header::read(&mut reader).map_err(bad)?;
        let padding = signatures.len().next_multiple_of(8) - signatures.len();
        reader
            .read_exact(&mut [0; 8][..padding])
            .map_err(|_| bad("it is cut".into()))?;
        let signatures = Header::parse(signatures).map_err(bad)?;
        let bytes = header::read(&mut reader).map_err(bad)?;
        let signer = judge(name, &signatures, &bytes, keyring, now)?;
        let header = Header::parse(bytes).map_err(bad)?;
        let payload = reader
            .stream_position()
            .map_err(|e| Error::io(format_args!("reading {name}"), e))?;
        check_payload(name, &header, &mut reader)?;
        drop(reader);
        Ok(PackageFile {
            file,
            name: name.to_owned(),
            header,
            signer,
            payload,
        })
    }

    /// Its name in messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it is: name, version, architecture.
    ///
    /// # Errors
    /// [`ErrorKind::Malformed`] if it does not say it, or is a source package.
    pub fn identity(&self) -> Result<(String, Evr, String)> {
        let text = |tag, what: &str| {
            let text = self.header.string(tag);
            text.ok_or_else(|| bad(&self.name, &format!("it has no {what}")))
        };
        if self.header.string(tag::SOURCE_RPM).is_none() {
            return Err(bad(&self.name, "it is a source package"));
        }
        let epoch = self
            .header
            .numbers(tag::EPOCH)
            .first()
            .copied()
            .unwrap_or(0);
        let evr = Evr {
            epoch: u32::try_from(epoch).map_err(|_| bad(&self.name, "its epoch is too large"))?,
            version: text(tag::VERSION, "version")?,
            release: text(tag::RELEASE, "release")?,
        };
        Ok((
            text(tag::NAME, "name")?,
            evr,
            text(tag::ARCH, "architecture")?,
        ))
    }

    /// When it was made, in seconds since 1970.
    pub fn built(&self) -> i64 {
        let built = self.header.numbers(tag::BUILD_TIME).first().copied();
        built
            .and_then(|seconds| i64::try_from(seconds).ok())
            .unwrap_or(0)
    }

    /// The module and its stream that the package was built for, if it was for one. Its label is `NAME:STREAM:VERSION:CONTEXT:ARCHITECTURE`.
    pub fn stream(&self) -> Option<(String, String)> {
        let label = self.header.string(tag::MODULARITY_LABEL)?;
        let mut parts = label.split(':').map(str::to_owned);
        Some((parts.next()?, parts.next()?)).filter(|(_, stream)| !stream.is_empty())
    }

    /// Whether several versions of it may be installed beside each other, as of kernels: the names and capabilities by which dnf tells
    /// (`installonlypkgs` in dnf.conf(5)).
    pub fn is_install_only(&self) -> bool {
        let named = |name: &[u8]| {
            let is_family = name.starts_with(b"installonlypkg(") || name == b"multiversion(kernel)";
            is_family || [&b"kernel"[..], b"kernel-PAE"].contains(&name)
        };
        self.header
            .strings(tag::PROVIDE_NAME)
            .into_iter()
            .any(named)
    }

    /// Its files, as the header has them.
    ///
    /// # Errors
    /// [`ErrorKind::Malformed`], for a path that leads out of the root among others.
    pub fn files(&self) -> Result<Vec<FileInfo>> {
        files::read(&self.header).map_err(|why| bad(&self.name, &why))
    }

    /// Visits everything in the payload, in its order, each compared with what the header says of it.
    ///
    /// # Errors
    /// Those of `visit`; [`ErrorKind::Malformed`] where payload and header disagree.
    pub fn entries(&self, visit: super::payload::Visit<'_>) -> Result<()> {
        let format = self
            .header
            .string(tag::PAYLOAD_FORMAT)
            .unwrap_or_else(|| "cpio".into());
        if format != "cpio" {
            return Err(bad(
                &self.name,
                &format!("its payload has the unknown format {format:.40}"),
            ));
        }
        let compressor = self.header.string(tag::PAYLOAD_COMPRESSOR);
        let mut file = self
            .file
            .try_clone()
            .map_err(|e| Error::io(format_args!("reading {}", self.name), e))?;
        file.seek(std::io::SeekFrom::Start(self.payload))
            .map_err(|e| Error::io(format_args!("reading {}", self.name), e))?;
        let reader = super::payload::decompressed(compressor.as_deref(), file)
            .map_err(|why| bad(&self.name, &why))?;
        super::payload::each(&self.name, reader, &self.files()?, visit)
    }
}

/// One good signature of the header is enough.
fn judge(
    name: &str,
    signatures: &Header,
    header: &[u8],
    keyring: &Keyring,
    now: SystemTime,
) -> Result<Signer> {
    let listed = signatures.strings(SIGNATURE_LIST).into_iter();
    let base64 = base64::engine::general_purpose::STANDARD;
    let decoded = listed.filter_map(|text| base64.decode(text).ok());
    let plain = SIGNATURES
        .iter()
        .filter_map(|&tag| signatures.binary(tag))
        .map(<[u8]>::to_vec);
    let mut reason = None;
    for signature in decoded.chain(plain) {
        match keyring.verify_detached(name, header, &signature, now) {
            Ok(signer) => return Ok(signer),
            Err(error) => reason = Some(error),
        }
    }
    Err(reason.unwrap_or_else(|| unsigned(name, signatures)))
}

fn unsigned(name: &str, signatures: &Header) -> Error {
    let together = |&tag: &u32| signatures.binary(tag).is_some();
    if OF_HEADER_AND_PAYLOAD.iter().any(together) {
        let message = format!(
            "{name} is signed only in the way of rpm 3, header and payload together: Kiln wants a signature of the header"
        );
        return Error::new(ErrorKind::Unsigned, message).with_hint(
            "Sign it again with `rpmsign --resign`, whose rpm is 4.14 or newer, or use a newer build of the package.",
        );
    }
    let message = format!("{name} is not signed: Kiln installs signed packages only");
    Error::new(ErrorKind::Unsigned, message)
        .with_hint("Sign it with `rpmsign --addsign` and give the repository's public key.")
}

/// Compares the rest of the file with the header's digest.
fn check_payload(name: &str, header: &Header, reader: &mut impl Read) -> Result<()> {
    let expected = header.string(tag::PAYLOAD_DIGEST);
    let algorithm = header
        .numbers(tag::PAYLOAD_DIGEST_ALGORITHM)
        .first()
        .copied();
    let expected: Digest = match (expected, algorithm) {
        // Packages of format 6 do not say which: there it is always this one.
        (Some(text), Some(SHA256) | None) => text
            .parse()
            .map_err(|error| bad(name, &format!("the digest of its payload is {error}")))?,
        _ => {
            return Err(bad(
                name,
                "its header has no SHA-256 of the payload; packages have one since rpm 4.14 of 2017",
            ));
        }
    };
    let mut hasher = Hasher::default();
    hasher
        .update_from(reader)
        .map_err(|e| Error::io(format_args!("reading {name}"), e))?;
    let found = hasher.finish();
    match found == expected {
        true => Ok(()),
        false => {
            let message = format!(
                "the payload of {name} is not what its signed header says: it should have the SHA-256 {expected}, but has {found}"
            );
            Err(Error::new(ErrorKind::HashMismatch, message)
                .with_hint("The file is damaged or was tampered with: use another mirror."))
        }
    }
}
