//! The options of rblsmtpd: those of ucspi-tcp 0.88, and a few of ours. They count in their order: what
//! stands behind a list does not change it.

use std::ffi::OsString;
use std::time::Duration;

use crate::letters::{Letter, Letters, number};

/// Letters of options; those with a colon take a word.
const LETTERS: &[u8] = b"bBcCt:r:a:T:v";
/// What is told of a command line that is wrong.
pub(super) const USAGE: &str = "rblsmtpd: usage: rblsmtpd [ -bBcCv ] [ -t timeout ] \
     [ -T timeout of lists ] [ -r base ] [ -a base ] smtpd [ arg ... ]";
/// How long all lists together may take, unless `-T` says otherwise.
const LISTS_PATIENCE: Duration = Duration::from_secs(3);
/// Seconds that a client may talk which is refused, unless `-t` says otherwise.
const TALK_SECONDS: u32 = 60;

/// What the command line says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Options<'w> {
    pub(super) lists: Vec<List<'w>>,
    /// How long all of them together may take (`-T`).
    pub(super) patience: Duration,
    /// Seconds that a client may talk which is refused (`-t`); 0 tells it why and says no more.
    pub(super) talk: u32,
    /// Whether lists that fail are told (`-v`).
    pub(super) tells_failures: bool,
    /// The program for clients that are not refused, and its arguments.
    pub(super) program: &'w [OsString],
}

/// A list, and what is to be done by what it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct List<'w> {
    pub(super) kind: Kind,
    /// Its name in the DNS.
    pub(super) base: &'w [u8],
    /// Whether a client that it refuses is refused for good (`-b`, `-B`).
    pub(super) for_good: bool,
    /// Whether a client is refused, or not let through, when the list fails (`-c`, `-C`).
    pub(super) fails_closed: bool,
}

/// What it means to be on a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The client is let through (`-a`).
    Allow,
    /// It is refused (`-r`).
    Refuse,
}

impl<'w> Options<'w> {
    /// Reads the words behind the program's name; what is wrong is what is to be told.
    pub(super) fn parse(words: &'w [OsString]) -> Result<Self, String> {
        let mut options = Options {
            lists: Vec::new(),
            patience: LISTS_PATIENCE,
            talk: TALK_SECONDS,
            tells_failures: false,
            program: &[],
        };
        let (mut for_good, mut fails_closed) = (false, false);
        let mut letters = Letters::new("rblsmtpd", LETTERS, words);
        let wrong = |what| format!("{what}\n{USAGE}");
        while let Some(Letter { letter, word }) = letters.next().map_err(wrong)? {
            let base = word.unwrap_or_default();
            let list = |kind| List { kind, base, for_good, fails_closed };
            match letter {
                b'b' | b'B' => for_good = letter == b'b',
                b'c' | b'C' => fails_closed = letter == b'c',
                b't' => options.talk = u32::try_from(number(base)).unwrap_or(u32::MAX),
                b'T' => options.patience = Duration::from_secs(number(base)),
                b'r' => options.lists.push(list(Kind::Refuse)),
                b'a' => options.lists.push(list(Kind::Allow)),
                _ => options.tells_failures = true,
            }
        }
        options.program = letters.rest();
        if options.program.is_empty() { Err(USAGE.to_owned()) } else { Ok(options) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_option_counts_for_lists_behind_it() {
        let line = "-ra.test -bc -r b.test -Bt5x -a c.test -C -r d.test -- smtpd -b";
        let words: Vec<_> = line.split(' ').map(OsString::from).collect();
        let options = Options::parse(&words).unwrap();
        let shown = |list: &List<'_>| {
            let base = String::from_utf8_lossy(list.base);
            format!("{base} {:?} {} {}", list.kind, list.for_good, list.fails_closed)
        };
        let expected = [
            "a.test Refuse false false",
            "b.test Refuse true true",
            "c.test Allow false true",
            "d.test Refuse false false",
        ];
        assert_eq!(options.lists.iter().map(shown).collect::<Vec<_>>(), expected);
        assert_eq!((options.talk, options.patience, options.program.len()), (5, LISTS_PATIENCE, 2));
    }
}
