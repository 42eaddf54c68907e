//! The nearest spelling of a word.

use crate::limits;

/// Returns the candidate that is nearest to a word, without regard to letter case, if any is near enough to be meant.
pub fn nearest<'a>(word: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_ascii_lowercase();
    let length = word.chars().take(limits::SPELLING + 1).count();
    if length == 0 || length > limits::SPELLING {
        return None;
    }
    let allowed = (length / 3).clamp(1, 4);
    candidates
        .map(|c| (strsim::osa_distance(&word, &c.to_ascii_lowercase()), c))
        .filter(|(d, _)| *d <= allowed)
        .min_by_key(|(d, _)| *d)
        .map(|(_, c)| c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_words_are_found_and_far_ones_are_not() {
        let names = ["timezone", "timesource", "keyboard", "lang"];
        assert_eq!(nearest("timezon", names.into_iter()), Some("timezone"));
        assert_eq!(nearest("KEYBOARD", names.into_iter()), Some("keyboard"));
        assert_eq!(nearest("lnag", names.into_iter()), Some("lang"));
        assert_eq!(nearest("monitor", names.into_iter()), None);
        assert_eq!(nearest("", names.into_iter()), None);
    }
}
