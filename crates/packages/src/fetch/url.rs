//! The little of URLs that libraries leave to do: appending, messages, `file:`.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};

/// What a URL's path cannot hold as it is; `%` begins an escape.
const UNFIT: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'[')
    .add(b'\\')
    .add(b']')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');

/// Appends a relative path to a base URL with exactly one `/` between them. Bytes that a URL cannot hold are
/// percent-encoded; escapes that are already there stay.
pub(crate) fn append(base: &str, path: &str) -> String {
    let path = utf8_percent_encode(path.trim_start_matches('/'), UNFIT);
    format!("{}/{path}", base.trim_end_matches('/'))
}

/// A URL for messages: without user name and password.
pub(crate) fn shown(url: &str) -> String {
    match url.split_once("://") {
        Some((scheme, rest)) => {
            let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
            let host = authority.rsplit('@').next().unwrap_or(authority);
            format!("{scheme}://{host}{path}")
        }
        None => url.to_owned(),
    }
}

/// Replaces `%XX` by the byte it stands for; what is no escape stays.
pub(crate) fn percent_decode(text: &str) -> Vec<u8> {
    percent_decode_str(text).collect()
}

/// The path of a `file:///…` or `file:/…` URL; `None` for other URLs.
pub(crate) fn file_path(url: &str) -> Option<PathBuf> {
    let rest = url.strip_prefix("file:")?;
    let path = rest
        .strip_prefix("//localhost")
        .or_else(|| rest.strip_prefix("//"))
        .unwrap_or(rest);
    path.starts_with('/')
        .then(|| PathBuf::from(OsString::from_vec(percent_decode(path))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn appends_and_escapes() {
        assert_eq!(
            append("http://h/debian/", "/pool/a b+c~d_1%3a2.deb"),
            "http://h/debian/pool/a%20b+c~d_1%3a2.deb"
        );
    }

    #[test]
    fn passwords_are_not_shown() {
        assert_eq!(shown("http://me:se@cret@h:1/a@b"), "http://h:1/a@b");
        assert_eq!(shown("http://h"), "http://h");
        assert_eq!(shown("h"), "h");
    }

    #[test]
    fn file_urls() {
        assert_eq!(file_path("file:///srv/a%20b"), Some("/srv/a b".into()));
        assert_eq!(file_path("file:/srv"), Some("/srv".into()));
        assert_eq!(file_path("file://srv"), None);
        assert_eq!(file_path("http://srv/"), None);
    }
}
