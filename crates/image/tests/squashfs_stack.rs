//! A warm image of layers, made from their manifests and the block store, is bit for bit the cold image of what the
//! kernel's overlay shows of them.

mod nasty;

use std::collections::HashSet;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{Cursor, Read, Seek, SeekFrom};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use kiln_image::blocks::PackStore;
use kiln_image::squashfs::{self, BlockStore, Codec, Options, Summary};
use kiln_image::tree::{
    Expected, Kind, Manifest, Overlay, Pattern, ScanOptions, Tree, first_other, provider,
};
use nasty::{Builder, assert_same, manifest, need_root, noise, run, unsquash};

const BLOCK: u32 = 4 << 10;

fn options() -> Options {
    Options {
        level: 3,
        block_size: BLOCK,
        threads: 2,
        mtime: 7,
        ..Options::new(Codec::Zstd)
    }
}

fn image(tree: &Tree, options: &Options) -> (Vec<u8>, Summary) {
    // A file, as in a build: what is known is copied into it by several threads.
    let mut out = tempfile::tempfile().unwrap();
    let summary = squashfs::write(tree, &mut out, options, &|_, _| {}).unwrap();
    let mut bytes = Vec::new();
    out.seek(SeekFrom::Start(0)).unwrap();
    out.read_to_end(&mut bytes).unwrap();
    (bytes, summary)
}

/// Layers on disk, changed through the kernel's own overlay, so that whiteouts and marks are the kernel's.
struct Layers {
    work: PathBuf,
    count: usize,
    manifests: Vec<Manifest>,
}

impl Layers {
    fn new(work: &Path) -> Self {
        let base = work.join("l0");
        Builder::nasty(&base);
        // In a lowest layer there is nothing that it could hide.
        fs::remove_file(base.join("types/overlay-whiteout")).unwrap();
        for i in 0..150u64 {
            let directory = base.join(format!("lib/d{}", i % 9));
            fs::create_dir_all(&directory).unwrap();
            let bytes = noise(i % 140, (i * 211 % 9000) as usize);
            fs::write(directory.join(format!("f{i}.{}", i % 3)), bytes).unwrap();
        }
        for name in ["mnt", "copy"] {
            fs::create_dir(work.join(name)).unwrap();
        }
        let mut layers = Layers {
            work: work.to_owned(),
            count: 0,
            manifests: Vec::new(),
        };
        layers.record();
        layers
    }

    fn record(&mut self) {
        let manifest = Manifest::record(&self.path(self.count), BLOCK, 2).unwrap();
        let stored = manifest.encode();
        assert!(Manifest::is_whole(&stored, BLOCK) && !Manifest::is_whole(&stored, BLOCK * 2));
        let read = Manifest::decode(&stored).unwrap();
        assert_eq!(read.encode(), stored);
        self.manifests.insert(0, read);
        self.count += 1;
    }

    fn path(&self, layer: usize) -> PathBuf {
        self.work.join(format!("l{layer}"))
    }

    /// Runs a script in the overlay, whose changes become the next layer, and copies what the overlay shows afterwards.
    fn change(&mut self, script: &str) {
        let lower: Vec<String> = (0..self.count).rev().map(|i| format!("l{i}")).collect();
        let upper = format!("l{}", self.count);
        fs::create_dir(self.work.join(&upper)).unwrap();
        fs::create_dir(self.work.join("w")).unwrap();
        let text = format!(
            "set -e; cd '{}'
mount -t overlay overlay -o lowerdir={},upperdir={upper},workdir=w,userxattr,index=off mnt
rm -rf copy; (cd mnt; {script})
cp -aT mnt copy",
            self.work.display(),
            lower.join(":")
        );
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c"]);
        run(command.arg(&text));
        fs::remove_dir_all(self.work.join("w")).unwrap();
        self.record();
    }

