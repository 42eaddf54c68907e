//! Files of a root, read and written by Kiln itself. A script or a package may have put anything in their place, also what never
//! ends: a pipe that nobody writes to, a device, a link to one.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags, open as open_at};

/// The most that is read of one file: no file that Kiln reads whole is that large.
const MOST: u64 = 256 << 20;

/// Opens a regular file for reading.
pub(crate) fn open(path: impl AsRef<Path>) -> io::Result<File> {
    checked(path.as_ref(), OFlags::RDONLY)
}

/// What a regular file holds.
pub(crate) fn read(path: impl AsRef<Path>) -> io::Result<Vec<u8>> {
    let path = path.as_ref();
    let mut bytes = Vec::new();
    open(path)?.take(MOST + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MOST {
        let message = format!("{} is larger than {} MiB", path.display(), MOST >> 20);
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
    }
    Ok(bytes)
}

/// The text of a regular file.
pub(crate) fn text(path: impl AsRef<Path>) -> io::Result<String> {
    let text = String::from_utf8(read(path)?);
    text.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.utf8_error()))
}

/// Makes or overwrites a regular file.
pub(crate) fn write(path: impl AsRef<Path>, bytes: impl AsRef<[u8]>) -> io::Result<()> {
    let mut file = checked(path.as_ref(), OFlags::WRONLY | OFlags::CREATE)?;
    // Not before it is known to be a file.
    file.set_len(0)?;
    file.write_all(bytes.as_ref())
}

fn checked(path: &Path, how: OFlags) -> io::Result<File> {
    // Without this a pipe is waited for.
    let how = how | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    let file = match open_at(path, how, Mode::from_raw_mode(0o666)) {
        // A pipe without a reader, or a socket.
        Err(rustix::io::Errno::NXIO) => return Err(not_regular(path, "a pipe or a socket")),
        opened => File::from(opened?),
    };
    match FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode) {
        FileType::RegularFile => Ok(file),
        FileType::Directory => Err(rustix::io::Errno::ISDIR.into()),
        FileType::Fifo => Err(not_regular(path, "a pipe")),
        FileType::CharacterDevice | FileType::BlockDevice => Err(not_regular(path, "a device")),
        _ => Err(not_regular(path, "something else")),
    }
}

fn not_regular(path: &Path, what: &str) -> io::Error {
    let message = format!("{} should be a regular file, and is {what}", path.display());
    io::Error::new(io::ErrorKind::InvalidInput, message)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    use rustix::fs::{CWD, mkfifoat};

    use super::*;

    #[test]
    fn files_are_read_and_written() {
        let top = tempfile::tempdir().unwrap();
        let (file, link) = (top.path().join("file"), top.path().join("link"));
        symlink("file", &link).unwrap();
        write(&link, "longer than the next\n").unwrap();
        write(&link, "text\n").unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "text\n");
        assert_eq!(text(&link).unwrap(), "text\n");
        let missing = read(top.path().join("missing")).unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
        fs::write(&file, [0xff]).unwrap();
        let error = text(&file).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn nothing_else_is_waited_for() {
        let top = tempfile::tempdir().unwrap();
        let at = |name: &str| top.path().join(name);
        mkfifoat(CWD, at("pipe"), Mode::from_raw_mode(0o666)).unwrap();
        let _listening = UnixListener::bind(at("socket")).unwrap();
        symlink("/dev/zero", at("zeros")).unwrap();
        symlink("pipe", at("link")).unwrap();
        for (name, expected) in [
            ("pipe", "a pipe"),
            ("link", "a pipe"),
            ("socket", "a pipe or a socket"),
            ("zeros", "a device"),
        ] {
            for result in [read(at(name)).map(drop), write(at(name), "x")] {
                let error = result.unwrap_err().to_string();
                assert!(error.contains(expected), "{name}: {error}");
            }
        }
        let directory = read(top.path()).unwrap_err();
        assert_eq!(directory.kind(), io::ErrorKind::IsADirectory);
    }

    #[test]
    fn a_file_without_an_end_is_not_read_to_it() {
        let top = tempfile::tempdir().unwrap();
        let file = top.path().join("sparse");
        File::create(&file).unwrap().set_len(1 << 40).unwrap();
        let error = read(&file).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
    }
}
