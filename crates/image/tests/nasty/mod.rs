//! A tree on disk with everything that goes wrong in archives, and a manifest to compare trees by.
//!
//! Nothing here uses `kiln_image::tree`: what is compared is seen by other eyes.
#![allow(
    dead_code,
    reason = "every test file is a crate of its own and uses a part"
)]

use std::collections::{BTreeMap, HashMap};
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Permissions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, Timespec, Timestamps, XattrFlags, lgetxattr, llistxattr,
    lsetxattr, makedev, mknodat, utimensat,
};

/// `cap_net_raw+ep` as the kernel stores it (VFS_CAP_REVISION_2).
pub(crate) const CAP_NET_RAW: [u8; 20] = [
    1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
];

/// Fails with the name of what is missing.
pub(crate) fn need_root() {
    assert!(
        rustix::process::geteuid().is_root(),
        "this test makes devices and foreign owners: run it as root"
    );
}

/// Runs a tool of another project; a missing one fails the test by its name.
pub(crate) fn run(command: &mut Command) -> Output {
    let output = command
        .output()
        .unwrap_or_else(|e| panic!("{command:?} cannot be started ({e}): install squashfs-tools"));
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

/// Extracts with `unsquashfs`, which must have nothing to complain about.
pub(crate) fn unsquash(image: &Path, target: &Path) {
    let mut command = Command::new("unsquashfs");
    command
        .args(["-no-progress", "-quiet", "-dest"])
        .arg(target)
        .arg(image);
    let output = run(&mut command);
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(complaints.is_empty(), "{complaints}");
}

/// A shell whose mounts nobody else sees; its arguments are added to the command.
pub(crate) fn own_mounts(script: &str) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c"]);
    command.args([script, "sh"]);
    command
}

/// Mounts with the kernel in a mount namespace of its own and copies everything out.
pub(crate) fn kernel_copy(image: &Path, target: &Path) {
    let mount = target.with_extension("mount");
    fs::create_dir_all(&mount).unwrap();
    fs::create_dir_all(target).unwrap();
    let script = r#"mount -t squashfs -o loop,ro "$1" "$2" && cp -a "$2/." "$3" && umount "$2""#;
    let mut command = own_mounts(script);
    run(command.arg(image).arg(&mount).arg(target));
}

/// Bytes that compress to about a half, different for every seed.
pub(crate) fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..length)
        .map(|i| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            if i % 3 == 0 {
                b'x'
            } else {
                (state >> 32) as u8 & 0x3f
            }
        })
        .collect()
}

/// One name with everything that an image has to bring back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) mode: u32,
    pub(crate) owner: (u32, u32),
    pub(crate) mtime: i64,
    pub(crate) size: u64,
    pub(crate) device: u64,
    pub(crate) links: u64,
    /// The first name of the same inode.
    pub(crate) same_as: PathBuf,
    pub(crate) target: Option<PathBuf>,
    pub(crate) content: Option<blake3::Hash>,
    pub(crate) xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// Everything below a directory, and the directory itself as an empty path.
pub(crate) fn manifest(root: &Path) -> BTreeMap<PathBuf, Facts> {
    let mut paths = vec![PathBuf::new()];
    let mut pending = vec![PathBuf::new()];
    while let Some(directory) = pending.pop() {
        for entry in fs::read_dir(root.join(&directory)).unwrap() {
            let entry = entry.unwrap();
            let path = directory.join(entry.file_name());
            if entry.file_type().unwrap().is_dir() {
                pending.push(path.clone());
            }
            paths.push(path);
        }
    }
    paths.sort();
    let mut first = HashMap::new();
    paths
        .into_iter()
        .map(|path| (path.clone(), facts(root, path, &mut first)))
        .collect()
}

fn facts(root: &Path, path: PathBuf, first: &mut HashMap<u64, PathBuf>) -> Facts {
    let full = if path.as_os_str().is_empty() {
        root.to_owned()
    } else {
        root.join(&path)
    };
    let stat = fs::symlink_metadata(&full).unwrap();
    let is_directory = stat.is_dir();
    Facts {
        mode: stat.mode(),
        owner: (stat.uid(), stat.gid()),
        mtime: stat.mtime(),
        // A directory's size is the file system's own business; so are its links on some.
        size: if is_directory { 0 } else { stat.size() },
        links: if is_directory { 0 } else { stat.nlink() },
        device: stat.rdev(),
        same_as: first.entry(stat.ino()).or_insert(path).clone(),
        target: stat.is_symlink().then(|| fs::read_link(&full).unwrap()),
        content: stat.is_file().then(|| digest(&full)),
        xattrs: xattrs(&full),
    }
}

fn digest(path: &Path) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    let mut file = File::open(path).unwrap();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer).unwrap() {
            0 => return hasher.finalize(),
            n => hasher.update(&buffer[..n]),
        };
    }
}

