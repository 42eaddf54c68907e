//! Which repositories to use.

use super::keys::Archive;
use crate::openpgp::Keyring;
use crate::{Digest, Error, ErrorKind, Result, fetch};

/// The certificates that may sign a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Keys {
    /// The keys of an archive that Kiln brings.
    Builtin(Archive),
    /// A public key or several, armoured or binary.
    Given {
        /// Where they come from, for messages: a path, or `kiln.toml:12`.
        name: String,
        /// The file's content.
        bytes: Vec<u8>,
    },
}

impl Keys {
    /// Reads the certificates.
    ///
    /// # Errors
    /// [`ErrorKind::Input`] if given keys cannot be read.
    pub fn keyring(&self) -> Result<Keyring> {
        match self {
            Keys::Builtin(archive) => archive.keyring(),
            Keys::Given { name, bytes } => Keyring::read(name, bytes),
        }
    }
}

/// One suite of a Debian repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repository {
    /// Base URL, above `dists/`: `http://deb.debian.org/debian`.
    pub uri: String,
    /// `bookworm`, `bookworm-security`; with a final `/` (mostly `./`) a flat repository without components.
    pub suite: String,
    /// `main`, `contrib`, …; empty only for a flat repository.
    pub components: Vec<String>,
    /// Debian's name of the architecture: `amd64`.
    pub architecture: String,
    /// Who may sign it.
    pub keys: Keys,
    /// Whether a `Valid-Until` in the past is an error. False for snapshots.
    pub check_valid_until: bool,
    /// `file:line` that brought it, for messages; empty for defaults.
    pub origin: String,
}

impl Repository {
    /// Returns whether it has no `dists/` hierarchy.
    pub fn is_flat(&self) -> bool {
        self.suite.ends_with('/')
    }

    /// URL of a file given relative to the directory of `Release`.
    pub(crate) fn release_url(&self, file: &str) -> String {
        let suite = self.suite.trim_matches('/');
        match (self.is_flat(), suite) {
            (true, "" | ".") => fetch::url::append(&self.uri, file),
            (true, _) => fetch::url::append(&self.uri, &format!("{suite}/{file}")),
            (false, _) => fetch::url::append(&self.uri, &format!("dists/{suite}/{file}")),
        }
    }

    /// URL of a package given by its `Filename`.
    pub fn package_url(&self, filename: &str) -> String {
        fetch::url::append(&self.uri, filename.strip_prefix("./").unwrap_or(filename))
    }

    /// Returns the name of apt's list file for a file relative to the directory of `Release`:
    /// `deb.debian.org_debian_dists_bookworm_main_binary-amd64_Packages`.
    pub fn apt_list_name(&self, file: &str) -> String {
        let base = fetch::url::shown(&self.uri);
        let base = base
            .split_once("://")
            .map_or(base.as_str(), |(_, rest)| rest)
            .trim_end_matches('/');
        // Of a flat repository apt takes the suite as it is: `./` stays a part, while `/` is the base itself.
        let place = match (self.is_flat(), self.suite.trim_matches('/')) {
            (true, "") => String::new(),
            (true, suite) => format!("{suite}/"),
            (false, suite) => format!("dists/{suite}/"),
        };
        let mut name = String::new();
        for byte in format!("{base}/{place}{file}").bytes() {
            match byte {
                b'/' => name.push('_'),
                // The characters that apt escapes in its file names.
                b'\\' | b'|' | b'{' | b'}' | b'[' | b']' | b'<' | b'>' | b'"' | b'^' | b'~'
                | b'_' | b'=' | b'!' | b'@' | b'#' | b'$' | b'%' | b'&' | b'*' => {
                    name.push_str(&format!("%{byte:02x}"))
                }
                _ => name.push(byte.into()),
            }
        }
        name
    }

    /// For people: `http://deb.debian.org/debian bookworm`.
    pub fn describe(&self) -> String {
        format!("{} {}", fetch::url::shown(&self.uri), self.suite)
    }

