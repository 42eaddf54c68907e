//! `Range` and `Content-Range`, as far as Storage has them: one range of bytes.

use std::ops::Range;

use super::error::{ApiError, Result};

/// What a `Range` header asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// From a byte to the end, or to another byte (inclusive).
    From(u64, Option<u64>),
    /// The last bytes.
    Last(u64),
}

impl Asked {
    /// Reads `bytes=a-b`, `bytes=a-` or `bytes=-n`. Anything else, also several ranges, is as good as none (RFC 9110, 14.2).
    pub(super) fn parse(header: &str) -> Option<Asked> {
        let (unit, range) = header.trim().split_once('=')?;
        let (from, to) = range.trim().split_once('-')?;
        let (from, to) = (from.trim(), to.trim());
        if !unit.trim().eq_ignore_ascii_case("bytes") {
            return None;
        }
        match (from, to) {
            ("", last) => Some(Asked::Last(number(last)?)),
            (from, "") => Some(Asked::From(number(from)?, None)),
            (from, to) => {
                let (from, to) = (number(from)?, number(to)?);
                (from <= to).then_some(Asked::From(from, Some(to)))
            }
        }
    }

    /// Returns the bytes of something `size` bytes long.
    ///
    /// # Errors
    /// There are none of them (416).
    pub(super) fn within(self, size: u64) -> Result<Range<u64>> {
        let range = match self {
            Asked::From(from, to) => from..to.map_or(size, |to| to.saturating_add(1).min(size)),
            Asked::Last(count) => size.saturating_sub(count)..size,
        };
        if range.start >= range.end {
            return Err(ApiError::range(format!(
                "the range begins after the end: there are {size} bytes"
            )));
        }
        Ok(range)
    }
}

/// What a `Content-Range` header of an upload says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sent {
    /// First and last byte that the body holds; `None` asks how far the upload is, or ends one of unknown length.
    pub(super) bytes: Option<(u64, u64)>,
    /// The size of the whole, if the client knows it yet.
    pub(super) total: Option<u64>,
}

impl Sent {
    /// Reads `bytes a-b/total`, `bytes a-b/*`, `bytes */total` or `bytes */*`.
    ///
    /// # Errors
    /// It is none of them (400).
    pub(super) fn parse(header: &str) -> Result<Sent> {
        Self::read(header).ok_or_else(|| {
            let shown: String = header.chars().take(80).collect();
            ApiError::invalid(format!(
                "Failed to parse Content-Range header: '{shown}'; it is 'bytes FIRST-LAST/TOTAL', each may be '*'"
            ))
        })
    }

    fn read(header: &str) -> Option<Sent> {
        let rest = header.trim().strip_prefix("bytes")?;
        // `bytes=` is what some clients write.
        let rest = rest.strip_prefix([' ', '='])?.trim();
        let (range, total) = rest.split_once('/')?;
        let total = match total.trim() {
            "*" => None,
            total => Some(number(total)?),
        };
        let bytes = match range.trim() {
            "*" => None,
            range => {
                let (first, last) = range.split_once('-')?;
                let (first, last) = (number(first.trim())?, number(last.trim())?);
                // Largest sizes are left out, so that one more is still a number.
                if first > last || last == u64::MAX || total.is_some_and(|total| last >= total) {
                    return None;
                }
                Some((first, last))
            }
        };
        Some(Sent { bytes, total })
    }
}

/// Digits only: `parse` would take a sign.
fn number(text: &str) -> Option<u64> {
    let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    plain.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ranges_are_cut_to_what_is_there() {
        let of = |header: &str, size| {
            Asked::parse(header)
                .unwrap()
                .within(size)
                .map_err(|error| error.status().as_u16())
        };
        assert_eq!(of("bytes=0-", 5), Ok(0..5));
        assert_eq!(of("bytes=2-3", 5), Ok(2..4));
        assert_eq!(of("bytes=2-99", 5), Ok(2..5));
        assert_eq!(of("bytes=-2", 5), Ok(3..5));
        assert_eq!(of("bytes=-9", 5), Ok(0..5));
        assert_eq!(of("bytes=5-", 5), Err(416));
        assert_eq!(of("bytes=-0", 5), Err(416));
        assert_eq!(of("bytes=0-", 0), Err(416));
        assert_eq!(of(&format!("bytes=0-{}", u64::MAX), 5), Ok(0..5));
        for other in [
            "bytes=3-2",
            "bytes=a-",
            "bytes=0-1,3-4",
            "items=0-1",
            "bytes",
            "bytes=--1",
            "bytes=+1-",
        ] {
            assert_eq!(Asked::parse(other), None, "{other}");
        }
    }

    #[test]
    fn content_ranges_are_read() {
        let of = |header| Sent::parse(header).map(|sent| (sent.bytes, sent.total));
        assert_eq!(of("bytes 0-9/20"), Ok((Some((0, 9)), Some(20))));
        assert_eq!(of("bytes 0-9/*"), Ok((Some((0, 9)), None)));
        assert_eq!(of("bytes */20"), Ok((None, Some(20))));
        assert_eq!(of("bytes */*"), Ok((None, None)));
        for bad in [
            "",
            "bytes",
            "bytes 9-0/20",
            "bytes 0-20/20",
            "bytes -1-2/3",
            "bytes 0-18446744073709551615/*",
        ] {
            assert!(of(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_header_is_read_or_refused(text in "(bytes)?[ =]?[0-9*/\\-,a ]{0,24}", size in any::<u64>()) {
            if let Some(Ok(range)) = Asked::parse(&text).map(|asked| asked.within(size)) {
                prop_assert!(range.start < range.end && range.end <= size);
            }
            if let Ok(Sent { bytes: Some((first, last)), total }) = Sent::parse(&text) {
                prop_assert!(first <= last && total.is_none_or(|total| last < total));
            }
        }
    }
}
