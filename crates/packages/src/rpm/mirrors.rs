//! Lists of mirrors: plain ones, and metalinks with digests of what the mirrors are to have.

use super::xml::{self, Attributes, Take};
use crate::{Digest, Error, ErrorKind, Result};

/// The end of the URLs that a metalink has.
const REPOMD: &str = "repodata/repomd.xml";

/// What a metalink says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metalink {
    /// Base URLs, the preferred first.
    pub bases: Vec<String>,
    /// `repomd.xml` as it is now.
    pub current: Digest,
    /// As it was a short time ago: a mirror that has this one is behind.
    pub former: Vec<Digest>,
}

/// Reads a plain list: a URL on each line, and comments.
///
/// # Errors
/// [`ErrorKind::Malformed`] for a line that is no URL, or no URL at all.
pub fn read_list(what: &str, text: &str) -> Result<Vec<String>> {
    let mut bases: Vec<String> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if !line.contains("://") || line.contains(char::is_whitespace) || line.starts_with('<') {
            let message = format!(
                "line {} of the mirror list {what} is no URL: {line:.80}",
                number + 1
            );
            return Err(Error::new(ErrorKind::Malformed, message).with_hint(
                "The server answers with something else, such as a page for people: check the URL.",
            ));
        }
        // Others, such as rsync, are for mirrors among themselves.
        if is_web(line) && !bases.iter().any(|known| known == line) {
            bases.push(line.to_owned());
        }
    }
    match bases.is_empty() {
        true => Err(no_mirror(what)),
        false => Ok(bases),
    }
}

fn is_web(url: &str) -> bool {
    url.starts_with("http://") || url.starts_with("https://")
}

fn no_mirror(what: &str) -> Error {
    Error::new(
        ErrorKind::Malformed,
        format!("{what} has no mirror with http or https"),
    )
    .with_hint("Is there such a release, and does it have this architecture?")
}

/// Whether what a server sends for a plain list is a metalink.
pub(super) fn is_metalink(bytes: &[u8]) -> bool {
    let start = String::from_utf8_lossy(&bytes[..bytes.len().min(1024)]).into_owned();
    let start = start.trim_start();
    start.starts_with('<') && start.contains("<metalink")
}

/// Reads a metalink.
///
/// # Errors
/// [`ErrorKind::Malformed`] if it is none, is not about `repomd.xml`, or has no SHA-256 or no mirror.
pub fn read_metalink(what: &str, bytes: &[u8]) -> Result<Metalink> {
    let mut reading = Reading::default();
    xml::read(what, bytes, &mut reading)?;
    let mut urls = reading.urls;
    // The order among equals stays.
    urls.sort_by_key(|(preference, _)| std::cmp::Reverse(*preference));
    let mut bases: Vec<String> = Vec::new();
    for (_, base) in urls {
        if !bases.contains(&base) {
            bases.push(base);
        }
    }
    let current = reading.current.ok_or_else(|| {
        let message = format!("the metalink {what} has no SHA-256 of repomd.xml");
        Error::new(ErrorKind::Malformed, message)
            .with_hint("Use --mirrorlist or --baseurl instead of --metalink.")
    })?;
    match bases.is_empty() {
        true => Err(no_mirror(what)),
        false => Ok(Metalink {
            bases,
            current,
            former: reading.former,
        }),
    }
}

#[derive(Default)]
struct Reading {
    is_repomd: bool,
    kind: String,
    preference: u32,
    current: Option<Digest>,
    former: Vec<Digest>,
    urls: Vec<(u32, String)>,
}

impl Take for Reading {
    fn begin(&mut self, path: &str, attributes: &Attributes) -> Result<(), String> {
        match path.strip_prefix("metalink/files/file").unwrap_or("-") {
            "" => self.is_repomd = attributes.get("name") == Some("repomd.xml"),
            "/verification/hash" | "/alternates/alternate/verification/hash" => {
                self.kind = attributes.get("type").unwrap_or("").to_owned();
            }
            "/resources/url" => {
                self.preference = attributes
                    .get("preference")
                    .and_then(|p| p.parse().ok())
                    .unwrap_or(0);
            }
            _ => {}
        }
        Ok(())
    }

