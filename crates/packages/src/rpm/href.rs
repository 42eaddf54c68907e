//! Places of files, relative to the base of a repository.

/// Returns what is wrong with a place that metadata names: the end of a sentence. What it names must lie below the repository.
pub(super) fn check(href: &str) -> Result<(), String> {
    let wrong = |why: &str| Err(format!("names the file {href:?}, {why}"));
    if href.is_empty() || href.len() > 1024 {
        return wrong("which is no place");
    }
    if href
        .chars()
        .any(|c| c.is_control() || c == '\\' || c.is_whitespace())
    {
        return wrong("which has characters that no place has");
    }
    if href.starts_with('/')
        || href
            .split('/')
            .next()
            .is_some_and(|first| first.contains(':'))
    {
        return wrong("which does not lie below the repository");
    }
    let decoded = crate::fetch::url::percent_decode(href);
    for part in decoded.split(|&byte| byte == b'/' || byte == b'\\') {
        if part == b".." {
            return wrong("which does not lie below the repository");
        }
    }
    match href.contains(['?', '#']) {
        true => wrong("which has characters that no place has"),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::check;

    #[test]
    fn places_cannot_climb_nor_lead_elsewhere() {
        for good in [
            "repodata/a-primary.xml.gz",
            "Packages/b/bash-5.1.8-9.el9.x86_64.rpm",
            "a/b..c",
            "x%2B.rpm",
        ] {
            assert_eq!(check(good), Ok(()));
        }
        for bad in [
            "",
            "/etc/passwd",
            "../x",
            "a/../../x",
            "a/%2e%2e/x",
            "a%2f..%2fx",
            "http://h/x",
            "file:/x",
            "a\\..\\b",
            "a b",
            "a?b",
            "a\nb",
        ] {
            assert!(check(bad).is_err(), "{bad:?}");
        }
    }
}
