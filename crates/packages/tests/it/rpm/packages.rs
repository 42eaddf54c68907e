//! Package files: what rpm made, and what somebody made of it.

use std::fs;

use std::path::PathBuf;
use std::time::SystemTime;

use kiln_packages::openpgp::Keyring;
use kiln_packages::rpm::PackageFile;
use kiln_packages::rpm::payload::Content;
use kiln_packages::{Digest, Error, ErrorKind};
use kiln_testkit::rpm::{Gpg, Rpm};
use tempfile::TempDir;

use crate::support::good;

/// A signed package with everything that a package can have.
struct World {
    directory: TempDir,
    key: Gpg,
    package: PathBuf,
}

fn rpm() -> Rpm {
    Rpm::new("many", "1.0~rc1")
        .tag("Epoch: 3")
        .file("%attr(4755,root,mail)", "/usr/bin/many", "#!/bin/true\n".repeat(9000))
        .file("%config(noreplace) %attr(0600,daemon,root)", "/etc/many.conf", "a = 1\n")
        .file("%caps(cap_net_raw=ep)", "/usr/bin/ping with space", "x")
        .file("", "/usr/share/many/empty", "")
        .made(
            "ln -s many %{buildroot}/usr/bin/other\nln %{buildroot}/usr/bin/many %{buildroot}/usr/bin/again\n\
             mkfifo %{buildroot}/usr/share/many/fifo\nmkdir -p %{buildroot}/var/many",
            "/usr/bin/other\n%attr(4755,root,mail) /usr/bin/again\n/usr/share/many/fifo\n%dir %attr(1777,root,root) /var/many\n%ghost /var/many/later\n",
        )
        .section("%pre\nexit 0\n%transfiletriggerin -- /usr/share/fonts\ntrue")
}

impl World {
    fn new(rpm: Rpm) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let key = Gpg::generate(&directory.path().join("gpg"), "rpm@example.org");
        let package = kiln_testkit::rpm::build(&[rpm], directory.path()).remove(0);
        World {
            directory,
            key,
            package,
        }
    }

    fn signed(rpm: Rpm) -> Self {
        let world = World::new(rpm);
        world
            .key
            .sign_packages(std::slice::from_ref(&world.package));
        world
    }

    fn keyring(&self) -> Keyring {
        Keyring::read("test.asc", &self.key.public()).expect("a key")
    }

    fn open(&self) -> Result<PackageFile, Error> {
        PackageFile::verify(&self.package, &self.keyring(), SystemTime::now())
    }

    /// The error that the changed package gives.
    fn changed(&self, change: impl FnOnce(&mut Vec<u8>)) -> Error {
        let mut bytes = fs::read(&self.package).expect("the package");
        change(&mut bytes);
        let path = self.directory.path().join("changed.rpm");
        fs::write(&path, bytes).expect("another package");
        let error =
            PackageFile::verify(&path, &self.keyring(), SystemTime::now()).expect_err("a change");
        assert!(error.to_string().contains("changed.rpm"), "{error}");
        error
    }

    fn query(&self, format: &str) -> String {
        good(
            "rpm",
            &[
                "-qp",
                "--nosignature",
                "--qf",
                format,
                &self.package.to_string_lossy(),
            ],
        )
    }

    /// Where the signed header begins, and where the payload does.
    fn offsets(&self) -> (usize, usize) {
        let bytes = fs::read(&self.package).expect("the package");
        let length = |at: usize| {
            let word = |at: usize| {
                u32::from_be_bytes(bytes[at..at + 4].try_into().expect("four")) as usize
            };
            16 + word(at + 8) * 16 + word(at + 12)
        };
        let header = (96 + length(96)).next_multiple_of(8);
        (header, header + length(header))
    }
}

#[test]
fn rpm_says_the_same_of_every_file() {
    let world = World::signed(rpm());
    let package = world.open().expect("a good package");
    let (name, evr, arch) = package.identity().expect("its identity");
    assert_eq!(
        format!("{name} {evr} {arch} {}", package.built()),
        world.query("%{NAME} %{EPOCH}:%{VERSION}-%{RELEASE} %{ARCH} %{BUILDTIME}")
    );
    let files = package.files().expect("its files");
    let lines: String = files
        .iter()
        .map(|f| {
            let link = f.link.to_string_lossy();
            let digest = f.sha256.map(|d| d.to_string()).unwrap_or_default();
            let capabilities = f.capabilities.clone().unwrap_or_default();
            format!(
                "/{}|{:o}|{}|{}|{}|{}|{link}|{digest}|{capabilities}\n",
                f.path.display(),
                f.mode,
                f.user,
                f.group,
                f.size,
                f.time
            )
        })
        .collect();
    let format = "[%{FILENAMES}|%{FILEMODES:octal}|%{FILEUSERNAME}|%{FILEGROUPNAME}|%{FILESIZES}|%{FILEMTIMES}|%{FILELINKTOS}|%{FILEDIGESTS}|%{FILECAPS}\n]";
    assert_eq!(lines, world.query(format).replace("(none)", ""));
    assert_eq!(files.iter().filter(|f| f.is_ghost).count(), 1);
    let fingerprint = world.keyring().fingerprints().remove(0);
    assert_eq!(package.signer.fingerprint, fingerprint);
}

