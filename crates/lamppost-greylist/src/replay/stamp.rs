//! Times in logs.

use std::time::Duration;

use jiff::Timestamp;
use jiff::civil::{Date, DateTime};

/// Times of one log. Zones matter where they are told: what counts is how long after each other lines are.
#[derive(Debug, Default)]
pub(super) struct Stamps {
    /// The year, where lines tell none, and the month of the last line.
    year: i16,
    month: i8,
}

/// What the first year is called where none is told: one in which every date is.
const LEAP_YEAR: i16 = 2000;
const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

impl Stamps {
    /// The time at a line's start, and what follows behind it: `Nov 25 16:26:52`, `2026-11-25T16:26:52.1+01:00`
    /// or `2026-11-25 16:26:52`, the last also with ` +0100`.
    pub(super) fn split<'l>(&mut self, line: &'l str) -> Option<(Duration, &'l str)> {
        if line.as_bytes().first()?.is_ascii_digit() {
            let (first, rest) = line.split_once(' ')?;
            if first.len() > 10 {
                return Some((since_1970(first.parse().ok()?)?, rest.trim_start()));
            }
            let (time, rest) = rest.split_once(' ').unwrap_or((rest, ""));
            let at = format!("{first}T{time}").parse::<DateTime>().ok()?;
            let zone = rest.split(' ').next().filter(|zone| is_zone(zone));
            let Some(zone) = zone else { return Some((utc(at)?, rest)) };
            let stamp = format!("{at}{}:{}", &zone[..3], &zone[3..]).parse().ok()?;
            return Some((since_1970(stamp)?, rest[zone.len()..].trim_start()));
        }
        let mut parts = line.splitn(2, ' ');
        let month = parts.next()?;
        let month = i8::try_from(MONTHS.iter().position(|known| *known == month)? + 1).ok()?;
        let (day, rest) = parts.next()?.trim_start().split_once(' ')?;
        let (time, rest) = rest.trim_start().split_once(' ')?;
        let time = time.parse::<jiff::civil::Time>().ok()?;
        let year = self.year_of(month);
        let date = Date::new(year, month, day.parse().ok()?).ok()?;
        Some((utc(date.to_datetime(time))?, rest))
    }

    /// A line of January behind one of December is in the next year.
    fn year_of(&mut self, month: i8) -> i16 {
        if self.year == 0 {
            self.year = LEAP_YEAR;
        } else if self.month == 12 && month == 1 {
            self.year += 1;
        }
        self.month = month;
        self.year
    }
}

fn is_zone(text: &str) -> bool {
    text.len() == 5
        && text.starts_with(['+', '-'])
        && text[1..].bytes().all(|byte| byte.is_ascii_digit())
}

fn utc(at: DateTime) -> Option<Duration> {
    since_1970(jiff::tz::TimeZone::UTC.to_timestamp(at).ok()?)
}

fn since_1970(stamp: Timestamp) -> Option<Duration> {
    u64::try_from(stamp.as_millisecond()).ok().map(Duration::from_millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_in_the_forms_of_logs() {
        let mut stamps = Stamps::default();
        let mut check = |line: &str, expected: Option<u64>| {
            let found = stamps.split(line).map(|(at, rest)| {
                assert_eq!(rest, "mx x", "{line}");
                at.as_secs()
            });
            assert_eq!(found, expected, "{line}");
        };
        check("2026-11-25T16:26:52.123456+01:00 mx x", Some(1_795_620_412));
        check("2026-11-25T15:26:52Z mx x", Some(1_795_620_412));
        check("2026-11-25 15:26:52 mx x", Some(1_795_620_412));
        check("2026-11-25 15:26:52.123 mx x", Some(1_795_620_412));
        check("2026-11-25 16:26:52 +0100 mx x", Some(1_795_620_412));
        check("Dec 31 23:59:59 mx x", Some(978_307_199));
        check("Jan  1 00:00:01 mx x", Some(978_307_201));
        for wrong in
            ["", "x", "Foo 1 00:00:00 mx x", "2026-11-25 mx", "2026-13-01T00:00:00Z x", "\u{e4}"]
        {
            check(wrong, None);
        }
    }
}
