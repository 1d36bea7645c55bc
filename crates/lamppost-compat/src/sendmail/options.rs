//! The command line of sendmail, as programs have called it for decades.

use std::ffi::OsString;

use crate::exit::{Code, Failure};

/// What to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Options {
    pub(super) mode: Mode,
    /// `-t`: the header names recipients too.
    pub(super) header_recipients: bool,
    /// `-i`: a line with a dot alone is a line like others.
    pub(super) dots_are_content: bool,
    /// `-f`, `-r`: the address of the envelope; empty for none.
    pub(super) sender: Option<String>,
    /// `-F`: the sender's name.
    pub(super) full_name: Option<String>,
    /// `-v`: tell under which id the message was stored.
    pub(super) verbose: bool,
    /// What follows the options.
    pub(super) recipients: Vec<String>,
}

/// What sendmail is called for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Mode {
    /// `-bm`: a message comes on standard input.
    #[default]
    Message,
    /// `-bs`: SMTP on standard input and output.
    Smtp,
    /// `-bp`: list the queue.
    List,
    /// `-bi`, `-q`: what the running program does by itself, or what there is nothing to do for.
    Nothing,
    /// `--help`: tell the options.
    Help,
}

/// Options with an argument, which may follow in the same word or be the next one.
const WITH_ARGUMENT: &str = "ABbCeFfhLMNOopRrVX";
/// Options whose argument, if there is one, stands in the same word.
const MAYBE_ARGUMENT: &str = "dqQ";
/// Options without an argument.
const ALONE: &str = "cGIimnsTtUvx";

impl Options {
    /// Reads the words after the program's name.
    pub(super) fn parse(words: Vec<OsString>) -> Result<Self, Failure> {
        let mut options = Self::default();
        let mut words = words.into_iter().map(text);
        while let Some(word) = words.next().transpose()? {
            match word.strip_prefix('-') {
                Some("-") => break,
                Some("-help") => options.mode = Mode::Help,
                Some(long) if long.starts_with('-') => return Err(unknown(&word)),
                Some(letters) if !letters.is_empty() => {
                    options.letters(letters, || words.next().transpose())?;
                }
                _ => {
                    options.recipients.push(word);
                    break;
                }
            }
        }
        // As POSIX has it, what follows the first recipient is a recipient: nobody's address can
        // become an option.
        for word in words {
            options.recipients.push(word?);
        }
        match options.recipients.iter().find(|recipient| recipient.starts_with('-')) {
            Some(bad) => Err(usage(format!("{bad} is no address; options come first"))),
            None => Ok(options),
        }
    }

    /// One word of options, such as `-ti` or `-fsender`.
    fn letters(
        &mut self,
        letters: &str,
        next: impl FnOnce() -> Result<Option<String>, Failure>,
    ) -> Result<(), Failure> {
        for (at, letter) in letters.char_indices() {
            let rest = &letters[at + letter.len_utf8()..];
            if ALONE.contains(letter) {
                self.set(letter, "")?;
                continue;
            }
            if MAYBE_ARGUMENT.contains(letter) {
                return self.set(letter, rest);
            }
            if !WITH_ARGUMENT.contains(letter) {
                return Err(unknown(&format!("-{letter}")));
            }
            if !rest.is_empty() {
                return self.set(letter, rest);
            }
            return match next()? {
                Some(argument) => self.set(letter, &argument),
                None => Err(usage(format!("-{letter} needs a word after it"))),
            };
        }
        Ok(())
    }

    fn set(&mut self, letter: char, argument: &str) -> Result<(), Failure> {
        match (letter, argument) {
            ('t', _) => self.header_recipients = true,
            ('i', _) | ('o', "i") => self.dots_are_content = true,
            ('v', _) | ('o', "v") => self.verbose = true,
            ('f' | 'r', _) => self.sender = Some(argument.to_owned()),
            ('F', _) => self.full_name = Some(argument.to_owned()),
            ('I' | 'q', _) | ('b', "i") => self.mode = Mode::Nothing,
            ('b', "m") => self.mode = Mode::Message,
            ('b', "s") => self.mode = Mode::Smtp,
            ('b', "p") => self.mode = Mode::List,
            ('b', "d" | "D") => {
                let what = format!("-b{argument} is not done here; `lamppost run` is the server");
                return Err(usage(what));
            }
            ('b', _) => return Err(unknown(&format!("-b{argument}"))),
            // How others queue, log, report and trace is theirs.
            _ => {}
        }
        Ok(())
    }
}

fn text(word: OsString) -> Result<String, Failure> {
    word.into_string()
        .map_err(|word| usage(format!("{} is not text in UTF-8", word.to_string_lossy())))
}

fn unknown(option: &str) -> Failure {
    usage(format!("there is no option {option}; `sendmail --help` tells those that there are"))
}

fn usage(what: String) -> Failure {
    Failure::new(Code::Usage, what)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(line: &str) -> Result<Options, String> {
        let words = line.split_whitespace().map(OsString::from).collect();
        Options::parse(words).map_err(|failure| failure.text)
    }

    #[track_caller]
    fn check(line: &str, expected: Options) {
        assert_eq!(parse(line), Ok(expected), "{line}");
    }

    fn to(recipients: &[&str]) -> Options {
        let recipients = recipients.iter().map(|&recipient| recipient.to_owned()).collect();
        Options { recipients, ..Options::default() }
    }

    #[test]
    fn programs_call_it_in_many_ways() {
        let php = Options { header_recipients: true, dots_are_content: true, ..Options::default() };
        check("-t -i", php.clone());
        check("-ti", php.clone());
        check("-oi -t -odb -oem", php.clone());
        check("-o i -t -em -B8BITMIME -N never -R hdrs", php.clone());
        let sender = Some("a@b.test".to_owned());
        check("-t -i -fa@b.test", Options { sender: sender.clone(), ..php.clone() });
        check("-itf a@b.test", Options { sender: sender.clone(), ..php.clone() });
        let cron = Options { full_name: Some("CronDaemon".into()), sender, ..to(&["root"]) };
        check("-FCronDaemon -r a@b.test -- root", cron);
        check("-O DeliveryMode=b -d7.99 root you", to(&["root", "you"]));
        check("-bs", Options { mode: Mode::Smtp, ..Options::default() });
        check("-bp", Options { mode: Mode::List, ..Options::default() });
        check("-q30m", Options { mode: Mode::Nothing, ..Options::default() });
        check("--help", Options { mode: Mode::Help, ..Options::default() });
        check("-bi", Options { mode: Mode::Nothing, ..Options::default() });
    }

    proptest! {
        #[test]
        fn recipients_are_never_options(words in proptest::collection::vec("-{0,2}[a-z@é]{0,3}", 0..6)) {
            let words = words.into_iter().map(OsString::from).collect();
            if let Ok(options) = Options::parse(words) {
                prop_assert!(!options.recipients.iter().any(|word| word.starts_with('-')));
            }
        }
    }

    #[test]
    fn what_is_not_done_is_refused() {
        for (line, expected) in [
            ("-bd -q1h", "`lamppost run` is the server"),
            ("-z", "no option -z;"),
            ("-bv you", "no option -bv;"),
            ("--verbose", "no option --verbose;"),
            ("-t -f", "-f needs a word"),
            ("you@b.test -fme@b.test", "options come first"),
            ("-- -t", "-t is no address"),
        ] {
            let error = parse(line).unwrap_err();
            assert!(error.contains(expected), "{line}: {error}");
        }
    }
}
