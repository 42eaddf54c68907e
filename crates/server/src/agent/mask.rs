//! Takes the values of secrets out of what goes into a log.

use std::borrow::Cow;

/// What stands in a value's place.
const SHOWN: &str = "***";
/// Shorter values stay: a log without the letter `e` would help nobody.
const SHORTEST: usize = 4;
/// Shorter lines of a value of several lines stay.
const SHORTEST_LINE: usize = 8;

/// What is taken out.
#[derive(Clone, Default)]
pub(super) struct Mask {
    /// The longest first.
    values: Vec<Vec<u8>>,
    /// Whether a value begins with a byte.
    begins: Vec<bool>,
}

impl std::fmt::Debug for Mask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Mask of {}", self.values.len())
    }
}

impl Mask {
    /// Takes out the values, and of those of several lines each line.
    pub(super) fn new<'a>(secrets: impl Iterator<Item = &'a str>) -> Self {
        let mut values = Vec::new();
        for secret in secrets {
            let whole = secret.trim();
            if whole.len() >= SHORTEST {
                values.push(whole.as_bytes().to_vec());
            }
            let lines = whole.lines().map(str::trim);
            let lines =
                lines.filter(|line| line.len() >= SHORTEST_LINE && line.len() < whole.len());
            values.extend(lines.map(|line| line.as_bytes().to_vec()));
        }
        values.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        values.dedup();
        let mut begins = vec![false; 256];
        for value in &values {
            begins[usize::from(value[0])] = true;
        }
        Mask { values, begins }
    }

    /// A text that is whole.
    pub(super) fn text<'a>(&self, text: &'a str) -> Cow<'a, str> {
        if self.values.is_empty() {
            return Cow::Borrowed(text);
        }
        let (mut from, mut to) = (text.as_bytes().to_vec(), Vec::new());
        self.pass(&mut from, &mut to, true);
        // A value is UTF-8, and begins and ends at a letter's bounds.
        Cow::Owned(String::from_utf8_lossy(&to).into_owned())
    }

    /// Moves bytes from `from` to `to`, without the values. What may be the beginning of one waits in `from`, unless nothing follows.
    pub(super) fn pass(&self, from: &mut Vec<u8>, to: &mut Vec<u8>, last: bool) {
        if self.values.is_empty() {
            to.append(from);
            return;
        }
        let mut at = 0;
        while let Some(byte) = from.get(at) {
            if self.begins[usize::from(*byte)] {
                let rest = &from[at..];
                if !last
                    && self
                        .values
                        .iter()
                        .any(|value| value.len() > rest.len() && value.starts_with(rest))
                {
                    break;
                }
                if let Some(value) = self.values.iter().find(|value| rest.starts_with(value)) {
                    to.extend_from_slice(SHOWN.as_bytes());
                    at += value.len();
                    continue;
                }
            }
            to.push(*byte);
            at += 1;
        }
        from.drain(..at);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn mask(values: &[&str]) -> Mask {
        let values: Vec<String> = values.iter().map(|value| (*value).to_owned()).collect();
        Mask::new(values.iter().map(String::as_str))
    }

    #[test]
    fn values_are_taken_out() {
        let mask = mask(&[
            "hunter22\n",
            "hunter22-long",
            "e",
            "-----BEGIN\nabcdefgh12\nshort\n-----END x",
        ]);
        for (text, shown) in [
            ("the key is hunter22.", "the key is ***."),
            ("hunter22-long hunter22-lon", "*** ***-lon"),
            ("here", "here"),
            ("1: abcdefgh12\n2: short\n", "1: ***\n2: short\n"),
            ("-----BEGIN\nabcdefgh12\nshort\n-----END x|", "***|"),
            ("", ""),
        ] {
            assert_eq!(mask.text(text), shown);
        }
        assert_eq!(super::Mask::default().text("hunter22"), "hunter22");
    }

    proptest! {
        /// However output is cut into pieces, no value passes and nothing else changes.
        #[test]
        fn pieces_are_seen_as_a_whole(text in "[abx\n]{0,60}", cuts in proptest::collection::vec(0_usize..60, 0..8)) {
            let mask = mask(&["abab", "ababx", "bbbbb"]);
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
            cuts.push(text.len());
            cuts.sort_unstable();
            let (mut from, mut to, mut begin) = (Vec::new(), Vec::new(), 0);
            for cut in cuts {
                from.extend_from_slice(&text.as_bytes()[begin..cut]);
                begin = cut;
                mask.pass(&mut from, &mut to, false);
            }
            mask.pass(&mut from, &mut to, true);
            prop_assert!(from.is_empty());
            let to = String::from_utf8(to).unwrap();
            prop_assert_eq!(&to, &mask.text(&text));
            prop_assert!(!to.contains("abab") && !to.contains("bbbbb"));
            if !text.contains("abab") && !text.contains("bbbbb") {
                prop_assert_eq!(to, text);
            }
        }
    }
}
