//! Debian versions and their order (Debian Policy section 5.6.12).

use std::cmp::Ordering;

/// Refuses an epoch that dpkg refuses.
///
/// # Errors
/// What is wrong with it: the end of a sentence that begins with the version.
pub fn check(version: &str) -> Result<(), &'static str> {
    let Some((epoch, rest)) = version.trim().split_once(':') else {
        return Ok(());
    };
    if epoch.is_empty() || !epoch.bytes().all(|b| b.is_ascii_digit()) {
        return Err("has an epoch that is no number");
    }
    if epoch.parse::<i32>().is_err() {
        return Err("has an epoch that is too large");
    }
    if rest.is_empty() {
        return Err("has nothing but an epoch");
    }
    Ok(())
}

/// Compares two versions `[epoch:]upstream[-revision]` as dpkg does. An epoch that [`check`] refuses is none: it counts as a part
/// of the upstream version.
pub fn compare(a: &str, b: &str) -> Ordering {
    let (a, b) = (Parts::of(a), Parts::of(b));
    a.epoch
        .cmp(&b.epoch)
        .then_with(|| compare_part(a.upstream, b.upstream))
        .then_with(|| compare_part(a.revision, b.revision))
}

struct Parts<'a> {
    epoch: u64,
    upstream: &'a str,
    revision: &'a str,
}

impl<'a> Parts<'a> {
    fn of(version: &'a str) -> Self {
        let version = version.trim();
        let numbered = |(epoch, rest): (&str, &'a str)| Some((epoch.parse().ok()?, rest));
        let split = version.split_once(':').and_then(numbered);
        let (epoch, rest) = split.unwrap_or((0, version));
        let (upstream, revision) = rest.rsplit_once('-').unwrap_or((rest, ""));
        Parts {
            epoch,
            upstream,
            revision,
        }
    }
}

/// Alternates between runs without digits, compared by [`weight`], and runs of digits, compared as numbers.
fn compare_part(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a.as_bytes(), b.as_bytes());
    while !a.is_empty() || !b.is_empty() {
        let (a_text, b_text) = (run(&mut a, false), run(&mut b, false));
        for at in 0..a_text.len().max(b_text.len()) {
            match weight(a_text.get(at)).cmp(&weight(b_text.get(at))) {
                Ordering::Equal => {}
                other => return other,
            }
        }
        let (a_digits, b_digits) = (number(run(&mut a, true)), number(run(&mut b, true)));
        match a_digits
            .len()
            .cmp(&b_digits.len())
            .then_with(|| a_digits.cmp(b_digits))
        {
            Ordering::Equal => {}
            other => return other,
        }
    }
    Ordering::Equal
}

/// Cuts off the leading run of digits, or of other bytes.
fn run<'a>(rest: &mut &'a [u8], digits: bool) -> &'a [u8] {
    let end = rest
        .iter()
        .position(|b| b.is_ascii_digit() != digits)
        .unwrap_or(rest.len());
    let (head, tail) = rest.split_at(end);
    *rest = tail;
    head
}

fn number(digits: &[u8]) -> &[u8] {
    let zeros = digits.iter().take_while(|&&d| d == b'0').count();
    &digits[zeros..]
}

/// `~` before the end of the text, that before letters, those before everything else.
fn weight(byte: Option<&u8>) -> i32 {
    match byte {
        Some(b'~') => -1,
        None => 0,
        Some(&letter) if letter.is_ascii_alphabetic() => letter.into(),
        Some(&other) => i32::from(other) + 256,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epochs_are_numbers() {
        for good in ["1.0", "0:1", "1:2.3-4", "2147483647:1", " 1:2 "] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for (bad, words) in [
            ("a:1", "no number"),
            (":1", "no number"),
            ("+1:1", "no number"),
            ("-1:1", "no number"),
            ("1.0:2", "no number"),
            ("2147483648:1", "too large"),
            ("1:", "nothing but an epoch"),
        ] {
            let why = check(bad).unwrap_err();
            assert!(why.contains(words), "{bad} {why}");
        }
        assert_eq!(
            compare("a:1", "0:1"),
            Ordering::Greater,
            "not an epoch of 0"
        );
    }

    #[test]
    fn orders_known_cases() {
        let rising = [
            "1~~", "1~~a", "1~", "1-0~1", "1", "1-1", "1-1+b1", "1-1.1", "1-2", "1a", "1+", "1.0",
            "1.2", "1.10", "2:0.1", "10:0",
        ];
        for pair in rising.windows(2) {
            assert_eq!(compare(pair[0], pair[1]), Ordering::Less, "{pair:?}");
            assert_eq!(compare(pair[1], pair[0]), Ordering::Greater, "{pair:?}");
        }
        for (a, b) in [("1.0", "1.00"), ("0:1", "1"), ("1-0", "1"), ("1.", "1.0")] {
            assert_eq!(compare(a, b), Ordering::Equal, "{a} {b}");
        }
    }
}