    fn stack(&self, options: &ScanOptions) -> Tree {
        let roots: Vec<PathBuf> = (0..self.count).rev().map(|i| self.path(i)).collect();
        let tree = Tree::stack(&self.manifests, &roots, options).unwrap();
        tree.expect("the kernel's marks are known")
    }

    /// Every path that the overlay shows is expected, and is there as expected.
    fn assert_expected(&self, script: &str) {
        let all: Vec<Arc<Manifest>> = self.manifests.iter().cloned().map(Arc::new).collect();
        let overlay = Overlay::new(all).expect("the kernel's marks are known");
        let shown = Tree::scan(&self.copy(), &ScanOptions::default()).unwrap();
        for entry in shown.walk() {
            let mut expected = HashSet::new();
            overlay.expect(&entry.path, true, &mut expected);
            let expected: Vec<Expected> = expected.into_iter().collect();
            let path = String::from_utf8_lossy(&entry.path);
            let other = first_other(&self.copy(), &expected, 1).unwrap();
            assert_eq!(other, None, "{path} after {script}");
            let counts = matches!(
                entry.inode.kind,
                Kind::File(_) | Kind::Directory(_) | Kind::Symlink(_)
            );
            assert_eq!(counts, !expected.is_empty(), "{path} after {script}");
        }
        let mut expected = HashSet::new();
        overlay.expect(b"/opt/missing", true, &mut expected);
        assert_eq!(expected, HashSet::new());
    }

    fn copy(&self) -> PathBuf {
        self.work.join("copy")
    }

    /// Files and directories of what the overlay shows, in order.
    fn names(&self) -> (Vec<String>, Vec<String>) {
        let (mut files, mut directories) = (Vec::new(), Vec::new());
        let mut pending = vec![self.copy()];
        while let Some(directory) = pending.pop() {
            for entry in fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                let metadata = path.symlink_metadata().unwrap();
                let relative = path.strip_prefix(self.copy()).unwrap();
                let Some(name) = relative.to_str().filter(|n| {
                    n.bytes()
                        .all(|b| b.is_ascii_alphanumeric() || b"./_-".contains(&b))
                }) else {
                    continue;
                };
                if metadata.is_dir() {
                    directories.push(name.to_owned());
                    pending.push(path);
                } else if metadata.is_file() && metadata.size() < 200_000 {
                    files.push(name.to_owned());
                }
            }
        }
        files.sort();
        directories.sort();
        (files, directories)
    }
}

/// Numbers that look random and are the same every time.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % sides
    }

    fn pick<'a>(&mut self, from: &'a [String]) -> &'a str {
        &from[self.roll(from.len())]
    }
}

fn edit(dice: &mut Dice, round: usize, files: &[String], directories: &[String]) -> String {
    let (file, other) = (dice.pick(files), dice.pick(files));
    let directory = dice.pick(directories);
    match round % 14 {
        0 => format!(
            "head -c {} /dev/zero | tr '\\0' q > '{directory}/new{round}'",
            dice.roll(20_000)
        ),
        1 => format!("echo {round} >> '{file}'"),
        2 => format!("mv '{file}' '{directory}/moved{round}'"),
        3 => format!("rm '{file}' '{other}' || true"),
        4 => format!(
            "chmod {:o} '{file}'; chmod 750 '{directory}'",
            dice.roll(512)
        ),
        5 => format!(
            "chown {}:{} '{file}'; chown 3 '{directory}'",
            dice.roll(99),
            dice.roll(99)
        ),
        6 => format!(
            "setfattr -n user.round -v {round} '{file}'; setfattr -n trusted.t -v x '{directory}'"
        ),
        7 => format!("rm -r '{directory}'; mkdir -p '{directory}'; echo new > '{directory}/again'"),
        8 => format!("ln '{file}' '{directory}/link{round}'"),
        9 => format!("rm '{file}'; mkdir '{file}'; echo x > '{file}/inside'"),
        10 => format!("rm -r '{directory}'; ln -s /nowhere '{directory}'"),
        11 => format!("touch -d @{round}.000000001 '{file}' '{directory}'"),
        // A package goes up and, the next time, down again.
        12 => (0..8).fold(String::new(), |mut script, i| {
            let _ = write!(
                script,
                "mkdir -p opt; echo {} > opt/p{i};",
                round / 14 % 2 + i
            );
            script
        }),
        _ => format!(
            "mv '{directory}' 'dir{round}' || true; dd if=/dev/zero of='{other}' bs=1 seek=70000 count=1 conv=notrunc 2>&1"
        ),
    }
}

