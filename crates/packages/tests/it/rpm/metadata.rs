//! `repomd.xml` and what it leads to.

use std::fs;
use std::time::SystemTime;

use kiln_packages::rpm::{Package, Proof, Source};
use kiln_packages::{Digest, Error, ErrorKind};
use kiln_testkit::{Fault, Mirror, Rule};

use super::World;
use crate::support::good;

type Change<'a> = &'a dyn Fn(String) -> String;

const REPOMD: &str = "mirror/repodata/repomd.xml";

fn packages(world: &World) -> Result<Vec<Package>, Error> {
    world.refresh()?.repositories[0].packages()
}

fn names(packages: &[Package]) -> Vec<String> {
    let mut names: Vec<String> = packages.iter().map(Package::nevra).collect();
    names.sort();
    names
}

/// Writes another `primary.xml`, with a `repomd.xml` that is right about it and signed.
fn with_primary(world: &World, change: impl Fn(String) -> String) {
    let directory = world.path("mirror/repodata");
    let found = fs::read_dir(&directory)
        .expect("metadata")
        .flatten()
        .map(|entry| entry.path());
    let packed = found
        .into_iter()
        .find(|path| path.to_string_lossy().ends_with("primary.xml.gz"))
        .expect("primary");
    let plain = good("gzip", &["-dc", &packed.to_string_lossy()]);
    let plain = change(plain);
    let name = directory.join("other-primary.xml");
    fs::write(&name, &plain).expect("primary");
    let digest = Digest::of(plain.as_bytes());
    let size = plain.len();
    let repomd = format!(
        "<repomd><data type='primary'><checksum type='sha256'>{digest}</checksum><location href='repodata/other-primary.xml'/>\
         <timestamp>9</timestamp><size>{size}</size></data></repomd>"
    );
    fs::write(world.path(REPOMD), repomd).expect("repomd.xml");
    world.sign();
}

/// Changes `repomd.xml` and signs it.
fn with_repomd(world: &World, change: impl Fn(String) -> String) {
    let text = fs::read_to_string(world.path(REPOMD)).expect("repomd.xml");
    fs::write(world.path(REPOMD), change(text)).expect("repomd.xml");
    world.sign();
}

fn fails(world: &World, kind: ErrorKind, says: &str) {
    let error = packages(world).expect_err(says);
    assert_eq!(error.kind(), kind, "{error}");
    assert!(error.to_string().contains(says), "{says:?}: {error}");
    assert_eq!(error.origin(), Some("lab.ks:7"), "{error}");
}

#[test]
fn rpm_reads_the_same_of_packages_as_their_metadata_says() {
    let world = World::new();
    let found = packages(&world).expect("good metadata");
    let files = fs::read_dir(world.path("mirror/Packages"))
        .expect("packages")
        .flatten();
    let mut expected = Vec::new();
    for file in files {
        let format = "[%{NAME}-%|EPOCH?{%{EPOCH}:}:{}|%{VERSION}-%{RELEASE}.%{ARCH}]";
        expected.push(good(
            "rpm",
            &[
                "-qp",
                "--nosignature",
                "--qf",
                format,
                &file.path().to_string_lossy(),
            ],
        ));
        let package = found
            .iter()
            .find(|p| p.href.ends_with(&*file.file_name().to_string_lossy()))
            .expect("its package");
        let bytes = fs::read(file.path()).expect("a package");
        assert_eq!(
            (package.size, package.sha256),
            (bytes.len() as u64, Some(Digest::of(&bytes)))
        );
    }
    expected.sort();
    assert_eq!(names(&found), expected);
    let shell = found.iter().find(|p| p.name == "shell").expect("shell");
    assert_eq!(
        (shell.evr.epoch, shell.files.as_slice()),
        (1, ["/usr/bin/shell".to_owned()].as_slice())
    );
    assert!(shell.provides.iter().any(|c| c.name == "/bin/sh"));
}

