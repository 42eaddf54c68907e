//! Reading a directory of the host into a [`Tree`].

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Dir, OFlags, Statx, StatxAttributes, readlinkat};

use super::content::{Base, Content, open_beneath, stat_at};
use super::exclude::Pattern;
use super::node::{Device, Inode, Kind, Meta};
use super::walk::join;
use super::xattr::Reader;
use super::{InodeId, Skipped, Tree};
use crate::error::{IoContext, show};
use crate::{Error, ErrorKind, Result};

/// How a directory becomes a tree. The default takes everything but what lies on other mounts.
#[derive(Clone, Debug, Default)]
pub struct ScanOptions {
    /// Paths that are left out.
    pub exclude: Vec<Pattern>,
    /// Times later than this become this: `SOURCE_DATE_EPOCH`, in seconds since 1970.
    pub clamp_mtime: Option<i64>,
    /// Extended attributes whose names start with one of these are left out, besides overlayfs's own; for example
    /// `security.selinux` where the labels are the host's.
    pub drop_xattrs: Vec<Vec<u8>>,
    /// Keeps overlayfs's own attributes, to record a layer.
    pub overlay_marks: bool,
    /// Also enters what is mounted inside the directory. Otherwise a mounted directory (`/proc`) becomes an empty one,
    /// with the owner and mode of what is mounted there, and a mounted file is an error: what it hides cannot be seen.
    pub cross_mounts: bool,
}

impl Tree {
    /// Reads the directory `root`: metadata now, contents when the tree is written.
    ///
    /// Symbolic links are never followed (but `root` itself may be one). Overlayfs's private attributes are dropped;
    /// attributes that no image can hold are listed by [`Tree::skipped`].
    ///
    /// # Errors
    /// A name vanished or cannot be read, or is a mounted file; the message holds the path.
    pub fn scan(root: &Path, options: &ScanOptions) -> Result<Tree> {
        let base = Arc::new(Base::open(root)?);
        let mut scan = Scan {
            base,
            options,
            xattrs: Reader::new(options.overlay_marks),
            links: HashMap::new(),
            tree: Tree::new(Meta::default()),
        };
        scan.run()?;
        Ok(scan.tree)
    }
}

struct Scan<'a> {
    base: Arc<Base>,
    options: &'a ScanOptions,
    xattrs: Reader,
    /// Inodes with more than one name, by device and number.
    links: HashMap<(u32, u32, u64), InodeId>,
    tree: Tree,
}

