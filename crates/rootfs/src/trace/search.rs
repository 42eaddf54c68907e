//! Searches for names, of which only the names found count: `find DIR -name PATTERN` and a shell's `DIR/PATTERN`.
//!
//! A program that searches lists whole directories, and would have to run again for every file that somebody adds to one of
//! them. Where it is known what it searches for, that is noted in place of the listings.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Names that were searched for below a directory.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Search {
    /// Absolute in the root. Links below it are not followed.
    pub directory: String,
    /// How far below: 1 for the directory's own entries, `None` for all.
    pub depth: Option<u32>,
    /// What a name had to look like: one of these.
    pub names: Vec<Affixes>,
}

/// The ends of a pattern: every name that fits the pattern has them, and perhaps others.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Affixes {
    start: String,
    end: String,
}

impl Affixes {
    /// Of a pattern of glob(7).
    pub fn of(pattern: &str) -> Self {
        const SPECIAL: [char; 5] = ['*', '?', '[', ']', '\\'];
        let start = pattern.split(SPECIAL).next().unwrap_or(pattern);
        let end = match pattern.rsplit_once(SPECIAL) {
            Some((_, end)) => end,
            None => "",
        };
        Affixes {
            start: start.to_owned(),
            end: end.to_owned(),
        }
    }

    /// Whether a name has them.
    pub fn fit(&self, name: &str) -> bool {
        name.starts_with(&self.start) && name.ends_with(&self.end)
    }
}

/// What a command line of find(1) searches for; `None` where more than names may count. `at` is the working directory.
pub(super) fn of_find(arguments: &[String], at: &str) -> Option<Vec<Search>> {
    let words: Vec<&str> = arguments.iter().skip(1).map(String::as_str).collect();
    let is_root = |word: &&&str| !word.starts_with(['-', '(', ')', '!', ',']);
    let roots = words.iter().take_while(is_root).count();
    let (roots, expression) = words.split_at_checked(roots.max(1))?;
    if roots
        .iter()
        .any(|root| root.starts_with('-') || root.is_empty())
    {
        return None;
    }
    if !at.starts_with('/') {
        return None;
    }
    let (depth, names) = expression_of(expression)?;
    let search = |root: &&str| {
        // Without `.` and empty parts, but links and `..` as they are.
        let directory: PathBuf = Path::new(at).join(root).components().collect();
        Some(Search {
            directory: directory.into_os_string().into_string().ok()?,
            depth,
            names: names.clone(),
        })
    };
    roots.iter().map(search).collect()
}

/// Depth and names of an expression whose alternatives all ask for a name, and which does nothing but print names.
fn expression_of(words: &[&str]) -> Option<(Option<u32>, Vec<Affixes>)> {
    let (mut depth, mut names, mut named) = (None, Vec::new(), false);
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match *word {
            "-maxdepth" => depth = Some(words.next()?.parse().ok()?),
            "-mindepth" => drop(words.next()?.parse::<u32>().ok()?),
            // What is there must be of this type: fewer names than are noted.
            "-type" => drop(words.next()?),
            "-name" => {
                names.push(Affixes::of(words.next()?));
                named = true;
            }
            "-o" if named => named = false,
            "-a" | "-print" | "-print0" => {}
            "-printf" if plain(words.next()?) => {}
            _ => return None,
        }
    }
    named.then_some((depth, names))
}

/// Whether a format prints nothing but names.
fn plain(format: &str) -> bool {
    let mut directives = format.split('%').skip(1);
    directives.all(|rest| rest.starts_with(['f', 'p', 'P']))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(words: &str) -> Option<Vec<Search>> {
        let arguments: Vec<String> = words.split_whitespace().map(str::to_owned).collect();
        of_find(&arguments, "/usr/share")
    }

    #[test]
    fn only_searches_for_names_are_understood() {
        let found = find("find /lib /usr/lib -name libnss_dns.so.* -o -name libnss_files.so.*");
        let found = found.expect("a search");
        assert_eq!(found.len(), 2);
        assert_eq!(
            (found[1].directory.as_str(), found[1].depth),
            ("/usr/lib", None)
        );
        assert!(
            found[1]
                .names
                .iter()
                .any(|name| name.fit("libnss_files.so.2"))
        );
        assert!(!found[1].names.iter().any(|name| name.fit("libc.so.6")));
        let found =
            find("find misc -maxdepth 1 -type f -name *.fw -printf %f\\n").expect("a search");
        assert_eq!(
            (found[0].directory.as_str(), found[0].depth),
            ("/usr/share/misc", Some(1))
        );
        for other in [
            "find /lib",
            "find /lib -type f",
            "find /lib -name a -o -type d",
            "find /lib -type d -o -name a",
            "find -L /lib -name a",
            "find /lib -newer /x -name a",
            "find /lib -name a -execdir cp {} ;",
            "find /lib ! -name a",
            "find /lib ( -name a )",
            "find /lib -name a -printf %s",
            "find /lib -name",
            "find -name a",
            "find",
        ] {
            assert_eq!(find(other), None, "{other}");
        }
    }

    #[test]
    fn ends_of_patterns_fit_all_that_the_pattern_fits() {
        for (pattern, name) in [
            ("*", "x"),
            ("lib*", "lib"),
            ("*.link", "a.link"),
            ("a[0-9]b?.so", "a1bc.so"),
            ("plain", "plain"),
            ("\\*x", "*x"),
        ] {
            assert!(Affixes::of(pattern).fit(name), "{pattern}");
        }
        assert!(!Affixes::of("lib*").fit("bin"));
        assert!(!Affixes::of("*.link").fit("a.network"));
    }
}
