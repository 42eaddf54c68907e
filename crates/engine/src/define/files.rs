//! The files of a disk. The project's own are found and hashed when a definition is read, and copied for the steps that need them.
//!
//! A project is somebody else's work. Everything is opened from the project directory's descriptor by a path in which the
//! kernel follows no link (openat2(2)); links are taken as they are, for the root. What a step gets is a copy whose content
//! is compared with what was hashed, so that an edit while Kiln builds makes the build fail and never a wrong layer.

use std::cell::OnceCell;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kiln_packages::Digest;
use kiln_plan::{Found, Layer, ProjectFile, What};
use kiln_rootfs::Store;
use kiln_rootfs::store::Staging;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, openat2, readlinkat, statat};
use rustix::io::Errno;

use crate::define::reader::{Directory, Reader};
use crate::io::plain;
use crate::{Failure, FailureKind};

/// No kickstart comes near this many bytes. It keeps endless files from filling memory.
const LARGEST: u64 = 64 << 20;

/// Files of a project. More is a mistake, such as a directory of packages.
const MOST: usize = 200_000;

/// The files of this machine.
#[derive(Clone, Debug)]
pub(crate) struct Disk {
    /// Where relative paths start from; empty for the working directory of the process.
    pub(crate) base: PathBuf,
}

impl Reader for Disk {
    fn place(&self, path: &Path) -> PathBuf {
        self.base.join(path)
    }

    fn real(&self, path: &Path) -> io::Result<PathBuf> {
        self.place(path).canonicalize()
    }

    fn is_directory(&self, path: &Path) -> io::Result<bool> {
        Ok(fs::metadata(self.place(path))?.is_dir())
    }

    fn directory(&self, path: &Path) -> io::Result<Arc<dyn Directory>> {
        Ok(Arc::new(Project::open(&self.place(path))?))
    }

    /// Only regular files: opening a pipe could wait forever, and a device may have no end.
    fn named(&self, path: &Path) -> io::Result<Vec<u8>> {
        let path = self.place(path);
        if !path.metadata()?.is_file() {
            return Err(io::Error::other("not a regular file"));
        }
        read_whole(File::open(path)?)
    }
}

/// A directory of this machine, such as a project's.
#[derive(Debug)]
pub(crate) struct Project(File);

impl Project {
    /// Opens a directory.
    ///
    /// # Errors
    /// There is no such directory.
    fn open(directory: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = rustix::fs::open(directory, flags, Mode::empty())?;
        Ok(Project(File::from(opened)))
    }
}

impl Directory for Project {
    fn read(&self, below: &Path) -> io::Result<Vec<u8>> {
        read_beneath(&self.0, below, ResolveFlags::NO_SYMLINKS)
    }

    fn tree(&self, path: &str) -> Result<Option<Vec<Found>>, String> {
        let parts: Vec<&str> = path
            .split('/')
            .filter(|part| !part.is_empty() && *part != ".")
            .collect();
        let outside = path.starts_with('/') || parts.iter().any(|part| part.starts_with('.'));
        if outside || parts.is_empty() {
            return Err(format!(
                "{path:?} is no file of the project: it takes a path beside the definition, without `..` and hidden names"
            ));
        }
        let top = parts.join("/");
        let mut found = Vec::new();
        match self.look(&top, &mut found) {
            Ok(()) => {}
            Err((at, error)) if at == top && error.kind() == io::ErrorKind::NotFound => {
                return Ok(None);
            }
            Err((at, error)) => return Err(format!("{at}: {}", said(&error))),
        }
        found.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(Some(found))
    }

    fn copy(&self, files: &[ProjectFile], to: &Path) -> Result<(), Failure> {
        for file in files {
            self.copy_one(file, to).map_err(|error| {
                let message = format!("{} cannot be copied", file.from);
                Failure::new(FailureKind::Definition, message)
                    .cause(said(&error))
                    .hint("leave the project's files alone while it is built, and build again")
            })?;
        }
        Ok(())
    }
}

