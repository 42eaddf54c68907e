//! OpenPGP signatures on repository metadata (RFC 9580), against a given set of certificates.
//!
//! A signature counts if it is made with SHA-256 or better by a signing-capable key of at least 2,048 bits (RSA)
//! that is bound to a given certificate, and neither key nor signature is revoked, expired or from the future.
//! The web of trust plays no part: the caller says which certificates are accepted.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pgp::composed::{
    CleartextSignedMessage, Deserializable, DetachedSignature, SignedPublicKey, SignedPublicSubKey,
};
use pgp::crypto::hash::HashAlgorithm;
use pgp::packet::{Signature, SignatureType};
use pgp::ser::Serialize;
use pgp::types::{KeyDetails, PublicParams, Tag, Timestamp, VerifyingKey};

use crate::{Error, ErrorKind, Result};

/// Clocks of signer and verifier may differ by this much.
const CLOCK_SKEW: Duration = Duration::from_secs(24 * 3600);

/// Octets of an RSA public key in OpenPGP form with a 2,048-bit modulus: two length-prefixed integers.
const RSA_2048_OCTETS: usize = 2 + 256 + 2;

const HOW_TO_GIVE_A_KEY: &str =
    "Give the repository's public key (armoured or binary) as its signing key, or correct the URL.";

/// The certificates that are accepted for a repository.
#[derive(Clone, Debug)]
pub struct Keyring {
    certificates: Vec<SignedPublicKey>,
    name: String,
}

/// Who signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signer {
    /// Fingerprint of the key that made the signature, upper-case hexadecimal.
    pub fingerprint: String,
    /// When.
    pub signed: SystemTime,
}

impl Keyring {
    /// Reads certificates: binary, or any number of ASCII-armoured blocks. `name` is for messages (a path).
    ///
    /// # Errors
    /// [`ErrorKind::Input`] if there is none, or one is damaged.
    pub fn read(name: &str, bytes: &[u8]) -> Result<Self> {
        let mut ring = Keyring {
            certificates: Vec::new(),
            name: name.to_owned(),
        };
        for block in blocks(bytes) {
            ring.add(block)?;
        }
        match ring.certificates.is_empty() {
            true => Err(ring.unreadable("it holds no OpenPGP public key".into())),
            false => Ok(ring),
        }
    }

    /// Joins several rings into one.
    pub(crate) fn join(name: &str, rings: impl IntoIterator<Item = Keyring>) -> Self {
        let certificates = rings
            .into_iter()
            .flat_map(|ring| ring.certificates)
            .collect();
        Keyring {
            certificates,
            name: name.to_owned(),
        }
    }

    /// Fingerprints of the certificates' primary keys, upper-case hexadecimal.
    pub fn fingerprints(&self) -> Vec<String> {
        self.certificates
            .iter()
            .map(|c| format!("{:X}", c.primary_key.fingerprint()))
            .collect()
    }

    /// Returns the name given to [`Keyring::read`].
    pub fn name(&self) -> &str {
        &self.name
    }

    fn add(&mut self, block: &[u8]) -> Result<()> {
        let damaged =
            |ring: &Self| ring.unreadable("it is damaged, or no OpenPGP certificate".into());
        let (keys, _) = SignedPublicKey::from_reader_many_buf(block).map_err(|_| damaged(self))?;
        for key in keys {
            let key = key.map_err(|_| damaged(self))?;
            self.certificates.push(key);
        }
        Ok(())
    }

    fn unreadable(&self, why: String) -> Error {
        Error::new(ErrorKind::Input, format!("the key {} cannot be read: {why}", self.name))
            .with_hint("A key is a public OpenPGP certificate as `gpg --export` writes it, with or without --armor.")
    }

    /// Verifies a clear-signed file and returns the text that was signed, with `\n` line ends: the only part of
    /// the file that may be used.
    ///
    /// # Errors
    /// [`ErrorKind::Unsigned`] if it is not clear-signed, [`ErrorKind::BadSignature`] if no signature counts.
    pub fn verify_clearsigned(
        &self,
        what: &str,
        bytes: &[u8],
        now: SystemTime,
    ) -> Result<(String, Signer)> {
        if !bytes.starts_with(b"-----BEGIN PGP SIGNED MESSAGE-----") {
            return Err(unsigned(what));
        }
        let broken = |why: String| {
            Error::new(
                ErrorKind::BadSignature,
                format!("{what} is not a valid clear-signed file: {why}"),
            )
        };
        let text = std::str::from_utf8(bytes).map_err(|_| broken("it is not UTF-8 text".into()))?;
        // What the parser has to say is its own structure, and pages of it.
        let (message, _) = CleartextSignedMessage::from_string(text)
            .map_err(|_| broken("its text or its signature block is damaged or cut".into()))?;
        let signed = message.signed_text();
        let signer = self.judge(what, message.signatures(), signed.as_bytes(), now)?;
        Ok((signed.replace("\r\n", "\n"), signer))
    }

