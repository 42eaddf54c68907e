//! RPM repositories that are broken, stale or hostile: each fault ends `kiln lock` or `kiln build` with its own error, which names the
//! kickstart's line, and leaves nothing. What a further mirror can mend is mended.
//!
//! What the library's tests in `crates/packages/tests/it/rpm` say of each part is seen here through the command.

mod solve;
mod world;

use std::fs;

use kiln_testkit::rpm::{Gpg, Rpm, build, forget_header_signature};
use kiln_testkit::{Fault, Mirror, Rule};

use crate::harness::digest;
use world::{
    DIRECTORY, REPOMD, REPOSITORY, VICTIM, World, cut_payload, lend_signature, rewrite, rpmkeys,
};

const PRIMARY: &str = "*-primary.xml.gz";

#[test]
fn metadata_that_is_broken() {
    let world = World::new();
    let cut = Fault::Truncate { after: 0 };
    world.fails_with(
        Rule::always(PRIMARY, cut),
        3,
        &[REPOSITORY, "primary.xml.gz", "ended"],
    );
    let short = Fault::Short { length: 100 };
    world.fails_with(
        Rule::always(PRIMARY, short),
        4,
        &[REPOSITORY, "primary.xml.gz", "has 100 bytes"],
    );
    world.fails_with(
        Rule::always(PRIMARY, Fault::NotFound),
        4,
        &[
            REPOSITORY,
            "primary.xml.gz is not on the mirror (HTTP status 404)",
        ],
    );
    world.fails_with(
        Rule::always(PRIMARY, Fault::Flip { offset: 40 }),
        4,
        &[
            REPOSITORY,
            "primary.xml.gz is not the file that the metadata promises",
            "hint:",
        ],
    );
    world.fails_with(
        Rule::always("*/repomd.xml", Fault::NotFound),
        1,
        &[REPOSITORY, "is not a repository", "Check the URL"],
    );
    // The list of all files, which is asked for since the build tools need one of them.
    let filelists = "*-filelists.xml.gz";
    world.fails_with(
        Rule::always(filelists, Fault::NotFound),
        4,
        &[REPOSITORY, "filelists.xml.gz is not on the mirror"],
    );
    world.fails_with(
        Rule::always(filelists, Fault::Flip { offset: 40 }),
        4,
        &[REPOSITORY, "filelists.xml.gz is not the file that"],
    );
    let portal = Fault::Replace(b"<html>Please log in</html>".to_vec());
    world.fails_with(
        Rule::always("*/repomd.xml", portal),
        4,
        &[REPOSITORY, "is no repomd.xml"],
    );
}

#[test]
fn metadata_that_nobody_signed_or_a_stranger() {
    let world = World::new();
    world.define("repo-gpgcheck = true");
    world.fails_with(
        Rule::always("*.asc", Fault::NotFound),
        1,
        &[
            REPOSITORY,
            "is not signed: it has no repomd.xml.asc",
            "hint:",
        ],
    );
    world.fails_with(
        Rule::always("*.asc", Fault::Flip { offset: 120 }),
        1,
        &[REPOSITORY, "repomd.xml"],
    );
    world.fails_with(
        Rule::always("*/repomd.xml", Fault::Flip { offset: 60 }),
        1,
        &[REPOSITORY, "repomd.xml has no good signature"],
    );
    let other = Gpg::generate(&world.turn.path("other"), "other@example.org");
    other.sign_file(&world.path(REPOMD));
    other.rest();
    world.fails(
        "repomd.xml is signed by a stranger",
        1,
        &[REPOSITORY, "repomd.xml", "not among the accepted ones"],
    );
}

#[test]
fn packages_that_are_not_what_they_should_be() {
    let world = World::new();
    let named = &[REPOSITORY, "victim"][..];
    let fails = |what: &str, code: i32, why: &str| {
        world.fails(what, code, &[named, &[why]].concat());
        world.afresh();
    };
    let changed = Rule::always("*/victim-*", Fault::Flip { offset: 5_000 });
    let said = [
        REPOSITORY,
        VICTIM,
        "is not the file that the metadata promises",
    ];
    world.fails_with(changed, 4, &said);
    let gone = Rule::always("*/victim-*", Fault::NotFound);
    world.fails_with(gone, 4, &[REPOSITORY, VICTIM, "HTTP status 404"]);
    // From here on the metadata has the package as it is.
    let plain = world.turn.path("plain/Packages").join(VICTIM);
    fs::copy(&plain, world.victim()).expect("a package");
    world.describe();
    fails("unsigned", 1, "is not signed");
    let other = Gpg::generate(&world.turn.path("other"), "other@example.org");
    other.sign_packages(&[world.victim()]);
    other.rest();
    world.describe();
    fails("signed by a stranger", 1, "not among the accepted ones");
    let mut bytes = fs::read(world.victim()).expect("a package");
    let last = bytes.len() - 200;
    bytes[last] ^= 1;
    fs::write(world.victim(), bytes).expect("a package");
    world.describe();
    fails("a changed payload", 4, "is not what its signed header says");
    // Signed by the right key, and wrong all the same.
    let wrong = |from: &str, to: &str| {
        fs::copy(&plain, world.victim()).expect("a package");
        rewrite(&world.victim(), from, to);
        world.key.sign_packages(&[world.victim()]);
        world.describe();
    };
    wrong(&format!(".{DIRECTORY}data"), &format!(".{DIRECTORY}date"));
    fails("a payload of another header", 4, "./usr/share/victim/date");
    wrong(&format!(".{DIRECTORY}data"), "./../../../../etc/shado");
    fails("a payload that leads out", 4, "./../../../../etc/shado");
    wrong(DIRECTORY, "/../../../../tmp1/");
    fails("a header that leads out", 4, "/../../../../tmp1/data");
    // Another package than the metadata says.
    fs::copy(
        world.path("Packages/thonny-4.1-1.noarch.rpm"),
        world.victim(),
    )
    .expect("a package");
    world.describe();
    world.relabel("thonny", "4.1");
    fails("another package", 4, "its repository's metadata is wrong");
}

