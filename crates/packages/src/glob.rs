//! Shell patterns over package names, and names that look alike.

/// Whether a text has characters that make it a pattern.
pub(crate) fn is_pattern(text: &str) -> bool {
    text.contains(['*', '?', '['])
}

/// Matches `*`, `?`, `[abc]`, `[a-z]`, `[!a]` over the whole text; `*` matches `/` too, as dpkg's path filters want.
pub fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    // Where to go on when the text after the last `*` does not fit: one byte more for the star.
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        let step = match pattern.get(p) {
            Some(b'*') => {
                star = Some((p + 1, n));
                p += 1;
                continue;
            }
            Some(_) => one(&pattern[p..], name[n]),
            None => None,
        };
        match (step, star) {
            (Some(length), _) => (p, n) = (p + length, n + 1),
            (None, Some((after, at))) => {
                star = Some((after, at + 1));
                (p, n) = (after, at + 1);
            }
            (None, None) => return false,
        }
    }
    pattern[p..].iter().all(|&b| b == b'*')
}

/// If the first element of the pattern accepts the byte, that element's length.
fn one(pattern: &[u8], byte: u8) -> Option<usize> {
    match pattern.first()? {
        b'?' => Some(1),
        b'[' => match class(pattern, byte) {
            Some((length, accepted)) => accepted.then_some(length),
            None => (byte == b'[').then_some(1),
        },
        &literal => (literal == byte).then_some(1),
    }
}

/// Length of a bracket expression and whether it accepts the byte; `None` if it is not closed.
fn class(pattern: &[u8], byte: u8) -> Option<(usize, bool)> {
    let negated = matches!(pattern.get(1), Some(b'!' | b'^'));
    let start = if negated { 2 } else { 1 };
    // A `]` right at the start is a member.
    let end = start + 1 + pattern.get(start + 1..)?.iter().position(|&b| b == b']')?;
    let (mut at, mut found) = (start, false);
    while at < end {
        if at + 2 < end && pattern[at + 1] == b'-' {
            found |= (pattern[at]..=pattern[at + 2]).contains(&byte);
            at += 3;
        } else {
            found |= pattern[at] == byte;
            at += 1;
        }
    }
    Some((end + 1, found != negated))
}

/// The names nearest to a misspelt one, best first: at most `count`, and only such that plausibly were meant.
pub fn nearest<'a>(
    wanted: &str,
    names: impl Iterator<Item = &'a str>,
    count: usize,
) -> Vec<&'a str> {
    let limit = (wanted.len() / 3).clamp(1, 4);
    let mut scored: Vec<(usize, &str)> = names
        .filter_map(|name| {
            let close = wanted.len().abs_diff(name.len()) <= limit;
            let distance = close
                .then(|| strsim::osa_distance(wanted, name))
                .filter(|&d| d <= limit);
            // `firefox` for `firefox-esr`: a longer name that has the wanted one as its first words.
            let longer = name
                .strip_prefix(wanted)
                .is_some_and(|rest| rest.starts_with('-'));
            let score = distance
                .map(|d| d * 2)
                .or_else(|| longer.then(|| 2 + (name.len() - wanted.len()) / 8))?;
            Some((score, name))
        })
        .collect();
    scored.sort_unstable_by_key(|&(score, name)| (score, name.len(), name));
    scored.dedup();
    scored
        .into_iter()
        .map(|(_, name)| name)
        .take(count)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for (pattern, name, expected) in [
            ("fonts-*", "fonts-noto", true),
            ("fonts-*", "fonts", false),
            ("*-dev", "libc6-dev", true),
            ("g++-1?", "g++-12", true),
            ("lib[a-c]*", "libbz2", true),
            ("lib[!a-c]*", "libbz2", false),
            ("*a*b*c", "xxaxxbxxcxc", true),
            ("[", "[", true),
            ("a[]]", "a]", true),
            ("", "", true),
            ("*", "", true),
            ("?", "", false),
        ] {
            assert_eq!(
                matches(pattern.as_bytes(), name.as_bytes()),
                expected,
                "{pattern} {name}"
            );
        }
    }

    #[test]
    fn nearest_names() {
        let names = [
            "firefox-esr",
            "firefox-esr-l10n-de",
            "python3",
            "pyhton",
            "vim",
            "gcc",
        ];
        assert_eq!(
            nearest("firefox", names.into_iter(), 5),
            ["firefox-esr", "firefox-esr-l10n-de"]
        );
        assert_eq!(nearest("pyton3", names.into_iter(), 1), ["python3"]);
        assert_eq!(nearest("vmi", names.into_iter(), 3), ["vim"]);
        assert!(nearest("zzzzzz", names.into_iter(), 3).is_empty());
    }
}
