//! Berkeley DB's portable text, as `db5.3_dump` writes it, with or without `-p` (Oracle Berkeley DB,
//! `db_dump`).
//!
//! The files themselves have no documented format, and only the library of their version reads them.

use std::io::{self, BufRead};

/// Bytes of a line at most: of the longest addresses that a mail server takes, in hexadecimal digits.
const LINE_BYTES_MAX: u64 = 64 * 1024;

/// Why a text is no dump.
#[derive(Debug, thiserror::Error)]
pub enum DumpProblem {
    /// It cannot be read.
    #[error("it cannot be read")]
    Read(#[source] io::Error),
    /// It is something else.
    #[error("line {line}: {what}")]
    Line {
        /// The line, from 1.
        line: u64,
        /// What was expected there, and what is.
        what: String,
    },
}

/// A key and its value.
pub type Pair = (Vec<u8>, Vec<u8>);

/// Keys and values of a dump, or of several behind one another.
#[derive(Debug)]
pub struct Dump<R> {
    text: R,
    line: u64,
    part: Part,
}

/// Where in a dump it is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Begin,
    Pairs { is_print: bool },
    Failed,
}

impl<R: BufRead> Dump<R> {
    /// Reads a text, line by line as it is needed.
    pub fn new(text: R) -> Self {
        Self { text, line: 0, part: Part::Begin }
    }

    fn next_pair(&mut self) -> Result<Option<Pair>, DumpProblem> {
        loop {
            match self.part {
                Part::Failed => return Ok(None),
                Part::Begin => match self.line()? {
                    None => return Ok(None),
                    Some(line) if line == b"VERSION=3" => self.header()?,
                    Some(line) => {
                        let what = format!("VERSION=3 was expected, not {}", shown(&line));
                        return Err(self.problem(what));
                    }
                },
                Part::Pairs { is_print } => {
                    let key = self.wanted("a key or DATA=END")?;
                    if key == b"DATA=END" {
                        self.part = Part::Begin;
                        continue;
                    }
                    let key = self.item(&key, is_print)?;
                    let value = self.wanted("the value of the key before it")?;
                    return Ok(Some((key, self.item(&value, is_print)?)));
                }
            }
        }
    }

    /// The lines up to the pairs; those that say how the database was kept do not matter.
    fn header(&mut self) -> Result<(), DumpProblem> {
        let mut is_print = false;
        loop {
            let line = self.wanted("HEADER=END")?;
            match &line[..] {
                b"HEADER=END" => break,
                b"format=print" => is_print = true,
                b"keys=0" => {
                    return Err(self.problem("a dump without keys (keys=0)".into()));
                }
                line if line.contains(&b'=') && !line.starts_with(b" ") => {}
                line => {
                    let what = format!("NAME=VALUE was expected, not {}", shown(line));
                    return Err(self.problem(what));
                }
            }
        }
        self.part = Part::Pairs { is_print };
        Ok(())
    }

    /// A key or a value behind its blank.
    fn item(&self, line: &[u8], is_print: bool) -> Result<Vec<u8>, DumpProblem> {
        let text = line.strip_prefix(b" ").ok_or_else(|| {
            self.problem(format!("a line with a blank before it was expected, not {}", shown(line)))
        })?;
        let bytes = if is_print { printed(text) } else { digits(text) };
        bytes.ok_or_else(|| {
            let what = if is_print { "a backslash and no two digits" } else { "odd digits" };
            self.problem(format!("{what} in {}", shown(text)))
        })
    }

    fn wanted(&mut self, what: &str) -> Result<Vec<u8>, DumpProblem> {
        let line = self.line()?;
        line.ok_or_else(|| self.problem(format!("it ends where {what} was expected")))
    }

    /// The next line, without its end.
    fn line(&mut self) -> Result<Option<Vec<u8>>, DumpProblem> {
        let mut line = Vec::new();
        let mut text = io::Read::take(&mut self.text, LINE_BYTES_MAX + 1);
        self.line += 1;
        if text.read_until(b'\n', &mut line).map_err(DumpProblem::Read)? == 0 {
            return Ok(None);
        }
        if line.last() != Some(&b'\n') && line.len() as u64 > LINE_BYTES_MAX {
            return Err(self.problem(format!("it has more than {LINE_BYTES_MAX} bytes")));
        }
        if line.ends_with(b"\n") {
            line.pop();
        }
        Ok(Some(line))
    }

    fn problem(&self, what: String) -> DumpProblem {
        DumpProblem::Line { line: self.line, what }
    }
}

impl<R: BufRead> Iterator for Dump<R> {
    type Item = Result<Pair, DumpProblem>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.next_pair();
        if next.is_err() {
            self.part = Part::Failed;
        }
        next.transpose()
    }
}

