//! Whether signed metadata vouches for what a lock says.

use super::repository::Repository;
use super::universe::{Package, Universe};
use crate::{LockedPackage, Verdict};

/// Returns what the signed indices say of a locked package.
pub fn verdict(universe: &Universe, locked: &LockedPackage) -> Verdict {
    let same =
        |p: &&Package| p.version() == locked.version && p.architecture() == locked.architecture;
    let mut found = None;
    for package in universe.everywhere(&locked.name).filter(same) {
        match difference(package, locked) {
            None => return Verdict::Signed,
            Some(difference) => {
                found.get_or_insert(difference);
            }
        }
    }
    found.map_or(Verdict::Unknown, Verdict::Differs)
}

fn difference(package: &Package, locked: &LockedPackage) -> Option<String> {
    let place = package.repository().describe();
    if package.sha256() != locked.sha256 {
        let (theirs, ours) = (package.sha256(), locked.sha256);
        return Some(format!(
            "{place} has it with the SHA-256 {theirs}, the lock has {ours}"
        ));
    }
    if package.size() != locked.size {
        let (theirs, ours) = (package.size(), locked.size);
        return Some(format!(
            "{place} has it with {theirs} bytes, the lock with {ours}"
        ));
    }
    (package.url() != locked.url).then(|| {
        let (theirs, ours) = (package.url(), &locked.url);
        format!(
            "{place} has it at {}, the lock at {}",
            crate::fetch::url::shown(&theirs),
            crate::fetch::url::shown(ours)
        )
    })
}

/// Returns a sentence about a locked package that is below none of the repositories.
pub fn outside(repositories: &[Repository], locked: &LockedPackage) -> Option<String> {
    let inside = repositories.iter().any(|r| r.contains(&locked.url));
    (!inside).then(|| {
        let url = crate::fetch::url::shown(&locked.url);
        format!("its URL {url} is below none of the definition's repositories")
    })
}

impl Repository {
    /// Returns whether a URL lies below the repository's base URL, whatever a server makes of dots, escapes and queries.
    pub fn contains(&self, url: &str) -> bool {
        let base = self.uri.trim_end_matches('/');
        let inside = url
            .strip_prefix(base)
            .and_then(|rest| rest.strip_prefix('/'));
        inside.is_some_and(|path| {
            let path = path.to_ascii_lowercase();
            // An escaped dot or slash may be decoded before the path is walked.
            let plain =
                !path.contains(['?', '#', '\\']) && !path.contains("%2f") && !path.contains("%5c");
            plain
                && !path
                    .replace("%2e", ".")
                    .split('/')
                    .any(|part| matches!(part, "" | "." | ".."))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::Digest;
    use crate::debian::{Archive, default_repositories};

    fn repository() -> Repository {
        let all = default_repositories(Archive::Debian, "bookworm", "amd64").expect("known");
        all.into_iter().next().expect("the first")
    }

    const INDEX: &str = "Package: a\nVersion: 1\nArchitecture: all\nFilename: pool/a_1_all.deb\nSize: 7\n\
        SHA256: e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\n";

    #[test]
    fn every_field_of_a_locked_package_counts() {
        let universe = Universe::of_text("Packages", INDEX, &repository()).expect("an index");
        let good = LockedPackage {
            name: "a".into(),
            version: "1".into(),
            architecture: "all".into(),
            url: "http://deb.debian.org/debian/pool/a_1_all.deb".into(),
            sha256: Digest::of(b""),
            size: 7,
            layer: "base".into(),
            auto: true,
            facts: BTreeMap::new(),
        };
        assert_eq!(verdict(&universe, &good), Verdict::Signed);
        let changed = |change: fn(&mut LockedPackage)| {
            let mut package = good.clone();
            change(&mut package);
            verdict(&universe, &package)
        };
        for (name, change) in [
            ("bytes", (|p| p.size = 8) as fn(&mut LockedPackage)),
            ("SHA-256", |p| p.sha256 = Digest::of(b"x")),
            (" at http", |p| {
                p.url = p.url.replace("debian.org", "debian.example")
            }),
            (" at http", |p| p.url = p.url.replace("pool", "pull")),
        ] {
            match changed(change) {
                Verdict::Differs(why) => assert!(why.contains(name), "{why}"),
                other => panic!("{name}: {other:?}"),
            }
        }
        assert_eq!(changed(|p| p.version = "2".into()), Verdict::Unknown);
        assert_eq!(
            changed(|p| p.architecture = "amd64".into()),
            Verdict::Unknown
        );
        assert_eq!(changed(|p| p.name = "b".into()), Verdict::Unknown);
    }

    #[test]
    fn urls_outside_of_a_repository() {
        let repository = repository();
        assert!(repository.contains("http://deb.debian.org/debian/pool/a_1%3a2.deb"));
        for bad in [
            "http://deb.debian.org/debian",
            "http://deb.debian.org/debian/",
            "http://deb.debian.org/debian-x/pool/a.deb",
            "https://deb.debian.org/debian/pool/a.deb",
            "http://deb.debian.org.example.org/debian/pool/a.deb",
            "http://deb.debian.org@example.org/debian/pool/a.deb",
            "http://deb.debian.org/debian/../x/a.deb",
            "http://deb.debian.org/debian/%2E./x/a.deb",
            "http://deb.debian.org/debian/..%2fx/a.deb",
            "http://deb.debian.org/debian/..\\x/a.deb",
            "http://deb.debian.org/debian/pool/a.deb?x",
            "file:///debian/pool/a.deb",
        ] {
            assert!(!repository.contains(bad), "{bad}");
        }
    }
}