impl Project {
    fn inside(&self, path: &str, flags: OFlags) -> io::Result<File> {
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let resolve =
            ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        loop {
            match openat2(&self.0, path, flags, Mode::empty(), resolve) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                other => return Ok(File::from(other?)),
            }
        }
    }

    /// Notes what is at a path, and below it.
    fn look(&self, path: &str, found: &mut Vec<Found>) -> Result<(), (String, io::Error)> {
        let failed = |error: io::Error| (path.to_owned(), error);
        if found.len() >= MOST {
            let why = format!("the project has more than {MOST} files here");
            return Err(failed(io::Error::other(why)));
        }
        let here = self.inside(path, OFlags::PATH).map_err(failed)?;
        let stat = statat(&here, "", AtFlags::EMPTY_PATH).map_err(|e| failed(e.into()))?;
        let what = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => What::Directory,
            FileType::RegularFile => self.content(path).map_err(failed)?,
            FileType::Symlink => {
                let target = readlinkat(&here, "", Vec::new()).map_err(|e| failed(e.into()))?;
                let target = target.into_string().map_err(|_| failed(unnamed()))?;
                What::Link(target)
            }
            _ => {
                return Err(failed(io::Error::other(
                    "it is neither a file nor a directory nor a symbolic link",
                )));
            }
        };
        let is_directory = what == What::Directory;
        found.push(Found {
            path: path.to_owned(),
            executable: stat.st_mode & 0o100 != 0,
            what,
        });
        if !is_directory {
            return Ok(());
        }
        for name in self.names(path).map_err(failed)? {
            self.look(&format!("{path}/{name}"), found)?;
        }
        Ok(())
    }

    fn names(&self, path: &str) -> io::Result<Vec<String>> {
        let directory = self.inside(path, OFlags::RDONLY | OFlags::DIRECTORY)?;
        let mut names = Vec::new();
        for entry in Dir::read_from(directory.as_fd())? {
            let name = entry?.file_name().to_owned().into_string();
            let name = name.map_err(|_| unnamed())?;
            if name != "." && name != ".." {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn content(&self, path: &str) -> io::Result<What> {
        let mut file = self.regular(path)?;
        let size = file.metadata()?.len();
        let digest = Digest::of_file(&mut file)?.to_string();
        let sha256 = digest.parse().map_err(io::Error::other)?;
        Ok(What::File { size, sha256 })
    }

    /// A pipe could wait for ever, and a device have no end.
    fn regular(&self, path: &str) -> io::Result<File> {
        let file = self.inside(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY)?;
        match file.metadata()?.is_file() {
            true => Ok(file),
            false => Err(io::Error::other("it is no regular file any more")),
        }
    }

    fn copy_one(&self, file: &ProjectFile, to: &Path) -> io::Result<()> {
        let target = to.join(&file.from);
        let (above, mode) = match file.what {
            What::Directory => (target.as_path(), 0o755),
            _ => (
                target.parent().unwrap_or(to),
                0o644 | (file.mode & 0o100) >> 6 | file.mode & 0o110,
            ),
        };
        make_directories(to, above)?;
        if target.symlink_metadata().is_ok_and(|there| !there.is_dir()) {
            // Two entries may name the same file.
            fs::remove_file(&target)?;
        }
        match &file.what {
            What::Directory => Ok(()),
            What::Link(text) => symlink(text, &target),
            What::File { sha256, .. } => {
                let (mut from, mut into) = (self.regular(&file.from)?, File::create_new(&target)?);
                let mut buffer = vec![0; 256 << 10];
                loop {
                    let read = from.read(&mut buffer)?;
                    if read == 0 {
                        break;
                    }
                    into.write_all(&buffer[..read])?;
                }
                drop(into);
                let found = Digest::of_file(&mut File::open(&target)?)?.to_string();
                if found != sha256.to_string() {
                    return Err(io::Error::other("it was changed while Kiln was building"));
                }
                fs::set_permissions(&target, fs::Permissions::from_mode(mode))
            }
        }
    }
}

/// A copy of a layer's files of the project, made for the first step that needs it.
#[derive(Default)]
pub(crate) struct LayerFiles(OnceCell<(Staging, PathBuf)>);

impl LayerFiles {
    /// The copy's directory; `None` where the layer has no files.
    ///
    /// # Errors
    /// As [`Directory::copy`].
    pub(crate) fn copy(
        &self,
        store: &Store,
        project: Option<&dyn Directory>,
        layer: &Layer,
    ) -> Result<Option<&Path>, Failure> {
        let Some(project) = project.filter(|_| !layer.files.is_empty()) else {
            return Ok(None);
        };
        if let Some((_, directory)) = self.0.get() {
            return Ok(Some(directory));
        }
        let staging = store.stage()?;
        let directory = staging.directory("files")?;
        project.copy(&layer.files, &directory)?;
        Ok(Some(&self.0.get_or_init(|| (staging, directory)).1))
    }
}

/// Makes a directory of a copy with those above it. None of them is a link: they are all made here.
fn make_directories(top: &Path, path: &Path) -> io::Result<()> {
    let mut at = top.to_owned();
    for part in path.strip_prefix(top).unwrap_or(Path::new("")) {
        at.push(part);
        match fs::create_dir(&at) {
            Ok(()) => fs::set_permissions(&at, fs::Permissions::from_mode(0o755))?,
            Err(_) if at.symlink_metadata().is_ok_and(|there| there.is_dir()) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Reads a regular file below a directory whose content is untrusted: nothing leads out of it. What is no regular
/// file is not read, since a pipe could wait forever and a device have no end.
pub(crate) fn read_beneath(
    directory: &File,
    file: &Path,
    links: ResolveFlags,
) -> io::Result<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS | links;
    let file = File::from(openat2(directory, file, flags, Mode::empty(), resolve)?);
    read_whole(file)
}

/// Reads a regular file, whole or not at all: what is cut may have lost the line that mattered.
pub(crate) fn read_whole(file: File) -> io::Result<Vec<u8>> {
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    let mut bytes = Vec::new();
    file.take(LARGEST + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LARGEST {
        let message = format!("it has more than {} MiB", LARGEST >> 20);
        return Err(io::Error::other(message));
    }
    Ok(bytes)
}

fn unnamed() -> io::Error {
    io::Error::other("a name in it is not UTF-8")
}

fn said(error: &io::Error) -> String {
    match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::LOOP) => "it is reached through a symbolic link".to_owned(),
        Some(Errno::XDEV) => "it leads out of the project".to_owned(),
        _ => plain(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn project() -> (tempfile::TempDir, Project) {
        let place = tempfile::tempdir().expect("a directory");
        let at = |name: &str| place.path().join(name);
        fs::create_dir_all(at("lab/files/base/etc/skel")).expect("directories");
        fs::create_dir_all(at("secrets")).expect("a directory");
        fs::write(at("secrets/key"), "canary").expect("a file");
        fs::write(at("lab/files/base/etc/skel/.profile"), "umask 022\n").expect("a file");
        fs::write(at("lab/files/base/etc/motd"), "hello\n").expect("a file");
        let run = at("lab/files/base/etc/run");
        fs::write(&run, "#!/bin/sh\n").expect("a file");
        fs::set_permissions(&run, fs::Permissions::from_mode(0o700)).expect("a mode");
        symlink("../../../secrets", at("lab/files/out")).expect("a link");
        symlink("../secrets/key", at("lab/key")).expect("a link");
        let project = Project::open(&at("lab")).expect("the project");
        (place, project)
    }

    #[test]
    fn a_file_is_read_whole_or_not_at_all() {
        let place = tempfile::tempdir().expect("a directory");
        let path = place.path().join("long.ks");
        let file = File::create(&path).expect("a file");
        file.set_len(LARGEST).expect("its size");
        let read = read_whole(File::open(&path).expect("the file")).expect("what fits");
        assert_eq!(read.len() as u64, LARGEST);
        file.set_len(LARGEST + 1).expect("its size");
        let error = read_whole(File::open(&path).expect("the file")).expect_err("too long");
        assert_eq!(error.to_string(), "it has more than 64 MiB");
    }

    #[test]
    fn a_tree_is_found_with_hidden_files_and_links_as_they_are() {
        let (_place, project) = project();
        let found = project
            .tree("./files//base/")
            .expect("readable")
            .expect("there");
        let paths: Vec<&str> = found.iter().map(|f| f.path.as_str()).collect();
        assert_eq!(
            paths,
            [
                "files/base",
                "files/base/etc",
                "files/base/etc/motd",
                "files/base/etc/run",
                "files/base/etc/skel",
                "files/base/etc/skel/.profile",
            ]
        );
        assert!(found[3].executable && !found[2].executable);
        assert_eq!(project.tree("nowhere"), Ok(None));
        let link = project.tree("key").expect("readable").expect("there");
        assert_eq!(link[0].what, What::Link("../secrets/key".to_owned()));
    }

    #[test]
    fn nothing_leads_out_of_the_project() {
        let (place, project) = project();
        let absolute = place.path().join("secrets/key").display().to_string();
        for path in [
            "../secrets/key",
            "files/../../secrets/key",
            &absolute,
            ".",
            "",
            ".git/config",
            "files/out/key",
        ] {
            let reason = project.tree(path).expect_err(path);
            assert!(!reason.contains("canary"), "{reason}");
        }
    }

    #[test]
    fn what_is_no_file_is_refused_and_not_opened() {
        let (place, project) = project();
        let pipe = place.path().join("lab/files/pipe");
        let mode = Mode::RUSR | Mode::WUSR;
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, FileType::Fifo, mode, 0).expect("a pipe");
        let reason = project.tree("files").expect_err("a pipe");
        assert!(reason.starts_with("files/pipe: it is neither"), "{reason}");
    }

    #[test]
    fn a_copy_is_what_was_hashed_or_an_error() {
        let (place, project) = project();
        let files: Vec<ProjectFile> = project
            .tree("files/base")
            .expect("readable")
            .expect("there")
            .into_iter()
            .map(|found| ProjectFile {
                from: found.path,
                to: None,
                what: found.what,
                mode: 0o644,
                owner: ("root".to_owned(), "root".to_owned()),
                origin: String::new(),
            })
            .collect();
        let copy = tempfile::tempdir().expect("a directory");
        project.copy(&files, copy.path()).expect("unchanged");
        let read = |name: &str| fs::read_to_string(copy.path().join(name)).expect(name);
        assert_eq!(read("files/base/etc/motd"), "hello\n");
        fs::write(place.path().join("lab/files/base/etc/motd"), "other\n").expect("a file");
        let failure = project.copy(&files, copy.path()).expect_err("changed");
        assert!(
            failure.message.contains("files/base/etc/motd")
                && failure.causes[0].contains("changed while"),
            "{failure:?}"
        );
        // A link that takes the place of a file or a directory is not followed.
        let etc = place.path().join("lab/files/base/etc");
        fs::remove_dir_all(&etc).expect("removing");
        symlink(place.path().join("secrets"), &etc).expect("a link");
        assert!(project.copy(&files, copy.path()).is_err());
    }
}
