//! NetworkManager's keyfile format: sections of `key=value` lines (GLib's key files).

use kiln_digest::Sha256;

use crate::hash::custom_uuid;

/// A connection profile on its way to a file.
#[derive(Clone, Debug)]
pub(super) struct Keyfile {
    id: String,
    sections: Vec<(String, Vec<(String, String)>)>,
    secret: bool,
}

impl Keyfile {
    /// A profile with its name and kind. The UUID comes from the name: the same definition, the same bytes.
    pub(super) fn new(id: &str, kind: &str) -> Self {
        let mut file = Keyfile {
            id: id.to_owned(),
            sections: Vec::new(),
            secret: false,
        };
        file.set("connection", "id", escape(id));
        file.set("connection", "uuid", uuid(id));
        file.set("connection", "type", kind.to_owned());
        file
    }

    pub(super) fn set(&mut self, section: &str, key: &str, value: impl Into<String>) {
        let pair = (key.to_owned(), value.into());
        match self.sections.iter_mut().find(|(name, _)| name == section) {
            Some((_, pairs)) => pairs.push(pair),
            None => self.sections.push((section.to_owned(), vec![pair])),
        }
    }

    pub(super) fn set_secret(&mut self, section: &str, key: &str, value: &str) {
        self.secret = true;
        self.set(section, key, escape(value));
    }

    /// The file's name without its ending.
    pub(super) fn name(&self) -> String {
        let safe = |c: char| {
            if c.is_ascii_alphanumeric() || "._-@".contains(c) {
                c
            } else {
                '_'
            }
        };
        let name: String = self.id.chars().take(64).map(safe).collect();
        // A name that starts with a dot is a hidden file, which NetworkManager skips.
        if name.starts_with('.') {
            format!("_{name}")
        } else {
            name
        }
    }

    pub(super) fn has_secret(&self) -> bool {
        self.secret
    }

    pub(super) fn text(&self) -> String {
        let section = |(name, pairs): &(String, Vec<(String, String)>)| {
            let lines: String = pairs.iter().map(|(k, v)| format!("{k}={v}\n")).collect();
            format!("[{name}]\n{lines}")
        };
        self.sections
            .iter()
            .map(section)
            .collect::<Vec<_>>()
            .join("\n")
    }
}

/// GLib's escapes: a leading blank would be cut, a backslash starts an escape.
pub(super) fn escape(value: &str) -> String {
    let mut text = String::new();
    for (index, letter) in value.chars().enumerate() {
        match letter {
            ' ' if index == 0 => text.push_str("\\s"),
            '\\' => text.push_str("\\\\"),
            '\t' => text.push_str("\\t"),
            '\n' => text.push_str("\\n"),
            '\r' => text.push_str("\\r"),
            other => text.push(other),
        }
    }
    text
}

/// A network's name: plain where that is unambiguous, else its bytes (`108;97;98;`).
pub(super) fn ssid(name: &str) -> String {
    let plain = name
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
        && name.bytes().any(|b| b.is_ascii_alphabetic());
    if plain {
        name.to_owned()
    } else {
        name.bytes().map(|b| format!("{b};")).collect()
    }
}

/// A UUID of version 8 (RFC 9562 section 5.8) from a profile's name.
pub(super) fn uuid(id: &str) -> String {
    let digest = Sha256::new()
        .chain_update(b"kiln connection v1\0")
        .chain_update(id.as_bytes())
        .finalize();
    custom_uuid(&digest).to_string()
}
