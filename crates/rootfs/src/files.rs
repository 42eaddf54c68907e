//! The project's own files, copied into a root that is being made.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{PermissionsExt, chown, lchown, symlink};
use std::path::{Path, PathBuf};

use kiln_plan::{ProjectFile, What};
use kiln_sandbox::{Call, Error, ErrorKind, Mount, Say, Silence};
use serde::{Deserialize, Serialize};

use crate::calls::{io_error, text_if_there};
use crate::error::Result;
use crate::run::{Extras, Place};

/// Where the project's files are while a step runs: each at its path in the project, read-only.
pub const FILES: &str = "/run/kiln/files";

/// How a run sees the files that lie in a directory of the host.
pub(crate) fn mount(source: &Path) -> Mount {
    Mount::Bind {
        source: source.to_owned(),
        target: FILES.to_owned(),
        writable: false,
    }
}

/// Copies files of the project to their places, in order. `source` is a directory of the host with the files.
///
/// # Errors
/// A place is taken by something of another kind; the root has no such owner.
pub fn copy(place: &Place<'_>, files: &[&ProjectFile], source: &Path) -> Result<()> {
    let extras = Extras {
        mounts: vec![mount(source)],
        ..Extras::default()
    };
    let files = files.iter().map(|&file| file.clone()).collect();
    place.call(&Copy { files }, (), extras)
}

/// Copies files from [`FILES`] to their places.
#[derive(Serialize, Deserialize)]
pub(crate) struct Copy {
    files: Vec<ProjectFile>,
}

impl Call for Copy {
    const NAME: &'static str = "rootfs.copy-files";
    type Handed = ();
    type Message = Silence;
    type Answer = ();

    fn run(self, (): (), _: &Say<Silence>) -> Result<(), Error> {
        for file in &self.files {
            let Some(to) = &file.to else { continue };
            let owner = (
                id_of("/etc/passwd", &file.owner.0, file)?,
                id_of("/etc/group", &file.owner.1, file)?,
            );
            copy_one(file, Path::new(to), owner)
                .map_err(|e| io_error(format!("copying {} to {to}", file.from), &e))?;
        }
        Ok(())
    }
}

/// The number of a user or group: their files have it in the same field.
fn id_of(table: &str, name: &str, file: &ProjectFile) -> Result<u32, Error> {
    if let Ok(number) = name.parse() {
        return Ok(number);
    }
    if name == "root" {
        return Ok(0);
    }
    let text = text_if_there(table).map_err(|e| io_error(format!("reading {table}"), &e))?;
    let of_line = |line: &str| {
        let mut fields = line.split(':');
        (fields.next() == Some(name))
            .then(|| fields.nth(1)?.parse().ok())
            .flatten()
    };
    text.lines().find_map(of_line).ok_or_else(|| {
        let message = format!(
            "{} is to belong to {name}, whom the root does not have in {table}",
            file.from
        );
        Error::new(ErrorKind::Input, message)
            .because(io::Error::other(format!("{} says so", file.origin)))
            .hint(
                "make the account in this layer or one below (`user`, `group`), or give its number",
            )
    })
}

fn copy_one(file: &ProjectFile, to: &Path, (uid, gid): (u32, u32)) -> io::Result<()> {
    if let Some(above) = to.parent() {
        fs::create_dir_all(above)?;
    }
    let mode = fs::Permissions::from_mode(file.mode);
    let source: PathBuf = Path::new(FILES).join(&file.from);
    if file.what == What::Directory {
        // One that is there, or a link to one, is left as it is.
        if fs::metadata(to).is_ok_and(|there| there.is_dir()) {
            return Ok(());
        }
        fs::create_dir(to)?;
        chown(to, Some(uid), Some(gid))?;
        return fs::set_permissions(to, mode);
    }
    match fs::remove_file(to) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    if let What::Link(text) = &file.what {
        symlink(text, to)?;
        return lchown(to, Some(uid), Some(gid));
    }
    io::copy(&mut File::open(source)?, &mut File::create_new(to)?)?;
    // The owner first: changing it clears set-id bits.
    chown(to, Some(uid), Some(gid))?;
    fs::set_permissions(to, mode)
}