    fn end(&mut self, path: &str, text: &str) -> Result<(), String> {
        let Some(rest) = path
            .strip_prefix("metalink/files/file/")
            .filter(|_| self.is_repomd)
        else {
            return Ok(());
        };
        let digest = || {
            text.parse()
                .map_err(|error| format!("has a bad SHA-256, {error}"))
        };
        match rest {
            "verification/hash" if self.kind == "sha256" => {
                let former = self.current.replace(digest()?);
                return match former {
                    None => Ok(()),
                    Some(_) => Err("has two SHA-256 digests of the same file".into()),
                };
            }
            "alternates/alternate/verification/hash" if self.kind == "sha256" => {
                self.former.push(digest()?);
            }
            "resources/url" if is_web(text) => {
                let base = text.strip_suffix(REPOMD);
                let base = base.ok_or_else(|| {
                    format!("has the mirror {text:.200}, which is not of {REPOMD}")
                })?;
                self.urls.push((self.preference, base.to_owned()));
            }
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_lists_have_urls_and_comments() {
        let text = "# repo = x\nhttps://a/os/\n\nrsync://b/os/\nhttp://c/os\nhttps://a/os/\n";
        assert_eq!(
            read_list("m", text).expect("good"),
            ["https://a/os/", "http://c/os"]
        );
        for bad in [
            "",
            "# nothing\n",
            "<html>sign in at http://hotel</html>\n",
            "rsync://b/\n",
            "Bad release\n",
        ] {
            assert_eq!(
                read_list("m", bad).expect_err(bad).kind(),
                ErrorKind::Malformed,
                "{bad:?}"
            );
        }
    }

    fn metalink(verification: &str, urls: &str) -> String {
        format!(
            "<metalink version='3.0' xmlns='http://www.metalinker.org/' xmlns:mm0='http://fedorahosted.org/mirrormanager'>
             <files><file name='repomd.xml'><mm0:timestamp>1</mm0:timestamp><size>5</size>
             <verification>{verification}</verification>
             <mm0:alternates><mm0:alternate><verification><hash type='sha256'>{}</hash></verification></mm0:alternate></mm0:alternates>
             <resources maxconnections='1'>{urls}</resources></file></files></metalink>",
            Digest::of(b"old")
        )
    }

    #[test]
    fn metalinks_have_digests_and_mirrors_by_preference() {
        let hash = format!(
            "<hash type='md5'>x</hash><hash type='sha256'>{}</hash>",
            Digest::of(b"new")
        );
        let urls = "<url protocol='http' preference='50'>http://b/os/repodata/repomd.xml</url>
            <url protocol='rsync' preference='100'>rsync://r/os/repodata/repomd.xml</url>
            <url protocol='https' preference='99'>https://a/os/repodata/repomd.xml</url>";
        let good = read_metalink("m", metalink(&hash, urls).as_bytes()).expect("good");
        assert_eq!(good.bases, ["https://a/os/", "http://b/os/"]);
        assert_eq!(
            (good.current, good.former),
            (Digest::of(b"new"), vec![Digest::of(b"old")])
        );
        let sha1 = "<hash type='sha1'>0a</hash>";
        let two = format!("{hash}{hash}");
        let elsewhere = "<url preference='1'>http://a/other.xml</url>";
        for (verification, urls) in [
            (sha1, urls),
            (two.as_str(), urls),
            (&hash, ""),
            (&hash, elsewhere),
            ("<hash type='sha256'>zz</hash>", urls),
        ] {
            let error = read_metalink("m", metalink(verification, urls).as_bytes())
                .expect_err(verification);
            assert_eq!(error.kind(), ErrorKind::Malformed);
        }
    }
}
