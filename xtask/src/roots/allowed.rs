//! What may differ between Kiln's root and that of another installer, and why.

use super::{Aspect, Difference};

/// One explained difference.
pub(crate) struct Allowed {
    /// Path below the root; `*` stands for any run of characters, `/` included.
    pub(crate) pattern: &'static str,
    /// In which respects the path may differ; empty for all.
    aspects: &'static [Aspect],
    /// Why.
    pub(crate) reason: &'static str,
}

pub(crate) const fn allow(
    pattern: &'static str,
    aspects: &'static [Aspect],
    reason: &'static str,
) -> Allowed {
    Allowed {
        pattern,
        aspects,
        reason,
    }
}

const ALL: &[Aspect] = &[];
const CONTENT: &[Aspect] = &[Aspect::Content];

/// The list. Every entry is a fact about Debian packages, not a favour to either side.
pub(crate) const ALLOWED: &[Allowed] = &[
    allow(
        "etc/machine-id",
        ALL,
        "drawn at random; an image has an empty one, to be drawn at first boot",
    ),
    allow("var/lib/dbus/machine-id", ALL, "see etc/machine-id"),
    allow(
        "etc/hostname",
        ALL,
        "the host's name, which mmdebstrap takes from the build machine",
    ),
    allow("etc/hosts", ALL, "as etc/hostname"),
    allow(
        "etc/resolv.conf",
        ALL,
        "mmdebstrap takes it from the build machine",
    ),
    allow("etc/apt/sources.list*", ALL, "where the packages came from"),
    allow(
        "etc/apt/apt.conf.d/*mmdebstrap*",
        ALL,
        "mmdebstrap's own settings",
    ),
    allow(
        "etc/dpkg/dpkg.cfg.d/*mmdebstrap*",
        ALL,
        "mmdebstrap's own settings",
    ),
    allow(
        "var/lib/apt/*",
        ALL,
        "lists of repositories, and which packages were asked for by name",
    ),
    allow("var/cache/apt/*", ALL, "caches"),
    allow(
        "var/cache/debconf/*",
        CONTENT,
        "answers in the order of the questions, which follows the order of unpacking",
    ),
    allow(
        "var/cache/ldconfig/aux-cache",
        ALL,
        "inode numbers and times",
    ),
    allow(
        "var/cache/man/*",
        ALL,
        "man-db's caches, which its postinst makes anew or not, by the order of installation",
    ),
    allow("var/cache/fontconfig/*", ALL, "an index with times"),
    allow("var/log/*", ALL, "logs"),
    allow(
        "var/lib/dpkg/*-old",
        ALL,
        "the state before the last change",
    ),
    allow("var/lib/dpkg/lock*", ALL, "empty lock files"),
    allow("var/lib/dpkg/triggers/*", ALL, "working state"),
    allow("etc/shadow-", ALL, "the state before the last change"),
    allow("etc/passwd-", ALL, "the state before the last change"),
    allow("etc/group-", ALL, "the state before the last change"),
    allow("etc/gshadow-", ALL, "the state before the last change"),
    allow("etc/subuid-", ALL, "the state before the last change"),
    allow("etc/subgid-", ALL, "the state before the last change"),
    allow("etc/ssh/ssh_host_*", ALL, "keys are drawn at random"),
    allow(
        "etc/ssl/private/ssl-cert-snakeoil.key",
        CONTENT,
        "keys are drawn at random",
    ),
    allow(
        "etc/ssl/certs/ssl-cert-snakeoil.pem",
        CONTENT,
        "made from a key that is drawn at random",
    ),
    allow(
        "var/lib/ucf/hashfile.*",
        ALL,
        "the state before the last change",
    ),
    allow(
        "var/lib/sgml-base/supercatalog.old",
        ALL,
        "the state before the last change",
    ),
    allow(
        "etc/ssl/certs/*.0",
        &[Aspect::Presence],
        "named by the hash of a certificate, of which ssl-cert-snakeoil.pem is drawn at random",
    ),
    allow(
        "etc/ssl/certs/java/cacerts",
        CONTENT,
        "a Java key store holds the time of each entry",
    ),
    allow(
        "var/lib/systemd/catalog/database",
        CONTENT,
        "holds a random file id",
    ),
    allow(
        "dev/*",
        ALL,
        "the kernel fills /dev; mmdebstrap makes nodes that are covered at boot",
    ),
    allow(
        "run/*",
        ALL,
        "a tmpfs at boot; systemd-tmpfiles makes what belongs there",
    ),
    allow(
        "boot/initrd.img-*",
        ALL,
        "Kiln makes the initramfs once, at the end, for the boot partition",
    ),
    allow("initrd.img*", ALL, "links to boot/initrd.img-*"),
    allow("live", ALL, "see live/filesystem.dir"),
    allow(
        "live/filesystem.dir",
        ALL,
        "by which live-boot takes the partition for its medium",
    ),
    allow(
        "usr/share/initramfs-tools/scripts/init-premount*",
        ALL,
        "Kiln's script that copies the root to memory",
    ),
    allow(
        "etc/fstab",
        ALL,
        "mmdebstrap writes a placeholder; Kiln's names the /home partition if there is one",
    ),
    allow("etc/.pwd.lock", ALL, "an empty lock file"),
    allow(
        "etc/apt/preferences.d",
        &[Aspect::Presence],
        "mmdebstrap makes apt's directories also where apt is not installed",
    ),
    allow(
        "var/cache/apt",
        &[Aspect::Presence],
        "as etc/apt/preferences.d",
    ),
    allow(
        "var/lib/dpkg/arch",
        ALL,
        "mmdebstrap names the native architecture, which dpkg assumes anyway",
    ),
    allow(
        "var/cache/debconf/*-old",
        ALL,
        "the state before the last change",
    ),
    allow(
        "etc/systemd/system/ssh.service.d*",
        ALL,
        "Kiln's images draw the SSH host keys at boot",
    ),
    allow(
        "*.pyc",
        ALL,
        "compiled Python holds a hash of its source where SOURCE_DATE_EPOCH is set, else the source's time; and only \
         interpreters that were installed before a package compile it",
    ),
];

