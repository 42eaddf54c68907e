//! The Debian archive's public keys, part of the binary. See `keys/README.md` for their source.

use crate::Result;
use crate::openpgp::Keyring;

macro_rules! embedded {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_bytes!(concat!("../../keys/debian-archive-", $name, ".gpg")))),*]
    };
}

const EMBEDDED: &[(&str, &[u8])] = embedded![
    "bullseye-automatic",
    "bullseye-security-automatic",
    "bullseye-stable",
    "bookworm-automatic",
    "bookworm-security-automatic",
    "bookworm-stable",
    "trixie-automatic",
    "trixie-security-automatic",
    "trixie-stable",
];

/// Returns all embedded keys of the Debian archive.
///
/// # Errors
/// None in practice: a test reads every embedded key.
pub fn builtin() -> Result<Keyring> {
    let rings = EMBEDDED
        .iter()
        .map(|(name, bytes)| Keyring::read(name, bytes));
    Ok(Keyring::join(
        "the Debian archive (built into Kiln)",
        rings.collect::<Result<Vec<_>>>()?,
    ))
}

/// Returns the embedded key rings by name, as `gpgv` takes them.
pub fn files() -> impl Iterator<Item = (&'static str, &'static [u8])> {
    EMBEDDED.iter().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn embedded_keys_are_those_of_the_readme() {
        let readme = include_str!("../../keys/README.md");
        let mut found = 0;
        for line in readme
            .lines()
            .filter(|l| l.starts_with("| `debian-archive-"))
        {
            let fields: Vec<&str> = line.split('|').map(str::trim).collect();
            let name = fields[1]
                .trim_matches('`')
                .replace("debian-archive-", "")
                .replace(".gpg", "");
            let (_, bytes) = EMBEDDED.iter().find(|(n, _)| *n == name).expect(&name);
            assert_eq!(
                Keyring::read(&name, bytes).expect(&name).fingerprints(),
                [fields[2]]
            );
            found += 1;
        }
        assert_eq!(found, EMBEDDED.len());
        assert_eq!(builtin().expect("all").fingerprints().len(), EMBEDDED.len());
    }
}