#[test]
fn fifty_edits_give_the_cold_image_every_time_needs_root() {
    need_root();
    let work = tempfile::tempdir().unwrap();
    let mut layers = Layers::new(work.path());
    layers.change("true");
    let store = work.path().join("blocks");
    fs::create_dir(&store).unwrap();
    let scan = ScanOptions {
        exclude: vec![Pattern::new("lib/d3/*").unwrap()],
        clamp_mtime: Some(4_000_000_000),
        ..ScanOptions::default()
    };
    let mut dice = Dice(20_261_123);
    let (mut reused, mut made) = (0, 0);
    for round in 0..50 {
        let (files, directories) = layers.names();
        let script = edit(&mut dice, round, &files, &directories);
        layers.change(&script);
        let (cold, _) = image(&Tree::scan(&layers.copy(), &scan).unwrap(), &options());
        let directory = File::open(&store).unwrap().into();
        let packs = Arc::new(PackStore::open(directory).unwrap().with_reserve(0));
        let warm = Options {
            block_store: Some(Arc::clone(&packs) as Arc<dyn BlockStore>),
            ..options()
        };
        let (bytes, summary) = image(&layers.stack(&scan), &warm);
        assert_eq!(packs.finish().trouble, None);
        assert!(bytes == cold, "round {round}: {script}");
        if round > 0 {
            reused += summary.reused_blocks;
            made += summary.blocks + u64::from(summary.fragments) - summary.reused_blocks;
        }
        if round % 12 == 11 {
            layers.assert_expected(&script);
            let (path, target) = (work.path().join("image"), work.path().join("target"));
            let all = ScanOptions::default();
            fs::write(&path, image(&layers.stack(&all), &warm).0).unwrap();
            unsquash(&path, &target);
            assert_same(&manifest(&layers.copy()), &manifest(&target), &script);
            fs::remove_dir_all(&target).unwrap();
        }
    }
    assert!(made * 10 < reused, "{made} new, {reused} old blocks");
}

/// Changes bytes of a file behind everybody's back: size and time stay.
fn flip(path: &Path) {
    let times = fs::metadata(path).unwrap();
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    let file = File::options().write(true).open(path).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &bytes, 0).unwrap();
    file.set_modified(times.modified().unwrap()).unwrap();
}

#[test]
fn a_flipped_bit_in_a_layer_is_named_and_never_in_an_image() {
    let work = tempfile::tempdir().unwrap();
    let (lower, upper) = (work.path().join("lower"), work.path().join("upper"));
    for directory in [&lower, &upper] {
        fs::create_dir_all(directory.join("d")).unwrap();
    }
    fs::write(lower.join("d/large"), noise(1, 50_000)).unwrap();
    fs::write(lower.join("d/small"), noise(2, 500)).unwrap();
    fs::write(lower.join("d/tiny"), noise(4, 600)).unwrap();
    fs::write(upper.join("d/other"), noise(3, 5_000)).unwrap();
    let manifests: Vec<Manifest> = [&upper, &lower]
        .map(|root| Manifest::record(root, BLOCK, 1).unwrap())
        .into();
    let stack = || {
        let roots = [upper.clone(), lower.clone()];
        let tree = Tree::stack(&manifests, &roots, &ScanOptions::default()).unwrap();
        tree.unwrap()
    };
    let (good, _) = image(&stack(), &options());
    for name in ["d/large", "d/small"] {
        flip(&lower.join(name));
        let mut out = Cursor::new(Vec::new());
        let error = squashfs::write(&stack(), &mut out, &options(), &|_, _| {}).unwrap_err();
        let path = error.damaged_path().unwrap();
        assert_eq!(path, Path::new(name).as_os_str().as_bytes());
        assert_eq!(provider(&manifests, path), Some(1));
        let now = Manifest::record(&lower, BLOCK, 1).unwrap();
        assert_eq!(now.differences(&manifests[1]), [name.as_bytes().to_vec()]);
        flip(&lower.join(name));
    }
    assert!(image(&stack(), &options()).0 == good);
}

