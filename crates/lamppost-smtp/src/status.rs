//! Enhanced status codes (RFC 3463), which tell a program why mail was refused or waits.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// An enhanced status code, such as `5.1.1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Status {
    class: u8,
    subject: u16,
    detail: u16,
}

impl Status {
    /// Something is wrong that may mend itself, and nobody knows more.
    pub const TEMPORARY: Self = Self::new(4, 0, 0);
    /// Something is wrong for good, and nobody knows more.
    pub const PERMANENT: Self = Self::new(5, 0, 0);
    /// The mailbox does not exist (RFC 3463 §3.2).
    pub const NO_MAILBOX: Self = Self::new(5, 1, 1);
    /// The mailbox holds as much as it may (RFC 3463 §3.3).
    pub const MAILBOX_FULL: Self = Self::new(4, 2, 2);
    /// The file system that mail is kept on is full (RFC 3463 §3.4).
    pub const SYSTEM_FULL: Self = Self::new(4, 3, 1);
    /// The mail system lacks something, as space on a disk (RFC 3463 §3.4).
    pub const SYSTEM: Self = Self::new(4, 3, 0);
    /// No way to the destination is known (RFC 3463 §3.5).
    pub const NO_ROUTE: Self = Self::new(4, 4, 4);
    /// The message went in a circle (RFC 3463 §3.5).
    pub const LOOP: Self = Self::new(5, 4, 6);
    /// The other host does not answer (RFC 3463 §3.5).
    pub const NO_ANSWER: Self = Self::new(4, 4, 1);
    /// The other host's address cannot be found (RFC 3463 §3.5).
    pub const NO_ADDRESS: Self = Self::new(4, 4, 3);
    /// TLS failed (RFC 3463 §3.8).
    pub const NO_TLS: Self = Self::new(4, 7, 5);
    /// The other host does not believe the password (RFC 3463 §3.8, RFC 4954 §6).
    pub const AUTH_FAILED: Self = Self::new(4, 7, 8);
    /// The connection broke (RFC 3463 §3.5).
    pub const BROKEN: Self = Self::new(4, 4, 2);
    /// An administrator decided (RFC 3463 §3.8).
    pub const POLICY: Self = Self::new(5, 7, 0);

    /// The message is larger than the other host takes (RFC 3463 §3.4).
    pub const TOO_LARGE: Self = Self::new(5, 3, 4);
    /// The other host broke the protocol (RFC 3463 §3.6).
    pub const PROTOCOL: Self = Self::new(4, 5, 0);
    /// There are more recipients than the other host takes (RFC 3463 §3.6).
    pub const TOO_MANY: Self = Self::new(4, 5, 3);
    /// Letters beyond ASCII are needed and not supported (RFC 6531 §3.5).
    pub const NEEDS_UTF8: Self = Self::new(5, 6, 7);

    /// A code of its three numbers; the class is 2, 4 or 5.
    pub const fn new(class: u8, subject: u16, detail: u16) -> Self {
        Self { class, subject, detail }
    }

    /// Its first number: 2 for success, 4 for a failure for now, 5 for one for good.
    pub const fn class(self) -> u8 {
        self.class
    }

    /// The same subject and detail, for good or for now.
    #[must_use]
    pub const fn of_class(self, class: u8) -> Self {
        Self { class, ..self }
    }

    /// Whether it tells of a failure for good.
    pub fn is_permanent(self) -> bool {
        self.class == 5
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.class, self.subject, self.detail)
    }
}

impl FromStr for Status {
    type Err = StatusError;

    fn from_str(text: &str) -> Result<Self, StatusError> {
        let digits = |part: &str, most: usize| {
            let good = (1..=most).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit());
            good.then(|| part.parse::<u16>().ok()).flatten()
        };
        let mut parts = text.split('.');
        let class = match parts.next() {
            Some("2") => 2,
            Some("4") => 4,
            Some("5") => 5,
            _ => return Err(StatusError),
        };
        let subject = parts.next().and_then(|part| digits(part, 3)).ok_or(StatusError)?;
        let detail = parts.next().and_then(|part| digits(part, 3)).ok_or(StatusError)?;
        if parts.next().is_some() {
            return Err(StatusError);
        }
        Ok(Self { class, subject, detail })
    }
}

impl TryFrom<String> for Status {
    type Error = StatusError;

    fn try_from(text: String) -> Result<Self, StatusError> {
        text.parse()
    }
}

impl From<Status> for String {
    fn from(status: Status) -> Self {
        status.to_string()
    }
}

/// A text that is no enhanced status code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an enhanced status code of the form 5.1.1 (RFC 3463)")]
pub struct StatusError;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_codes_of_the_three_classes_are_read() {
        assert_eq!("5.1.1".parse(), Ok(Status::NO_MAILBOX));
        assert_eq!("4.999.0".parse(), Ok(Status::new(4, 999, 0)));
        for bad in ["", "5", "5.1", "3.1.1", "5.1.1.1", "5.1000.1", "5..1", "5.+1.1", "5.1.1 x"] {
            assert_eq!(bad.parse::<Status>(), Err(StatusError), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_back(class in prop::sample::select(vec![2_u8, 4, 5]), subject in 0_u16..1000, detail in 0_u16..1000) {
            let status = Status::new(class, subject, detail);
            prop_assert_eq!(status.to_string().parse(), Ok(status));
        }
    }
}