fn xattrs(path: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let (mut names, mut value) = (vec![0; 65_536], vec![0; 65_536]);
    let length = llistxattr(path, &mut names[..]).unwrap();
    names[..length]
        .split(|b| *b == 0)
        .filter(|name| !name.is_empty())
        .map(|name| {
            let length = lgetxattr(path, OsStr::from_bytes(name), &mut value[..]).unwrap();
            (name.to_vec(), value[..length].to_vec())
        })
        .collect()
}

/// Says which names differ before it fails, not both trees in full.
pub(crate) fn assert_same(
    expected: &BTreeMap<PathBuf, Facts>,
    found: &BTreeMap<PathBuf, Facts>,
    what: &str,
) {
    for (path, facts) in expected {
        assert_eq!(found.get(path), Some(facts), "{what}: {path:?}");
    }
    for path in found.keys() {
        assert!(
            expected.contains_key(path),
            "{what}: {path:?} should not be there"
        );
    }
}

/// Builds the nasty tree in an empty directory.
pub(crate) struct Builder {
    root: PathBuf,
    clock: i64,
}

impl Builder {
    pub(crate) fn nasty(root: &Path) {
        fs::create_dir_all(root).unwrap();
        let mut builder = Builder {
            root: root.to_owned(),
            clock: 1_000_000_000,
        };
        builder.sizes();
        builder.duplicates();
        builder.sparse();
        builder.names();
        builder.directories();
        builder.types();
        builder.owners_and_modes();
        builder.times();
        builder.xattrs();
        builder.links();
        builder.settle();
    }

    fn path(&self, name: impl AsRef<OsStr>) -> PathBuf {
        self.root.join(name.as_ref())
    }

