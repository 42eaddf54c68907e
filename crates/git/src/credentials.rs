//! Credentials for private repositories, in the file that `git credential-store` writes: one URL a line.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use percent_encoding::percent_decode_str;
use url::Url;

use crate::{Error, Result};

/// Bytes of a file with credentials at most.
const LONGEST: u64 = 1 << 20;

/// Names and passwords, and for which repositories they are.
#[derive(Clone, Default)]
pub struct Credentials(Vec<Credential>);

#[derive(Clone)]
struct Credential {
    /// Without a name and a password.
    place: Url,
    user: String,
    password: String,
}

impl Credentials {
    /// Reads a file in which each line is `https://USER:PASSWORD@HOST[:PORT][/PATH]`. Each is for the repositories whose
    /// address is that or below it.
    ///
    /// # Errors
    /// It cannot be read, others than its owner may read it, or a line is something else. No password is in the message.
    pub fn read(path: &Path) -> Result<Credentials> {
        let shown = path.display();
        let reading = || Error::local(format!("reading {shown}"));
        let file = File::open(path).map_err(reading())?;
        if file.metadata().map_err(reading())?.mode() & 0o077 != 0 {
            return Err(Error::Asked(format!(
                "{shown}: others than its owner may read these credentials; chmod 600 {shown}"
            )));
        }
        let mut text = String::new();
        file.take(LONGEST)
            .read_to_string(&mut text)
            .map_err(reading())?;
        let mut all = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            all.push(Credential::read(line).ok_or_else(|| {
                let number = number + 1;
                Error::Asked(format!(
                    "{shown}:{number}: the line is not https://USER:PASSWORD@HOST, with or without a path"
                ))
            })?);
        }
        Ok(Credentials(all))
    }

    /// All passwords, so that a log can hide them.
    pub fn passwords(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|one| one.password.as_str())
    }

    /// The value of the header `Authorization` for an address: of the longest one that it is below.
    pub(crate) fn header(&self, url: &Url) -> Option<String> {
        let fitting = self.0.iter().filter(|one| one.is_for(url));
        let best = fitting.max_by_key(|one| one.place.path().len())?;
        let pair = format!("{}:{}", best.user, best.password);
        Some(format!("Basic {}", BASE64.encode(pair)))
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credentials({})", self.0.len())
    }
}

impl Credential {
    fn read(line: &str) -> Option<Credential> {
        let mut place = Url::parse(line).ok()?;
        let text = |part: &str| {
            let text = percent_decode_str(part).decode_utf8().ok()?;
            let plain = !text.is_empty() && !text.contains(|c: char| c.is_control());
            plain.then(|| text.into_owned())
        };
        let user = text(place.username())?;
        let password = text(place.password()?)?;
        if user.contains(':') || !matches!(place.scheme(), "http" | "https") {
            return None;
        }
        place.set_username("").ok()?;
        place.set_password(None).ok()?;
        Some(Credential {
            place,
            user,
            password,
        })
    }

    fn is_for(&self, url: &Url) -> bool {
        let below = |path: &str| {
            let own = self.place.path().trim_end_matches('/');
            path.strip_prefix(own)
                .is_some_and(|rest| matches!(rest.bytes().next(), None | Some(b'/')))
                || path.strip_suffix(".git") == Some(own)
        };
        self.place.origin() == url.origin() && below(url.path().trim_end_matches('/'))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn credentials_are_for_their_addresses() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c");
        let text = "# ours\nhttps://bot:p%40ss@forge.test/team/lab\nhttps://all:x@forge.test\n";
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let error = Credentials::read(&path).unwrap_err().to_string();
        assert!(error.contains("chmod 600"), "{error}");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let read = Credentials::read(&path).unwrap();
        let pair = |url: &str| {
            let header = read.header(&Url::parse(url).unwrap())?;
            let pair = BASE64.decode(header.strip_prefix("Basic ")?).unwrap();
            String::from_utf8(pair).ok()
        };
        let bot = Some("bot:p@ss".to_owned());
        let all = Some("all:x".to_owned());
        assert_eq!(pair("https://forge.test/team/lab"), bot);
        assert_eq!(pair("https://forge.test/team/lab.git"), bot);
        assert_eq!(pair("https://forge.test/team/lab/info/refs"), bot);
        assert_eq!(pair("https://forge.test/team/labs"), all);
        assert_eq!(pair("https://forge.test:8443/team/lab"), None);
        assert_eq!(pair("http://forge.test/team/lab"), None);
        assert_eq!(pair("https://forge.test.evil.test/team/lab"), None);
        fs::write(&path, "\nhttps://only-a-token@forge.test\n").unwrap();
        let error = Credentials::read(&path).unwrap_err().to_string();
        assert!(error.contains(":2: the line is not"), "{error}");
        assert!(!error.contains("only-a-token"), "{error}");
    }
}
