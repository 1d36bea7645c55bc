//! Dates as the database writes them, and the machine's time.
//!
//! Old nodes write the local time of their session, which is the server's. So do we, and nobody but the
//! database knows what that is: dates are read and written by their distance from its `NOW()`.

use std::time::Duration;

const MICROS: i64 = 1_000_000;
const DAY_S: i64 = 24 * 60 * 60;
/// The last second that a date can tell: 9999-12-31 23:59:59.
const LAST_S: i64 = 253_402_300_799;
/// The zero date, which is before all others.
const ZERO: &str = "0000-00-00 00:00:00";

/// One moment by the database's clock and by this machine's.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    /// Microseconds since 1970, as if the date stood for UTC.
    there: i64,
    here: Duration,
}

impl Moment {
    /// The database's `NOW(6)` and when it told that; nothing when that is no date.
    pub(super) fn new(there: &str, here: Duration) -> Option<Self> {
        Some(Self { there: micros(there)?, here })
    }

    /// When a date is, by this machine's clock. The zero date is always over.
    pub(super) fn here(&self, date: &str) -> Duration {
        let Some(date) = micros(date) else { return Duration::ZERO };
        let away = Duration::from_micros((date - self.there).unsigned_abs());
        if date < self.there {
            self.here.saturating_sub(away)
        } else {
            self.here.saturating_add(away)
        }
    }

    /// The first date that is not before a time of this machine's clock.
    pub(super) fn date(&self, time: Duration) -> String {
        let micros = |time: Duration| i64::try_from(time.as_micros()).unwrap_or(i64::MAX);
        let from_now = micros(time).saturating_sub(micros(self.here));
        text(-(-self.there.saturating_add(from_now)).div_euclid(MICROS))
    }
}

/// Microseconds since 1970 of `YYYY-MM-DD HH:MM:SS[.ffffff]`; nothing for a date with a zero in it.
fn micros(date: &str) -> Option<i64> {
    let (day, time) = date.split_once(' ')?;
    let mut day = day.splitn(3, '-').map(str::parse::<i64>);
    let mut next = || day.next()?.ok();
    let (year, month, day) = (next()?, next()?, next()?);
    if year == 0 || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let (time, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let mut time = time.splitn(3, ':').map(str::parse::<i64>);
    let mut next = || time.next()?.ok();
    let seconds = next()? * 3600 + next()? * 60 + next()?;
    let fraction = format!("{fraction:0<6}").get(..6)?.parse::<i64>().ok()?;
    Some((days(year, month, day) * DAY_S + seconds) * MICROS + fraction)
}

fn text(seconds: i64) -> String {
    if seconds < 0 {
        return ZERO.to_owned();
    }
    let seconds = seconds.min(LAST_S);
    let (year, month, day) = civil(seconds.div_euclid(DAY_S));
    let rest = seconds.rem_euclid(DAY_S);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}")
}

/// Days since 1970-01-01, counted in years that begin in March, so that the leap day comes last.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let month = (month + 9) % 12;
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * month + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + day_of_year - 719_468
}

/// As [`days`], the other way.
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let day_of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let (year, month) = (year + era * 400, if month < 10 { month + 3 } else { month - 9 });
    (if month <= 2 { year + 1 } else { year }, month, day)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn dates_are_told_by_their_distance() {
        let here = Duration::from_secs(1_700_000_000);
        let moment = Moment::new("2026-02-28 23:59:59.250000", here).unwrap();
        let check = |date: &str, expected_ms: u64| {
            assert_eq!(moment.here(date), Duration::from_millis(expected_ms), "{date}");
        };
        check("2026-03-01 00:00:00", 1_700_000_000_750);
        check("2026-02-28 23:59:59", 1_699_999_999_750);
        check("0000-00-00 00:00:00", 0);
        check("1000-01-01 00:00:00", 0);
        assert!(moment.here("9999-12-31 23:59:59") > here + Duration::from_secs(1 << 37));
        assert_eq!(moment.date(here), "2026-03-01 00:00:00");
        assert_eq!(moment.date(here + Duration::from_millis(751)), "2026-03-01 00:00:01");
        assert_eq!(moment.date(Duration::MAX), "9999-12-31 23:59:59");
        assert_eq!(Moment::new("2000-01-01 00:00:00", here).unwrap().date(Duration::ZERO), ZERO);
        assert!(Moment::new("now", here).is_none());
    }

    proptest! {
        #[test]
        fn a_date_comes_back_as_it_was(seconds in 0..LAST_S, now in 0..LAST_S, here in 0..1_u64 << 33) {
            let moment = Moment::new(&text(now), Duration::from_secs(here)).unwrap();
            let date = text(seconds);
            prop_assert_eq!(micros(&date), Some(seconds * MICROS));
            if here >= now.unsigned_abs() {
                prop_assert_eq!(moment.date(moment.here(&date)), date);
            }
        }
    }
}
