//! The order of versions, as Debian's policy has it; others fall into one that is close.

use std::cmp::Ordering;

/// Compares two versions.
pub(super) fn compare(one: &str, other: &str) -> Ordering {
    let split = |version: &str| {
        let (epoch, rest) = version.split_once(':').unwrap_or(("0", version));
        let (upstream, revision) = rest.rsplit_once('-').unwrap_or((rest, ""));
        let epoch: u64 = epoch.parse().unwrap_or(0);
        (epoch, upstream.to_owned(), revision.to_owned())
    };
    let (one, other) = (split(one), split(other));
    one.0
        .cmp(&other.0)
        .then_with(|| part(one.1.as_bytes(), other.1.as_bytes()))
        .then_with(|| part(one.2.as_bytes(), other.2.as_bytes()))
}

/// The weight of a letter: `~` before the end, the end before letters, letters before all else.
fn weight(letter: Option<&u8>) -> i32 {
    match letter {
        Some(b'~') => -1,
        None | Some(b'0'..=b'9') => 0,
        Some(letter) if letter.is_ascii_alphabetic() => i32::from(*letter),
        Some(letter) => i32::from(*letter) + 256,
    }
}

fn part(mut one: &[u8], mut other: &[u8]) -> Ordering {
    while !one.is_empty() || !other.is_empty() {
        let is_letter = |text: &[u8]| text.first().is_some_and(|letter| !letter.is_ascii_digit());
        while is_letter(one) || is_letter(other) {
            let order = weight(one.first()).cmp(&weight(other.first()));
            if order != Ordering::Equal {
                return order;
            }
            one = one.get(1..).unwrap_or(&[]);
            other = other.get(1..).unwrap_or(&[]);
        }
        let order = number(&mut one).cmp(&number(&mut other));
        if order != Ordering::Equal {
            return order;
        }
    }
    Ordering::Equal
}

/// Takes the digits in front; longer ones without zeros in front are larger.
fn number<'a>(text: &mut &'a [u8]) -> (usize, &'a [u8]) {
    let end = text
        .iter()
        .position(|letter| !letter.is_ascii_digit())
        .unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    *text = rest;
    let zeros = digits.iter().take_while(|digit| **digit == b'0').count();
    (digits.len() - zeros, &digits[zeros..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered_as_dpkg_does() {
        for (one, other) in [
            ("1.0~rc1", "1.0"),
            ("1.0", "1.0-1"),
            ("1.9", "1.10"),
            ("2.0", "1:0.1"),
            ("1.0-1", "1.0-1+deb12u1"),
            ("1.0a", "1.0+"),
            ("1.0-1~deb12u1", "1.0-1"),
        ] {
            assert_eq!(compare(one, other), Ordering::Less, "{one} {other}");
            assert_eq!(compare(other, one), Ordering::Greater, "{one} {other}");
        }
        assert_eq!(compare("1.01-0", "1.1-0"), Ordering::Equal);
        assert_eq!(compare("", "é~:"), compare("", "é~:"));
    }
}
