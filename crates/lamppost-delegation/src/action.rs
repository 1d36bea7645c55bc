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

/// What is said to who asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// What it is to do.
    pub action: Action,
    /// What its administrator should know; only for who told what a recipe says.
    pub remark: Option<String>,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dunno => f.write_str("DUNNO"),
            Self::DeferIfPermit(text) => write!(f, "DEFER_IF_PERMIT {}", line(text)),
            Self::Prepend(name, value) => write!(f, "PREPEND {name}: {}", line(value)),
        }
    }
}

impl fmt::Display for Answer {
    /// Writes the answer as it is sent.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "action={}", self.action)?;
        if let Some(remark) = &self.remark {
            writeln!(f, "remark={}", line(remark))?;
        }
        f.write_str("\n")
    }
}

/// A text on one line, so that nothing in it begins another.
pub(crate) fn line(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(action: Action, remark: Option<&str>, expected: &str) {
        let answer = Answer { action, remark: remark.map(ToOwned::to_owned) };
        assert_eq!(answer.to_string(), expected);
    }

    #[test]
    fn what_is_said_begins_no_other_line() {
        check(Action::Dunno, None, "action=DUNNO\n\n");
        let defer = Action::DeferIfPermit("4.7.1 later\n\naction=OK".into());
        check(defer, None, "action=DEFER_IF_PERMIT 4.7.1 later  action=OK\n\n");
        let prepend = Action::Prepend("X-Greylist", "delayed".into());
        check(prepend, None, "action=PREPEND X-Greylist: delayed\n\n");
        check(Action::Dunno, Some("a\nb"), "action=DUNNO\nremark=a b\n\n");
    }
}