#[test]
fn every_compression_gives_the_same() {
    let world = World::new();
    let expected = names(&packages(&world).expect("gz"));
    for kind in ["xz", "bz2"] {
        world.createrepo(&["--general-compress-type", kind]);
        assert_eq!(names(&packages(&world).expect(kind)), expected, "{kind}");
    }
    // createrepo_c 0.17 has no zstd of its own for metadata: modifyrepo's work is done here.
    let primary = fs::read_dir(world.path("mirror/repodata"))
        .expect("metadata")
        .flatten();
    let packed = primary
        .map(|e| e.path())
        .find(|p| p.to_string_lossy().contains("primary.xml.bz2"))
        .expect("primary");
    let plain = good("bzip2", &["-dc", &packed.to_string_lossy()]);
    let zst = world.path("mirror/repodata/p.xml.zst");
    fs::write(world.path("plain"), &plain).expect("plain");
    good(
        "zstd",
        &[
            "-q",
            "-f",
            &world.path("plain").to_string_lossy(),
            "-o",
            &zst.to_string_lossy(),
        ],
    );
    let bytes = fs::read(&zst).expect("zst");
    let text = format!(
        "<repomd><data type='primary'><checksum type='sha256'>{}</checksum><open-checksum type='sha256'>{}</open-checksum>\
         <location href='repodata/p.xml.zst'/><timestamp>4000000000</timestamp><size>{}</size><open-size>{}</open-size></data></repomd>",
        Digest::of(&bytes),
        Digest::of(plain.as_bytes()),
        bytes.len(),
        plain.len()
    );
    with_repomd(&world, |_| text.clone());
    assert_eq!(names(&packages(&world).expect("zst")), expected);
}

#[test]
fn what_is_not_signed_by_the_key_is_not_used() {
    let world = World::new();
    fs::write(
        world.path(REPOMD),
        fs::read_to_string(world.path(REPOMD)).expect("text") + " ",
    )
    .expect("changed");
    fails(
        &world,
        ErrorKind::BadSignature,
        "repomd.xml has no good signature",
    );
    fs::remove_file(world.path("mirror/repodata/repomd.xml.asc")).expect("removing");
    fails(&world, ErrorKind::Unsigned, "repomd.xml.asc");
    // Where only packages are signed, nobody looks for it.
    let mut repository = world.repository(world.base());
    repository.proof = Proof::Packages;
    assert_eq!(
        world
            .refresh_with(&repository)
            .expect("not asked for")
            .repositories[0]
            .signer,
        None
    );
}

#[test]
fn hostile_metadata_is_refused_with_its_place() {
    let world = World::new();
    let cases: &[(&str, Change)] = &[
        ("which does not lie below the repository", &|t| {
            t.replace("href=\"Packages/shell", "href=\"../../etc/shell")
        }),
        ("which lies in another repository", &|t| {
            t.replace(
                "<location href=\"Packages/shell",
                "<location xml:base=\"http://elsewhere/\" href=\"Packages/shell",
            )
        }),
        ("declares entities", &|t| {
            t.replacen(
                "<metadata",
                "<!DOCTYPE m [<!ENTITY a \"aaaa\"><!ENTITY b \"&a;&a;\">]>\n<metadata",
                1,
            )
        }),
        ("uses the entity &b;", &|t| {
            t.replacen("<summary>", "<summary>&b;", 1)
        }),
        ("is cut: it ends within <", &|t| {
            t[..t.len() / 2]
                .rsplit_once('<')
                .map_or("", |(head, _)| head)
                .to_owned()
        }),
        ("says that it has 6 packages, but it has 5", &|t| {
            t.replace("packages=\"5\"", "packages=\"6\"")
        }),
        ("twice, with different content", &|t| {
            t.replace("<name>small-langpack<", "<name>big-langpack<")
        }),
        ("which is no name, version or architecture", &|t| {
            t.replace("<name>shell<", "<name>../shell<")
        }),
        ("Kiln trusts no other", &|t| {
            t.replace("type=\"sha256\"", "type=\"sha\"")
        }),
        ("or how large", &|t| {
            t.replace("<size package=", "<size other=")
        }),
        ("has the bad epoch", &|t| {
            t.replace("epoch=\"1\"", "epoch=\"-1\"")
        }),
        ("is no list of packages", &|t| {
            t.replace("<metadata", "<html")
                .replace("</metadata", "</html")
        }),
    ];
    for (says, change) in cases {
        world.createrepo(&[]);
        with_primary(&world, change);
        fails(&world, ErrorKind::Malformed, says);
        // What it says of the place is where the error is, but for counts.
        let error = packages(&world).expect_err(says).to_string();
        assert!(
            error.contains("(at byte ") || says.contains("packages, but"),
            "{error}"
        );
        assert!(error.contains("baseos"), "{error}");
    }
}

