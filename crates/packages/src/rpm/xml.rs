//! XML as RPM repositories have it, read piece by piece within bounds.
//!
//! No entity but the five of XML itself is known, and a document that declares some is refused: what is written is what is there.

use std::io::BufRead;

use quick_xml::events::{BytesStart, Event};
use quick_xml::{Reader, XmlVersion};

use crate::{Error, ErrorKind, Result};

/// Nesting of elements; a repository's has eight levels.
const MAX_DEPTH: usize = 32;
/// Bytes of one element's text, or of all attributes of one: changelogs are not read, descriptions are short.
const MAX_TEXT: usize = 4 << 20;

/// Attributes of an element, without the prefixes of their names.
#[derive(Debug, Default)]
pub(super) struct Attributes(Vec<(String, String)>);

impl Attributes {
    /// The value of one.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }
}

/// Takes what a document has, element by element. An `Err` is the end of a sentence that begins with the document's name.
pub(super) trait Take {
    /// An element begins. `path` has the names of the open ones without prefixes, joined by `/`, its own last.
    fn begin(&mut self, path: &str, attributes: &Attributes) -> Result<(), String>;
    /// An element ends; `text` is what stood directly in it, without space around it.
    fn end(&mut self, path: &str, text: &str) -> Result<(), String>;
}

/// Reads a document to its end. `what` names it for messages.
///
/// # Errors
/// [`ErrorKind::Malformed`] with the byte where it is; [`ErrorKind::Io`] for what the reader says.
pub(super) fn read(what: &str, input: impl BufRead, take: &mut impl Take) -> Result<()> {
    let mut reader = Reader::from_reader(input);
    let mut open = Open::default();
    let mut buffer = Vec::new();
    loop {
        let event = reader.read_event_into(&mut buffer);
        let at = reader.buffer_position();
        let outcome = match event {
            Ok(Event::Eof) => {
                return match open.texts.is_empty() && open.seen {
                    true => Ok(()),
                    false => Err(malformed(what, at, &open.unfinished())),
                };
            }
            Ok(event) => open.event(event, take),
            // What no system call said is what a decompressor thinks of the bytes.
            Err(quick_xml::Error::Io(error)) if error.raw_os_error().is_some() => {
                let error = std::io::Error::new(error.kind(), error);
                return Err(Error::io(format_args!("reading {what}"), error));
            }
            Err(quick_xml::Error::Io(error)) => Err(format!("cannot be read to its end: {error}")),
            Err(error) => Err(format!("is no good XML: {error}")),
        };
        outcome.map_err(|why| malformed(what, at, &why))?;
        buffer.clear();
    }
}

fn malformed(what: &str, at: u64, why: &str) -> Error {
    Error::new(ErrorKind::Malformed, format!("{what} {why} (at byte {at})"))
        .with_hint("The repository itself is broken: tell its maintainers, or use another mirror.")
}

/// The elements that are open.
#[derive(Default)]
struct Open {
    path: String,
    texts: Vec<String>,
    seen: bool,
}

impl Open {
    fn event(&mut self, event: Event<'_>, take: &mut impl Take) -> Result<(), String> {
        match event {
            Event::Start(element) => self.begin(&element, take),
            Event::Empty(element) => {
                self.begin(&element, take)?;
                self.end(take)
            }
            Event::End(_) => self.end(take),
            Event::Text(text) => self.text(&text.xml10_content().map_err(bad)?),
            Event::CData(text) => self.text(&text.xml10_content().map_err(bad)?),
            Event::GeneralRef(reference) => {
                let name = reference.decode().map_err(bad)?;
                let character = match reference.resolve_char_ref().map_err(bad)? {
                    Some(character) => character,
                    None => predefined(&name).ok_or_else(|| {
                        format!("uses the entity &{name};, which XML does not have")
                    })?,
                };
                self.text(character.encode_utf8(&mut [0; 4]))
            }
            Event::DocType(text) if text.contains(&b'[') => {
                Err("declares entities, which no metadata needs".into())
            }
            Event::Decl(_) | Event::PI(_) | Event::Comment(_) | Event::DocType(_) | Event::Eof => {
                Ok(())
            }
        }
    }

