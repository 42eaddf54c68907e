//! Connecting the user's terminal with the pseudo terminal inside.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::termios::{OptionalActions, Termios, Winsize};

use crate::error::{Context, Result};

/// The user's terminal in raw mode; it gets its old mode back when this goes.
pub(crate) struct RawTerminal<'a> {
    fd: BorrowedFd<'a>,
    before: Termios,
}

impl<'a> RawTerminal<'a> {
    pub(crate) fn new(fd: BorrowedFd<'a>) -> Result<Self> {
        let before = rustix::termios::tcgetattr(fd).doing("reading the terminal's mode")?;
        let mut raw = before.clone();
        raw.make_raw();
        rustix::termios::tcsetattr(fd, OptionalActions::Drain, &raw)
            .doing("setting the terminal's mode")?;
        Ok(RawTerminal { fd, before })
    }
}

impl Drop for RawTerminal<'_> {
    fn drop(&mut self) {
        let _ = rustix::termios::tcsetattr(self.fd, OptionalActions::Drain, &self.before);
    }
}

/// Rows and columns.
pub(crate) fn size(fd: BorrowedFd<'_>) -> Result<(u16, u16)> {
    let size = rustix::termios::tcgetwinsize(fd).doing("reading the terminal's size")?;
    Ok((size.ws_row, size.ws_col))
}

/// Copies bytes both ways.
pub(crate) struct Bridge<'a> {
    user: RawTerminal<'a>,
    inside: OwnedFd,
    size: (u16, u16),
    user_open: bool,
}

impl<'a> Bridge<'a> {
    pub(crate) fn new(user: BorrowedFd<'a>, inside: OwnedFd) -> Result<Self> {
        // What the program inside does not take in is lost, rather than holding everything else up.
        rustix::io::ioctl_fionbio(&inside, true).doing("making the terminal not block")?;
        Ok(Bridge {
            user: RawTerminal::new(user)?,
            inside,
            size: (0, 0),
            user_open: true,
        })
    }

    /// What to wait for: the user's side (while it is open) and the inner one.
    pub(crate) fn fds(&self) -> (Option<BorrowedFd<'_>>, BorrowedFd<'_>) {
        (self.user_open.then_some(self.user.fd), self.inside.as_fd())
    }

    /// Hands a changed window size on. Called now and then; a signal handler would be the whole process's.
    pub(crate) fn follow_size(&mut self) {
        let Ok(size) = size(self.user.fd) else { return };
        if size != self.size {
            self.size = size;
            let size = Winsize {
                ws_row: size.0,
                ws_col: size.1,
                ws_xpixel: 0,
                ws_ypixel: 0,
            };
            let _ = rustix::termios::tcsetwinsize(&self.inside, size);
        }
    }

    /// Copies what the user typed.
    pub(crate) fn inward(&mut self) {
        self.user_open = copy(self.user.fd, self.inside.as_fd());
    }

    /// Copies what was printed; false at its end.
    pub(crate) fn outward(&mut self) -> bool {
        copy(self.inside.as_fd(), self.user.fd)
    }
}

fn copy(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> bool {
    let mut chunk = [0; 16 << 10];
    let count = match rustix::io::read(from, &mut chunk) {
        Ok(count) if count > 0 => count,
        Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => return true,
        // A pseudo terminal whose other side is closed gives EIO.
        Ok(_) | Err(_) => return false,
    };
    let mut rest = &chunk[..count];
    while !rest.is_empty() {
        match rustix::io::write(to, rest) {
            Ok(written) => rest = &rest[written..],
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::AGAIN) => return true,
            Err(_) => return false,
        }
    }
    true
}