/// Bytes of a text in which the odd ones stand as a backslash and two digits.
fn printed(text: &[u8]) -> Option<Vec<u8>> {
    let (mut bytes, mut rest) = (Vec::with_capacity(text.len()), text);
    loop {
        match rest {
            [] => return Some(bytes),
            [b'\\', b'\\', more @ ..] => {
                bytes.push(b'\\');
                rest = more;
            }
            [b'\\', more @ ..] => {
                bytes.extend(digits(more.get(..2)?)?);
                rest = &more[2..];
            }
            [byte, more @ ..] => {
                bytes.push(*byte);
                rest = more;
            }
        }
    }
}

/// Bytes of pairs of hexadecimal digits.
fn digits(text: &[u8]) -> Option<Vec<u8>> {
    let value = |digit: u8| char::from(digit).to_digit(16);
    let (pairs, rest) = text.as_chunks::<2>();
    let byte = |&[high, low]: &[u8; 2]| u8::try_from(value(high)? * 16 + value(low)?).ok();
    if rest.is_empty() { pairs.iter().map(byte).collect() } else { None }
}

/// The beginning of a line, for people.
fn shown(line: &[u8]) -> String {
    let text: String = String::from_utf8_lossy(line).chars().take(40).collect();
    format!("{text:?}")
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use proptest::prelude::*;

    use super::*;

    fn pairs(text: &[u8]) -> Result<Vec<Pair>, String> {
        let all: Result<Vec<_>, _> = Dump::new(text).collect();
        all.map_err(|problem| problem.to_string())
    }

    #[test]
    fn dumps_of_both_kinds_are_read_behind_one_another() {
        let text = b"VERSION=3\nformat=print\ntype=btree\ndb_pagesize=4096\nHEADER=END\n \
            a\\0a\\\\b\n \nDATA=END\nVERSION=3\nformat=bytevalue\nHEADER=END\n 610A\n ff\nDATA=END\n";
        let expected: Vec<Pair> =
            vec![(b"a\n\\b".into(), b"".into()), (b"a\n".into(), b"\xff".into())];
        assert_eq!(pairs(text).unwrap(), expected);
        assert_eq!(pairs(b"").unwrap(), []);
    }

    #[track_caller]
    fn wrong(text: &[u8], expected: &str) {
        assert_eq!(pairs(text).unwrap_err(), expected);
    }

    #[test]
    fn what_is_no_dump_is_told_with_its_line() {
        wrong(b"\x00\x00b1\x05", "line 1: VERSION=3 was expected, not \"\\0\\0b1\\u{5}\"");
        wrong(b"VERSION=3\n", "line 2: it ends where HEADER=END was expected");
        wrong(b"VERSION=3\nkeys=0\n", "line 2: a dump without keys (keys=0)");
        wrong(b"VERSION=3\n a\n", "line 2: NAME=VALUE was expected, not \" a\"");
        let header = "VERSION=3\nformat=print\nHEADER=END\n";
        let with = |rest: &str| format!("{header}{rest}");
        wrong(
            with(" a\n").as_bytes(),
            "line 5: it ends where the value of the key before it was expected",
        );
        wrong(
            with("a\n").as_bytes(),
            "line 4: a line with a blank before it was expected, not \"a\"",
        );
        wrong(with(" \\x\n").as_bytes(), "line 4: a backslash and no two digits in \"\\\\x\"");
        let long = format!(" {}", "x".repeat(70_000));
        wrong(with(&long).as_bytes(), "line 4: it has more than 65536 bytes");
        let digits = "VERSION=3\nformat=bytevalue\nHEADER=END\n 616\n";
        wrong(digits.as_bytes(), "line 4: odd digits in \"616\"");
    }

    proptest! {
        /// What `db5.3_dump` would write of any keys and values is read as they were.
        #[test]
        fn what_is_written_is_read(
            all in proptest::collection::vec((any::<Vec<u8>>(), any::<Vec<u8>>()), 0..9),
            is_print: bool,
        ) {
            let mut text = String::from("VERSION=3\n");
            text += if is_print { "format=print\n" } else { "format=bytevalue\n" };
            text += "type=btree\nHEADER=END\n";
            for bytes in all.iter().flat_map(|(key, value)| [key, value]) {
                text.push(' ');
                for &byte in bytes {
                    let _infallible = match byte {
                        b'\\' if is_print => write!(text, "\\\\"),
                        0x20..0x7f if is_print => write!(text, "{}", char::from(byte)),
                        _ if is_print => write!(text, "\\{byte:02x}"),
                        _ => write!(text, "{byte:02x}"),
                    };
                }
                text.push('\n');
            }
            text += "DATA=END\n";
            prop_assert_eq!(pairs(text.as_bytes()), Ok(all));
        }

        #[test]
        fn any_bytes_end(bytes: Vec<u8>, header: bool) {
            let text = [if header { &b"VERSION=3\nformat=print\nHEADER=END\n"[..] } else { b"" }, &bytes];
            drop(pairs(&text.concat()));
        }
    }
}
