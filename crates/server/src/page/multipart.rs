//! Forms with files: `multipart/form-data`, as browsers send it (RFC 7578). The whole of it is in memory.

/// A part: a field, or a file of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Part<'a> {
    /// The field's name.
    pub(super) name: String,
    /// The file's name; with directories in front where a directory was chosen. Fields have none.
    pub(super) file: Option<String>,
    /// What it holds.
    pub(super) content: &'a [u8],
}

/// Bytes of a part's head.
const LONGEST_HEAD: usize = 16 << 10;

/// The text between parts, as the form's type has it.
pub(super) fn boundary(kind: &str) -> Option<&str> {
    let mut words = kind.split(';').map(str::trim);
    if !words.next()?.eq_ignore_ascii_case("multipart/form-data") {
        return None;
    }
    let text = words.find_map(|word| word.strip_prefix("boundary="))?;
    let text = text.trim_matches('"');
    (1..=70).contains(&text.len()).then_some(text)
}

/// The parts of a form, `most` of them.
///
/// # Errors
/// Says what is wrong with it.
pub(super) fn parts<'a>(
    body: &'a [u8],
    boundary: &str,
    most: usize,
) -> Result<Vec<Part<'a>>, String> {
    let cut = || "the form is cut off".to_owned();
    let between = format!("\r\n--{boundary}");
    let finder = memchr::memmem::Finder::new(between.as_bytes());
    // The first one has no line in front.
    let mut rest = body
        .strip_prefix(&between.as_bytes()[2..])
        .ok_or_else(cut)?;
    let mut found = Vec::new();
    while !rest.starts_with(b"--") {
        if found.len() >= most {
            return Err(format!("the form has more than {most} files and fields"));
        }
        rest = rest.strip_prefix(b"\r\n").ok_or_else(cut)?;
        let end = memchr::memmem::find(
            rest.get(..LONGEST_HEAD.min(rest.len())).unwrap_or(rest),
            b"\r\n\r\n",
        );
        let (head, content) = rest.split_at(end.ok_or_else(cut)?);
        let content = &content[4..];
        let end = finder.find(content).ok_or_else(cut)?;
        found.push(part(head, &content[..end])?);
        rest = &content[end + between.len()..];
    }
    Ok(found)
}

fn part<'a>(head: &[u8], content: &'a [u8]) -> Result<Part<'a>, String> {
    let head = std::str::from_utf8(head).map_err(|_| "a name of the form is no UTF-8")?;
    let line = head.split("\r\n").find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-disposition")
            .then_some(value)
    });
    let line = line.ok_or("a part of the form has no name")?;
    let value = |name: &str| {
        // Browsers write a quotation mark within a name as %22.
        let (_, rest) = line.split_once(&format!("; {name}=\""))?;
        let (value, _) = rest.split_once('"')?;
        Some(
            value
                .replace("%22", "\"")
                .replace("%0D", "\r")
                .replace("%0A", "\n"),
        )
    };
    Ok(Part {
        name: value("name").ok_or("a part of the form has no name")?,
        file: value("filename"),
        content,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FORM: &[u8] = b"--x\r\nContent-Disposition: form-data; name=\"proof\"\r\n\r\nabc\r\n--x\r\nContent-Disposition: form-data; \
name=\"file\"; filename=\"lab/a%22.ks\"\r\nContent-Type: text/plain\r\n\r\n\r\n--y\r\n\r\n--x--\r\n";

    #[test]
    fn parts_are_told_apart() {
        let parts = parts(FORM, "x", 10).unwrap();
        assert_eq!(
            (parts[0].name.as_str(), parts[0].content),
            ("proof", &b"abc"[..])
        );
        assert_eq!(parts[1].file.as_deref(), Some("lab/a\".ks"));
        assert_eq!(parts[1].content, b"\r\n--y\r\n");
        assert!(
            super::parts(FORM, "x", 1)
                .unwrap_err()
                .contains("more than 1")
        );
        for end in 0..FORM.len() - 4 {
            assert!(super::parts(&FORM[..end], "x", 10).is_err(), "{end}");
        }
        assert_eq!(
            boundary("multipart/form-data; boundary=\"a b\""),
            Some("a b")
        );
        for kind in [
            "text/plain; boundary=x",
            "multipart/form-data",
            "multipart/form-data; boundary=",
        ] {
            assert_eq!(boundary(kind), None);
        }
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(body in prop::collection::vec(prop_oneof![Just(b"--x".to_vec()), Just(b"\r\n".to_vec()), prop::collection::vec(any::<u8>(), 0..4)], 0..40)) {
            let body: Vec<u8> = body.concat();
            drop(parts(&body, "x", 10));
        }
    }
}
