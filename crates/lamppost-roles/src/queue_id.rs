//! The name of a message in the queue, in the log and in the Maildir.

use std::fmt;
use std::str::FromStr;

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::Timestamp;

/// Letters in ascending ASCII order without the ones that look alike (i, l, o, u).
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
/// 13 letters of 5 bits hold 64 bits.
const LENGTH: usize = 13;

/// A message's identity: microseconds since 1970, moved on by one where two would be equal.
///
/// Identities of one spool never repeat and sort by age; as text they are 13 letters and digits
/// that sort in the same order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct QueueId(pub u64);

impl QueueId {
    /// The identity after this one at the given time in microseconds since 1970.
    #[must_use]
    pub fn next(self, now_us: u64) -> Self {
        Self(now_us.max(self.0 + 1))
    }

    /// When the message came, in milliseconds since 1970.
    pub fn received(self) -> Timestamp {
        Timestamp(self.0 / 1000)
    }

    /// The first identity of messages that came at a time.
    pub fn first_at(time: Timestamp) -> Self {
        Self(time.0.saturating_mul(1000))
    }
}

impl fmt::Display for QueueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0; LENGTH];
        for (place, letter) in text.iter_mut().rev().enumerate() {
            *letter = ALPHABET[usize::from((self.0 >> (5 * place)).to_le_bytes()[0] & 31)];
        }
        text.iter().try_for_each(|&letter| write!(f, "{}", char::from(letter)))
    }
}

impl FromStr for QueueId {
    type Err = QueueIdError;

    fn from_str(text: &str) -> Result<Self, QueueIdError> {
        if text.len() != LENGTH {
            return Err(QueueIdError);
        }
        let mut value: u64 = 0;
        for letter in text.bytes() {
            let digit = ALPHABET.binary_search(&letter).map_err(|_| QueueIdError)?;
            value = value.checked_mul(32).ok_or(QueueIdError)? + digit as u64;
        }
        Ok(Self(value))
    }
}

/// As text where people read it (JSON), as a number elsewhere.
impl Serialize for QueueId {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        if to.is_human_readable() { to.collect_str(self) } else { self.0.serialize(to) }
    }
}

impl<'de> Deserialize<'de> for QueueId {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        if from.is_human_readable() {
            String::deserialize(from)?.parse().map_err(D::Error::custom)
        } else {
            u64::deserialize(from).map(Self)
        }
    }
}

/// A text that is no queue id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a queue id has 13 letters and digits, as `lamppost queue list` prints them")]
pub struct QueueIdError;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn text_gives_the_identity_back(value: u64) {
            let id = QueueId(value);
            prop_assert_eq!(id.to_string().parse(), Ok(id));
        }

        #[test]
        fn text_sorts_as_the_identity(a: u64, b: u64) {
            prop_assert_eq!(a.cmp(&b), QueueId(a).to_string().cmp(&QueueId(b).to_string()));
        }

        #[test]
        fn any_text_parses_or_is_refused(text: String) {
            let _ = text.parse::<QueueId>();
        }
    }

    #[test]
    fn the_clock_set_back_repeats_no_identity() {
        let first = QueueId(0).next(1_000);
        assert_eq!(first.next(5), QueueId(1_001));
    }
}
