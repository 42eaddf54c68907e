//! The body of a `multipart/related` upload: one part of JSON, one part of content, read as it comes in.
//!
//! ```text
//! --BOUNDARY⏎ header: value⏎ … ⏎⏎ JSON ⏎--BOUNDARY⏎ header: value⏎ … ⏎⏎ content ⏎--BOUNDARY--
//! ```
//!
//! ⏎ is CRLF (RFC 2046), or a bare LF as Google's command line writes it. Which of them it is shows after the first boundary and
//! holds for the whole body, so that content which ends in CR is not cut.

use std::collections::VecDeque;

use bytes::Bytes;
use memchr::memmem;

use super::error::{ApiError, Result};

/// Bytes of a part's headers, at most.
const HEADERS_MAX: usize = 16 << 10;
/// Bytes of the JSON part, at most.
pub(super) const JSON_MAX: usize = 256 << 10;
/// Bytes of a boundary, at most (RFC 2046).
const BOUNDARY_MAX: usize = 70;

/// Returns the boundary of a `Content-Type`. Quotes around it are not part of it, single ones neither.
///
/// # Errors
/// It is no `multipart/related`, or names no boundary that can be.
pub(super) fn boundary(content_type: &str) -> Result<String> {
    let wrong =
        |why: &str| ApiError::invalid(format!("a multipart upload needs a Content-Type {why}"));
    let (kind, parameters) = content_type.split_once(';').unwrap_or((content_type, ""));
    if !kind.trim().eq_ignore_ascii_case("multipart/related") {
        return Err(wrong("multipart/related"));
    }
    let found = parameters.split(';').find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        name.trim()
            .eq_ignore_ascii_case("boundary")
            .then(|| value.trim())
    });
    let value = found.ok_or_else(|| wrong("with a boundary"))?;
    let quoted = |quote: char| value.strip_prefix(quote)?.strip_suffix(quote);
    let value = quoted('"').or_else(|| quoted('\'')).unwrap_or(value);
    let is_sane = (1..=BOUNDARY_MAX).contains(&value.len())
        && value.bytes().all(|b| b.is_ascii_graphic() || b == b' ')
        && !value.ends_with(' ');
    is_sane
        .then(|| value.to_owned())
        .ok_or_else(|| wrong("with a boundary of 1 to 70 visible characters"))
}

/// What a body holds, in order.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// The first part.
    Json(Bytes),
    /// The second part begins; the value of its `Content-Type`.
    Content(Option<String>),
    /// Bytes of the second part.
    Bytes(Bytes),
    /// The last boundary was seen: all is there.
    End,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Before the first boundary.
    Start,
    /// In a part's headers: of the first or the second.
    Headers(Part),
    Body(Part),
    /// Behind the boundary that ends a part: `--`, or a line end.
    After(Part),
    /// What follows the end is of no interest.
    Done,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Json,
    Content,
}

/// Takes a body apart; memory holds what one push brings and little more.
#[derive(Debug)]
pub(super) struct Parser {
    boundary: String,
    state: State,
    /// What is received and not yet understood.
    rest: Vec<u8>,
    /// Line end and boundary, once it is known which line ends there are.
    delimiter: Vec<u8>,
    /// Whether nothing of the part's body was taken yet.
    fresh: bool,
    pieces: VecDeque<Piece>,
}

impl Parser {
    pub(super) fn new(boundary: String) -> Parser {
        Parser {
            boundary,
            state: State::Start,
            rest: Vec::new(),
            delimiter: Vec::new(),
            fresh: false,
            pieces: VecDeque::new(),
        }
    }

    /// Takes bytes of the body.
    ///
    /// # Errors
    /// It is no such body, or its JSON or headers are too large (400).
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<()> {
        self.rest.extend_from_slice(bytes);
        while self.step()? {}
        Ok(())
    }

    /// Returns the next piece, if there is one yet.
    pub(super) fn next(&mut self) -> Option<Piece> {
        self.pieces.pop_front()
    }

    /// Does one thing; `false` if more bytes are needed.
    fn step(&mut self) -> Result<bool> {
        match self.state {
            State::Start => self.start(),
            State::Headers(part) => self.headers(part),
            State::Body(part) => self.body(part),
            State::After(part) => self.after(part),
            State::Done => {
                self.rest.clear();
                Ok(false)
            }
        }
    }

    fn start(&mut self) -> Result<bool> {
        // Line ends in front are of no meaning; a preamble is not allowed here.
        let blank = self
            .rest
            .iter()
            .take_while(|b| matches!(b, b'\r' | b'\n'))
            .count();
        self.rest.drain(..blank);
        let first = format!("--{}", self.boundary);
        let Some(end) = self.rest.iter().position(|b| *b == b'\n') else {
            return self.wait(HEADERS_MAX, "the first boundary");
        };
        let line = &self.rest[..end];
        let (line, ending) = match line.strip_suffix(b"\r") {
            Some(line) => (line, "\r\n"),
            None => (line, "\n"),
        };
        if line.trim_ascii_end() != first.as_bytes() {
            return Err(ApiError::invalid(
                "the multipart body does not begin with its boundary",
            ));
        }
        self.delimiter = format!("{ending}{first}").into_bytes();
        self.rest.drain(..=end);
        self.state = State::Headers(Part::Json);
        Ok(true)
    }