#[test]
fn a_repomd_that_lies_is_refused() {
    let world = World::new();
    let cases: &[(ErrorKind, &str, Change)] = &[
        (
            ErrorKind::Malformed,
            "two files of the type primary",
            &|t| t.replace("\"filelists\"", "\"primary\""),
        ),
        (ErrorKind::Malformed, "lists no packages", &|t| {
            t.replace("\"primary\"", "\"primary_zck\"")
        }),
        (ErrorKind::Malformed, "does not lie below", &|t| {
            t.replace("href=\"repodata", "href=\"/repodata")
        }),
        (ErrorKind::Malformed, "the most that Kiln reads", &|t| {
            t.replace("<open-size>", "<open-size>99999999")
        }),
        (ErrorKind::Malformed, "has no SHA-256 of primary", &|t| {
            t.replace("<checksum type=\"sha256\"", "<checksum type=\"md5\"")
        }),
        (
            ErrorKind::Malformed,
            "than the 1 bytes that it may have",
            &|t| shrink(&t),
        ),
        (
            ErrorKind::HashMismatch,
            "does not hold what repomd.xml promises",
            &|t| other_content(&t),
        ),
    ];
    for (kind, says, change) in cases {
        world.createrepo(&[]);
        with_repomd(&world, change);
        fails(&world, *kind, says);
    }
}

/// Every file is one byte long when it is unpacked, says this.
fn shrink(text: &str) -> String {
    let parts = text
        .split("<open-size>")
        .map(|part| match part.split_once("</open-size>") {
            Some((_, rest)) => format!("1</open-size>{rest}"),
            None => part.to_owned(),
        });
    parts.collect::<Vec<_>>().join("<open-size>")
}

/// Every file has the content of an empty one when it is unpacked, says this.
fn other_content(text: &str) -> String {
    let start = "<open-checksum type=\"sha256\">";
    let parts = text
        .split(start)
        .map(|part| match part.split_once("</open-checksum>") {
            Some((_, rest)) => format!("{}</open-checksum>{rest}", Digest::of(b"")),
            None => part.to_owned(),
        });
    parts.collect::<Vec<_>>().join(start)
}

#[test]
fn broken_transfers_never_give_metadata() {
    let cases = [
        (Fault::NotFound, ErrorKind::NotFound),
        (Fault::Status(503), ErrorKind::Refused),
        (Fault::Truncate { after: 0 }, ErrorKind::Truncated),
        (Fault::Short { length: 100 }, ErrorKind::HashMismatch),
        (Fault::Flip { offset: 50 }, ErrorKind::HashMismatch),
        (
            Fault::Replace(b"<html>sign in</html>".to_vec()),
            ErrorKind::HashMismatch,
        ),
    ];
    let world = World::new();
    for (fault, kind) in cases {
        world
            .mirror
            .inject(Rule::always("*primary*", fault.clone()));
        let error = packages(&world).expect_err("the fault must be noticed");
        assert_eq!(error.kind(), kind, "{fault:?}: {error}");
        assert!(error.to_string().contains("primary.xml.gz"), "{error}");
        world.mirror.heal();
        fs::remove_dir_all(world.path("metadata")).expect("forgetting");
    }
    assert!(packages(&world).is_ok());
    world
        .mirror
        .inject(Rule::always("*/repomd.xml", Fault::NotFound));
    fails(&world, ErrorKind::Input, "is not a repository");
}

#[test]
fn mirrors_are_tried_until_one_is_good() {
    let world = World::new();
    let bad = Mirror::of(world.path("mirror"));
    bad.inject(Rule::always("*primary*", Fault::Flip { offset: 9 }));
    let list = format!("# mirrors\n{}\n{}\n", bad.url(), world.mirror.url());
    fs::write(world.path("mirror/list-9"), list).expect("a list");
    let source = Source::MirrorList(format!("{}/list-$releasever", world.mirror.url()));
    let metadata = world
        .refresh_with(&world.repository(source.clone()))
        .expect("the second is good");
    assert!(metadata.repositories[0].packages().is_ok());
    let said = metadata.warnings.join("\n");
    assert!(
        said.contains("was passed over") && said.contains("primary"),
        "{said}"
    );
    // Without network, the last good state is there, and whence its packages come.
    let all = [world.repository(source)];
    let kept = kiln_packages::rpm::load_cached(&all, &world.path("metadata"), SystemTime::now())
        .expect("kept");
    assert_eq!(kept.repositories[0].packages().expect("good").len(), 5);
    assert_eq!(kept.repositories[0].bases[0], bad.url());
    // If none is good, each is named.
    world
        .mirror
        .inject(Rule::always("*/repomd.xml", Fault::Status(500)));
    bad.inject(Rule::always("*/repomd.xml", Fault::NotFound));
    let error = world.refresh_with(&all[0]).expect_err("none");
    assert!(
        error.to_string().contains(&bad.url()) && error.to_string().contains(&world.mirror.url()),
        "{error}"
    );
}

