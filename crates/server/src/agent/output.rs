//! What a step in a container says to programs: the file `output` in its own `$BUILDER_OUTPUT`.
//!
//! Steps own that directory, and with the engine's socket they can change whatever lies around it. So nothing there is followed: the
//! file is opened below the attempt's own directory without links, without waiting, and only as much is read as is kept.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, fstat, open, openat2};
use rustix::io::Errno;

use super::log::Log;
use crate::secrets;

/// Bytes that are kept, as on Cloud Build.
const MOST: usize = 50 << 10;

/// What a step has written to a path below the engine's directory, without the values of secrets; empty if that is nothing.
///
/// # Errors
/// There is something that is no file, or cannot be read.
pub(super) fn read(engine: &Path, path: &str, log: &Log) -> io::Result<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let engine = open(engine, flags, Mode::empty())?;
    let flags =
        OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    let file = match openat2(&engine, path, flags, Mode::empty(), resolve) {
        Ok(file) => file,
        Err(Errno::NOENT) => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    if !FileType::from_raw_mode(fstat(&file)?.st_mode).is_file() {
        return Err(io::Error::other("it is no file"));
    }
    // A secret that the limit would cut is seen whole.
    let most = (MOST + secrets::LONGEST) as u64;
    let mut raw = Vec::new();
    File::from(file).take(most).read_to_end(&mut raw)?;
    let mut output = log.shown_bytes(raw);
    output.truncate(MOST);
    Ok(output)
}