/// Packages that the real rpm's own programs made or judge, each with the key that is the right one.
#[test]
fn signatures_that_prove_nothing() {
    let world = World::new();
    let key = world.turn.path("key.asc");
    let judged = || rpmkeys(&world.turn, &key, &world.victim());
    let plain = || {
        let plain = world.turn.path("plain/Packages").join(VICTIM);
        fs::copy(plain, world.victim()).expect("a package");
    };
    let fails = |what: &str, code: i32, words: &[&str]| {
        world.describe();
        world.fails(
            what,
            code,
            &[&[REPOSITORY, "victim", "hint:"], words].concat(),
        );
    };
    // Header and payload together, which rpm takes: Kiln reads no header that is not proven by itself.
    plain();
    world
        .key
        .sign_packages_with(&[world.victim()], &["--rpmv3"]);
    forget_header_signature(&world.victim());
    let said = judged();
    said.assert(0);
    assert!(
        said.stdout.contains("V4 RSA/SHA512 Signature")
            && !said.stdout.contains("Header V4 RSA/SHA512 Signature"),
        "{}",
        said.stdout
    );
    fails(
        "signed in the way of rpm 3",
        1,
        &["signed only in the way of rpm 3", "rpmsign --resign"],
    );
    plain();
    let weak = ["--define", "_gpg_digest_algo sha1"];
    world.key.sign_packages_with(&[world.victim()], &weak);
    fails("signed with SHA-1", 1, &["hash algorithm SHA1 is too weak"]);
    // The signature of another package of the same key.
    plain();
    let thonny = world.path("Packages/thonny-4.1-1.noarch.rpm");
    lend_signature(&thonny, &world.victim());
    assert_ne!(judged().code, Some(0));
    fails("another's signature", 1, &["it does not fit the text"]);
    // As the corrupted package of rpm's own tests: header and signature are good, and nothing is behind them.
    plain();
    world.key.sign_packages(&[world.victim()]);
    cut_payload(&world.victim());
    assert_ne!(judged().code, Some(0));
    fails("no payload", 4, &["is not what its signed header says"]);
}

#[test]
fn keys_that_are_not_the_repositorys() {
    let world = World::new();
    let other = Gpg::generate(&world.turn.path("other"), "other@example.org");
    world
        .turn
        .write("key.asc", &String::from_utf8_lossy(&other.public()));
    other.rest();
    world.fails(
        "a stranger's key",
        1,
        &[REPOSITORY, "not among the accepted ones"],
    );
    world.turn.write("key.asc", "no key at all\n");
    world.fails("no key", 1, &["key.asc"]);
    fs::remove_file(world.turn.path("key.asc")).expect("the key");
    world.fails(
        "a key file that is missing",
        1,
        &[
            "kiln.toml",
            "the key file `key.asc` of repository url cannot be read",
        ],
    );
}

#[test]
fn requests_that_the_repositories_cannot_answer() {
    let world = World::new();
    let asked = |lines: &str, words: &[&str]| {
        world.kickstart("--url=URL", lines);
        let first = format!("at       {}", words[0]);
        world.fails(lines, 1, &[words, &[first.as_str()]].concat());
    };
    asked(
        "thonny\n@no-such-group",
        &["lab.ks:6", "group `@no-such-group` does not exist"],
    );
    asked(
        "@editor",
        &[
            "lab.ks:5",
            "group `@editor` does not exist",
            "did you mean editors?",
        ],
    );
    asked(
        "@^lab-environmen",
        &[
            "lab.ks:5",
            "environment `@^lab-environmen` does not exist",
            "did you mean lab-environment?",
        ],
    );
    asked(
        "@^broken-environment",
        &[
            "lab.ks:5",
            "group `@lost`, which the environment `@^broken-environment` is made of",
        ],
    );
    asked(
        "thony\nvicti",
        &[
            "lab.ks:5",
            "package `thony` does not exist",
            "did you mean thonny?",
            "lab.ks:6",
            "victim",
        ],
    );
    asked(
        "thony*",
        &[
            "lab.ks:5",
            "no package of the repositories matches the pattern",
        ],
    );
}

