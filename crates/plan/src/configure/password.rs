//! Password hashes.

use kiln_digest::Sha256;
use sha_crypt::{Algorithm, Params, PasswordHasher as _, ShaCrypt};

use super::Secret;

/// Rounds of SHA-512: some 50 ms on a machine of today, ten times what crypt(5) takes unless told.
const ROUNDS: u32 = 50_000;

/// Hashes a password as crypt(5)'s `$6$`.
///
/// The salt is made from what names the account, not from chance (the same definition shall give the same image) and
/// not from the password (a salt must tell nothing about it).
///
/// # Errors
/// A sentence, if the hashing library refuses the password.
pub(super) fn hash(password: &str, user: &str, salt_seed: &str) -> Result<Secret, String> {
    let digest = Sha256::new()
        .chain_update(b"kiln password salt v1\0")
        .chain_update(salt_seed.as_bytes())
        .chain_update(b"\0")
        .chain_update(user.as_bytes())
        .finalize();
    // Twelve bytes make the sixteen letters that the format has room for.
    let salt: Vec<u8> = digest.iter().copied().take(12).collect();
    let params = Params::new(ROUNDS).map_err(|e| e.to_string())?;
    let hasher = ShaCrypt::new(Algorithm::Sha512Crypt, params);
    let hash = hasher
        .hash_password_with_salt(password.as_bytes(), &salt)
        .map_err(|e| e.to_string())?;
    Ok(Secret::new(hash.to_string()))
}

/// Whether text looks like something that crypt(5) makes.
pub(super) fn is_hash(text: &str) -> bool {
    let modular = text.starts_with('$') && text.matches('$').count() >= 3;
    let des = text.len() == 13
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"./".contains(&b));
    modular || des
}