    /// Returns a directory name that is unique for the place and readable.
    pub fn cache_name(&self) -> String {
        let place = format!("{}\0{}", self.uri.trim_end_matches('/'), self.suite);
        let readable: String = fetch::url::shown(&self.uri)
            .split("://")
            .last()
            .into_iter()
            .flat_map(str::chars)
            .chain(['_'])
            .chain(self.suite.chars())
            .map(|c| {
                if c.is_ascii_alphanumeric() || "-._".contains(c) {
                    c
                } else {
                    '_'
                }
            })
            .take(120)
            .collect();
        format!(
            "{}-{}",
            readable.trim_matches(['.', '_']),
            &Digest::of(place.as_bytes()).to_string()[..12]
        )
    }

    /// Says what is wrong with the values.
    ///
    /// # Errors
    /// [`ErrorKind::Input`].
    pub(crate) fn check(&self) -> Result<()> {
        let bad = |what: String| Err(Error::new(ErrorKind::Input, what).with_origin(&self.origin));
        let word = |text: &str| {
            !text.is_empty()
                && !text.starts_with('-')
                && text
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || "-._+~/:".contains(c))
                && !text.split('/').any(|part| part == "..")
        };
        if !["http://", "https://", "file:/"]
            .iter()
            .any(|s| self.uri.starts_with(s))
        {
            return bad(format!(
                "{:?} is not the URL of a repository (http://, https:// or file:///)",
                self.uri
            ));
        }
        if !word(&self.suite) {
            return bad(format!("{:?} is not the name of a suite", self.suite));
        }
        if let Some(component) = self.components.iter().find(|c| !word(c)) {
            return bad(format!("{component:?} is not the name of a component"));
        }
        if !word(&self.architecture) || self.architecture.contains('/') {
            return bad(format!(
                "{:?} is not the name of an architecture",
                self.architecture
            ));
        }
        match (self.is_flat(), self.components.is_empty()) {
            (true, false) => bad(format!(
                "{} is a flat repository (its suite ends in /) and has no components",
                self.describe()
            )),
            (false, true) => bad(format!(
                "the repository {} is given without a component such as main",
                self.describe()
            )),
            _ => Ok(()),
        }
    }
}

/// Debian's releases that Kiln has defaults for, oldest first.
pub const KNOWN_SUITES: &[&str] = &["bullseye", "bookworm", "trixie", "sid"];
/// Ubuntu's.
pub const KNOWN_UBUNTU_SUITES: &[&str] = &["jammy", "noble", "resolute", "stonking"];

/// Components of Ubuntu's archive.
const UBUNTU_COMPONENTS: &[&str] = &["main", "restricted", "universe", "multiverse"];

