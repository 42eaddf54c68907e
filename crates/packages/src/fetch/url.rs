//! The little of URLs that the HTTP client leaves to do: joining, escapes, `file://`.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// Appends a relative path to a base URL with exactly one `/` between them. Bytes that a URL cannot hold are
/// percent-encoded; escapes that are already there stay.
pub(crate) fn append(base: &str, path: &str) -> String {
    let mut url = base.trim_end_matches('/').to_owned();
    url.push('/');
    for byte in path.trim_start_matches('/').bytes() {
        match byte {
            b'!' | b'$'..=b';' | b'=' | b'@'..=b'Z' | b'_' | b'a'..=b'z' | b'~' => {
                url.push(byte.into())
            }
            _ => url.push_str(&format!("%{byte:02X}")),
        }
    }
    url
}

/// A URL for messages: without user name and password.
pub(crate) fn shown(url: &str) -> String {
    match url.split_once("://") {
        Some((scheme, rest)) => {
            let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
            let host = authority.rsplit('@').next().unwrap_or_default();
            format!("{scheme}://{host}{path}")
        }
        None => url.to_owned(),
    }
}

/// Resolves the target of a redirect against the URL that gave it (RFC 3986 section 5, without `..`).
pub(crate) fn join(base: &str, target: &str) -> String {
    let scheme_end = base.find("://").map_or(0, |at| at + 3);
    let path_start = base[scheme_end..]
        .find('/')
        .map_or(base.len(), |at| scheme_end + at);
    if target.contains("://") {
        target.to_owned()
    } else if let Some(rest) = target.strip_prefix("//") {
        format!("{}//{rest}", base.split("//").next().unwrap_or_default())
    } else if target.starts_with('/') {
        format!("{}{target}", &base[..path_start])
    } else {
        let directory = base[path_start..]
            .rfind('/')
            .map_or(path_start, |at| path_start + at);
        format!("{}/{target}", &base[..directory])
    }
}

/// Replaces `%XX` by the byte it stands for; what is no escape stays.
pub fn percent_decode(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let escape = bytes.get(at + 1..at + 3).filter(|_| byte == b'%');
        let value = escape
            .and_then(|e| std::str::from_utf8(e).ok())
            .and_then(|e| u8::from_str_radix(e, 16).ok());
        out.push(value.unwrap_or(byte));
        at += if value.is_some() { 3 } else { 1 };
    }
    out
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
    fn joins_redirect_targets() {
        let base = "http://h:81/a/b?x";
        assert_eq!(join(base, "https://o/p"), "https://o/p");
        assert_eq!(join(base, "//o/p"), "http://o/p");
        assert_eq!(join(base, "/p"), "http://h:81/p");
        assert_eq!(join(base, "p"), "http://h:81/a/p");
        assert_eq!(join("http://h", "p"), "http://h/p");
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
