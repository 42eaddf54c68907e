//! What may differ between Kiln's root of RPM packages and dnf's, and why.

use super::super::Aspect;
use super::super::allowed::{Allowed, allow};

const CONTENT: &[Aspect] = &[Aspect::Content];
const PRESENCE: &[Aspect] = &[Aspect::Presence];

/// The list. Databases and lists of accounts are compared for what they say before it counts.
pub(super) const ALLOWED: &[Allowed] = &[
    allow(
        "var/lib/rpm/rpmdb.sqlite",
        CONTENT,
        "pages in the order of installation, with its times, and dnf's copy of the repository's key; rpm says the same of both",
    ),
    allow(
        "var/lib/dnf*",
        PRESENCE,
        "dnf's notes of what it did: Kiln lets dnf choose, and rpm install",
    ),
    allow("var/cache/dnf*", PRESENCE, "metadata that dnf fetched"),
    allow(
        "var/log/dnf*.log",
        PRESENCE,
        "dnf's logs; Kiln's are beside the image",
    ),
    allow("var/log/hawkey.log", PRESENCE, "as var/log/dnf*.log"),
    allow(
        "etc/dnf/modules.d/*.module",
        CONTENT,
        "dnf notes the profile, too, which only `dnf module remove` asks for; the stream is the same",
    ),
    allow(
        "etc/machine-id",
        CONTENT,
        "drawn at random; an image has an empty one, to be drawn at each boot",
    ),
    allow(
        "var/lib/dbus/machine-id",
        PRESENCE,
        "a link to etc/machine-id, which a boot makes again",
    ),
    allow(
        "etc/hostname",
        PRESENCE,
        "the definition's name, where no command says another",
    ),
    allow("etc/*-", PRESENCE, "accounts before the last change"),
    allow("etc/.pwd.lock", PRESENCE, "an empty lock file"),
    allow(
        "var/cache/ldconfig/aux-cache",
        PRESENCE,
        "inode numbers and times",
    ),
    allow(
        "var/cache/fontconfig/*.cache-*",
        PRESENCE,
        "an index; fc-cache itself removes it where SOURCE_DATE_EPOCH is set and older than the fonts' directory",
    ),
];
