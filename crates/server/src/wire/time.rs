//! Timestamps and durations as JSON has them: RFC 3339 with nanoseconds, and seconds with an `s`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jiff::Timestamp;

/// The longest duration of a protocol buffer, in seconds.
const LONGEST: u64 = 315_576_000_000;

/// Now, in nanoseconds since 1970.
pub fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
    })
}

/// A time of [`now`] as JSON has it.
pub fn stamp(nanoseconds: i64) -> String {
    Timestamp::from_nanosecond(i128::from(nanoseconds)).map_or_else(
        |_| "1970-01-01T00:00:00Z".to_owned(),
        |time| time.to_string(),
    )
}

/// Reads a timestamp.
pub fn read_stamp(text: &str) -> Option<i64> {
    let time: Timestamp = text.parse().ok()?;
    i64::try_from(time.as_nanosecond()).ok()
}

/// Reads a duration that is not negative: `600s`, `3.5s`.
pub fn read_duration(text: &str) -> Option<Duration> {
    let number = text.strip_suffix('s')?;
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || part.len() > 9 || !digits(whole) || !digits(part) {
        return None;
    }
    let seconds: u64 = whole.parse().ok().filter(|seconds| *seconds <= LONGEST)?;
    let nanoseconds: u32 = format!("{part:0<9}").parse().ok()?;
    Some(Duration::new(seconds, nanoseconds))
}

/// A duration as JSON has it.
pub fn duration(duration: Duration) -> String {
    match duration.subsec_nanos() {
        0 => format!("{}s", duration.as_secs()),
        part => {
            let part = format!("{part:09}");
            format!("{}.{}s", duration.as_secs(), part.trim_end_matches('0'))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_and_written() {
        for text in ["600s", "3.5s", "0s", "0.000000001s"] {
            assert_eq!(duration(read_duration(text).unwrap()), text);
        }
        for text in [
            "",
            "s",
            "1",
            "-1s",
            "1.s.",
            "1.0000000001s",
            "1e3s",
            "999999999999999s",
            ".5s",
        ] {
            assert_eq!(read_duration(text), None, "{text}");
        }
    }

    #[test]
    fn times_are_read_and_written() {
        let time = read_stamp("2026-11-28T16:03:26.5Z").unwrap();
        assert_eq!(stamp(time), "2026-11-28T16:03:26.5Z");
        assert_eq!(read_stamp("yesterday"), None);
    }
}
