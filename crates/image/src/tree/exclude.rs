//! Patterns of paths that a scan leaves out.

use crate::{Error, Result};

/// A path pattern from the root of the tree: `*` and `?` match within one name, a whole component `**` matches any
/// number of names. `proc/*` leaves the directory and takes away what is in it; `tmp` takes both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(Vec<Box<[u8]>>);

impl Pattern {
    /// Reads a pattern; slashes at the ends do not count.
    ///
    /// # Errors
    /// The pattern names nothing below the root.
    pub fn new(pattern: impl AsRef<[u8]>) -> Result<Self> {
        let parts: Vec<Box<[u8]>> = super::components(pattern.as_ref()).map(Box::from).collect();
        if parts.is_empty() {
            return Err(Error::input("an exclusion pattern is empty")
                .with_hint("write a path from the root of the tree, such as var/cache/*"));
        }
        Ok(Pattern(parts))
    }

    /// Returns whether it matches this path exactly; matching a directory implies everything below it.
    pub fn matches(&self, path: &[u8]) -> bool {
        let names: Vec<&[u8]> = super::components(path).collect();
        match_path(&self.0, &names)
    }
}

/// Wildcard matching by remembering the last star only, so the cost stays at pattern × text.
fn match_wild<P, T>(
    pattern: &[P],
    text: &[T],
    star: impl Fn(&P) -> bool,
    one: impl Fn(&P, &T) -> bool,
) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(part) if star(part) => {
                retry = Some((p + 1, t));
                p += 1;
            }
            Some(part) if one(part, &text[t]) => {
                p += 1;
                t += 1;
            }
            _ => match retry {
                Some((after, from)) => {
                    retry = Some((after, from + 1));
                    p = after;
                    t = from + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(star)
}

fn match_path(parts: &[Box<[u8]>], names: &[&[u8]]) -> bool {
    match_wild(
        parts,
        names,
        |part| part.as_ref() == b"**",
        |part, name| match_name(part, name),
    )
}

fn match_name(part: &[u8], name: &[u8]) -> bool {
    match_wild(part, name, |p| *p == b'*', |p, b| *p == b'?' || p == b)
}
