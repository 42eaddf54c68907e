//! Packages that are small and unpack to more than they may, and packages that are not what the index says: each is refused
//! by its name, soon and within little memory.

use std::path::Path;

use kiln_packages::debian::deb::Deb;
use kiln_packages::debian::unpack::{Owners, unpack};
use kiln_packages::{Error, ErrorKind};
use kiln_testkit::Package;
use kiln_testkit::package::{Compression, Entry};

const MIB: usize = 1 << 20;

fn write(directory: &Path, package: &Package) -> Deb {
    let path = directory.join(package.file_name());
    let bytes = package.build();
    assert!(bytes.len() < MIB, "a bomb is small: {}", bytes.len());
    std::fs::write(&path, bytes).expect("writing");
    Deb::open(&path).expect("an archive")
}

fn refused(error: &Error, name: &str, why: &str) {
    let text = error.to_string();
    assert_eq!(error.kind(), ErrorKind::Malformed, "{text}");
    assert!(text.contains(name) && text.contains(why), "{text}");
    assert!(
        text.len() < 1000,
        "a message, not the bomb: {} bytes",
        text.len()
    );
}

/// Both ways to read a data archive refuse it.
fn data_refused(package: &Package, why: &str) {
    let directory = tempfile::tempdir().expect("a directory");
    let deb = write(directory.path(), package);
    let root = directory.path().join("root");
    std::fs::create_dir(&root).expect("a directory");
    let error = unpack(&deb, &root, Owners::Caller).expect_err("unpacking");
    refused(&error, &package.name, why);
    let error = deb.entries(&mut |_, _| Ok(())).expect_err("reading");
    refused(&error, &package.name, why);
}

fn bomb(entry: Entry) -> Package {
    Package::new("bomb", "1")
        .compressed(Compression::Zstd)
        .entry(entry)
        .entry(Entry::file("./usr/share/bomb/after", "x"))
}

#[test]
fn records_and_long_names_before_an_entry_are_bounded() {
    for kind in [b'x', b'L', b'K'] {
        let mut header = Entry::special("./usr/share/bomb/record", tar::EntryType::new(kind));
        header.content = vec![b'a'; 64 * MIB];
        data_refused(&bomb(header), "names and records");
    }
}

#[test]
fn names_are_no_longer_than_a_path_can_be() {
    let long = format!("./usr/share/{}", "a/".repeat(5000));
    data_refused(&bomb(Entry::file(&long, "x")), "more than 4096 bytes");
    data_refused(&bomb(Entry::symlink("./l", &long)), "more than 4096 bytes");
}

#[test]
fn sparse_files_are_refused_as_dpkg_refuses_them() {
    let sparse = Entry::special("./usr/share/bomb/sparse", tar::EntryType::GNUSparse);
    data_refused(&bomb(sparse), "type");
}

#[test]
fn more_entries_than_any_package_has_are_refused() {
    let mut package = Package::new("bomb", "1").compressed(Compression::Zstd);
    let one = Entry::hard_link("./usr/share/bomb/x", "./usr/share/bomb/version");
    package.data.extend(std::iter::repeat_n(one, 1 << 20));
    let directory = tempfile::tempdir().expect("a directory");
    let deb = write(directory.path(), &package);
    let error = deb.entries(&mut |_, _| Ok(())).expect_err("too many");
    refused(&error, "bomb", "entries");
}

#[test]
fn a_control_archive_over_its_limit_is_an_error_and_never_cut() {
    let directory = tempfile::tempdir().expect("a directory");
    let large = String::from_utf8(vec![b'#'; 65 * MIB]).expect("ASCII");
    let package = Package::new("bomb", "1")
        .compressed(Compression::Zstd)
        .script("postinst", &large);
    let error = write(directory.path(), &package)
        .control()
        .expect_err("too large");
    refused(&error, "bomb", "control archive");
    let fitting = package.script("x", "").compressed(Compression::Xz);
    let fitting = Package {
        control: vec![("postinst".into(), vec![b'#'; 32 * MIB])],
        ..fitting
    };
    let control = write(directory.path(), &fitting)
        .control()
        .expect("it fits");
    assert_eq!(control.script("postinst").map(<[u8]>::len), Some(32 * MIB));
}

#[test]
fn a_package_that_calls_itself_otherwise_than_the_index_is_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    let deb = write(directory.path(), &Package::new("mine", "1.0"));
    assert!(deb.control_of("mine", "1.0", "all").is_ok());
    for (name, version, architecture, field) in [
        ("other", "1.0", "all", "Package \"mine\""),
        ("mine", "2.0", "all", "Version \"1.0\""),
        ("mine", "1.0", "amd64", "Architecture \"all\""),
    ] {
        let error = deb.control_of(name, version, architecture).expect_err(name);
        refused(&error, "mine_1.0_all.deb", field);
    }
}
