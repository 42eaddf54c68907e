//! `unwrap_or_default` hides what is missing. Where it stands it says that absent means nothing; there are no more of them.

use std::collections::BTreeMap;

use super::{Findings, Tree, crate_of, rust};

/// How many of them each crate has, tests left out. A number can only fall: something broken that reads as nothing makes a
/// wrong image, and is an error instead.
const KNOWN: &[(&str, usize)] = &[
    ("engine", 2),
    ("image", 4),
    ("kickstart", 1),
    ("packages", 1),
    ("rootfs", 1),
    ("sandbox", 1),
];

/// Counts them in every crate.
pub(super) fn check(tree: &Tree) -> Findings {
    findings(tree, KNOWN)
}

fn findings(tree: &Tree, known: &[(&str, usize)]) -> Findings {
    let mut counts: BTreeMap<&str, (usize, usize)> = known
        .iter()
        .map(|(home, most)| (*home, (0, *most)))
        .collect();
    for (path, text) in tree.sources().filter(|(path, _)| !rust::is_test(path)) {
        if let Some(home) = crate_of(path) {
            counts.entry(home).or_default().0 += count(text);
        }
    }
    let told = counts.into_iter().filter_map(|(home, (found, most))| {
        if found > most {
            Some(format!(
                "{home}: {found} `unwrap_or_default`, {most} before: make what is missing an error, or say what it means"
            ))
        } else if found < most {
            Some(format!(
                "{home}: {found} `unwrap_or_default`, not {most}: lower the number in {}",
                file!()
            ))
        } else {
            None
        }
    });
    told.collect()
}

fn count(text: &str) -> usize {
    let code = rust::blank(text);
    let tokens = rust::without_tests(rust::tokens(&code)).into_iter();
    tokens.filter(|token| *token == "unwrap_or_default").count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_a_crate_can_only_fall() {
        let text = "// unwrap_or_default\na.unwrap_or_default();\n#[cfg(test)]\nmod tests { fn f() { b.unwrap_or_default() } }";
        let files = vec![
            ("crates/x/src/a.rs".into(), text.to_owned()),
            ("crates/x/tests/a.rs".into(), text.to_owned()),
        ];
        let tree = Tree { files };
        assert!(findings(&tree, &[("x", 1)]).is_empty());
        assert!(findings(&tree, &[])[0].starts_with("x: 1 `unwrap_or_default`, 0 before"));
        assert!(findings(&tree, &[("x", 2)])[0].starts_with("x: 1 `unwrap_or_default`, not 2"));
        assert_eq!(findings(&tree, &[("x", 1), ("gone", 1)]).len(), 1);
    }
}
