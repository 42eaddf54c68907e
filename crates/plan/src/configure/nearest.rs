//! The nearest spellings of a word that was not found.

/// Up to three of the candidates that differ from `word` least, nearest first; none that differ in more than a third
/// of their letters.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let short = |text: &str| -> String { text.to_lowercase().chars().take(LONGEST).collect() };
    let wanted = short(word);
    let length = wanted.chars().count();
    let mut found: Vec<(usize, &str)> = candidates
        .into_iter()
        .filter_map(|candidate| {
            let letters = short(candidate);
            let other = letters.chars().count();
            let allowed = 1 + length.max(other) / 3;
            let near = length.abs_diff(other) <= allowed;
            // A tail that only one of them has (`Prague` against `Europe/Prague`) counts in full.
            let distance = near.then(|| strsim::osa_distance(&wanted, &letters))?;
            (distance <= allowed).then_some((distance, candidate))
        })
        .collect();
    found.sort();
    found.dedup();
    found.into_iter().take(3).map(|(_, c)| c).collect()
}

/// Longer words are compared by their beginnings: bounds the work for hostile input.
const LONGEST: usize = 64;

/// ` (did you mean A, B or C?)`, or nothing.
pub fn did_you_mean<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> String {
    match nearest(word, candidates).as_slice() {
        [] => String::new(),
        [one] => format!("did you mean {one}?"),
        [head @ .., last] => format!("did you mean {} or {last}?", head.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn finds_swapped_and_missing_letters() {
        let zones = ["Europe/Prague", "Europe/Paris", "Asia/Tokyo"];
        assert_eq!(
            nearest("Europe/Pargue", zones).first(),
            Some(&"Europe/Prague")
        );
        assert_eq!(nearest("Asia/Toky", zones), ["Asia/Tokyo"]);
        assert!(nearest("Mars/Olympus", zones).is_empty());
    }

    #[test]
    fn hostile_words_are_cheap() {
        let long = "x".repeat(1 << 20);
        assert!(nearest(&long, ["a", "b"]).is_empty());
    }
}
