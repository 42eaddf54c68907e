//! The images that all builds have without pulling them.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use kiln_sandbox::{Body, Io, Network, Sandbox, Stream};

use super::private::{Archive, Load, Place};
use crate::agent::log::Log;
use crate::agent::mask::Mask;

/// Puts the images of an archive (`docker save`, or an OCI archive) into the store below a data directory. `say` is told what podman
/// prints.
///
/// # Errors
/// There is no engine, or it does not take the archive.
pub fn load(data: &Path, archive: &Path, say: &mut dyn FnMut(&str)) -> io::Result<()> {
    fill(data, &data.join("images"), archive, say)
}

/// Puts the image of a stranger's archive into a store, under this name and no other.
pub(in crate::agent) fn add(
    store: &Path,
    archive: &Path,
    name: &str,
    say: &mut dyn FnMut(&str),
) -> io::Result<()> {
    let data = archive.parent().unwrap_or(Path::new("."));
    let alone = data.join("alone.tar");
    super::archive::only(archive, name, &alone)?;
    fill(data, store, &alone, say)
}

/// `data` is where it works meanwhile.
fn fill(data: &Path, store: &Path, archive: &Path, say: &mut dyn FnMut(&str)) -> io::Result<()> {
    super::available().map_err(io::Error::other)?;
    let file = File::open(archive)?;
    let sandbox = Sandbox::detect().map_err(io::Error::other)?;
    fs::create_dir_all(data)?;
    let work = tempfile::Builder::new().prefix("load-").tempdir_in(data)?;
    let workspace = work.path().join("workspace");
    fs::create_dir(&workspace)?;
    let place = Place {
        dir: work.path().join("engine"),
        log: Log::open(
            &work.path().join("log.txt"),
            &work.path().join("times"),
            &workspace,
            Mask::default(),
        )?,
        workspace,
        storage: store.to_owned(),
        images: work.path().join("none"),
        network: Network::None,
        mounts: Vec::new(),
        env: Vec::new(),
        memory: None,
    };
    place.lay_out(&sandbox)?;
    let lock = File::open(store)?;
    lock.lock()?;
    let (body, fds) =
        Body::call(&Load::new(&place), Archive::new(file)).map_err(io::Error::other)?;
    let request = place.request(body);
    let (mut output, mut message) = (|_: Stream, line: &str| say(line), |_| {});
    let mut io = Io::new(&mut output, &mut message);
    io.fds = fds;
    let outcome = sandbox.run(&request, io).map_err(io::Error::other)?;
    drop(lock);
    let removed = sandbox.remove_trees(&[place.dir.clone(), place.images.clone()]);
    match outcome.value {
        Some(Ok(_)) => removed.map_err(io::Error::other),
        Some(Err(error)) => Err(io::Error::other(error)),
        None => Err(io::Error::other(format!(
            "podman was ended: {:?}",
            outcome.status
        ))),
    }
}
