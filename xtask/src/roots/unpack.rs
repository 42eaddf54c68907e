//! `cargo xtask equal-unpack [DEF]`: a root whose packages Kiln unpacked against one whose packages dpkg unpacked.
//!
//! Both are made by Kiln from the same package files, in the same order and with the same clock, so everything must be the
//! same: names, types, modes, owners, times, contents, dpkg's database. What may differ is what maintainer scripts
//! draw at random. `xtask/sets` has definitions of several kinds beside those of `examples`.
//!
//! With `--earlier` Kiln has built the same with another clock before, so that no layer is found again but every package may be taken from one.

use super::build::{PACKAGES, judge};
use super::{Allowed, Aspect, Closeness};
use crate::peer::disk::{Squashfs, partitions};
use crate::peer::{Options, afresh, build_command, definition, link_downloads, need_root};
use crate::{Result, process, workspace};

use super::allowed::allow;

const RANDOM: &[Aspect] = &[Aspect::Content, Aspect::Time];

/// What two runs of one and the same way differ in.
const DRAWN: &[Allowed] = &[
    allow("etc/ssh/ssh_host_*", RANDOM, "keys"),
    allow("etc/ssl/private/ssl-cert-snakeoil.key", RANDOM, "a key"),
    allow(
        "etc/ssl/certs/ssl-cert-snakeoil.pem",
        RANDOM,
        "made from a key",
    ),
    allow(
        "etc/ssl/certs/*.0",
        &[Aspect::Presence],
        "named by the hash of ssl-cert-snakeoil.pem",
    ),
    allow(
        "etc/ssl/certs/java/cacerts",
        RANDOM,
        "holds the time of each entry",
    ),
    allow("etc/bind/rndc.key", RANDOM, "a key"),
    allow("var/lib/dbus/machine-id", RANDOM, "drawn at random"),
    allow(
        "var/cache/ldconfig/aux-cache",
        RANDOM,
        "inode numbers and times",
    ),
    allow(
        "etc/ldap/slapd.d/*",
        RANDOM,
        "entries have a random id and the time",
    ),
    allow(
        "var/lib/ldap/*",
        RANDOM,
        "entries have a random id and the time",
    ),
    allow(
        "var/lib/mysql/*",
        RANDOM,
        "databases with random ids and times",
    ),
    allow(
        "var/lib/postgresql/*",
        RANDOM,
        "databases with random ids and times",
    ),
    allow(
        "var/lib/samba/*",
        RANDOM,
        "databases with random ids and times",
    ),
    allow("var/log/*", RANDOM, "logs"),
    allow(
        "usr/share/man",
        &[Aspect::Time],
        "with --excludedocs: where dpkg unpacks, it was filled and emptied before dpkg's turn",
    ),
    allow("usr/share/doc-base", &[Aspect::Time], "as usr/share/man"),
    allow(
        "*.pypy39.pyc",
        RANDOM,
        "PyPy orders constants by their addresses in memory",
    ),
];

/// Asks for packages that come from layers.
const EARLIER: &str = "--earlier";
/// In 2001; every layer's id has it in it.
const OTHER_CLOCK: &str = "1000000000";

/// Builds both roots below the target directory and compares them.
pub(crate) fn run(words: &[&str]) -> Result<()> {
    need_root("equal-unpack")?;
    let earlier = words.contains(&EARLIER);
    let words: Vec<&str> = words.iter().copied().filter(|&w| w != EARLIER).collect();
    let options = Options::parse(&words)?;
    let minimal = || workspace::root().join("examples/minimal.ks");
    let source = options.definition.clone().unwrap_or_else(minimal);
    let work = workspace::target_directory()?.join("equal-unpack");
    let _leftovers = options.leftovers(&work, &[], PACKAGES);
    let kiln = options.kiln()?;
    let project = definition::copy(&source, &work.join("definition"))?;
    definition::keep_packages_only(&project)?;
    let packages = options.warm_cache(&kiln, &project, &work)?;
    let ways: [(&str, &[&str]); 2] = [("kiln", &[]), ("dpkg", &["--plain-unpacking"])];
    for (way, arguments) in ways {
        let (cache, root, output) = (
            work.join(format!("{way}-cache")),
            work.join(way),
            work.join("output"),
        );
        for directory in [&cache, &root, &output] {
            afresh(directory)?;
        }
        link_downloads(&packages, &cache)?;
        if earlier && arguments.is_empty() {
            let mut build = build_command(&kiln, &cache, &project, &output);
            process::run(build.env("SOURCE_DATE_EPOCH", OTHER_CLOCK))?;
        }
        let mut build = build_command(&kiln, &cache, &project, &output);
        process::run(build.args(arguments))?;
        let image = output.join("disk.raw");
        let squashfs = Squashfs::find(&image, &partitions(&image)?)?;
        process::output(&mut squashfs.extract(&image, &root))?;
        if !options.keep {
            for directory in [&cache, &output] {
                afresh(directory)?;
            }
        }
    }
    let (ours, theirs) = (work.join("kiln"), work.join("dpkg"));
    judge(("Kiln", &ours), ("dpkg", &theirs), Closeness::Bytes, DRAWN)
}