#[test]
fn a_metalink_says_which_mirror_is_stale() {
    let world = World::new();
    let old = world.path("old");
    good(
        "cp",
        &[
            "-a",
            &world.path("mirror").to_string_lossy(),
            &old.to_string_lossy(),
        ],
    );
    world.createrepo(&["--revision", "2"]);
    let (stale, now) = (Mirror::of(old.clone()), &world.mirror);
    let digest = |path: &str| Digest::of(&fs::read(world.path(path)).expect("repomd.xml"));
    let (current, former) = (digest(REPOMD), digest("old/repodata/repomd.xml"));
    let write = |current: Digest, former: &str, mirrors: &[&Mirror]| {
        let urls: String = mirrors
            .iter()
            .map(|m| format!("<url protocol='http'>{}/repodata/repomd.xml</url>", m.url()))
            .collect();
        let text = format!(
            "<metalink><files><file name='repomd.xml'><verification><hash type='sha256'>{current}</hash></verification>{former}\
             <resources>{urls}</resources></file></files></metalink>"
        );
        fs::write(world.path("mirror/metalink"), text).expect("a metalink");
    };
    let mut repository = world.repository(Source::Metalink(format!("{}/metalink", now.url())));
    repository.proof = Proof::Packages;
    // One that has something else is passed over.
    write(current, "", &[&stale, now]);
    let metadata = world
        .refresh_with(&repository)
        .expect("the second is right");
    assert_eq!(metadata.repositories[0].release, current);
    assert!(
        metadata.warnings[0].contains("not what the metalink promises"),
        "{:?}",
        metadata.warnings
    );
    // Kickstarts name metalinks as mirror lists; they are as good.
    repository.source = Source::MirrorList(format!("{}/metalink", now.url()));
    let metadata = world.refresh_with(&repository).expect("a metalink");
    assert_eq!(metadata.repositories[0].release, current);
    assert_eq!(metadata.warnings.len(), 1, "{:?}", metadata.warnings);
    // One that is known to be behind is used if there is no other, and said.
    repository.source = Source::Metalink(format!("{}/metalink", now.url()));
    let alternates = format!(
        "<alternates><alternate><verification><hash type='sha256'>{former}</hash></verification></alternate></alternates>"
    );
    write(current, &alternates, &[&stale]);
    fs::remove_dir_all(world.path("metadata")).expect("forgetting");
    let metadata = world
        .refresh_with(&repository)
        .expect("better than nothing");
    assert_eq!(metadata.repositories[0].release, former);
    assert!(
        metadata.warnings[0].contains("behind"),
        "{:?}",
        metadata.warnings
    );
    // None fits.
    write(Digest::of(b"other"), "", &[&stale, now]);
    let error = world.refresh_with(&repository).expect_err("none");
    assert_eq!(error.kind(), ErrorKind::HashMismatch, "{error}");
}

#[test]
fn a_mirror_that_falls_behind_takes_nothing_back() {
    let world = World::new();
    let text = fs::read_to_string(world.path(REPOMD)).expect("text");
    with_repomd(&world, |t| t.replace("<timestamp>", "<timestamp>4"));
    let newer = world.refresh().expect("good").repositories[0].release;
    fs::write(world.path(REPOMD), text).expect("text");
    world.sign();
    let metadata = world.refresh().expect("good");
    assert_eq!(metadata.repositories[0].release, newer);
    assert!(
        metadata.warnings[0].contains("is behind"),
        "{:?}",
        metadata.warnings
    );
}

