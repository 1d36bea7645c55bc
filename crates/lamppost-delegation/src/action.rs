//! What a mail server is told to do.

use std::fmt;

/// An answer (Postfix, access(5)).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Go on: others may still refuse.
    Dunno,
    /// Go on, and have the client come back later unless others refuse it for good; the text is for
    /// the client and begins with a code of RFC 3463.
    DeferIfPermit(String),
    /// Go on, and put a field before the message: its name and its value.
    Prepend(&'static str, String),
}

impl fmt::Display for Action {
    /// Writes the answer as it is sent.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dunno => f.write_str("action=DUNNO\n\n"),
            Self::DeferIfPermit(text) => write!(f, "action=DEFER_IF_PERMIT {}\n\n", line(text)),
            Self::Prepend(name, value) => write!(f, "action=PREPEND {name}: {}\n\n", line(value)),
        }
    }
}

/// A text on one line, so that nothing in it begins another.
fn line(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_one_line_and_an_empty_one() {
        assert_eq!(Action::Dunno.to_string(), "action=DUNNO\n\n");
        let defer = Action::DeferIfPermit("4.7.1 later\n\naction=OK".into());
        assert_eq!(defer.to_string(), "action=DEFER_IF_PERMIT 4.7.1 later  action=OK\n\n");
        let prepend = Action::Prepend("X-Greylist", "delayed".into());
        assert_eq!(prepend.to_string(), "action=PREPEND X-Greylist: delayed\n\n");
    }
}