    /// Verifies a detached signature, armoured or binary.
    ///
    /// # Errors
    /// [`ErrorKind::BadSignature`] if no signature counts.
    pub fn verify_detached(
        &self,
        what: &str,
        text: &[u8],
        signature: &[u8],
        now: SystemTime,
    ) -> Result<Signer> {
        let broken = |_: pgp::errors::Error| {
            Error::new(
                ErrorKind::BadSignature,
                format!("the signature of {what} is not valid OpenPGP: it is damaged or cut"),
            )
        };
        let (parsed, _) = DetachedSignature::from_reader_many_buf(signature).map_err(broken)?;
        let signatures: Vec<Signature> = parsed
            .map(|s| s.map(|s| s.signature))
            .collect::<Result<_, _>>()
            .map_err(broken)?;
        self.judge(what, &signatures, text, now)
    }

    /// One good signature is enough; with none, every reason is told.
    fn judge(
        &self,
        what: &str,
        signatures: &[Signature],
        text: &[u8],
        now: SystemTime,
    ) -> Result<Signer> {
        if signatures.is_empty() {
            return Err(unsigned(what));
        }
        let mut reasons = Vec::new();
        for signature in signatures {
            match self.check(signature, text, now) {
                Ok(signer) => return Ok(signer),
                Err(reason) => {
                    reasons.push(format!("signature by {}: {reason}", issuer(signature)))
                }
            }
        }
        let message = format!("{what} has no good signature ({})", reasons.join("; "));
        let hint = format!(
            "Accepted are the keys of {}. {HOW_TO_GIVE_A_KEY}",
            self.name
        );
        Err(Error::new(ErrorKind::BadSignature, message).with_hint(hint))
    }

    fn check(&self, signature: &Signature, text: &[u8], now: SystemTime) -> Result<Signer, String> {
        check_signature_itself(signature, now)?;
        let mut reason = None;
        for certificate in &self.certificates {
            if let Some(outcome) = check_with(certificate, signature, text, now) {
                match outcome {
                    Ok(signer) => return Ok(signer),
                    Err(why) => reason = Some(why),
                }
            }
        }
        Err(reason.unwrap_or_else(|| "this key is not among the accepted ones".into()))
    }
}

fn unsigned(what: &str) -> Error {
    Error::new(ErrorKind::Unsigned, format!("{what} is not signed; Kiln uses signed repositories only"))
        .with_hint("Sign the repository (Release with `gpg --clearsign -o InRelease Release`) and give its public key as its signing key.")
}

/// Splits a file into its armoured blocks; a binary file is one block.
fn blocks(bytes: &[u8]) -> Vec<&[u8]> {
    const BEGIN: &[u8] = b"-----BEGIN PGP PUBLIC KEY BLOCK-----";
    let starts: Vec<usize> = bytes
        .windows(BEGIN.len())
        .enumerate()
        .filter(|(_, w)| *w == BEGIN)
        .map(|(at, _)| at)
        .collect();
    if starts.is_empty() {
        return vec![bytes];
    }
    let ends = starts.iter().skip(1).copied().chain([bytes.len()]);
    starts
        .iter()
        .zip(ends)
        .map(|(&start, end)| &bytes[start..end])
        .collect()
}

fn issuer(signature: &Signature) -> String {
    let fingerprint = signature
        .issuer_fingerprint()
        .first()
        .map(|f| format!("{f:X}"));
    let key_id = || {
        signature
            .issuer_key_id()
            .first()
            .map(|id| id.to_string().to_uppercase())
    };
    fingerprint
        .or_else(key_id)
        .unwrap_or_else(|| "an unnamed key".into())
}

/// What can be said without the key.
fn check_signature_itself(signature: &Signature, now: SystemTime) -> Result<(), String> {
    use HashAlgorithm::{Sha3_256, Sha3_512, Sha256, Sha384, Sha512};
    if !matches!(
        signature.typ(),
        Some(SignatureType::Text | SignatureType::Binary)
    ) {
        return Err("it is not a signature of a document".into());
    }
    if !matches!(
        signature.hash_alg(),
        Some(Sha256 | Sha384 | Sha512 | Sha3_256 | Sha3_512)
    ) {
        let name = signature
            .hash_alg()
            .map(|h| h.to_string())
            .unwrap_or_else(|| "unknown".into());
        return Err(format!("the hash algorithm {name} is too weak"));
    }
    let created = signature.created().ok_or("it has no date")?;
    if time(created) > now + CLOCK_SKEW {
        return Err("it was made in the future; is this machine's clock right?".into());
    }
    match expiry(created, signature.signature_expiration_time()) {
        Some(end) if end < now => Err("it has expired".into()),
        _ => Ok(()),
    }
}

