//! DOS dates and times, in UTC.

/// A moment as directory entries hold it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DosTime {
    /// Bits 15–9 years from 1980, 8–5 month, 4–0 day.
    pub(super) date: u16,
    /// Bits 15–11 hour, 10–5 minute, 4–0 two seconds.
    pub(super) time: u16,
    /// Hundredths of a second on top of `time`, 0 or 100.
    pub(super) hundredths: u8,
}

/// 1980-01-01T00:00:00Z.
const FIRST: i64 = 315_532_800;
/// 2107-12-31T23:59:59Z.
const LAST: i64 = 4_354_819_199;

impl DosTime {
    /// From seconds since 1970; what DOS cannot say becomes the nearest moment that it can.
    pub(super) fn from_unix(seconds: i64) -> Self {
        let seconds = seconds.clamp(FIRST, LAST);
        let (year, month, day) = civil(seconds.div_euclid(86_400));
        let of_day = seconds.rem_euclid(86_400);
        let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
        DosTime {
            date: ((year - 1980) << 9 | month << 5 | day) as u16,
            time: (hour << 11 | minute << 5 | (second / 2)) as u16,
            hundredths: if second % 2 == 1 { 100 } else { 0 },
        }
    }
}

/// Year, month and day of a day counted from 1970-01-01 (Gregorian, for days from 0).
fn civil(days: i64) -> (i64, i64, i64) {
    let mut year = 1970 + days / 366;
    while days_before(year + 1) <= days {
        year += 1;
    }
    let mut day = days - days_before(year);
    let february = if is_leap(year) { 29 } else { 28 };
    let lengths = [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    for (month, length) in (1..).zip(lengths) {
        if day < length {
            return (year, month, day + 1);
        }
        day -= length;
    }
    (year, 12, 31)
}

/// Days from 1970-01-01 to the start of `year`.
fn days_before(year: i64) -> i64 {
    let past = year - 1;
    let leaps = |y: i64| y / 4 - y / 100 + y / 400;
    (year - 1970) * 365 + leaps(past) - leaps(1969)
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(seconds: i64) -> (u16, u16, u16, u16, u16, u8) {
        let t = DosTime::from_unix(seconds);
        (
            (t.date >> 9) + 1980,
            t.date >> 5 & 15,
            t.date & 31,
            t.time >> 11,
            t.time >> 5 & 63,
            (t.time & 31) as u8 * 2 + t.hundredths / 100,
        )
    }

    #[test]
    fn moments() {
        assert_eq!(parts(0), (1980, 1, 1, 0, 0, 0));
        assert_eq!(parts(951_827_696), (2000, 2, 29, 12, 34, 56));
        assert_eq!(parts(1_709_251_199), (2024, 2, 29, 23, 59, 59));
        assert_eq!(parts(1_735_689_600), (2025, 1, 1, 0, 0, 0));
        assert_eq!(parts(1_735_689_599), (2024, 12, 31, 23, 59, 59));
        assert_eq!(parts(i64::MAX), (2107, 12, 31, 23, 59, 59));
        assert_eq!(parts(4_107_542_399), (2100, 2, 28, 23, 59, 59));
        assert_eq!(parts(4_107_542_400), (2100, 3, 1, 0, 0, 0));
    }
}