#[test]
fn what_links_lead_to_is_expected_and_a_difference_found() {
    let work = tempfile::tempdir().unwrap();
    let (lower, upper) = (work.path().join("lower"), work.path().join("upper"));
    let link = |target: &str, at: PathBuf| std::os::unix::fs::symlink(target, at).unwrap();
    fs::create_dir_all(lower.join("usr/lib/deep")).unwrap();
    fs::write(lower.join("usr/lib/deep/file"), noise(1, 50_000)).unwrap();
    link("usr/lib", lower.join("lib"));
    link("/lib/deep/../deep/./file", lower.join("name"));
    link("circle", lower.join("circle"));
    fs::create_dir_all(upper.join("usr/lib/deep")).unwrap();
    fs::write(upper.join("usr/lib/deep/other"), "other").unwrap();
    let all = [&upper, &lower].map(|root| Arc::new(Manifest::record(root, BLOCK, 1).unwrap()));
    let overlay = Overlay::new(all.into()).unwrap();
    let expect = |path: &str, names: bool| {
        let mut expected = HashSet::new();
        overlay.expect(path.as_bytes(), names, &mut expected);
        let mut expected: Vec<Expected> = expected.into_iter().collect();
        expected.sort_by(|a, b| a.path.cmp(&b.path));
        expected
    };
    let places = |expected: &[Expected]| -> Vec<(String, usize)> {
        let place = |one: &Expected| (String::from_utf8(one.path.clone()).unwrap(), one.layer);
        expected.iter().map(place).collect()
    };
    let place = |path: &str, layer| (path.to_owned(), layer);
    let through = expect("/name", false);
    let file = place("usr/lib/deep/file", 1);
    assert_eq!(
        places(&through),
        [place("lib", 1), place("name", 1), file.clone()]
    );
    assert_eq!(places(&expect("/circle", false)), [place("circle", 1)]);
    assert_eq!(places(&expect("/../usr/lib/deep/file", false)), [file]);
    // Below a file, and beside what is there, is nothing.
    assert_eq!(places(&expect("/usr/lib/deep/file/x", true)), []);
    assert_eq!(places(&expect("/usr/lib/deep", false)), []);
    let names = expect("/usr/lib/deep", true);
    assert_eq!(places(&names), [place("usr/lib/deep", 0)]);
    // What the overlay shows, as the kernel would.
    let shown = work.path().join("shown");
    run(Command::new("cp").arg("-aT").args([&lower, &shown]));
    run(Command::new("cp").arg("-aT").args([&upper, &shown]));
    let other = |expected: &[Expected]| {
        let other = first_other(&shown, expected, 2).unwrap();
        other.map(|one| String::from_utf8(one.path.clone()).unwrap())
    };
    let all = [through, names].concat();
    assert_eq!(other(&all), None);
    flip(&shown.join("usr/lib/deep/file"));
    assert_eq!(other(&all).as_deref(), Some("usr/lib/deep/file"));
    flip(&shown.join("usr/lib/deep/file"));
    fs::remove_file(shown.join("usr/lib/deep/other")).unwrap();
    assert_eq!(other(&all).as_deref(), Some("usr/lib/deep"));
    fs::write(shown.join("usr/lib/deep/other"), "other").unwrap();
    fs::remove_file(shown.join("lib")).unwrap();
    link("usr/lab", shown.join("lib"));
    assert_eq!(other(&all).as_deref(), Some("lib"));
}