/// `None` if no key of the certificate claims to have made the signature.
fn check_with(
    certificate: &SignedPublicKey,
    signature: &Signature,
    text: &[u8],
    now: SystemTime,
) -> Option<Result<Signer, String>> {
    let primary = &certificate.primary_key;
    if claims(signature, primary) {
        let usable = primary_usable(certificate, now, true);
        return Some(usable.and_then(|()| check_bytes(signature, primary, text)));
    }
    let subkey = certificate
        .public_subkeys
        .iter()
        .find(|s| claims(signature, &s.key))?;
    let usable = primary_usable(certificate, now, false)
        .and_then(|()| subkey_usable(certificate, subkey, now));
    Some(usable.and_then(|()| check_bytes(signature, &subkey.key, text)))
}

/// Whether the signature names this key as its maker.
fn claims(signature: &Signature, key: &impl KeyDetails) -> bool {
    let fingerprints = signature.issuer_fingerprint();
    match fingerprints.is_empty() {
        false => fingerprints.contains(&&key.fingerprint()),
        true => signature.issuer_key_id().contains(&&key.legacy_key_id()),
    }
}

fn check_bytes(
    signature: &Signature,
    key: &impl VerifyingKey,
    text: &[u8],
) -> Result<Signer, String> {
    if let PublicParams::RSA(params) = key.public_params()
        && params.write_len() < RSA_2048_OCTETS
    {
        return Err("the RSA key is shorter than 2,048 bits".into());
    }
    if matches!(key.public_params(), PublicParams::DSA(_)) {
        return Err("DSA keys are too weak".into());
    }
    signature
        .verify(key, text)
        .map_err(|_| "it does not fit the text: the file was changed".to_owned())?;
    let signed = signature.created().map(time);
    let signed = signed.ok_or("it does not say when it was made")?;
    Ok(Signer {
        fingerprint: format!("{:X}", key.fingerprint()),
        signed,
    })
}

/// Checks revocation, expiry and (if it is to sign itself) the key flags of a certificate's primary key.
fn primary_usable(
    certificate: &SignedPublicKey,
    now: SystemTime,
    signs: bool,
) -> Result<(), String> {
    let key = &certificate.primary_key;
    if certificate
        .details
        .revocation_signatures
        .iter()
        .any(|s| s.verify_key(key).is_ok())
    {
        return Err("the key was revoked".into());
    }
    let of_users = certificate.details.users.iter().filter_map(|user| {
        let good = |s: &&Signature| s.verify_certification(key, Tag::UserId, &user.id).is_ok();
        let latest = newest(user.signatures.iter().filter(good))?;
        (latest.typ() != Some(SignatureType::CertRevocation)).then_some(latest)
    });
    let direct = certificate
        .details
        .direct_signatures
        .iter()
        .filter(|s| s.verify_key(key).is_ok());
    let binding = newest(of_users.chain(direct)).ok_or("the key has no valid self-signature")?;
    check_expiry(key, binding, now)?;
    let flags = binding.key_flags();
    match signs && flags != Default::default() && !flags.sign() {
        true => Err("the key is not meant for signing".into()),
        false => Ok(()),
    }
}

fn subkey_usable(
    certificate: &SignedPublicKey,
    subkey: &SignedPublicSubKey,
    now: SystemTime,
) -> Result<(), String> {
    let primary = &certificate.primary_key;
    let good = |s: &&Signature| s.verify_subkey_binding(primary, &subkey.key).is_ok();
    let revoked = |s: &Signature| s.typ() == Some(SignatureType::SubkeyRevocation);
    if subkey.signatures.iter().any(|s| revoked(s) && good(&s)) {
        return Err("the subkey was revoked".into());
    }
    let bindings = subkey
        .signatures
        .iter()
        .filter(|s| !revoked(s))
        .filter(good);
    let binding = newest(bindings).ok_or("the subkey is not bound to its certificate")?;
    let bound_back = binding.embedded_signature().is_some_and(|back| {
        back.verify_primary_key_binding(&subkey.key, primary)
            .is_ok()
    });
    if !(binding.key_flags().sign() && bound_back) {
        return Err("the subkey is not meant for signing".into());
    }
    check_expiry(&subkey.key, binding, now)
}

fn newest<'a>(signatures: impl Iterator<Item = &'a Signature>) -> Option<&'a Signature> {
    signatures.max_by_key(|s| s.created().map(Timestamp::as_secs))
}

fn check_expiry(key: &impl KeyDetails, binding: &Signature, now: SystemTime) -> Result<(), String> {
    match expiry(key.created_at(), binding.key_expiration_time()) {
        Some(end) if end < now => Err("the key has expired".into()),
        _ => Ok(()),
    }
}

/// A validity of zero seconds means "for ever" (RFC 9580 section 5.2.3.13).
fn expiry(from: Timestamp, validity: Option<pgp::types::Duration>) -> Option<SystemTime> {
    let seconds = validity.map(|v| v.as_secs()).filter(|&s| s > 0)?;
    Some(time(from) + Duration::from_secs(seconds.into()))
}

fn time(timestamp: Timestamp) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(timestamp.as_secs().into())
}
