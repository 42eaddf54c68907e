//! Public keys of archives, part of the binary. See `keys/README.md` for their source.

use crate::Result;
use crate::openpgp::Keyring;

/// An archive that Kiln knows by itself: where it is, and who signs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Archive {
    /// Debian's.
    Debian,
    /// Ubuntu's.
    Ubuntu,
}

macro_rules! embedded {
    ($archive:literal: $($name:literal),* $(,)?) => {
        &[$(($name, include_bytes!(concat!("../../keys/", $archive, "-archive-", $name, ".gpg")))),*]
    };
}

const DEBIAN: &[(&str, &[u8])] = embedded![
    "debian":
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

const UBUNTU: &[(&str, &[u8])] = embedded!["ubuntu": "2018"];

impl Archive {
    /// The archive of a distribution: its own, or Debian's, whose format it has.
    pub fn of(distribution: &str) -> Self {
        match distribution {
            "ubuntu" => Archive::Ubuntu,
            _ => Archive::Debian,
        }
    }

    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Archive::Debian => "Debian",
            Archive::Ubuntu => "Ubuntu",
        }
    }

    fn embedded(self) -> &'static [(&'static str, &'static [u8])] {
        match self {
            Archive::Debian => DEBIAN,
            Archive::Ubuntu => UBUNTU,
        }
    }

    /// Returns all its embedded keys.
    ///
    /// # Errors
    /// None in practice: a test reads every embedded key.
    pub fn keyring(self) -> Result<Keyring> {
        let all = self.embedded().iter();
        let rings = all.map(|(name, bytes)| Keyring::read(name, bytes));
        Ok(Keyring::join(
            &format!("the {} archive (built into Kiln)", self.name()),
            rings.collect::<Result<Vec<_>>>()?,
        ))
    }

    /// Returns its embedded key rings by name, as `gpgv` takes them.
    pub fn files(self) -> impl Iterator<Item = (&'static str, &'static [u8])> {
        self.embedded().iter().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn embedded_keys_are_those_of_the_readme() {
        let readme = include_str!("../../keys/README.md");
        for (archive, prefix) in [
            (Archive::Debian, "debian-archive-"),
            (Archive::Ubuntu, "ubuntu-archive-"),
        ] {
            let mut found = 0;
            let row = format!("| `{prefix}");
            for line in readme.lines().filter(|l| l.starts_with(&row)) {
                let fields: Vec<&str> = line.split('|').map(str::trim).collect();
                let name = fields[1]
                    .trim_matches('`')
                    .replace(prefix, "")
                    .replace(".gpg", "");
                let mut all = archive.files();
                let (_, bytes) = all.find(|(n, _)| *n == name).expect(&name);
                assert_eq!(
                    Keyring::read(&name, bytes).expect(&name).fingerprints(),
                    [fields[2]]
                );
                found += 1;
            }
            assert_eq!(found, archive.files().count());
            assert_eq!(archive.keyring().expect("all").fingerprints().len(), found);
        }
    }
}
