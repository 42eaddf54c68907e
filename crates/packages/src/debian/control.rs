//! Debian's control syntax (deb822(5)): stanzas of `Name: value` fields, without copying.

/// Returns the value of a field in a stanza, without white space around it; continuation lines are kept as they are.
pub fn field<'a>(stanza: &'a str, name: &str) -> Option<&'a str> {
    fields(stanza)
        .find(|(found, _)| found.eq_ignore_ascii_case(name))
        .map(|(_, value)| value)
}

/// Returns all fields of a stanza in order. Lines that are neither a field nor a continuation (comments) are left out.
pub fn fields(stanza: &str) -> impl Iterator<Item = (&str, &str)> {
    let mut rest = stanza;
    std::iter::from_fn(move || {
        loop {
            if rest.is_empty() {
                return None;
            }
            let end = field_end(rest.as_bytes());
            let (this, after) = rest.split_at(end);
            rest = after;
            if let Some((name, value)) = this.split_once(':')
                && !name.is_empty()
                && !name.starts_with([' ', '\t', '#', '\n'])
            {
                return Some((name, value.trim()));
            }
        }
    })
}

/// Length of a field with its continuation lines and its line end.
pub(super) fn field_end(bytes: &[u8]) -> usize {
    let mut at = 0;
    loop {
        match find(&bytes[at..], b'\n') {
            None => return bytes.len(),
            Some(newline) => at += newline + 1,
        }
        if !matches!(bytes.get(at), Some(b' ' | b'\t')) {
            return at;
        }
    }
}

fn find(bytes: &[u8], byte: u8) -> Option<usize> {
    bytes.iter().position(|&b| b == byte)
}

/// Returns the stanzas of a file: pieces between empty lines.
pub fn stanzas(text: &str) -> impl Iterator<Item = &str> {
    text.split("\n\n")
        .map(|piece| piece.trim_matches('\n'))
        .filter(|piece| !piece.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str =
        "Package: a\nDescription: first\n second\n .\n third\n# note\nSize:12\n\n\nPackage: b\n";

    #[test]
    fn fields_keep_continuations() {
        let all: Vec<&str> = stanzas(TEXT).collect();
        assert_eq!(all.len(), 2);
        assert_eq!(
            field(all[0], "description"),
            Some("first\n second\n .\n third")
        );
        assert_eq!(field(all[0], "Size"), Some("12"));
        assert_eq!(field(all[0], "# note"), None);
        assert_eq!(fields(all[0]).count(), 3);
        assert_eq!(field(all[1], "Package"), Some("b"));
    }

    #[test]
    fn odd_input_ends() {
        for text in ["", "\n", ":", "a", " a: b", "a:", "\u{e9}: x\n y"] {
            let _ = fields(text).count();
            let _ = stanzas(text).count();
        }
    }
}