    fn file(&self, name: impl AsRef<OsStr>, bytes: &[u8]) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        path
    }

    /// Around the boundaries of every block size.
    fn sizes(&self) {
        for block in [4096, 8192, 131_072, 1 << 20] {
            for size in [block - 1, block, block + 1, 2 * block, 2 * block + 1] {
                self.file(format!("sizes/{size}"), &noise(size as u64, size));
            }
        }
        for size in [0, 1, 2, 511, 512, 513] {
            self.file(format!("sizes/{size}"), &noise(7, size));
        }
        self.file("sizes/large", &noise(9, 3_000_007));
    }

    fn duplicates(&self) {
        for copy in ["a", "b", "c/d"] {
            self.file(
                format!("duplicates/small-{}", copy.replace('/', "")),
                b"the same",
            );
            self.file(format!("duplicates/{copy}/large"), &noise(3, 400_123));
        }
        // Of one length, and different in the last byte.
        let mut other = noise(3, 400_123);
        *other.last_mut().unwrap() ^= 1;
        self.file("duplicates/almost", &other);
        self.file("duplicates/almost-small", b"the samf");
    }

    fn sparse(&self) {
        self.holes("sparse/middle", 2_000_000, &[(0, 100), (1_500_000, 4096)]);
        self.holes("sparse/start", 1_100_000, &[(1_099_999, 1)]);
        self.holes("sparse/end", 3 << 20, &[(5, 70_000)]);
        self.holes("sparse/all", 2_345_678, &[]);
        self.holes("sparse/all-blocks", 4 << 20, &[]);
        self.holes("sparse/small", 100, &[]);
        self.file("sparse/written-zeros", &vec![0; 2_345_678]);
    }

    pub(crate) fn holes(&self, name: &str, length: u64, data: &[(u64, usize)]) {
        let mut file = File::create(self.file(name, b"")).unwrap();
        file.set_len(length).unwrap();
        for (at, size) in data {
            file.seek(SeekFrom::Start(*at)).unwrap();
            file.write_all(&noise(*at + 1, *size)).unwrap();
        }
    }

    fn names(&self) {
        let names: [&[u8]; 12] = [
            b" ",
            b"-rf",
            b"new\nline",
            b"tab\tand\\backslash",
            b"\xff\xfe not utf-8",
            "смешанные 混合 🙂".as_bytes(),
            b"*?[a]",
            b"'\"$`;&|",
            b"#",
            b"...",
            b"CON.txt",
            b"\x01\x7f",
        ];
        for name in names {
            let relative = [b"names/", name].concat();
            self.file(OsStr::from_bytes(&relative), name);
        }
        self.file(format!("names/{}", "n".repeat(255)), b"long");
    }

    fn directories(&self) {
        fs::create_dir_all(self.path("directories/empty/empty")).unwrap();
        let deep: String = (0..80).map(|i| format!("/level{i}")).collect();
        self.file(format!("directories{deep}/end"), b"deep");
        for i in 0..500 {
            self.file(format!("directories/many/{}{i}", "x".repeat(i % 50)), b"");
        }
    }

    fn types(&self) {
        fs::create_dir_all(self.path("types")).unwrap();
        drop(UnixListener::bind(self.path("types/socket")).unwrap());
        self.node("types/fifo", FileType::Fifo, 0, 0);
        self.node("types/null", FileType::CharacterDevice, 1, 3);
        self.node("types/wide", FileType::CharacterDevice, 4095, 1_048_575);
        self.node("types/minor", FileType::BlockDevice, 259, 70_000);
        self.node("types/overlay-whiteout", FileType::CharacterDevice, 0, 0);
        symlink("/nowhere/at all", self.path("types/dangling")).unwrap();
        symlink("..", self.path("types/up")).unwrap();
        symlink("x/".repeat(2047), self.path("types/long")).unwrap();
        symlink(OsStr::from_bytes(b"\xff\n"), self.path("types/bytes")).unwrap();
    }

    fn node(&self, name: &str, kind: FileType, major: u32, minor: u32) {
        mknodat(
            CWD,
            self.path(name),
            kind,
            Mode::from_raw_mode(0o640),
            makedev(major, minor),
        )
        .unwrap();
    }

    fn owners_and_modes(&self) {
        let owners = [0, 1, 1000, 65_534, 65_535, 65_536, 100_000, u32::MAX - 1];
        for (i, owner) in owners.into_iter().enumerate() {
            let path = self.file(format!("owners/{owner}"), b"");
            lchown(&path, Some(owner), Some(owners[owners.len() - 1 - i])).unwrap();
        }
        symlink("x", self.path("owners/link")).unwrap();
        lchown(self.path("owners/link"), Some(12), Some(34)).unwrap();
        for mode in [0, 0o4755, 0o2755, 0o1777, 0o7777, 0o600, 0o111] {
            let path = self.file(format!("modes/{mode:o}"), b"");
            fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
            let path = self.path(format!("modes/directory-{mode:o}"));
            fs::create_dir(&path).unwrap();
            fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
        }
    }

    fn times(&self) {
        for time in [
            0,
            1,
            i64::from(i32::MAX),
            i64::from(i32::MAX) + 1,
            4_000_000_000,
        ] {
            set_time(&self.file(format!("times/{time}"), b""), time);
        }
    }

    fn xattrs(&self) {
        let many = self.file("xattrs/many", b"x");
        for i in 0..20 {
            set_xattr(
                &many,
                &format!("user.number{i}"),
                format!("value {i}").as_bytes(),
            );
        }
        set_xattr(&many, "user.empty", b"");
        set_xattr(&many, "user.binary", &[0, 255, 10, 0]);
        for name in ["one", "two", "three"] {
            let path = self.file(format!("xattrs/{name}"), name.as_bytes());
            set_xattr(&path, "user.shared", &noise(1, 2000));
            set_xattr(&path, "user.own", name.as_bytes());
        }
        let program = self.file("xattrs/ping", b"#!");
        set_xattr(&program, "security.capability", &CAP_NET_RAW);
        set_xattr(&self.path("xattrs"), "user.directory", b"yes");
        set_xattr(&self.path("xattrs"), "trusted.secret", b"root sees it");
        symlink("ping", self.path("xattrs/link")).unwrap();
        set_xattr(&self.path("xattrs/link"), "trusted.link", b"of its own");
        self.node("xattrs/fifo", FileType::Fifo, 0, 0);
        set_xattr(&self.path("xattrs/fifo"), "trusted.fifo", b"1");
        self.node("xattrs/device", FileType::CharacterDevice, 1, 5);
        set_xattr(&self.path("xattrs/device"), "trusted.device", b"2");
    }

    fn links(&self) {
        let large = self.file("links/large", &noise(77, 300_000));
        let small = self.file("links/small", b"small");
        fs::create_dir(self.path("links/below")).unwrap();
        for i in 0..5 {
            fs::hard_link(&large, self.path(format!("links/below/large{i}"))).unwrap();
            fs::hard_link(&small, self.path(format!("names/small{i}"))).unwrap();
        }
        fs::hard_link(self.path("types/fifo"), self.path("links/fifo")).unwrap();
        fs::hard_link(self.path("types/null"), self.path("links/null")).unwrap();
        fs::hard_link(self.path("types/up"), self.path("links/up")).unwrap();
    }

    /// Gives all names but those of `times` a time of their own, directories last.
    fn settle(&mut self) {
        let names: Vec<PathBuf> = manifest(&self.root).into_keys().collect();
        for name in names.into_iter().rev() {
            if !name.starts_with("times") {
                self.clock += 1;
                set_time(&self.root.join(name), self.clock);
            }
        }
    }
}

fn set_time(path: &Path, seconds: i64) {
    let time = Timespec {
        tv_sec: seconds,
        tv_nsec: 0,
    };
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

pub(crate) fn set_xattr(path: &Path, name: &str, value: &[u8]) {
    lsetxattr(path, OsString::from(name), value, XattrFlags::empty())
        .unwrap_or_else(|e| panic!("{}: {name}: {e}", path.display()));
}
