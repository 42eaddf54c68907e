//! Versions of RPM packages and their order, as rpm's own `rpmvercmp` has it.

use std::cmp::Ordering;
use std::fmt;

/// Epoch, version and release.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Evr {
    /// The epoch; a package without one has 0.
    pub epoch: u32,
    /// The version.
    pub version: String,
    /// The release; empty in requirements that do not say one.
    pub release: String,
}

impl fmt::Display for Evr {
    /// `1:2.0-3.el9`, without an epoch of 0.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.epoch > 0 {
            write!(f, "{}:", self.epoch)?;
        }
        f.write_str(&self.version)?;
        match self.release.is_empty() {
            true => Ok(()),
            false => write!(f, "-{}", self.release),
        }
    }
}

impl Evr {
    /// Compares two packages.
    pub fn compare(&self, other: &Evr) -> Ordering {
        let versions = self.epoch.cmp(&other.epoch);
        let versions = versions.then_with(|| compare(&self.version, &other.version));
        versions.then_with(|| compare(&self.release, &other.release))
    }

    /// Compares with what a requirement says: a release that is not said is any.
    pub fn compare_required(&self, required: &Evr) -> Ordering {
        match self.release.is_empty() || required.release.is_empty() {
            false => self.compare(required),
            true => {
                let epochs = self.epoch.cmp(&required.epoch);
                epochs.then_with(|| compare(&self.version, &required.version))
            }
        }
    }
}

/// Compares two versions, or two releases.
///
/// Both are runs of digits or of letters; other characters only separate. Digits are newer than letters, more runs are newer,
/// `~` is older than the end, and `^` is newer than the end but older than anything else.
pub fn compare(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a.as_bytes(), b.as_bytes());
    loop {
        let is_separator = |c: &u8| !c.is_ascii_alphanumeric() && *c != b'~' && *c != b'^';
        a = &a[a.iter().take_while(|c| is_separator(c)).count()..];
        b = &b[b.iter().take_while(|c| is_separator(c)).count()..];
        match (a.first(), b.first()) {
            (Some(b'~'), Some(b'~')) | (Some(b'^'), Some(b'^')) => {
                (a, b) = (&a[1..], &b[1..]);
                continue;
            }
            (Some(b'~'), _) => return Ordering::Less,
            (_, Some(b'~')) => return Ordering::Greater,
            (Some(b'^'), None) => return Ordering::Greater,
            (None, Some(b'^')) => return Ordering::Less,
            (Some(b'^'), _) => return Ordering::Less,
            (_, Some(b'^')) => return Ordering::Greater,
            (None, None) => return Ordering::Equal,
            (None, _) => return Ordering::Less,
            (_, None) => return Ordering::Greater,
            (Some(left), Some(right)) => {
                let order = match (left.is_ascii_digit(), right.is_ascii_digit()) {
                    (true, false) => return Ordering::Greater,
                    (false, true) => return Ordering::Less,
                    (true, true) => numbers(
                        run(&mut a, u8::is_ascii_digit),
                        run(&mut b, u8::is_ascii_digit),
                    ),
                    (false, false) => run(&mut a, u8::is_ascii_alphabetic)
                        .cmp(run(&mut b, u8::is_ascii_alphabetic)),
                };
                if order != Ordering::Equal {
                    return order;
                }
            }
        }
    }
}

fn run<'a>(text: &mut &'a [u8], belongs: fn(&u8) -> bool) -> &'a [u8] {
    let (run, rest) = text.split_at(text.iter().take_while(|c| belongs(c)).count());
    *text = rest;
    run
}

/// Of any length, so not as integers.
fn numbers(a: &[u8], b: &[u8]) -> Ordering {
    let significant = |digits: &[u8]| digits.iter().take_while(|&&c| c == b'0').count();
    let (a, b) = (&a[significant(a)..], &b[significant(b)..]);
    a.len().cmp(&b.len()).then_with(|| a.cmp(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requirements_without_a_release_fit_any() {
        let evr = |epoch, version: &str, release: &str| Evr {
            epoch,
            version: version.into(),
            release: release.into(),
        };
        assert_eq!(
            evr(0, "1.0", "3").compare_required(&evr(0, "1.0", "")),
            Ordering::Equal
        );
        assert_eq!(
            evr(1, "1.0", "3").compare_required(&evr(0, "2.0", "")),
            Ordering::Greater
        );
        assert_eq!(
            evr(0, "1.0", "3").compare(&evr(0, "1.0", "4")),
            Ordering::Less
        );
        assert_eq!(evr(1, "1.0", "3.el9").to_string(), "1:1.0-3.el9");
        assert_eq!(evr(0, "1.0", "").to_string(), "1.0");
    }
}
