//! Packets: four hexadecimal digits with the length of both, and bytes (<https://git-scm.com/docs/protocol-common>).

use std::io::{self, Read};

/// Bytes that a packet may hold, beside its length.
const LONGEST: usize = 65516;

/// What comes off the line.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Packet<'a> {
    /// Bytes.
    Data(&'a [u8]),
    /// The end of a section.
    Delimiter,
    /// The end.
    Flush,
}

/// Reads packets one after the other.
pub(crate) struct Packets<R> {
    inner: R,
    buffer: Vec<u8>,
}

impl<R: Read> Packets<R> {
    pub(crate) fn new(inner: R) -> Self {
        Packets {
            inner,
            buffer: Vec::new(),
        }
    }

    /// The next packet. An answer that ends within or before one is an error.
    pub(crate) fn next(&mut self) -> io::Result<Packet<'_>> {
        let mut length = [0; 4];
        self.inner.read_exact(&mut length)?;
        let text = std::str::from_utf8(&length).ok();
        let is_hex = length.iter().all(u8::is_ascii_hexdigit);
        let length = text
            .filter(|_| is_hex)
            .and_then(|text| usize::from_str_radix(text, 16).ok());
        match length {
            Some(0) => Ok(Packet::Flush),
            Some(1) => Ok(Packet::Delimiter),
            Some(length) if (4..=LONGEST + 4).contains(&length) => {
                self.buffer.resize(length - 4, 0);
                self.inner.read_exact(&mut self.buffer)?;
                Ok(Packet::Data(&self.buffer))
            }
            _ => Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "what it answers are no packets of git's protocol",
            )),
        }
    }

    /// The next packet as a line without its end, if it has any.
    pub(crate) fn line(&mut self) -> io::Result<Option<&[u8]>> {
        Ok(match self.next()? {
            Packet::Data(bytes) => Some(bytes.strip_suffix(b"\n").unwrap_or(bytes)),
            Packet::Delimiter | Packet::Flush => None,
        })
    }
}

/// A request as packets.
#[derive(Default)]
pub(crate) struct Request(Vec<u8>);

impl Request {
    pub(crate) fn line(&mut self, text: &str) {
        let length = text.len() + 5;
        debug_assert!(length <= LONGEST);
        self.0.extend(format!("{length:04x}{text}\n").bytes());
    }

    pub(crate) fn delimiter(&mut self) {
        self.0.extend(b"0001");
    }

    pub(crate) fn end(mut self) -> Vec<u8> {
        self.0.extend(b"0000");
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_read() {
        let mut packets = Packets::new(&b"0006a\n00010004000"[..]);
        assert_eq!(packets.line().unwrap(), Some(&b"a"[..]));
        assert_eq!(packets.next().unwrap(), Packet::Delimiter);
        assert_eq!(packets.next().unwrap(), Packet::Data(b""));
        assert!(packets.next().is_err());
        for wrong in [
            &b"0003"[..],
            b"fff1",
            b"+00a123456",
            b"<!DOCTYPE",
            b"0008ab",
        ] {
            assert!(Packets::new(wrong).next().is_err());
        }
    }
}
