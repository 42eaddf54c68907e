//! The nearest spellings of a word that was not found.

/// Up to three of the candidates that differ from `word` least, nearest first; none that differ in more than a third
/// of their letters.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let wanted: Vec<char> = word.to_lowercase().chars().take(LONGEST).collect();
    let mut found: Vec<(usize, &str)> = candidates
        .into_iter()
        .filter_map(|c| {
            let letters: Vec<char> = c.to_lowercase().chars().take(LONGEST).collect();
            let allowed = 1 + wanted.len().max(letters.len()) / 3;
            let near = wanted.len().abs_diff(letters.len()) <= allowed;
            let distance = if near {
                distance(&wanted, &letters)
            } else {
                usize::MAX
            };
            (distance <= allowed).then_some((distance, c))
        })
        .collect();
    found.sort();
    found.dedup();
    found.into_iter().take(3).map(|(_, c)| c).collect()
}

/// Longer words are compared by their beginnings: bounds the work for hostile input.
const LONGEST: usize = 64;

/// Edits (insert, drop, replace, swap of neighbours) between two words; a tail that only one of them has
/// (`Prague` against `Europe/Prague`) counts in full.
fn distance(a: &[char], b: &[char]) -> usize {
    let width = b.len() + 1;
    let mut cells = vec![0usize; (a.len() + 1) * width];
    for (i, row) in (0..=a.len()).map(|i| (i, i * width)) {
        for j in 0..=b.len() {
            cells[row + j] = if i == 0 || j == 0 {
                i + j
            } else {
                cheapest(&cells, a, b, i, j)
            };
        }
    }
    cells.last().copied().unwrap_or(0)
}

fn cheapest(cells: &[usize], a: &[char], b: &[char], i: usize, j: usize) -> usize {
    let width = b.len() + 1;
    let at = |i: usize, j: usize| cells[i * width + j];
    let replaced = at(i - 1, j - 1) + usize::from(a[i - 1] != b[j - 1]);
    let best = replaced.min(at(i - 1, j) + 1).min(at(i, j - 1) + 1);
    let swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
    if swapped {
        best.min(at(i - 2, j - 2) + 1)
    } else {
        best
    }
}

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
