//! Text at the head of a file of the root, for as long as a run lasts.
//!
//! Name resolution is configured by a file of the root, but a run needs other lines in it than the root is to keep. The file
//! stays what it is for the run: it can be edited, replaced and removed, which a mounted one cannot. What the run left of it,
//! without the text, is what the root has afterwards; where that is what was there before, the root is as it was.

use std::ffi::OsString;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT};
use rustix::io::Errno;

use super::resolve::{Walker, modified};
use crate::error::{Context, Result};

/// Larger files are left alone: no configuration has so much.
const MOST: u64 = 1 << 20;

/// A file with text at its head.
pub(super) struct Head {
    target: String,
    dir: OwnedFd,
    name: OsString,
    text: String,
    marks: Vec<String>,
    before: Before,
    /// The directory's modification time before and after.
    dir_times: (Timespec, Timespec),
}

/// What was in the file's place.
enum Before {
    Nothing,
    Link {
        to: std::ffi::CString,
        time: Timespec,
    },
    File {
        content: Vec<u8>,
        time: Timespec,
    },
}

/// Puts the text there. `None`: something is in the way that is no file.
pub(super) fn add(
    walker: &mut Walker<'_>,
    target: &str,
    text: &str,
    marks: &[String],
) -> Result<Option<Head>> {
    let (dir, name) = walker.open_parent(target)?;
    let put = || -> std::io::Result<Option<Head>> {
        let old = modified(dir.as_fd())?;
        let Some(before) = look(dir.as_fd(), &name)? else {
            return Ok(None);
        };
        if let Before::Link { .. } = before {
            rustix::fs::unlinkat(&dir, &name, AtFlags::empty())?;
        }
        let rest = match &before {
            Before::File { content, .. } => content.as_slice(),
            _ => &[],
        };
        let flags = OFlags::CREATE | OFlags::TRUNC | OFlags::WRONLY | OFlags::NOFOLLOW;
        let mode = Mode::from_raw_mode(0o644);
        let file = rustix::fs::openat(&dir, &name, flags | OFlags::CLOEXEC, mode)?;
        File::from(file).write_all(&[text.as_bytes(), rest].concat())?;
        let dir_times = (old, modified(dir.as_fd())?);
        Ok(Some(Head {
            target: target.to_owned(),
            dir: rustix::io::fcntl_dupfd_cloexec(&dir, 0)?,
            name: name.clone(),
            text: text.to_owned(),
            marks: marks.to_vec(),
            before,
            dir_times,
        }))
    };
    put().doing_at("adding lines to", Path::new(target))
}

fn look(dir: BorrowedFd<'_>, name: &OsString) -> std::io::Result<Option<Before>> {
    let stat = match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => stat,
        Err(Errno::NOENT) => return Ok(Some(Before::Nothing)),
        Err(error) => return Err(error.into()),
    };
    let time = Timespec {
        tv_sec: stat.st_mtime as _,
        tv_nsec: stat.st_mtime_nsec as _,
    };
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Symlink => Ok(Some(Before::Link {
            to: rustix::fs::readlinkat(dir, name, Vec::new())?,
            time,
        })),
        FileType::RegularFile => {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let file = rustix::fs::openat(dir, name, flags, Mode::empty())?;
            let content = read(&mut File::from(file))?;
            Ok(content.map(|content| Before::File { content, time }))
        }
        _ => Ok(None),
    }
}

/// The content of a regular file that is not too large.
fn read(file: &mut File) -> std::io::Result<Option<Vec<u8>>> {
    let data = file.metadata()?;
    if !data.is_file() || data.len() > MOST {
        return Ok(None);
    }
    let mut content = Vec::new();
    file.take(MOST + 1).read_to_end(&mut content)?;
    Ok((content.len() as u64 <= MOST).then_some(content))
}

impl Head {
    /// Takes the text away. Nothing of the run may be left that could change the file meanwhile.
    pub(super) fn take_away(&self) -> Result<()> {
        self.restore()
            .doing_at("taking lines away from", Path::new(&self.target))
    }

