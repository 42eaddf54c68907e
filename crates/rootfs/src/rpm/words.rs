//! The names that dependencies have.

/// The names in a dependency: `(a if b >= 2 else c)`.
pub(super) fn words(text: &str) -> impl Iterator<Item = String> {
    const OPERATORS: [&str; 6] = ["and", "or", "if", "else", "unless", "with"];
    let is_rich = text.starts_with('(');
    let text = text.to_owned();
    let mut names = Vec::new();
    let mut after_comparison = false;
    for word in text.split(' ') {
        let name = match is_rich {
            true => {
                let opened = word.trim_start_matches('(');
                // `lib(x86-64)` has parentheses of its own.
                let extra = opened
                    .matches(')')
                    .count()
                    .saturating_sub(opened.matches('(').count());
                opened.get(..opened.len() - extra).unwrap_or(opened)
            }
            false => word,
        };
        let is_comparison = !name.is_empty() && name.chars().all(|c| "<=>".contains(c));
        let is_operator = is_rich && (OPERATORS.contains(&name) || name == "without");
        if !is_comparison && !is_operator && !after_comparison && !name.is_empty() {
            names.push(name.to_owned());
        }
        after_comparison = is_comparison;
    }
    names.into_iter()
}

#[cfg(test)]
mod tests {
    use super::words;

    #[test]
    fn names_of_dependencies() {
        let of = |text: &str| words(text).collect::<Vec<_>>();
        assert_eq!(
            of("libc.so.6(GLIBC_2.4)(64bit)"),
            ["libc.so.6(GLIBC_2.4)(64bit)"]
        );
        assert_eq!(of("bash >= 5"), ["bash"]);
        assert_eq!(
            of("(a >= 1 if (b or c(x86-64)) else d)"),
            ["a", "b", "c(x86-64)", "d"]
        );
    }
}
