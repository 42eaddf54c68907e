//! What parent and child say to each other over a stream socket.
//!
//! A frame is a little-endian `u32` length followed by that many bytes of JSON. Descriptors travel with a frame's
//! first byte and are handed out in the order in which they were sent.

use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::{Error, Request, Stream};

/// `argv[0]` of the sandbox child.
pub(crate) const MARK: &str = "kiln: sandbox";

/// The kernel's limit of descriptors in one message (`SCM_MAX_FD`).
pub(crate) const MAX_FDS: usize = 253;
/// A frame larger than this is taken for a broken stream.
const MAX_FRAME: usize = 1 << 30;

/// The first frame: what to do. Its descriptors are lifeline, stdin, stdout, stderr, call socket, then the handed ones.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Start {
    pub(crate) job: Job,
    /// Rows and columns, when the run gets a terminal of its own.
    pub(crate) terminal: Option<(u16, u16)>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Job {
    Run(Box<Request>),
    RemoveTrees(Vec<std::path::PathBuf>),
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum ToChild {
    /// The id maps are written.
    Mapped,
    /// End the run: everything inside is to be killed.
    Kill,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum FromChild {
    /// The user namespace exists and waits for its id maps.
    Unshared,
    /// The other end of the network interface; attached.
    Interface,
    /// The init exists; its pidfd is attached.
    Init,
    /// The body is about to run. One descriptor for each source.
    Ready { sources: Vec<Source> },
    /// The body has ended and everything in the namespace is dead.
    Exited {
        status: i32,
        cpu_seconds: f64,
        max_rss_bytes: u64,
        over_memory: bool,
    },
    /// A job without a body is done.
    Done,
    /// Setting up failed.
    Failed(Error),
}

/// What a descriptor sent with [`FromChild::Ready`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Source {
    /// Lines of this stream: a datagram socket or a pipe.
    Lines(Stream),
    /// The controlling side of the pseudo terminal.
    Terminal,
}

/// What a call sends on its own socket.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum FromCall {
    Message(serde_json::Value),
    /// Where the system calls of a watched program arrive; attached.
    Watch,
    /// A watched program runs unwatched; why.
    Unwatched(String),
    Result(Result<serde_json::Value, Error>),
}

/// Sends one frame. Blocks; callers that share the socket take turns by a lock of theirs.
pub(crate) fn send<T: Serialize>(
    socket: BorrowedFd<'_>,
    message: &T,
    fds: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let mut frame = vec![0; 4];
    serde_json::to_writer(&mut frame, message)?;
    let length = frame.len() - 4;
    if length > MAX_FRAME {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "the message is larger than 1 GiB",
        ));
    }
    frame[..4].copy_from_slice(&(length as u32).to_le_bytes());
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "too many descriptors for one message",
        ));
    }
    let mut sent = 0;
    while sent < frame.len() {
        let result = if sent == 0 {
            rustix::net::sendmsg(
                socket,
                &[IoSlice::new(&frame)],
                &mut control,
                SendFlags::NOSIGNAL,
            )
        } else {
            rustix::net::send(socket, &frame[sent..], SendFlags::NOSIGNAL)
        };
        match result {
            Ok(count) => sent += count,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// The receiving side.
pub(crate) struct Receiver {
    socket: OwnedFd,
    bytes: Vec<u8>,
    fds: VecDeque<OwnedFd>,
    ended: bool,
}

impl Receiver {
    pub(crate) fn new(socket: OwnedFd) -> Self {
        Receiver {
            socket,
            bytes: Vec::new(),
            fds: VecDeque::new(),
            ended: false,
        }
    }

    pub(crate) fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Whether the other side has closed.
    pub(crate) fn ended(&self) -> bool {
        self.ended
    }

    /// The next descriptor that came along.
    pub(crate) fn fd(&mut self) -> io::Result<OwnedFd> {
        self.fds
            .pop_front()
            .ok_or_else(|| io::Error::other("a descriptor is missing in a message"))
    }

    pub(crate) fn all_fds(&mut self) -> Vec<OwnedFd> {
        self.fds.drain(..).collect()
    }

    /// Waits for a frame; `None` at the end of the stream.
    pub(crate) fn receive<T: DeserializeOwned>(&mut self) -> io::Result<Option<T>> {
        loop {
            if let Some(message) = self.take()? {
                return Ok(Some(message));
            }
            if self.ended {
                return Ok(None);
            }
            self.fill(RecvFlags::empty())?;
        }
    }

    /// Takes in what has arrived without waiting. Frames are then taken by [`Receiver::take`].
    pub(crate) fn poll(&mut self) -> io::Result<()> {
        self.fill(RecvFlags::DONTWAIT)
    }

    /// The next complete frame that has been taken in.
    pub(crate) fn take<T: DeserializeOwned>(&mut self) -> io::Result<Option<T>> {
        let Some(header) = self.bytes.first_chunk::<4>() else {
            return Ok(None);
        };
        let length = u32::from_le_bytes(*header) as usize;
        if length > MAX_FRAME {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "a message has an impossible length",
            ));
        }
        let Some(body) = self.bytes.get(4..4 + length) else {
            return Ok(None);
        };
        let message = serde_json::from_slice(body)?;
        self.bytes.drain(..4 + length);
        Ok(Some(message))
    }

    fn fill(&mut self, flags: RecvFlags) -> io::Result<()> {
        let mut chunk = vec![0; 64 << 10];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = flags | RecvFlags::CMSG_CLOEXEC;
        let received = match rustix::net::recvmsg(
            &self.socket,
            &mut [IoSliceMut::new(&mut chunk)],
            &mut control,
            flags,
        ) {
            Ok(message) => message.bytes,
            Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => return Ok(()),
            Err(rustix::io::Errno::CONNRESET) => 0,
            Err(error) => return Err(error.into()),
        };
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(fds) = message {
                self.fds.extend(fds);
            }
        }
        self.ended |= received == 0;
        self.bytes.extend_from_slice(&chunk[..received]);
        Ok(())
    }
}
