//! Who the client is, as tcpserver tells it in variables, and the Received field that says so.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::scanner::excepts;

/// What stands for whatever is not known.
const UNKNOWN: &[u8] = b"unknown";

/// The client.
#[derive(Debug)]
pub(super) struct Visitor {
    pub(super) ip: Vec<u8>,
    host: Vec<u8>,
    /// The user, by RFC 1413 or since it authenticated.
    info: Option<Vec<u8>>,
    /// What this end of the connection is called.
    pub(super) local: Vec<u8>,
    /// Present for who may relay: what is appended to each recipient.
    pub(super) relay: Option<Vec<u8>>,
    /// Whether a rule excepts it from greylisting.
    pub(super) is_excepted: bool,
}

/// A variable's bytes.
pub(super) fn variable(name: &str) -> Option<Vec<u8>> {
    std::env::var_os(name).map(OsString::into_vec)
}

/// Seconds in a variable, or what is so without it.
pub(super) fn seconds(name: &str, default: Duration) -> Duration {
    let text = std::env::var(name).ok();
    text.and_then(|text| text.parse().ok()).map_or(default, Duration::from_secs)
}

/// The time of day.
#[expect(
    clippy::disallowed_methods,
    reason = "a program that serves one client and ends has no simulation"
)]
pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

impl Visitor {
    pub(super) fn from_environment() -> Self {
        let or_unknown = |value: Option<Vec<u8>>| value.unwrap_or_else(|| UNKNOWN.to_vec());
        let greylisting = variable("GREYLISTING").unwrap_or_default();
        Self {
            ip: or_unknown(variable("TCPREMOTEIP")),
            host: or_unknown(variable("TCPREMOTEHOST")),
            info: variable("TCPREMOTEINFO"),
            local: or_unknown(variable("TCPLOCALHOST").or_else(|| variable("TCPLOCALIP"))),
            relay: variable("RELAYCLIENT"),
            is_excepted: excepts(&greylisting),
        }
    }

    /// It authenticated: it may relay, and is known by this name.
    pub(super) fn authenticated(&mut self, user: &str) {
        self.relay = Some(Vec::new());
        self.info = Some(user.into());
    }

    /// The field that says whom a message is from (notqmail: received.c).
    pub(super) fn received(&self, helo: Option<&str>, now: u64) -> Vec<u8> {
        let mut field = b"Received: from ".to_vec();
        put(&mut field, &self.host);
        let other = helo.filter(|helo| !helo.as_bytes().eq_ignore_ascii_case(&self.host));
        if let Some(helo) = other {
            field.extend_from_slice(b" (HELO ");
            put(&mut field, helo.as_bytes());
            field.push(b')');
        }
        field.extend_from_slice(b" (");
        if let Some(info) = &self.info {
            put(&mut field, info);
            field.push(b'@');
        }
        put(&mut field, &self.ip);
        field.extend_from_slice(b")\n  by ");
        put(&mut field, &self.local);
        field.extend_from_slice(format!(" with SMTP; {}\n", date(now)).as_bytes());
        field
    }
}

/// Appends a text of others, in which only harmless bytes stay.
fn put(field: &mut Vec<u8>, text: &[u8]) {
    let is_safe = |byte: u8| byte.is_ascii_alphanumeric() || b".@%+/=:-".contains(&byte);
    field.extend(text.iter().map(|&byte| if is_safe(byte) { byte } else { b'?' }));
}

const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
const DAY_SECONDS: u64 = 24 * 60 * 60;

/// A time as `D Mon YYYY HH:MM:SS -0000`.
fn date(seconds: u64) -> String {
    let (days, second) = (seconds / DAY_SECONDS, seconds % DAY_SECONDS);
    // Years begin in March, so that the day that some have more is their last; eras of 400 years have the
    // same number of days.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let is_next = month >= 10;
    let year = era * 400 + year + u64::from(is_next);
    let month = usize::try_from(if is_next { month - 10 } else { month + 2 }).unwrap_or(0);
    let name = MONTHS.get(month).unwrap_or(&MONTHS[0]);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{day} {name} {year} {hour:02}:{minute:02}:{second:02} -0000")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn visitor() -> Visitor {
        Visitor {
            ip: b"192.0.2.1".to_vec(),
            host: UNKNOWN.to_vec(),
            info: None,
            local: b"0".to_vec(),
            relay: None,
            is_excepted: false,
        }
    }

    #[track_caller]
    fn check(visitor: &Visitor, helo: Option<&str>, expected: &str) {
        let field = visitor.received(helo, 1_000_000_000);
        assert_eq!(String::from_utf8(field).unwrap(), expected);
    }

    #[test]
    fn the_field_is_qmails() {
        let end = "\n  by 0 with SMTP; 9 Sep 2001 01:46:40 -0000\n";
        check(&visitor(), None, &format!("Received: from unknown (192.0.2.1){end}"));
        let expected = format!("Received: from unknown (HELO x?y) (192.0.2.1){end}");
        check(&visitor(), Some("x(y"), &expected);
        check(&visitor(), Some("UNKNOWN"), &format!("Received: from unknown (192.0.2.1){end}"));
        let mut known = Visitor { host: b"a.test".to_vec(), ..visitor() };
        known.authenticated("joe@b.test");
        check(
            &known,
            Some("a.test"),
            &format!("Received: from a.test (joe@b.test@192.0.2.1){end}"),
        );
        assert_eq!(known.relay, Some(Vec::new()));
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, expected) in [
            (0, "1 Jan 1970 00:00:00 -0000"),
            (951_782_399, "28 Feb 2000 23:59:59 -0000"),
            (951_782_400, "29 Feb 2000 00:00:00 -0000"),
            (951_868_800, "1 Mar 2000 00:00:00 -0000"),
            (4_107_542_399, "28 Feb 2100 23:59:59 -0000"),
            (4_107_542_400, "1 Mar 2100 00:00:00 -0000"),
            (1_798_761_599, "31 Dec 2026 23:59:59 -0000"),
        ] {
            assert_eq!(date(seconds), expected);
        }
    }
}