/// The entry that explains a difference.
pub(crate) fn explain(difference: &Difference, list: &[Allowed]) -> Option<usize> {
    let path = difference.path.to_string_lossy();
    list.iter().position(|entry| {
        matches(entry.pattern, &path)
            && (entry.aspects.is_empty() || entry.aspects.contains(&difference.aspect))
    })
}

/// Whether `text` is of the form of `pattern`.
fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = text.strip_prefix(parts.next().unwrap_or("")) else {
        return false;
    };
    let mut parts = parts.peekable();
    if parts.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_whole_paths() {
        assert!(matches("etc/hosts", "etc/hosts"));
        assert!(!matches("etc/hosts", "etc/hosts.allow"));
        assert!(matches("var/log/*", "var/log/a/b"));
        assert!(!matches("var/log/*", "x/var/log/a"));
        assert!(matches("*.pyc", "usr/lib/a.pyc"));
        assert!(matches("a*b*c", "a-b-c"));
        assert!(!matches("a*b*c", "a-c-b"));
        assert!(!matches("ab*ba", "aba"));
    }

    #[test]
    fn an_entry_explains_only_its_own_aspects() {
        let difference = |path: &str, aspect| Difference {
            path: path.into(),
            aspect,
            detail: String::new(),
        };
        let explain = |difference: Difference| explain(&difference, ALLOWED);
        assert!(explain(difference("etc/ssl/certs/java/cacerts", Aspect::Content)).is_some());
        assert!(explain(difference("etc/ssl/certs/java/cacerts", Aspect::Mode)).is_none());
        assert!(explain(difference("usr/bin/env", Aspect::Content)).is_none());
    }
}
