//! What every distribution shares names none: not the engine, not roots, not images, not machines, not the command line. What
//! differs between distributions is behind `kiln_rootfs::Family`.

use std::path::Path;

use super::{Findings, Tree, crate_of, rust};

/// Crates that name no distribution.
const CRATES: &[&str] = &["cli", "engine", "image", "rootfs", "vm"];
/// Where families live, which may.
const FAMILIES: &[&str] = &[
    "crates/rootfs/src/debian",
    "crates/rootfs/src/debian.rs",
    "crates/rootfs/src/rpm",
    "crates/rootfs/src/rpm.rs",
];

/// Words of code and texts, and parts of paths: distributions, their package managers and what starts their systems.
const WORDS: &[&str] = &[
    "almalinux",
    "apt",
    "casper",
    "centos",
    "deb",
    "debian",
    "debs",
    "dnf",
    "dpkg",
    "dracut",
    "fedora",
    "mkinitramfs",
    "rocky",
    "rpm",
    "ubuntu",
];
const PHRASES: &[&str] = &["boot=live", "initramfs-tools", "live-boot", "/live/"];

/// Files that may name some, and why.
const ALLOWED: &[(&str, &[&str], &str)] = &[
    (
        "crates/cli/src/args.rs",
        &["debian"],
        "help shows an example of --distribution",
    ),
    (
        "crates/cli/src/commands/doctor.rs",
        &["apt", "dnf"],
        "it says how the building machine gets a program",
    ),
    (
        "crates/cli/src/commands/plan.rs",
        &["rpm"],
        "it shows a plan's RPM repositories",
    ),
    (
        "crates/engine/src/resolve/solve.rs",
        &["rpm"],
        "a plan's RPM repositories tell two worlds apart",
    ),
    (
        "crates/rootfs/src/changes/run.rs",
        &["debian"],
        "a variable that programs of other families do not read",
    ),
    (
        "crates/rootfs/src/lib.rs",
        &["debian", "rpm"],
        "it has the family's module",
    ),
    (
        "crates/rootfs/src/offline.rs",
        &["dracut"],
        "a program that kickstarts call and that Kiln stands in for, whatever root has it",
    ),
    (
        "crates/rootfs/src/registry.rs",
        &["debian", "rpm"],
        "it lists the families that Kiln has",
    ),
    (
        "crates/rootfs/src/scripts/absent.rs",
        &["dnf", "dracut", "rpm"],
        "a hint about programs that kickstarts call and that a root lacks",
    ),
    (
        "crates/vm/src/console.rs",
        &["dracut"],
        "phrases that guests print, whatever they are",
    ),
    (
        "crates/vm/src/tools.rs",
        &["apt", "debian", "dnf", "fedora", "ubuntu"],
        "it says how the building machine gets a program",
    ),
];

/// Checks code and literals; comments may explain, tests may try.
pub(super) fn check(tree: &Tree) -> Findings {
    let mut findings = Findings::new();
    let sources = tree.sources().filter(|(path, _)| !rust::is_test(path));
    for (path, text) in sources.filter(|(path, _)| is_judged(path)) {
        for (number, line) in text.lines().enumerate() {
            if line.contains("#[cfg(test)]") {
                break;
            }
            for name in named(line).filter(|name| !is_allowed(path, name)) {
                let place = format!("{}:{}", path.display(), number + 1);
                findings.push(format!(
                    "{place}: names `{name}`: ask the distribution's family, or give a reason in {}",
                    file!()
                ));
            }
        }
    }
    findings
}

fn is_judged(path: &Path) -> bool {
    crate_of(path).is_some_and(|home| CRATES.contains(&home))
        && path.components().any(|part| part.as_os_str() == "src")
        && !FAMILIES.iter().any(|family| path.starts_with(family))
}

fn is_allowed(path: &Path, name: &str) -> bool {
    let mut allowed = ALLOWED.iter();
    allowed.any(|(place, names, _)| path.starts_with(place) && names.contains(&name))
}

/// What a line names outside of a comment.
fn named(line: &str) -> impl Iterator<Item = &'static str> {
    let code = match line.trim_start().starts_with("//") {
        true => String::new(),
        false => spaced(line.split(" // ").next().unwrap_or(line)),
    };
    let is_word = |word: &&&str| {
        code.split(|c: char| !c.is_ascii_alphanumeric())
            .any(|w| w == **word)
    };
    let words: Vec<&'static str> = WORDS.iter().filter(is_word).copied().collect();
    let has = |phrase: &&&str| code.contains(**phrase);
    let phrases: Vec<&'static str> = PHRASES.iter().filter(has).copied().collect();
    words.into_iter().chain(phrases)
}

/// In lower case, with the words of a name in capitals and small letters apart.
fn spaced(code: &str) -> String {
    let mut text = String::with_capacity(code.len());
    let mut before = ' ';
    for c in code.chars() {
        if c.is_ascii_uppercase() && before.is_ascii_lowercase() {
            text.push(' ');
        }
        text.push(c.to_ascii_lowercase());
        before = c;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str, text: &str) -> usize {
        let files = vec![(path.into(), text.into())];
        check(&Tree { files }).len()
    }

    #[test]
    fn a_name_in_code_or_a_text_is_found() {
        for line in [
            "use kiln_rootfs::debian;",
            "struct AptSources;",
            "let path = \"/usr/bin/dpkg-query\";",
            "tree.add_file(\"/live/vmlinuz\")?;",
            "format!(\"boot=live {x}\")",
        ] {
            assert_eq!(found("crates/image/src/a.rs", line), 1, "{line}");
            assert_eq!(found("crates/rootfs/src/a.rs", line), 1, "{line}");
            assert_eq!(found("crates/rootfs/src/debian/a.rs", line), 0, "{line}");
            assert_eq!(found("crates/engine/tests/a.rs", line), 0, "{line}");
        }
    }

    #[test]
    fn comments_tests_and_other_words_are_not() {
        for line in [
            "/// As Debian's dpkg does.",
            "let a = 1; // apt",
            "#[cfg(test)]\nuse kiln_rootfs::debian;",
            "let captured = adapt(debug);",
        ] {
            assert_eq!(found("crates/vm/src/a.rs", line), 0, "{line}");
        }
    }

    #[test]
    fn reasons_are_for_files_that_are_there() {
        let root = crate::workspace::root();
        for (place, _, why) in ALLOWED {
            assert!(root.join(place).exists(), "{place}");
            assert!(!why.is_empty(), "{place}");
        }
    }
}
