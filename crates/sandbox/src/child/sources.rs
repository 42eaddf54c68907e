//! What a request mounts from the host, opened as detached trees.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::OpenTreeFlags;

use crate::error::{Context, Error, Result};
use crate::{Mount, Request, Root};

/// All sources of a request.
pub(super) struct Sources {
    pub(super) root: RootTrees,
    /// One for each [`Mount::Bind`], in order.
    pub(super) binds: Vec<OwnedFd>,
    /// One for each [`Mount::Tree`], in order.
    pub(super) trees: Vec<RootTrees>,
}

/// The sources of the root.
pub(super) enum RootTrees {
    Dir {
        tree: OwnedFd,
        writable: bool,
    },
    Overlay {
        lower: Vec<OwnedFd>,
        writable: Option<Writable>,
    },
    Empty,
}

/// The writable part of an overlay. The kernel wants both directories on one mount, so one tree holds both.
pub(super) struct Writable {
    pub(super) tree: OwnedFd,
    pub(super) upper: OwnedFd,
    pub(super) work: OwnedFd,
}

impl Sources {
    pub(super) fn open(request: &Request) -> Result<Sources> {
        let binds = request.mounts.iter().filter_map(|mount| match mount {
            Mount::Bind { source, .. } => Some(tree(source)),
            _ => None,
        });
        let trees = request.mounts.iter().filter_map(|mount| match mount {
            Mount::Tree { tree, .. } => Some(open_root(tree)),
            _ => None,
        });
        Ok(Sources {
            root: open_root(&request.root)?,
            binds: binds.collect::<Result<_>>()?,
            trees: trees.collect::<Result<_>>()?,
        })
    }
}

fn open_root(root: &Root) -> Result<RootTrees> {
    match root {
        Root::Empty => Ok(RootTrees::Empty),
        Root::Dir { path, writable } => Ok(RootTrees::Dir {
            tree: tree(path)?,
            writable: *writable,
        }),
        Root::Overlay { lower, upper, .. } if lower.is_empty() => Ok(RootTrees::Dir {
            tree: tree(upper)?,
            writable: true,
        }),
        Root::Overlay { lower, upper, work } => Ok(RootTrees::Overlay {
            lower: trees(lower)?,
            writable: Some(Writable::open(upper, work)?),
        }),
        Root::Layers { lower } => match lower.as_slice() {
            [] => Err(Error::input("a root of layers has no layer")),
            // An overlay without an upper directory has to have two layers.
            [only] => Ok(RootTrees::Dir {
                tree: tree(only)?,
                writable: false,
            }),
            _ => Ok(RootTrees::Overlay {
                lower: trees(lower)?,
                writable: None,
            }),
        },
    }
}

impl Writable {
    fn open(upper: &Path, work: &Path) -> Result<Writable> {
        let base = common_ancestor(upper, work);
        let tree = tree(&base)?;
        let upper = below(tree.as_fd(), &base, upper)?;
        let work = below(tree.as_fd(), &base, work)?;
        Ok(Writable { tree, upper, work })
    }
}

fn common_ancestor(a: &Path, b: &Path) -> PathBuf {
    a.components()
        .zip(b.components())
        .take_while(|(a, b)| a == b)
        .map(|(component, _)| component)
        .collect()
}

fn below(tree: BorrowedFd<'_>, base: &Path, path: &Path) -> Result<OwnedFd> {
    let relative = path.strip_prefix(base).unwrap_or(path);
    let relative = if relative.as_os_str().is_empty() {
        Path::new(".")
    } else {
        relative
    };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(tree, relative, flags, Mode::empty()).doing_at("opening", path)
}

fn trees(paths: &[PathBuf]) -> Result<Vec<OwnedFd>> {
    paths.iter().map(|path| tree(path)).collect()
}

/// A detached copy of the mounts at and below a path. Without what is mounted below, the kernel refuses an ordinary user,
/// because that could uncover what a mount hides.
pub(super) fn tree(path: &Path) -> Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_RECURSIVE;
    rustix::mount::open_tree(CWD, path, flags).doing_at("opening", path)
}