    /// Waits for more, unless there is too much already.
    fn wait(&self, most: usize, what: &str) -> Result<bool> {
        if self.rest.len() > most {
            return Err(ApiError::invalid(format!(
                "{what} of the multipart body is longer than {most} bytes"
            )));
        }
        Ok(false)
    }

    fn headers(&mut self, part: Part) -> Result<bool> {
        let mut kind = None;
        let mut at = 0;
        loop {
            let Some(length) = memchr::memchr(b'\n', &self.rest[at..]) else {
                return self.wait(HEADERS_MAX, "a part's head");
            };
            let line = self.rest[at..at + length].trim_ascii();
            at += length + 1;
            if line.is_empty() {
                break;
            }
            let text = String::from_utf8_lossy(line);
            let (name, value) = text.split_once(':').unwrap_or((&text, ""));
            let value = value.trim();
            match name.trim().to_ascii_lowercase().as_str() {
                "content-type" => kind = Some(value.to_owned()),
                "content-transfer-encoding" => transfer(value)?,
                _ => {}
            }
        }
        self.rest.drain(..at);
        if part == Part::Content {
            self.pieces.push_back(Piece::Content(kind));
        }
        self.fresh = true;
        self.state = State::Body(part);
        Ok(true)
    }

    fn body(&mut self, part: Part) -> Result<bool> {
        // An empty part: the boundary stands where the content would, its line end was the one of the head.
        let bare = self.delimiter.len() - self.boundary.len() - 2;
        let is_empty = self.fresh && self.rest.starts_with(&self.delimiter[bare..]);
        let found = if is_empty {
            Some((0, self.delimiter.len() - bare))
        } else {
            memmem::find(&self.rest, &self.delimiter).map(|at| (at, self.delimiter.len()))
        };
        if let Some((at, length)) = found {
            let content = self.rest.drain(..at).collect();
            self.rest.drain(..length);
            self.emit(part, content, true);
            self.state = State::After(part);
            return Ok(true);
        }
        if part == Part::Json {
            return self.wait(JSON_MAX, "the JSON");
        }
        // The delimiter may have begun, so its length is kept back.
        let sure = self.rest.len().saturating_sub(self.delimiter.len());
        if sure > 0 {
            self.fresh = false;
            let content = self.rest.drain(..sure).collect();
            self.emit(part, content, false);
        }
        Ok(false)
    }

    fn emit(&mut self, part: Part, content: Vec<u8>, is_last: bool) {
        match part {
            Part::Json if is_last => self.pieces.push_back(Piece::Json(content.into())),
            Part::Content if !content.is_empty() => {
                self.pieces.push_back(Piece::Bytes(content.into()));
            }
            _ => {}
        }
    }

    fn after(&mut self, part: Part) -> Result<bool> {
        if self.rest.len() < 2 {
            return Ok(false);
        }
        let is_end = self.rest.starts_with(b"--");
        match (part, is_end) {
            (Part::Content, true) => {
                self.pieces.push_back(Piece::End);
                self.state = State::Done;
                Ok(true)
            }
            (Part::Json, false) => {
                let Some(end) = memchr::memchr(b'\n', &self.rest) else {
                    return self.wait(HEADERS_MAX, "a boundary");
                };
                if !self.rest[..end].trim_ascii().is_empty() {
                    return Err(ApiError::invalid(
                        "a boundary of the multipart body is followed by other text",
                    ));
                }
                self.rest.drain(..=end);
                self.state = State::Headers(Part::Content);
                Ok(true)
            }
            _ => Err(ApiError::invalid(
                "a multipart upload has two parts: the object's metadata and its content",
            )),
        }
    }
}

