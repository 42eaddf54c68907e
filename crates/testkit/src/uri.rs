//! Texts in URIs.

/// A text without percent-encoding (RFC 3986, section 2.1).
pub(crate) fn decoded(text: &str) -> String {
    let (first, rest) = text
        .split_once('%')
        .map_or((text, None), |(first, rest)| (first, Some(rest)));
    let mut out = first.as_bytes().to_vec();
    for part in rest.iter().flat_map(|rest| rest.split('%')) {
        let (hex, rest) = part.split_at_checked(2).unwrap_or((part, ""));
        out.extend(u8::from_str_radix(hex, 16));
        out.extend_from_slice(rest.as_bytes());
    }
    String::from_utf8_lossy(&out).into_owned()
}
