//! disk.tar.gz, judged by gzip, tar and Python.

mod outsiders;

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use kiln_image::ErrorKind;
use kiln_image::disk::Bytes;
use kiln_image::targz::{Summary, TarGz};
use outsiders::{noise, run, text, tool};

/// A disk with everything: random bytes, zeros that were written, text, holes, at odd places.
fn image(dir: &Path, len: u64) -> PathBuf {
    let path = dir.join("disk.raw");
    let file = File::create(&path).unwrap();
    file.set_len(len).unwrap();
    let words: String = (0..200_000)
        .map(|n| format!("line {} of {n}\n", n % 77))
        .collect();
    file.write_all_at(&noise(5_000_001, 1), 1 << 20).unwrap();
    file.write_all_at(words.as_bytes(), (8 << 20) + 4097)
        .unwrap();
    file.write_all_at(&vec![0; 3 << 20], 20 << 20).unwrap();
    file.write_all_at(&noise(300_000, 2), len - 300_000)
        .unwrap();
    path
}

fn pack(image: &Path, threads: usize) -> (PathBuf, Summary) {
    let out = image.with_file_name(format!("disk.{threads}.tar.gz"));
    let mut passed = 0;
    let source = File::open(image).unwrap();
    let summary = TarGz::new(1_700_000_000, threads)
        .write(&source, &mut File::create(&out).unwrap(), &mut |n| {
            passed += n;
            Ok(())
        })
        .unwrap();
    let len = source.metadata().unwrap().len();
    assert_eq!(passed, len);
    assert_eq!(summary.size.0, fs::metadata(&out).unwrap().len());
    assert_eq!(
        summary.zeros.0 + summary.stored.0 + summary.compressed.0,
        len
    );
    (out, summary)
}

#[test]
fn gzip_tar_and_python_give_the_image_back() {
    let dir = tempfile::tempdir().unwrap();
    let image = image(dir.path(), 60 << 20);
    let (packed, summary) = pack(&image, 2);
    run("gzip", ["-t", text(&packed)]);
    let listing = run("tar", ["--utc", "-tvzf", text(&packed)]);
    assert_eq!(
        listing.split_whitespace().collect::<Vec<_>>(),
        [
            "-rw-r--r--",
            "root/root",
            "62914560",
            "2023-11-14",
            "22:13",
            "disk.raw"
        ]
    );
    let out = dir.path().join("out");
    fs::create_dir(&out).unwrap();
    run("tar", ["-xzf", text(&packed), "-C", text(&out)]);
    run("cmp", [text(&image), text(&out.join("disk.raw"))]);
    let script = "import sys,tarfile,hashlib\n\
        t=tarfile.open(sys.argv[1],'r:gz'); m=t.getmembers()\n\
        assert [(x.name,x.size,x.mode,x.mtime) for x in m]==[('disk.raw',62914560,0o644,1700000000)], m\n\
        a=hashlib.sha256(t.extractfile(m[0]).read()); b=hashlib.sha256(open(sys.argv[2],'rb').read())\n\
        assert a.digest()==b.digest()\n";
    run("python3", ["-c", script, text(&packed), text(&image)]);
    assert!(
        summary.zeros.0 > 45 << 20 && summary.stored.0 > 5_000_000,
        "{summary:?}"
    );
    assert!(summary.compressed.0 < 5 << 20, "{summary:?}");
}

#[test]
fn the_bytes_do_not_depend_on_the_threads() {
    let dir = tempfile::tempdir().unwrap();
    let image = image(dir.path(), 40_000_000);
    let one = fs::read(pack(&image, 0).0).unwrap();
    for threads in [1, 2, 5] {
        assert!(
            fs::read(pack(&image, threads).0).unwrap() == one,
            "{threads}"
        );
    }
}

#[test]
fn at_most_two_percent_larger_than_gzip() {
    let dir = tempfile::tempdir().unwrap();
    let image = image(dir.path(), 60 << 20);
    let (_, summary) = pack(&image, 2);
    let theirs = dir.path().join("theirs.tar.gz");
    let mut tar = tool("tar");
    tar.args([
        "-I",
        "gzip -6",
        "-cf",
        text(&theirs),
        "-C",
        text(dir.path()),
        "disk.raw",
    ]);
    assert!(tar.status().unwrap().success());
    let theirs = fs::metadata(theirs).unwrap().len();
    let ours = summary.size.0;
    assert!(ours * 100 <= theirs * 102, "{ours} against {theirs}");
}

#[test]
fn sizes_over_8_gib_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk.raw");
    let file = File::create(&path).unwrap();
    file.set_len(9 << 30).unwrap();
    file.write_all_at(b"the end", (9 << 30) - 7).unwrap();
    let (packed, _) = pack(&path, 2);
    assert!(fs::metadata(&packed).unwrap().len() < 10 << 20);
    let script = "import sys,zlib\n\
        d=zlib.decompressobj(31); f=open(sys.argv[1],'rb'); h=d.decompress(f.read(1000),512)\n\
        import tarfile; i=tarfile.TarInfo.frombuf(h,'ascii','strict'); assert (i.name,i.size)==('disk.raw',9<<30), i.size\n";
    run("python3", ["-c", script, text(&packed)]);
}

#[test]
fn odd_sizes_and_nothing_at_all() {
    let dir = tempfile::tempdir().unwrap();
    for len in [0, 1, 511, 512, 513, 65_535, 65_537, 1_048_577] {
        let path = dir.path().join("disk.raw");
        fs::write(&path, noise(len, 9)).unwrap();
        let (packed, _) = pack(&path, 2);
        let mut command = tool("tar");
        let output = command.args(["-xzOf", text(&packed)]).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        assert!(output.stdout == noise(len, 9), "{len}");
    }
}

#[test]
fn a_stop_and_a_full_disk_end_in_errors() {
    let dir = tempfile::tempdir().unwrap();
    let image = File::open(image(dir.path(), 40_000_000)).unwrap();
    let stop = TarGz::new(0, 2).write(&image, &mut Vec::new(), &mut |_| {
        Err(kiln_image::Error::cancelled())
    });
    assert_eq!(stop.unwrap_err().kind(), ErrorKind::Cancelled);
    let mut full = File::options().write(true).open("/dev/full").unwrap();
    let error = TarGz::new(0, 2)
        .write(&image, &mut full, &mut |_| Ok(()))
        .unwrap_err();
    // Whose disk it is the caller knows, who makes it the environment's failure.
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(cause.contains("No space left on device"), "{cause}");
    assert_eq!(error.to_string(), "writing the compressed disk image");
    let long = TarGz {
        member: "x".repeat(101),
        ..TarGz::new(0, 1)
    };
    assert!(
        long.write(&image, &mut Vec::new(), &mut |_| Ok(()))
            .is_err()
    );
    assert_eq!(Bytes::mib(1).0, 1 << 20);
}