#[test]
fn every_compression_gives_the_files() {
    for how in ["w3.zstdio", "w6.xzdio", "w9.gzdio", "w9.bzdio", "w.ufdio"] {
        let world = World::signed(rpm().payload(how));
        let package = world.open().expect(how);
        let mut seen = Vec::new();
        let mut visit = |file: &kiln_packages::rpm::FileInfo, content: Content<'_>| {
            let said = match content {
                Content::File(reader) => {
                    let mut bytes = Vec::new();
                    reader.read_to_end(&mut bytes).expect("content");
                    assert_eq!(file.sha256, Some(Digest::of(&bytes)), "{how}");
                    bytes.len().to_string()
                }
                Content::HardLink(to) => format!("= {}", to.display()),
                Content::Link => format!("-> {}", file.link.to_string_lossy()),
                Content::Directory => "/".into(),
                Content::Special => "special".into(),
            };
            seen.push(format!("{} {said}", file.path.display()));
            Ok(())
        };
        package.entries(&mut visit).expect(how);
        seen.sort();
        let links: Vec<&String> = seen
            .iter()
            .filter(|line| line.starts_with("usr/bin/again") || line.starts_with("usr/bin/many"))
            .collect();
        assert!(
            links.iter().any(|l| l.contains(" = ")) && links.iter().any(|l| l.ends_with(" 108000")),
            "{links:?}"
        );
        let rest: Vec<&str> = seen
            .iter()
            .filter(|line| !links.contains(line))
            .map(String::as_str)
            .collect();
        let expected = [
            "etc/many.conf 6",
            "usr/bin/other -> many",
            "usr/bin/ping with space 1",
            "usr/share/many/empty 0",
            "usr/share/many/fifo special",
            "var/many /",
        ];
        assert_eq!(rest, expected, "{how}");
    }
}

#[test]
fn only_the_key_of_the_repository_counts() {
    let world = World::new(rpm());
    assert_eq!(
        world.open().expect_err("not signed").kind(),
        ErrorKind::Unsigned
    );
    let other = Gpg::generate(&world.directory.path().join("other"), "other@example.org");
    other.sign_packages(std::slice::from_ref(&world.package));
    let error = world.open().expect_err("another key");
    assert_eq!(error.kind(), ErrorKind::BadSignature, "{error}");
    assert!(
        error.to_string().contains("not among the accepted ones"),
        "{error}"
    );
}

/// The same package, signed in the way of rpm 3 beside the header's signature, and then in that way alone.
#[test]
fn a_signature_of_header_and_payload_proves_nothing() {
    let world = World::new(rpm());
    let packages = std::slice::from_ref(&world.package);
    world.key.sign_packages_with(packages, &["--rpmv3"]);
    world.open().expect("the header is signed, too");
    kiln_testkit::rpm::forget_header_signature(&world.package);
    let error = world.open().expect_err("the header is not signed");
    assert_eq!(error.kind(), ErrorKind::Unsigned, "{error}");
    assert!(
        error
            .to_string()
            .contains("signed only in the way of rpm 3"),
        "{error}"
    );
}

/// Red Hat's distributions sign packages with packets of OpenPGP's version 3, which is something else than the way of rpm 3.
#[test]
fn signature_packets_of_version_3_count() {
    let key = kiln_testkit::Key::generate("rpm@example.org");
    let ring = Keyring::read("key", &key.public_armored()).expect("a key");
    let signature = key.detach_as_version_3(b"a header");
    let judge = |text: &[u8]| ring.verify_detached("it", text, &signature, SystemTime::now());
    let signer = judge(b"a header").expect("a good signature");
    assert_eq!(signer.fingerprint, key.fingerprint());
    let error = judge(b"another header").expect_err("another text");
    assert_eq!(error.kind(), ErrorKind::BadSignature, "{error}");
    let stranger = kiln_testkit::Key::generate("other@example.org");
    let ring = Keyring::read("other", &stranger.public_armored()).expect("a key");
    ring.verify_detached("it", b"a header", &signature, SystemTime::now())
        .expect_err("a stranger's");
}

#[test]
fn not_a_byte_can_be_changed() {
    let world = World::signed(rpm());
    let (header, payload) = world.offsets();
    let length = fs::metadata(&world.package).expect("the package").len() as usize;
    assert_eq!(
        world.changed(|bytes| bytes[0] ^= 1).kind(),
        ErrorKind::Malformed
    );
    // In the index, in the store, at its end.
    for at in [header + 20, header + 2000, payload - 1] {
        assert_eq!(
            world.changed(|bytes| bytes[at] ^= 1).kind(),
            ErrorKind::BadSignature,
            "{at}"
        );
    }
    for at in [payload, payload + 100, length - 1] {
        let error = world.changed(|bytes| bytes[at] ^= 1);
        assert_eq!(error.kind(), ErrorKind::HashMismatch, "{at}: {error}");
        assert!(
            error
                .to_string()
                .contains("is not what its signed header says"),
            "{error}"
        );
    }
    for cut in [
        0,
        50,
        96,
        120,
        header - 1,
        header + 8,
        header + 100,
        payload - 1,
    ] {
        assert_eq!(
            world.changed(|bytes| bytes.truncate(cut)).kind(),
            ErrorKind::Malformed,
            "{cut}"
        );
    }
    for cut in [payload, length - 1] {
        assert_eq!(
            world.changed(|bytes| bytes.truncate(cut)).kind(),
            ErrorKind::HashMismatch,
            "{cut}"
        );
    }
    assert_eq!(
        world.changed(|bytes| bytes.push(0)).kind(),
        ErrorKind::HashMismatch
    );
}

#[test]
fn the_payload_of_another_package_is_refused() {
    let world = World::signed(rpm());
    let other = World::signed(Rpm::new("many", "2.0").file("", "/usr/bin/many", "other"));
    let (_, payload) = world.offsets();
    let strange = fs::read(&other.package).expect("the package")[other.offsets().1..].to_vec();
    let error = world.changed(|bytes| {
        bytes.truncate(payload);
        bytes.extend(strange);
    });
    assert_eq!(error.kind(), ErrorKind::HashMismatch, "{error}");
}