fn transfer(encoding: &str) -> Result<()> {
    let plain = ["binary", "8bit", "7bit", ""];
    if plain
        .iter()
        .any(|plain| encoding.eq_ignore_ascii_case(plain))
    {
        return Ok(());
    }
    let shown: String = encoding.chars().take(40).collect();
    Err(ApiError::not_built(format!(
        "the Content-Transfer-Encoding '{shown}' of a part"
    )))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The JSON, the content's kind, the content, and whether the end was seen.
    type Whole = (Vec<u8>, Option<String>, Vec<u8>, bool);

    fn parse(body: &[u8], boundary: &str, step: usize) -> Result<Whole> {
        let mut parser = Parser::new(boundary.to_owned());
        let mut whole: Whole = (Vec::new(), None, Vec::new(), false);
        for bytes in body.chunks(step.max(1)) {
            parser.push(bytes)?;
            while let Some(piece) = parser.next() {
                match piece {
                    Piece::Json(json) => whole.0 = json.to_vec(),
                    Piece::Content(kind) => whole.1 = kind,
                    Piece::Bytes(bytes) => whole.2.extend_from_slice(&bytes),
                    Piece::End => whole.3 = true,
                }
            }
        }
        Ok(whole)
    }

    fn body(json: &[u8], content: &[u8], boundary: &str, end: &str) -> Vec<u8> {
        let mut out = format!(
            "--{boundary}{end}Content-Type: application/json{end}MIME-Version: 1.0{end}{end}"
        )
        .into_bytes();
        out.extend_from_slice(json);
        out.extend_from_slice(
            format!("{end}--{boundary}{end}content-type: a/b{end}Content-Transfer-Encoding: binary{end}{end}").as_bytes(),
        );
        out.extend_from_slice(content);
        out.extend_from_slice(format!("{end}--{boundary}--").as_bytes());
        out
    }

    #[test]
    fn boundaries_are_found_without_their_quotes() {
        let of = |text| boundary(text).ok();
        assert_eq!(
            of("multipart/related; boundary='===12=='").as_deref(),
            Some("===12==")
        );
        assert_eq!(
            of("Multipart/Related; x=1; Boundary=\"a b\"").as_deref(),
            Some("a b")
        );
        assert_eq!(of("multipart/related; boundary=ab").as_deref(), Some("ab"));
        for bad in [
            "multipart/form-data; boundary=a",
            "multipart/related",
            "multipart/related; boundary=",
            "multipart/related; boundary=''",
        ] {
            assert_eq!(of(bad), None, "{bad}");
        }
        assert_eq!(
            of(&format!("multipart/related; boundary={}", "a".repeat(71))),
            None
        );
    }

    #[test]
    fn content_that_ends_in_a_line_end_is_whole() {
        for end in ["\n", "\r\n"] {
            for content in [
                &b""[..],
                b"\r",
                b"\n",
                b"\r\n",
                b"x\r",
                b"--b",
                b"\n--",
                b"\r\n--\r",
                b"0123456789012345678901234567890123456789--bound",
            ] {
                for step in [1, 3, 1000] {
                    let whole = parse(&body(b"{}", content, "bound", end), "bound", step).unwrap();
                    let expected = (
                        b"{}".to_vec(),
                        Some("a/b".to_owned()),
                        content.to_vec(),
                        true,
                    );
                    assert_eq!(whole, expected, "{end:?} {content:?} {step}");
                }
            }
        }
    }

    #[test]
    fn what_is_no_upload_is_refused() {
        let three = b"--b\n\n{}\n--b\n\nx\n--b\n\ny\n--b--";
        for bad in [
            &b"preamble\n--b\n"[..],
            b"--bb\n",
            b"--b\n\n{}\n--b--",
            b"--b\n\n{}\n--bx\n\n",
            three,
        ] {
            assert!(
                parse(bad, "b", 1).is_err(),
                "{}",
                String::from_utf8_lossy(bad)
            );
        }
        let encoded = b"--b\nContent-Transfer-Encoding: base64\n\n";
        assert_eq!(
            parse(encoded, "b", 9).unwrap_err().reason(),
            "notImplemented"
        );
        let endless = [b"--b\n\n".to_vec(), vec![b'x'; JSON_MAX + 100]].concat();
        assert!(parse(&endless, "b", 4096).is_err());
        let head = [b"--b\n".to_vec(), vec![b'x'; HEADERS_MAX + 100]].concat();
        assert!(parse(&head, "b", 4096).is_err());
        // Cut short: no end is reported.
        assert!(!parse(b"--b\n\n{}\n--b\n\nxy", "b", 1).unwrap().3);
    }

    proptest! {
        #[test]
        fn content_comes_out_as_it_went_in(
            content in prop::collection::vec(prop::sample::select(b"ab-\r\n".to_vec()), 0..60),
            step in 1_usize..70, crlf in any::<bool>(),
        ) {
            let end = if crlf { "\r\n" } else { "\n" };
            // A boundary is chosen so that the content does not hold it.
            let whole = parse(&body(b"{\"name\":\"x\"}", &content, "bound", end), "bound", step).unwrap();
            prop_assert_eq!(whole, (b"{\"name\":\"x\"}".to_vec(), Some("a/b".to_owned()), content, true));
        }

        #[test]
        fn any_body_is_read_or_refused(body in prop::collection::vec(prop::sample::select(b"b-\r\n: {}".to_vec()), 0..80), step in 1_usize..20) {
            let one = parse(&body, "b", step);
            // How the bytes arrive makes no difference.
            let two = parse(&body, "b", 1);
            prop_assert_eq!(one.is_ok(), two.is_ok());
            if let (Ok(one), Ok(two)) = (one, two) && one.3 && two.3 {
                prop_assert_eq!(one, two);
            }
        }
    }
}