/// Returns the repositories of a release: the release itself, its updates and its security updates. Of Debian with the
/// components `main`, `contrib` and `non-free-firmware` (bullseye, which has no such component: `non-free`), of Ubuntu
/// with all four.
///
/// # Errors
/// [`ErrorKind::Input`] for a release that Kiln does not know.
pub fn default_repositories(
    archive: Archive,
    suite: &str,
    architecture: &str,
) -> Result<Vec<Repository>> {
    let (known, uri, security) = match archive {
        Archive::Debian => (
            KNOWN_SUITES,
            "http://deb.debian.org/debian",
            "http://deb.debian.org/debian-security",
        ),
        Archive::Ubuntu => (
            KNOWN_UBUNTU_SUITES,
            "http://archive.ubuntu.com/ubuntu",
            "http://security.ubuntu.com/ubuntu",
        ),
    };
    let is_rolling = archive == Archive::Debian && matches!(suite, "sid" | "unstable");
    if !is_rolling && !known.contains(&suite) {
        let message = format!(
            "Kiln does not know the {} release {suite:?}",
            archive.name()
        );
        return Err(Error::new(ErrorKind::Input, message).with_hint(format!(
            "Known are {}; for others give the repositories yourself.",
            known.join(", ")
        )));
    }
    let places: &[(&str, &str)] = match is_rolling {
        true => &[(uri, "")],
        false => &[(uri, ""), (uri, "-updates"), (security, "-security")],
    };
    let components = match (archive, suite) {
        (Archive::Ubuntu, _) => UBUNTU_COMPONENTS,
        (Archive::Debian, "bullseye") => &["main", "contrib", "non-free"],
        (Archive::Debian, _) => &["main", "contrib", "non-free-firmware"],
    };
    let one = |(uri, suffix): &(&str, &str)| Repository {
        uri: (*uri).to_owned(),
        suite: format!("{suite}{suffix}"),
        components: components.iter().map(|&name| name.to_owned()).collect(),
        architecture: architecture.to_owned(),
        keys: Keys::Builtin(archive),
        check_valid_until: true,
        origin: String::new(),
    };
    Ok(places.iter().map(one).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_release_updates_and_security() {
        let all = default_repositories(Archive::Debian, "bookworm", "amd64").expect("known");
        let places: Vec<_> = all.iter().map(Repository::describe).collect();
        assert_eq!(
            places,
            [
                "http://deb.debian.org/debian bookworm",
                "http://deb.debian.org/debian bookworm-updates",
                "http://deb.debian.org/debian-security bookworm-security",
            ]
        );
        assert!(all.iter().all(|r| r.check().is_ok()));
        assert_eq!(
            default_repositories(Archive::Debian, "hamm", "amd64")
                .expect_err("unknown")
                .kind(),
            ErrorKind::Input
        );
    }

    #[test]
    fn defaults_of_ubuntu_have_its_mirrors_its_key_and_all_components() {
        let all = default_repositories(Archive::Ubuntu, "noble", "amd64").expect("known");
        let places: Vec<_> = all.iter().map(Repository::describe).collect();
        assert_eq!(
            places,
            [
                "http://archive.ubuntu.com/ubuntu noble",
                "http://archive.ubuntu.com/ubuntu noble-updates",
                "http://security.ubuntu.com/ubuntu noble-security",
            ]
        );
        for one in &all {
            assert_eq!(
                one.components,
                ["main", "restricted", "universe", "multiverse"]
            );
            assert_eq!(one.keys, Keys::Builtin(Archive::Ubuntu));
        }
        for (archive, suite) in [(Archive::Ubuntu, "bookworm"), (Archive::Debian, "noble")] {
            assert!(default_repositories(archive, suite, "amd64").is_err());
        }
    }

    #[test]
    fn urls_of_flat_and_other_repositories() {
        let mut one = default_repositories(Archive::Debian, "sid", "amd64")
            .expect("known")
            .remove(0);
        assert_eq!(
            one.release_url("InRelease"),
            "http://deb.debian.org/debian/dists/sid/InRelease"
        );
        let packages = "main/binary-amd64/Packages";
        assert_eq!(
            one.apt_list_name(packages),
            "deb.debian.org_debian_dists_sid_main_binary-amd64_Packages"
        );
        one.suite = "./".into();
        assert_eq!(
            one.apt_list_name("Packages"),
            "deb.debian.org_debian_._Packages"
        );
        assert_eq!(
            one.release_url("InRelease"),
            "http://deb.debian.org/debian/InRelease"
        );
        assert_eq!(
            one.package_url("./a.deb"),
            "http://deb.debian.org/debian/a.deb"
        );
        assert_eq!(
            one.check().expect_err("components").kind(),
            ErrorKind::Input
        );
        one.uri = "https://me:secret@host/x".into();
        assert_eq!(one.describe(), "https://host/x ./");
        assert!(!one.cache_name().contains("secret"));
        assert!(!one.apt_list_name("InRelease").contains("secret"));
    }

    #[test]
    fn suites_cannot_climb() {
        let mut one = default_repositories(Archive::Debian, "sid", "amd64")
            .expect("known")
            .remove(0);
        for bad in ["../../x", "", "a b", "-x"] {
            one.suite = bad.into();
            assert_eq!(
                one.check().expect_err(bad).kind(),
                ErrorKind::Input,
                "{bad:?}"
            );
        }
    }
}