const COMPS: &str = "<?xml version='1.0'?>
<!DOCTYPE comps PUBLIC '-//Red Hat, Inc.//DTD Comps info//EN' 'comps.dtd'>
<comps>
 <group><id>core</id><name>Core</name><name xml:lang='de'>Kern</name><packagelist>
  <packagereq type='mandatory'>shell</packagereq><packagereq type='default'>resolver</packagereq><packagereq>libc</packagereq>
  <packagereq type='conditional' requires='shell'>big-langpack</packagereq></packagelist></group>
 <environment><id>small</id><name>Small &amp; quick</name><grouplist><groupid>core</groupid></grouplist>
  <optionlist><groupid default='true'>tools</groupid><groupid>more</groupid></optionlist></environment>
</comps>";

#[test]
fn groups_and_environments_are_read_as_they_are_written() {
    use kiln_packages::rpm::comps::Member::{Conditional, Default, Mandatory, Optional};
    let world = World::new();
    let file = world.path("comps.xml");
    let comps = |text: &str| {
        fs::write(&file, text).expect("comps.xml");
        world.createrepo(&["-g", &file.to_string_lossy()]);
        world.refresh().expect("good metadata").repositories[0].comps()
    };
    let mut found = comps(COMPS).expect("good groups");
    let core = &found.groups["core"];
    let expected = [
        ("shell", Mandatory),
        ("resolver", Default),
        ("libc", Optional),
        ("big-langpack", Conditional("shell".into())),
    ];
    assert_eq!(
        core.packages,
        expected.map(|(name, member)| (name.to_owned(), member))
    );
    assert_eq!(core.name, "Core");
    let small = &found.environments["small"];
    assert_eq!(
        (small.name.as_str(), &small.groups[..]),
        ("Small & quick", &["core".to_owned()][..])
    );
    assert_eq!(
        small.options,
        [("tools".to_owned(), true), ("more".to_owned(), false)]
    );
    // What two repositories say of a group is joined.
    let more = comps(
        "<comps><group><id>core</id><packagelist><packagereq type='default'>extra</packagereq></packagelist></group></comps>",
    );
    found.join(more.expect("good groups"));
    assert_eq!(found.groups["core"].packages.len(), 5);
    for (says, text) in [
        (
            "of the unknown type",
            COMPS.replace("'default'>resolver", "'wanted'>resolver"),
        ),
        ("without a condition", COMPS.replace("requires=", "needs=")),
        ("with the id", COMPS.replace("<id>core</id>", "")),
        (
            "the environment small twice",
            COMPS.replace(
                "</comps>",
                "<environment><id>small</id></environment></comps>",
            ),
        ),
        ("is no list of groups", "<html></html>".to_owned()),
    ] {
        let error = comps(&text).expect_err(says);
        assert_eq!(
            (error.kind(), error.origin()),
            (ErrorKind::Malformed, Some("lab.ks:7")),
            "{error}"
        );
        assert!(error.to_string().contains(says), "{error}");
    }
    world.createrepo(&[]);
    assert!(
        world.refresh().expect("good metadata").repositories[0]
            .comps()
            .expect("none")
            .groups
            .is_empty()
    );
}

/// `modules.yaml` as createrepo's own program adds it.
#[test]
fn module_streams_are_read_and_decide_what_is_seen() {
    let world = World::new();
    let modules = |text: &str| {
        let path = world.path("modules.yaml");
        fs::write(&path, text).expect("modules");
        let repodata = world.path("mirror/repodata").display().to_string();
        let path = path.display().to_string();
        good("modifyrepo_c", &["--mdtype", "modules", &path, &repodata]);
        world.sign();
        world
            .refresh()
            .expect("good metadata")
            .repositories
            .remove(0)
    };
    let shells = "---\ndocument: modulemd\nversion: 2\ndata:\n  name: shells\n  stream: \"5\"\n  artifacts:\n    rpms:\n    - shell-1:5.1-1.noarch\n...\n";
    let left = |text: &str| {
        let repository = modules(text);
        let mut packages = repository.packages().expect("packages");
        repository
            .modules()
            .expect("modules")
            .keep_default(&mut packages);
        packages.len()
    };
    assert_eq!(left(shells), 4);
    let default = format!(
        "{shells}---\ndocument: modulemd-defaults\nversion: 1\ndata:\n  module: shells\n  stream: 5\n...\n"
    );
    assert_eq!(left(&default), 5);
    let error = modules("document: modulemd\nversion: 2\ndata: []\n").modules();
    let error = error.expect_err("no modules");
    assert_eq!(
        (error.kind(), error.origin()),
        (ErrorKind::Malformed, Some("lab.ks:7"))
    );
}

