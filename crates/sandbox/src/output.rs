//! Cutting what a run prints into lines.

use crate::Stream;

/// Bytes of one line that are passed on; the rest of it is left out.
pub(crate) const MAX_LINE: usize = 16 << 10;

/// Passes lines on until the limit of bytes is reached, then counts only.
pub(crate) struct Output<'a> {
    sink: &'a mut dyn FnMut(Stream, &str),
    left: u64,
    limit: u64,
    dropped: u64,
}

impl<'a> Output<'a> {
    pub(crate) fn new(sink: &'a mut dyn FnMut(Stream, &str), limit: u64) -> Self {
        Output {
            sink,
            left: limit,
            limit,
            dropped: 0,
        }
    }

    /// Bytes that were not passed on.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped
    }

    fn emit(&mut self, stream: Stream, line: &[u8], cut: u64) {
        let bytes = line.len() as u64 + 1;
        if self.left == 0 {
            self.dropped += bytes + cut;
            return;
        }
        let text = String::from_utf8_lossy(line);
        if cut > 0 {
            self.dropped += cut;
            (self.sink)(stream, &format!("{text} [{cut} more bytes in this line]"));
        } else {
            (self.sink)(stream, &text);
        }
        self.left = self.left.saturating_sub(bytes);
        if self.left == 0 {
            (self.sink)(
                stream,
                &format!(
                    "[more than {} bytes of output; the rest is left out]",
                    self.limit
                ),
            );
        }
    }
}

/// One stream's unfinished line.
pub(crate) struct Lines {
    stream: Stream,
    line: Vec<u8>,
    cut: u64,
}

impl Lines {
    pub(crate) fn new(stream: Stream) -> Self {
        Lines {
            stream,
            line: Vec::new(),
            cut: 0,
        }
    }

    /// Takes in bytes of a byte stream.
    pub(crate) fn feed(&mut self, bytes: &[u8], output: &mut Output<'_>) {
        if output.left == 0 && self.line.is_empty() && self.cut == 0 {
            output.dropped += bytes.len() as u64;
            return;
        }
        let mut rest = bytes;
        while let Some((line, after)) =
            memchr::memchr(b'\n', rest).and_then(|end| rest.split_at_checked(end))
        {
            self.append(line);
            self.finish(output);
            rest = &after[1..];
        }
        self.append(rest);
    }

    /// Takes in one datagram: a message or several lines of one.
    pub(crate) fn datagram(&mut self, bytes: &[u8], output: &mut Output<'_>) {
        let message = strip_syslog(bytes);
        for line in message.split(|byte| *byte == b'\n') {
            self.append(line);
            self.flush(output);
        }
    }

    /// Ends an unfinished line.
    pub(crate) fn flush(&mut self, output: &mut Output<'_>) {
        if !self.line.is_empty() || self.cut > 0 {
            self.finish(output);
        }
    }

    fn append(&mut self, bytes: &[u8]) {
        let room = MAX_LINE - self.line.len().min(MAX_LINE);
        let (kept, cut) = bytes.split_at(bytes.len().min(room));
        self.line.extend_from_slice(kept);
        self.cut += cut.len() as u64;
    }

    fn finish(&mut self, output: &mut Output<'_>) {
        output.emit(self.stream, shown(&self.line), self.cut);
        self.line.clear();
        self.cut = 0;
    }
}

/// What a terminal would show of a line: what follows its last carriage return, as progress meters write them.
fn shown(line: &[u8]) -> &[u8] {
    let end = line
        .iter()
        .rposition(|byte| *byte != b'\r')
        .map_or(0, |last| last + 1);
    let line = &line[..end];
    let start = line
        .iter()
        .rposition(|byte| *byte == b'\r')
        .map_or(0, |last| last + 1);
    &line[start..]
}

/// A message without its priority (`<13>`), time stamp (`Mmm dd hh:mm:ss `) and trailing NUL or line end: RFC 3164,
/// section 4.1, as local programs send it.
fn strip_syslog(bytes: &[u8]) -> &[u8] {
    let end = bytes
        .iter()
        .rposition(|byte| !matches!(byte, 0 | b'\n'))
        .map_or(0, |last| last + 1);
    let bytes = &bytes[..end];
    let after_priority = bytes
        .strip_prefix(b"<")
        .and_then(|rest| {
            let close = rest.iter().take(4).position(|byte| *byte == b'>')?;
            let digits = rest.get(..close)?;
            (!digits.is_empty() && digits.iter().all(u8::is_ascii_digit))
                .then_some(rest.get(close + 1..)?)
        })
        .unwrap_or(bytes);
    match after_priority.split_at_checked(16) {
        Some((stamp, rest)) if is_time_stamp(stamp) => rest,
        _ => after_priority,
    }
}

fn is_time_stamp(text: &[u8]) -> bool {
    let shape = b"Aaa 99 99:99:99 ";
    text.len() == shape.len()
        && text
            .iter()
            .zip(shape)
            .enumerate()
            .all(|(index, (byte, shape))| match shape {
                b'A' | b'a' => byte.is_ascii_alphabetic(),
                // A day below 10 has a space in front.
                b'9' => byte.is_ascii_digit() || (index == 4 && *byte == b' '),
                other => byte == other,
            })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn collect(limit: u64, feed: impl FnOnce(&mut Lines, &mut Output<'_>)) -> (Vec<String>, u64) {
        let mut seen = Vec::new();
        let mut sink = |_: Stream, line: &str| seen.push(line.to_owned());
        let mut output = Output::new(&mut sink, limit);
        let mut lines = Lines::new(Stream::Stdout);
        feed(&mut lines, &mut output);
        lines.flush(&mut output);
        let dropped = output.dropped();
        (seen, dropped)
    }

    #[test]
    fn lines_are_joined_and_progress_is_folded() {
        let (seen, dropped) = collect(1000, |lines, output| {
            lines.feed(b"one\ntw", output);
            lines.feed(b"o\n\n10%\r20%\r100%\r\nlast \xff", output);
        });
        assert_eq!(seen, ["one", "two", "", "100%", "last \u{fffd}"]);
        assert_eq!(dropped, 0);
    }

    #[test]
    fn a_long_line_is_cut_and_says_so() {
        let (seen, dropped) = collect(1 << 20, |lines, output| {
            lines.feed(&[b'x'; MAX_LINE + 5], output)
        });
        assert!(
            seen[0].ends_with("x [5 more bytes in this line]"),
            "{}",
            seen[0]
        );
        assert_eq!(dropped, 5);
    }

    #[test]
    fn beyond_the_limit_output_is_counted_only() {
        let (seen, dropped) = collect(8, |lines, output| {
            (0..10).for_each(|_| lines.feed(b"abc\n", output));
        });
        assert_eq!(
            seen,
            [
                "abc",
                "abc",
                "[more than 8 bytes of output; the rest is left out]"
            ]
        );
        assert_eq!(dropped, 32);
    }

    #[test]
    fn syslog_headers_go() {
        let (seen, _) = collect(1000, |lines, output| {
            lines.datagram(b"<13>Nov  3 15:48:24 logger: hello\nworld\0", output);
            lines.datagram(b"<999x plain", output);
        });
        assert_eq!(seen, ["logger: hello", "world", "<999x plain"]);
    }
}
