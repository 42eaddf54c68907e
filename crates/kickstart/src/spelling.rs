//! The nearest spelling of a word.

use crate::limits;

/// The candidate that is nearest to a word, if any is near enough to be meant.
pub fn nearest<'a>(word: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let word: Vec<char> = word.chars().take(limits::SPELLING + 1).collect();
    if word.is_empty() || word.len() > limits::SPELLING {
        return None;
    }
    let allowed = (word.len() / 3).clamp(1, 4);
    candidates
        .map(|c| (distance(&word, c), c))
        .filter(|(d, _)| *d <= allowed)
        .min_by_key(|(d, _)| *d)
        .map(|(_, c)| c)
}

/// Edits (insert, delete, replace, swap of neighbours) between two words, without regard to letter case.
fn distance(word: &[char], candidate: &str) -> usize {
    let other: Vec<char> = candidate.chars().collect();
    let mut before = Vec::new();
    let mut last: Vec<usize> = (0..=other.len()).collect();
    for (i, &a) in word.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, &b) in other.iter().enumerate() {
            let same = a.eq_ignore_ascii_case(&b);
            let mut best = (last[j] + usize::from(!same))
                .min(last[j + 1] + 1)
                .min(row[j] + 1);
            if i > 0 && j > 0 && a == other[j - 1] && word[i - 1] == b {
                let before: &Vec<usize> = &before;
                best = best.min(before[j - 1] + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut last, row);
    }
    last.last().copied().unwrap_or(0)
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
