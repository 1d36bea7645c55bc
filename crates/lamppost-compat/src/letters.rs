//! Options as the programs of ucspi-tcp read them (`subgetopt.c`): letters, in words that begin with `-`.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt as _;

/// The letters on a command line, one after the other.
#[derive(Clone, Debug)]
pub(crate) struct Letters<'w> {
    program: &'static str,
    /// Those that there are; a colon behind one says that it takes a word.
    known: &'static [u8],
    words: &'w [OsString],
    /// What is left of the word that is read.
    left: &'w [u8],
}

/// One of them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Letter<'w> {
    pub(crate) letter: u8,
    /// Its word, where it takes one.
    pub(crate) word: Option<&'w [u8]>,
}

impl<'w> Letters<'w> {
    pub(crate) fn new(program: &'static str, known: &'static [u8], words: &'w [OsString]) -> Self {
        Self { program, known, words, left: &[] }
    }

    /// The next letter, and its word where it takes one; what is wrong is what is to be told.
    pub(crate) fn next(&mut self) -> Result<Option<Letter<'w>>, String> {
        if self.left.is_empty() && !self.begin_word() {
            return Ok(None);
        }
        let [letter, left @ ..] = self.left else { return Ok(None) };
        self.left = left;
        let wrong =
            |what: &str| Err(format!("{}: {what} -- {}", self.program, char::from(*letter)));
        let place = self.known.iter().position(|known| known == letter && *letter != b':');
        let Some(place) = place else { return wrong("illegal option") };
        if self.known.get(place + 1) != Some(&b':') {
            return Ok(Some(Letter { letter: *letter, word: None }));
        }
        let word = match (left, self.words) {
            ([], []) => return wrong("option requires an argument"),
            ([], [word, rest @ ..]) => {
                self.words = rest;
                word.as_bytes()
            }
            (left, _) => left,
        };
        self.left = &[];
        Ok(Some(Letter { letter: *letter, word: Some(word) }))
    }

    /// What stands behind the options.
    pub(crate) fn rest(self) -> &'w [OsString] {
        self.words
    }

    /// Goes on to the next word, if that holds options.
    fn begin_word(&mut self) -> bool {
        let Some((word, rest)) = self.words.split_first() else { return false };
        match word.as_bytes() {
            [b'-', b'-', ..] => {
                self.words = rest;
                false
            }
            [b'-', letters @ ..] if !letters.is_empty() => {
                (self.words, self.left) = (rest, letters);
                true
            }
            _ => false,
        }
    }
}

/// A number as it is read there: what is no digit ends it.
pub(crate) fn number(word: &[u8]) -> u64 {
    let digits = word.iter().take_while(|byte| byte.is_ascii_digit());
    digits.fold(0, |number: u64, digit| {
        number.saturating_mul(10).saturating_add(u64::from(digit - b'0'))
    })
}
