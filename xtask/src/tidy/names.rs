//! No committed file names the machine it was written on, a package registry, or, in tests, a host of the network.

use std::path::Path;

use super::{Findings, Tree};

/// Directories of build machines, and registries' hosts; written apart so that this file passes its own rule.
const FORBIDDEN: &[&str] = &[
    concat!("/work", "/main"),
    concat!("/work", "/shared"),
    concat!("/root", "/.cargo"),
    concat!("/root", "/.rustup"),
    concat!("/root", "/.pyenv"),
    concat!("/opt", "/wheels"),
    concat!("/tmp", "/target-"),
    concat!("crates", ".io"),
    concat!("pypi", ".org"),
    concat!("pythonhosted", ".org"),
    concat!("npmjs", ".org"),
];

/// Ends of host names that can be no one's (RFC 2606, RFC 6761), and the loopback.
const HARMLESS: &[&str] = &[
    "localhost",
    "127.0.0.1",
    "[::1]",
    "example",
    "example.com",
    "example.org",
    "example.net",
    "invalid",
    "test",
];

/// Debian's public mirrors: the product's defaults, which tests may compare with.
const PUBLIC_MIRRORS: &[&str] = &["deb.debian.org", "security.debian.org"];

/// Checks every text but Cargo's own lock files, whose form is given.
pub(super) fn check(tree: &Tree) -> Findings {
    let mut findings = Findings::new();
    for (path, text) in tree
        .texts()
        .filter(|(path, _)| !path.ends_with("Cargo.lock"))
    {
        for (number, line) in text.lines().enumerate() {
            let mut report =
                |what: String| findings.push(format!("{}:{}: {what}", path.display(), number + 1));
            for name in FORBIDDEN.iter().filter(|name| line.contains(**name)) {
                report(format!("names `{name}`"));
            }
            if is_test_source(path) {
                hosts(line)
                    .filter(|host| !is_allowed(host))
                    .for_each(|host| report(format!("names the host `{host}`")));
            }
        }
    }
    findings
}

fn is_test_source(path: &Path) -> bool {
    let is_test =
        path.components().any(|part| part.as_os_str() == "tests") || path.ends_with("tests.rs");
    is_test && path.extension().is_some_and(|extension| extension == "rs")
}

fn is_allowed(host: &str) -> bool {
    let under = |name: &str| {
        host.strip_suffix(name)
            .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    };
    HARMLESS.iter().any(|name| under(name)) || PUBLIC_MIRRORS.contains(&host)
}

/// The hosts of all URLs of a line that is no comment. Placeholders of format strings are no hosts.
fn hosts(line: &str) -> impl Iterator<Item = &str> {
    let line = if line.trim_start().starts_with("//") {
        ""
    } else {
        line
    };
    ["http://", "https://", "ftp://"]
        .into_iter()
        .flat_map(|scheme| line.split(scheme).skip(1))
        .filter_map(|rest| {
            let end = rest
                .find(|c: char| !(c.is_ascii_alphanumeric() || ".-_[]:@".contains(c)))
                .unwrap_or(rest.len());
            let authority = rest.get(..end)?;
            let host = authority
                .rsplit_once('@')
                .map_or(authority, |(_, host)| host);
            let host = if host.starts_with('[') {
                host.split_inclusive(']').next()?
            } else {
                host.split(':').next()?
            };
            // `https://x` or a bare `http://`: not a name that anyone could own.
            host.contains('.').then_some(host)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str, text: &str) -> Findings {
        check(&Tree {
            files: vec![(path.into(), text.into())],
        })
    }

    #[test]
    fn machines_and_registries_are_found_everywhere() {
        let path = concat!("see /work", "/main/x");
        assert_eq!(found("docs/a.md", path).len(), 1);
        assert_eq!(found("docs/a.md", concat!("from pypi", ".org")).len(), 1);
        assert!(found("Cargo.lock", concat!("crates", ".io")).is_empty());
    }

    #[test]
    fn tests_name_no_foreign_host() {
        let foreign = concat!("let u = \"https://", "somewhere.net:8080/x\";");
        assert_eq!(
            found("crates/a/tests/b.rs", foreign),
            ["crates/a/tests/b.rs:1: names the host `somewhere.net`"]
        );
        assert!(found("crates/a/src/b.rs", foreign).is_empty());
        for fine in [
            "http://127.0.0.1:80/",
            "https://a.example/x",
            "http://[::1]/",
            "http://{host}/",
            "http://u:p@repo.test/",
        ] {
            assert!(found("crates/a/tests/b.rs", fine).is_empty(), "{fine}");
        }
        assert!(
            found(
                "crates/a/tests/b.rs",
                concat!("// see https://", "www.kernel.org")
            )
            .is_empty()
        );
    }
}
