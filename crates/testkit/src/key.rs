//! Keys made for one test run.

use pgp::composed::{
    ArmorOptions, CleartextSignedMessage, DetachedSignature, EncryptionCaps, KeyType,
    SecretKeyParamsBuilder, SignedPublicKey, SignedSecretKey, SubkeyParamsBuilder,
};
use pgp::crypto::hash::HashAlgorithm;
use pgp::packet::{PacketHeader, Signature, SignatureType};
use pgp::ser::Serialize;
use pgp::types::{KeyDetails, Password, SigningKey, Tag, Timestamp};

/// An OpenPGP key pair without a passphrase.
#[derive(Clone, Debug)]
pub struct Key {
    secret: SignedSecretKey,
    by_subkey: bool,
}

impl Key {
    /// Makes a fresh Ed25519 key that signs by itself.
    ///
    /// # Panics
    /// If the key cannot be made.
    pub fn generate(user: &str) -> Self {
        Key {
            secret: make(user, false),
            by_subkey: false,
        }
    }

    /// Makes a fresh key that signs by a subkey, as Debian's archive keys do.
    ///
    /// # Panics
    /// If the key cannot be made.
    pub fn generate_with_subkey(user: &str) -> Self {
        Key {
            secret: make(user, true),
            by_subkey: true,
        }
    }

    /// Returns the public certificate, ASCII-armoured.
    ///
    /// # Panics
    /// If it cannot be written.
    pub fn public_armored(&self) -> Vec<u8> {
        let public = SignedPublicKey::from(self.secret.clone());
        public
            .to_armored_bytes(ArmorOptions::default())
            .expect("armouring a public key")
    }

    /// Returns the public certificate, binary.
    ///
    /// # Panics
    /// If it cannot be written.
    pub fn public_binary(&self) -> Vec<u8> {
        SignedPublicKey::from(self.secret.clone())
            .to_bytes()
            .expect("writing a public key")
    }

    /// Returns the fingerprint of the primary key, upper-case hexadecimal.
    pub fn fingerprint(&self) -> String {
        format!("{:X}", self.secret.fingerprint())
    }

    /// Returns the text in a clear-signed frame, as `InRelease` is.
    ///
    /// # Panics
    /// If signing fails.
    pub fn clearsign(&self, text: &str) -> Vec<u8> {
        let (random, password) = (rand::thread_rng(), Password::empty());
        let message = match self.subkey() {
            Some(subkey) => CleartextSignedMessage::sign(random, text, subkey, &password),
            None => CleartextSignedMessage::sign(random, text, &self.secret.primary_key, &password),
        };
        let message = message.expect("signing a text");
        message
            .to_armored_bytes(ArmorOptions::default())
            .expect("armouring a text")
    }

    /// Returns a detached armoured signature, as `Release.gpg` is.
    ///
    /// # Panics
    /// If signing fails.
    pub fn detach(&self, data: &[u8]) -> Vec<u8> {
        let (random, password) = (rand::thread_rng(), Password::empty());
        let signature = match self.subkey() {
            Some(subkey) => DetachedSignature::sign_binary_data(
                random,
                subkey,
                &password,
                HashAlgorithm::Sha512,
                data,
            ),
            None => DetachedSignature::sign_binary_data(
                random,
                &self.secret.primary_key,
                &password,
                HashAlgorithm::Sha512,
                data,
            ),
        };
        signature
            .expect("signing")
            .to_armored_bytes(ArmorOptions::default())
            .expect("armouring a signature")
    }

    /// Returns a detached binary signature whose packet has version 3, as the packages of Red Hat's distributions have: no gpg makes
    /// one any more.
    ///
    /// # Panics
    /// If signing fails.
    pub fn detach_as_version_3(&self, data: &[u8]) -> Vec<u8> {
        let (key, hash, created) = (
            &self.secret.primary_key,
            HashAlgorithm::Sha256,
            Timestamp::now(),
        );
        // The type and the time are hashed behind the data.
        let time = created.as_secs().to_be_bytes();
        let hashed = [data, &[SignatureType::Binary.into()], &time].concat();
        let digest = hash.digest(&hashed).expect("hashing");
        let signed = key
            .sign(&Password::empty(), hash, &digest)
            .expect("signing");
        let packet = |length| {
            Signature::v3(
                PacketHeader::new_fixed(Tag::Signature, length),
                SignatureType::Binary,
                key.algorithm(),
                hash,
                created,
                key.legacy_key_id(),
                [digest[0], digest[1]],
                signed.clone(),
            )
        };
        let length = u32::try_from(packet(0).write_len()).expect("a small packet");
        let signature = DetachedSignature::new(packet(length));
        signature.to_bytes().expect("writing a signature")
    }

    fn subkey(&self) -> Option<&pgp::packet::SecretSubkey> {
        let subkey = self
            .secret
            .secret_subkeys
            .first()
            .filter(|_| self.by_subkey)?;
        Some(&subkey.key)
    }
}

fn make(user: &str, subkey: bool) -> SignedSecretKey {
    let mut parameters = SecretKeyParamsBuilder::default();
    parameters
        .key_type(KeyType::Ed25519Legacy)
        .can_certify(true)
        .can_sign(true)
        .can_encrypt(EncryptionCaps::None)
        .primary_user_id(user.to_owned());
    if subkey {
        let mut signing = SubkeyParamsBuilder::default();
        signing.key_type(KeyType::Ed25519Legacy).can_sign(true);
        parameters.subkey(signing.build().expect("parameters of a subkey"));
    }
    let parameters = parameters.build().expect("parameters of a key");
    parameters
        .generate(rand::thread_rng())
        .expect("generating a key")
}