#[test]
fn a_filter_leaves_packages_out() {
    let world = World::new();
    let mut repository = world.repository(world.base());
    repository.filter.include = vec!["*-langpack".into(), "libc".into()];
    repository.filter.exclude = vec!["big-*.noarch".into()];
    let metadata = world.refresh_with(&repository).expect("good metadata");
    let left = metadata.repositories[0].packages().expect("packages");
    assert_eq!(
        names(&left),
        ["libc-2.34-1.noarch", "small-langpack-2.34-1.noarch"]
    );
}

/// The mirror as the proxy of one repository: its host does not exist.
#[test]
fn a_repository_has_a_proxy_of_its_own() {
    let world = World::new();
    let mut repository = world.repository(Source::Base(vec!["http://mirror.invalid".into()]));
    repository.proxy = Some(world.mirror.url());
    let metadata = world.refresh_with(&repository).expect("good metadata");
    assert_eq!(
        metadata.repositories[0].packages().expect("packages").len(),
        5
    );
    let asked = world.mirror.take_requests();
    assert!(
        asked
            .iter()
            .all(|r| r.target.starts_with("http://mirror.invalid/repodata/")),
        "{:?}",
        asked.iter().map(|r| &r.target).collect::<Vec<_>>()
    );
    repository.proxy = Some("ftp://me:secret@h".into());
    let error = world.refresh_with(&repository).expect_err("no such proxy");
    assert_eq!(
        (error.kind(), error.to_string().as_str()),
        (
            ErrorKind::Input,
            "the proxy of baseos (http://mirror.invalid) cannot be used"
        )
    );
    // On a server a stranger's proxy would reach what is closed to him.
    let guarded = kiln_packages::FetchOptions {
        only: Some(|_| true),
        ..crate::support::options()
    };
    let cancel = kiln_packages::CancelToken::new();
    let fetcher = kiln_packages::Fetcher::new(guarded, cancel).expect("a fetcher");
    repository.proxy = Some(world.mirror.url());
    let error = kiln_packages::rpm::refresh(
        &fetcher,
        &[repository],
        &world.path("guarded"),
        SystemTime::now(),
    )
    .expect_err("a proxy of a stranger");
    assert_eq!(error.kind(), ErrorKind::Refused);
}

/// The list of all files is fetched for whoever asks for it, once, and tells whose a path is.
#[test]
fn the_list_of_all_files_is_fetched_on_demand() {
    let world = World::new();
    let fetcher = crate::support::fetcher();
    let directory = world.path("metadata");
    let all = [world.repository(world.base())];
    let refresh = || {
        let metadata = kiln_packages::rpm::refresh(&fetcher, &all, &directory, SystemTime::now());
        metadata.expect("good metadata")
    };
    let asked = || {
        let requests = world.mirror.take_requests().into_iter();
        requests
            .filter(|request| request.target.contains("filelists"))
            .count()
    };
    let wanted = ["/usr/bin/shell", "/usr/bin/nothing"]
        .map(str::to_owned)
        .into();
    let mut metadata = refresh();
    assert_eq!(asked(), 0);
    assert!(
        metadata.repositories[0]
            .with_files(&wanted)
            .expect("none")
            .is_empty()
    );
    for times in [1, 0] {
        let added = kiln_packages::rpm::add_filelists(&fetcher, &mut metadata, &directory);
        added.expect("a good list");
        assert_eq!(asked(), times);
        // What is at hand stays there.
        let found = metadata.repositories[0]
            .with_files(&wanted)
            .expect("a good list");
        let shell = metadata.repositories[0].packages().expect("packages");
        let shell = shell.iter().find(|p| p.name == "shell").expect("shell");
        assert_eq!(
            found,
            [(shell.sha256.expect("a digest"), "/usr/bin/shell".to_owned())]
        );
        metadata = refresh();
    }
    fs::remove_dir_all(&directory).expect("forgetting");
    world
        .mirror
        .inject(Rule::always("*filelists*", Fault::Flip { offset: 50 }));
    let mut metadata = refresh();
    let error = kiln_packages::rpm::add_filelists(&fetcher, &mut metadata, &directory);
    let error = error.expect_err("another list");
    assert_eq!(
        (error.kind(), error.origin()),
        (ErrorKind::HashMismatch, Some("lab.ks:7"))
    );
}