/// dnf and rpm of the target, which nobody asks for: the place is that of the repositories that they should come from.
#[test]
fn build_tools_that_the_repositories_cannot_give() {
    let world = World::new();
    let without = |package: &str| {
        fs::remove_file(world.path("Packages").join(package)).expect("a package");
        world.describe();
    };
    let at = format!("at       {REPOSITORY}");
    let common = &[at.as_str(), "url (lab.ks:2)"][..];
    let hint = "name the distribution's own repositories";
    let lost = "nothing provides victim, which filesystem-9-1.noarch needs";
    without(VICTIM);
    world.fails("a lost dependency", 1, &[common, &[lost, hint]].concat());
    // The same repository, which only kiln.toml names.
    let url = world.mirror.url();
    world.define(&format!("baseurl = \"{url}\""));
    world.turn.write(
        "lab.ks",
        "rootpw --lock\n%packages --nocore\nthonny\n%end\n",
    );
    world.fails(
        "a repository of kiln.toml",
        1,
        &["at       kiln.toml", "url (kiln.toml", lost, hint],
    );
    world.afresh();
    let tools = "filesystem-9-1.noarch.rpm";
    without(tools);
    let lost = "no repository has the package filesystem";
    world.fails("no tools", 1, &[common, &[lost, hint]].concat());
    world.afresh();
    // They are there, and do not work.
    let busybox = fs::read("/bin/busybox").expect("busybox");
    let broken = Rpm::new("filesystem", "9")
        .tag("Provides: bash coreutils rpm python3-dnf")
        .file("%attr(0755,root,root)", "/usr/bin/busybox", busybox)
        .file(
            "%attr(0755,root,root)",
            "/sbin/ldconfig",
            "#!/usr/bin/busybox sh\nexit 1\n",
        );
    build(&[broken], &world.path("."));
    world
        .key
        .sign_packages(&[world.path("Packages").join(tools)]);
    world.describe();
    world.fails("tools that do not work", 4, &[&at, "/sbin/ldconfig"]);
}

/// A metalink with the digest of `repomd.xml`, those of former ones, and mirrors.
fn metalink(current: &str, former: Option<&str>, mirrors: &[&Mirror]) -> String {
    let hash =
        |digest: &str| format!("<verification><hash type='sha256'>{digest}</hash></verification>");
    let former = former.map_or(String::new(), |digest| {
        format!(
            "<alternates><alternate>{}</alternate></alternates>",
            hash(digest)
        )
    });
    let urls: String = mirrors
        .iter()
        .map(|mirror| format!("<url protocol='http'>{}/{REPOMD}</url>", mirror.url()))
        .collect();
    let current = hash(current);
    format!(
        "<metalink><files><file name='repomd.xml'>{current}{former}<resources>{urls}</resources></file></files></metalink>"
    )
}

#[test]
fn mirrors_of_which_none_is_good() {
    let world = World::new();
    world.kickstart("--metalink=URL/metalink", "thonny");
    let write = |text: &str| fs::write(world.path("metalink"), text).expect("a metalink");
    let current = digest(&world.path(REPOMD));
    write(&metalink(&"0".repeat(64), None, &[&world.mirror]));
    let promised = "is not what the metalink promises";
    world.fails(
        "a wrong digest",
        4,
        &[REPOSITORY, promised, &current, "repomd.xml"],
    );
    // The mirror has what was there before, which the metalink does not know any more.
    write(&metalink(
        &"1".repeat(64),
        Some(&"2".repeat(64)),
        &[&world.mirror],
    ));
    world.fails("a stale mirror", 4, &[REPOSITORY, promised]);
    write("<metalink><files><file name='repomd.xml'></file></files></metalink>");
    world.fails(
        "a metalink without a digest",
        4,
        &[REPOSITORY, "has no SHA-256 of repomd.xml"],
    );
    world.fails_with(
        Rule::always("/metalink", Fault::NotFound),
        4,
        &[REPOSITORY, "/metalink is not on the mirror"],
    );
    // All are gone.
    let dead = [Mirror::of(world.path(".")), Mirror::of(world.path("."))];
    let urls = [dead[0].url(), dead[1].url()];
    drop(dead);
    fs::write(world.path("list"), urls.join("\n")).expect("a list");
    world.kickstart("--mirrorlist=URL/list", "thonny");
    world.fails(
        "dead mirrors",
        3,
        &[REPOSITORY, "no mirror of url", &urls[0], &urls[1], "hint:"],
    );
    fs::write(world.path("list"), "<html>Please log in</html>\n").expect("a list");
    world.fails("a list that is none", 4, &[REPOSITORY, "is no URL"]);
}