    fn restore(&self) -> std::io::Result<()> {
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let mut file = match rustix::fs::openat(&self.dir, &self.name, flags, Mode::empty()) {
            Ok(file) => File::from(file),
            // Removed, or replaced by a link, a directory, or a socket: the run wanted it so.
            Err(Errno::NOENT | Errno::LOOP | Errno::ISDIR | Errno::NXIO) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let Some(content) = read(&mut file)? else {
            return Ok(());
        };
        let Some(rest) = without(&content, &self.text, &self.marks) else {
            return Ok(());
        };
        match &self.before {
            Before::Nothing if rest.is_empty() => self.remove(None),
            Before::Link { to, time } if rest.is_empty() => self.remove(Some((to, *time))),
            before => {
                file.seek(SeekFrom::Start(0))?;
                file.set_len(0)?;
                file.write_all(&rest)?;
                match before {
                    Before::File { content, time } if *content == rest => {
                        Ok(rustix::fs::futimens(&file, &changed_at(*time))?)
                    }
                    _ => Ok(()),
                }
            }
        }
    }

    /// Removes the file, or puts the link in its place again; the directory is as old as it was if nothing else changed in it.
    fn remove(&self, link: Option<(&std::ffi::CString, Timespec)>) -> std::io::Result<()> {
        let untouched = modified(self.dir.as_fd())? == self.dir_times.1;
        rustix::fs::unlinkat(&self.dir, &self.name, AtFlags::empty())?;
        if let Some((to, time)) = link {
            rustix::fs::symlinkat(to, &self.dir, &self.name)?;
            let (dir, flags) = (&self.dir, AtFlags::SYMLINK_NOFOLLOW);
            rustix::fs::utimensat(dir, &self.name, &changed_at(time), flags)?;
        }
        if untouched {
            let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
            let dir = rustix::fs::openat(&self.dir, ".", flags, Mode::empty())?;
            rustix::fs::futimens(dir, &changed_at(self.dir_times.0))?;
        }
        Ok(())
    }
}

fn changed_at(time: Timespec) -> Timestamps {
    Timestamps {
        last_access: Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_OMIT,
        },
        last_modification: time,
    }
}

/// The content without the lines of the text, wherever they are; `None` if no mark is there any more.
fn without(content: &[u8], text: &str, marks: &[String]) -> Option<Vec<u8>> {
    let bare = |line: &[u8]| line.strip_suffix(b"\n").unwrap_or(line).to_vec();
    let lines: Vec<&[u8]> = content.split_inclusive(|byte| *byte == b'\n').collect();
    let marked = |line: &&[u8]| marks.iter().any(|mark| mark.as_bytes() == bare(line));
    if !lines.iter().any(marked) {
        return None;
    }
    let mut lent: Vec<&[u8]> = text.lines().map(str::as_bytes).collect();
    let kept = lines.into_iter().filter(|line| {
        let at = lent.iter().position(|lent| *lent == bare(line));
        at.map(|at| lent.remove(at)).is_none()
    });
    Some(kept.collect::<Vec<_>>().concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_of_the_text_goes_and_the_rest_stays() {
        let text = "# lent\nnameserver 240.0.0.53\noptions edns0\n# so far\n";
        let marks = ["# lent", "nameserver 240.0.0.53", "# so far"].map(str::to_owned);
        let rest = |content: &str| {
            let rest = without(content.as_bytes(), text, &marks)?;
            Some(String::from_utf8(rest).expect("UTF-8"))
        };
        for (content, wanted) in [
            (text.to_owned(), ""),
            (format!("{text}search a\n"), "search a\n"),
            (format!("options x\n{text}search a"), "options x\nsearch a"),
            (
                "nameserver 240.0.0.53\noptions edns0\nb\n".to_owned(),
                "b\n",
            ),
            (format!("{text}options edns0\n"), "options edns0\n"),
            ("# so far\n".to_owned(), ""),
        ] {
            assert_eq!(rest(&content).as_deref(), Some(wanted), "{content}");
        }
        // It was written anew, even if a line is like one that was lent.
        for own in ["", "options edns0\n", "nameserver 1.1.1.1\n"] {
            assert_eq!(rest(own), None, "{own}");
        }
    }
}
