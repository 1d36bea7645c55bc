//! What lists come to: the first of them that decides, in the order of the command line.

use super::options::{Kind, List};

/// What a client is told when a list fails and that refuses it.
const FAILED: &[u8] = b"temporary RBL lookup error";

/// What is done with a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// A program serves it.
    Accept,
    /// It is told why not.
    Refuse { text: Vec<u8>, for_good: bool },
}

/// What a list says of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Absent,
    /// It is there, with what an allowlist leaves empty.
    Listed(Vec<u8>),
    Failed,
}

/// Lists that were heard and have not decided.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Heard {
    /// Whether one of them failed: then nobody is refused for good.
    has_failed: bool,
}

impl Decision {
    /// What the variable `RBLSMTPD` says.
    pub(super) fn of_variable(value: &[u8]) -> Self {
        match value {
            [] => Self::Accept,
            [b'-', text @ ..] => Self::Refuse { text: text.to_owned(), for_good: true },
            text => Self::Refuse { text: text.to_owned(), for_good: false },
        }
    }
}

impl Heard {
    /// Hears the next list; gives what it decides.
    pub(super) fn hear(&mut self, list: &List<'_>, answer: Answer) -> Option<Decision> {
        match (list.kind, answer) {
            (_, Answer::Absent) => None,
            (Kind::Allow, Answer::Listed(_)) => Some(Decision::Accept),
            (Kind::Refuse, Answer::Listed(text)) => {
                let for_good = list.for_good && !self.has_failed;
                Some(Decision::Refuse { text, for_good })
            }
            (kind, Answer::Failed) => {
                self.has_failed = true;
                match (kind, list.fails_closed) {
                    (Kind::Allow, false) => Some(Decision::Accept),
                    (Kind::Refuse, true) => {
                        Some(Decision::Refuse { text: FAILED.to_owned(), for_good: false })
                    }
                    (Kind::Allow, true) | (Kind::Refuse, false) => None,
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lists as `KIND for_good fails_closed answer`, and what they come to.
    fn check(lists: &[(Kind, &str, Answer)], expected: &str) {
        let mut heard = Heard::default();
        let decided = lists.iter().find_map(|(kind, flags, answer)| {
            let (for_good, fails_closed) = (flags.contains('b'), flags.contains('c'));
            let list = List { kind: *kind, base: b"", for_good, fails_closed };
            heard.hear(&list, answer.clone())
        });
        let told = match decided {
            None => "nothing".to_owned(),
            Some(Decision::Accept) => "accept".to_owned(),
            Some(Decision::Refuse { text, for_good }) => {
                let code = if for_good { 553 } else { 451 };
                format!("{code} {}", String::from_utf8_lossy(&text))
            }
        };
        assert_eq!(told, expected, "{lists:?}");
    }

    #[test]
    fn the_first_that_decides_counts() {
        use Answer::{Absent, Failed};
        use Kind::{Allow, Refuse};
        let listed = |text: &str| Answer::Listed(text.into());
        check(&[], "nothing");
        check(&[(Refuse, "", Absent), (Allow, "", Absent)], "nothing");
        check(&[(Refuse, "", listed("a")), (Allow, "", listed(""))], "451 a");
        check(&[(Allow, "", listed("")), (Refuse, "b", listed("a"))], "accept");
        check(&[(Refuse, "b", listed("a")), (Refuse, "", listed("b"))], "553 a");
        // One that fails.
        check(&[(Refuse, "b", Failed), (Refuse, "b", listed("a"))], "451 a");
        check(&[(Refuse, "bc", Failed)], "451 temporary RBL lookup error");
        check(&[(Allow, "", Failed), (Refuse, "b", listed("a"))], "accept");
        check(&[(Allow, "c", Failed), (Refuse, "b", listed("a"))], "451 a");
        // One that nobody comes to.
        check(&[(Refuse, "b", listed("a")), (Refuse, "c", Failed)], "553 a");
    }
}