    fn begin(&mut self, element: &BytesStart<'_>, take: &mut impl Take) -> Result<(), String> {
        if self.texts.len() == MAX_DEPTH {
            return Err(format!("nests elements more than {MAX_DEPTH} times"));
        }
        if self.texts.is_empty() && std::mem::replace(&mut self.seen, true) {
            return Err("has more than one element at the top".into());
        }
        if element.len() > MAX_TEXT {
            return Err(format!(
                "has an element with more than {MAX_TEXT} bytes of attributes"
            ));
        }
        let local = element.local_name();
        let name = std::str::from_utf8(local.as_ref()).map_err(bad)?;
        if !self.path.is_empty() {
            self.path.push('/');
        }
        self.path.push_str(name);
        self.texts.push(String::new());
        let mut attributes = Attributes::default();
        for attribute in element.attributes() {
            let attribute = attribute.map_err(bad)?;
            let key = attribute.key.local_name();
            let key = std::str::from_utf8(key.as_ref()).map_err(bad)?.to_owned();
            let value = attribute
                .normalized_value(XmlVersion::Implicit1_0)
                .map_err(bad)?;
            attributes.0.push((key, value.into_owned()));
        }
        take.begin(&self.path, &attributes)
    }

    fn end(&mut self, take: &mut impl Take) -> Result<(), String> {
        let text = self.texts.pop().ok_or("ends an element that is not open")?;
        take.end(&self.path, text.trim())?;
        self.path.truncate(self.path.rfind('/').unwrap_or(0));
        Ok(())
    }

    fn text(&mut self, piece: &str) -> Result<(), String> {
        match self.texts.last_mut() {
            Some(text) if text.len() + piece.len() > MAX_TEXT => {
                Err(format!("has a text of more than {MAX_TEXT} bytes"))
            }
            Some(text) => {
                text.push_str(piece);
                Ok(())
            }
            None if piece.trim().is_empty() => Ok(()),
            None => Err("has text outside of its elements".into()),
        }
    }

    fn unfinished(&self) -> String {
        match self.path.rsplit('/').next() {
            Some(name) if !name.is_empty() => format!("is cut: it ends within <{name}>"),
            _ => "is no XML document: it has no element".into(),
        }
    }
}

fn bad(error: impl std::fmt::Display) -> String {
    format!("is no good XML: {error}")
}

fn predefined(name: &str) -> Option<char> {
    Some(match name {
        "amp" => '&',
        "lt" => '<',
        "gt" => '>',
        "quot" => '"',
        "apos" => '\'',
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Log(String);

    impl Take for Log {
        fn begin(&mut self, path: &str, attributes: &Attributes) -> Result<(), String> {
            self.0
                .push_str(&format!("{path}{:?} ", attributes.get("v")));
            Ok(())
        }
        fn end(&mut self, path: &str, text: &str) -> Result<(), String> {
            self.0.push_str(&format!("/{path}={text} "));
            Ok(())
        }
    }

    fn log(text: &str) -> Result<String> {
        let mut log = Log::default();
        read("x.xml", text.as_bytes(), &mut log).map(|()| log.0)
    }

    #[test]
    fn prefixes_go_and_references_are_resolved() {
        let text = "<?xml version='1.0'?><a xmlns:r='u'><r:b v='1 &lt; 2'>x&amp;&#65;<!-- c --></r:b> <c/></a>\n";
        let expected = "aNone a/bSome(\"1 < 2\") /a/b=x&A a/cNone /a/c= /a= ";
        assert_eq!(log(text).expect("good"), expected);
    }

    #[test]
    fn what_is_not_good_is_an_error_with_its_place() {
        let deep = "<a>".repeat(40);
        let bomb = "<!DOCTYPE a [<!ENTITY x \"xxxx\"><!ENTITY y \"&x;&x;\">]><a>&y;</a>";
        let cases = [
            ("", "no element"),
            ("hello", "outside of its elements"),
            ("<a><b></b>", "ends within <a>"),
            ("<a></b>", "no good XML"),
            ("<a/><a/>", "more than one element"),
            ("<a>&nbsp;</a>", "&nbsp;"),
            ("<a v='&y;'/>", "no good XML"),
            (deep.as_str(), "more than 32 times"),
            (bomb, "declares entities"),
        ];
        for (text, expected) in cases {
            let error = log(text).expect_err(text);
            assert_eq!(error.kind(), ErrorKind::Malformed, "{text}");
            let said = error.to_string();
            assert!(
                said.contains(expected) && said.contains("byte"),
                "{text}: {said}"
            );
        }
    }
}