impl Scan<'_> {
    fn run(&mut self) -> Result<()> {
        let stat = stat_at(&self.base.fd, Path::new("."))
            .doing(|| format!("reading {}", self.base.path.display()))?;
        let root = self.tree.root();
        self.tree.inode_mut(root).meta = self.meta(b"", &stat)?;
        let mut pending = vec![(Vec::new(), root)];
        while let Some((path, id)) = pending.pop() {
            let first = pending.len();
            self.directory(&path, id, &mut pending)?;
            // Depth first in the order of names, so that skipped attributes are listed in tree order.
            pending[first..].reverse();
        }
        Ok(())
    }

    fn directory(
        &mut self,
        path: &[u8],
        id: InodeId,
        pending: &mut Vec<(Vec<u8>, InodeId)>,
    ) -> Result<()> {
        let fd = self.open_directory(path)?;
        for name in self.names(path, &fd)? {
            let child = join(path, &name);
            if self.options.exclude.iter().any(|p| p.matches(&child)) {
                continue;
            }
            let stat =
                stat_at(&fd, Path::new(OsStr::from_bytes(&name))).doing(|| self.reading(&child))?;
            let inode = self.entry(&fd, &child, &name, &stat)?;
            if self.enters(&stat) {
                pending.push((child, inode));
            }
            self.tree.attach(id, name.into_boxed_slice(), inode);
        }
        Ok(())
    }

    fn entry(
        &mut self,
        directory: &OwnedFd,
        path: &[u8],
        name: &[u8],
        stat: &Statx,
    ) -> Result<InodeId> {
        let key = (stat.stx_dev_major, stat.stx_dev_minor, stat.stx_ino);
        let linked = stat.stx_nlink > 1 && file_type(stat) != S_IFDIR;
        if let Some(id) = self.links.get(&key).filter(|_| linked) {
            return Ok(*id);
        }
        let kind = self.kind(directory, path, name, stat)?;
        let meta = self.meta(path, stat)?;
        let id = self.tree.push(Inode { meta, kind })?;
        if linked {
            self.links.insert(key, id);
        }
        Ok(id)
    }

    fn kind(&self, directory: &OwnedFd, path: &[u8], name: &[u8], stat: &Statx) -> Result<Kind> {
        let device = Device {
            major: stat.stx_rdev_major,
            minor: stat.stx_rdev_minor,
        };
        Ok(match file_type(stat) {
            S_IFDIR => Kind::Directory(super::Directory::default()),
            _ if self.hidden(stat) => return Err(self.mounted_file(path)),
            S_IFREG => {
                let relative = PathBuf::from(OsStr::from_bytes(path));
                Kind::File(Content::on_disk(Arc::clone(&self.base), relative, stat))
            }
            S_IFLNK => {
                let target = readlinkat(directory, OsStr::from_bytes(name), Vec::new())
                    .doing(|| self.reading(path))?;
                Kind::Symlink(target.into_bytes().into_boxed_slice())
            }
            S_IFCHR => Kind::CharDevice(device),
            S_IFBLK => Kind::BlockDevice(device),
            S_IFIFO => Kind::Fifo,
            S_IFSOCK => Kind::Socket,
            other => {
                return Err(Error::new(
                    ErrorKind::Step,
                    format!("{} has the unknown file type {other:o}", show(path)),
                ));
            }
        })
    }

    fn meta(&mut self, path: &[u8], stat: &Statx) -> Result<Meta> {
        let full = self.full(path);
        let found = self
            .xattrs
            .read(&full, &self.options.drop_xattrs)
            .doing(|| format!("reading the extended attributes of {}", full.display()))?;
        self.tree
            .skipped
            .extend(found.skipped.into_iter().map(|attribute| Skipped {
                path: path.to_vec(),
                attribute,
            }));
        let mtime = stat.stx_mtime.tv_sec;
        Ok(Meta {
            mode: stat.stx_mode & 0o7777,
            uid: stat.stx_uid,
            gid: stat.stx_gid,
            mtime: self.options.clamp_mtime.map_or(mtime, |max| mtime.min(max)),
            xattrs: found.kept.into(),
        })
    }

    fn open_directory(&self, path: &[u8]) -> Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let relative = if path.is_empty() { b"." } else { path };
        open_beneath(&self.base.fd, Path::new(OsStr::from_bytes(relative)), flags)
            .doing(|| self.reading(path))
    }

    /// The names of a directory, sorted by bytes.
    fn names(&self, path: &[u8], fd: &OwnedFd) -> Result<Vec<Vec<u8>>> {
        let mut names = Vec::new();
        for entry in Dir::read_from(fd).doing(|| self.reading(path))? {
            let entry = entry.doing(|| self.reading(path))?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                names.push(name.to_vec());
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    fn enters(&self, stat: &Statx) -> bool {
        file_type(stat) == S_IFDIR && !self.hidden(stat)
    }

    fn hidden(&self, stat: &Statx) -> bool {
        !self.options.cross_mounts && stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT)
    }

    fn mounted_file(&self, path: &[u8]) -> Error {
        let full = self.full(path);
        Error::new(
            ErrorKind::Step,
            format!(
                "{} is a mount point; the file below it cannot be read",
                full.display()
            ),
        )
        .with_hint("unmount it, exclude it, or scan a view of the tree without mounts")
    }

    fn full(&self, path: &[u8]) -> PathBuf {
        if path.is_empty() {
            // With the dot a symbolic link that names the root is followed by the calls that do not follow links.
            self.base.path.join(".")
        } else {
            self.base.path.join(OsStr::from_bytes(path))
        }
    }

    fn reading(&self, path: &[u8]) -> String {
        format!("reading {}", self.full(path).display())
    }
}

const S_IFMT: u16 = 0o170_000;
const S_IFSOCK: u16 = 0o140_000;
const S_IFLNK: u16 = 0o120_000;
const S_IFREG: u16 = 0o100_000;
const S_IFBLK: u16 = 0o060_000;
const S_IFDIR: u16 = 0o040_000;
const S_IFCHR: u16 = 0o020_000;
const S_IFIFO: u16 = 0o010_000;

fn file_type(stat: &Statx) -> u16 {
    stat.stx_mode & S_IFMT
}
