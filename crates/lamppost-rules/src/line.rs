//! One line of rules: what tcprules makes of it, and what the extended grammar adds.

use std::ops::Range;

use crate::network::{self, NetworkError};

/// What a text of rules may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grammar {
    /// What tcprules takes, and no more. Keys with colons, as IPv6 addresses are, are those of the IPv6
    /// variant of ucspi-tcp; all else means the same to both.
    Exact,
    /// Beside that, networks (`192.0.2.0/24`, `2001:db8::/32`), comments behind rules, blanks before
    /// comments, and lines that end in CR LF. A line without a colon, which tcprules passes over in silence,
    /// is wrong: whatever is no text of rules would be one otherwise.
    Extended,
}

/// What is wrong with a line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Wrong {
    /// Neither `allow` nor `deny` follows a colon.
    #[error("`allow` or `deny` must follow the colon, in small letters")]
    NoVerdict,
    /// There is no colon.
    #[error("a rule has a colon, with `allow` or `deny` behind it")]
    NoColon,
    /// Something follows what was complete.
    #[error("the rule should end here, or go on with a comma and a variable")]
    Behind,
    /// A variable has no `=`.
    #[error("a variable needs a name, `=` and a value in quotes, as in `,RELAYCLIENT=\"\"`")]
    NoValue,
    /// A value does not end.
    #[error("the value does not end: the mark that it begins with, {0:?}, must come again")]
    OpenValue(char),
    /// An end of a range is no number.
    #[error("a range is of numbers, as in `192.0.2.10-20`; names with `-` begin with `=`")]
    NoNumber,
    /// A network is none.
    #[error("{0}")]
    Network(NetworkError),
}

impl Wrong {
    /// What to do about it.
    pub fn cure(&self) -> String {
        match self {
            Self::NoColon => {
                "write ADDRESS:allow or ADDRESS:deny, or begin a comment with #".into()
            }
            Self::NoVerdict => "write ADDRESS:allow or ADDRESS:deny".into(),
            Self::Behind => "remove the rest; a comment begins with ` #`".into(),
            Self::NoValue => "write NAME=\"VALUE\", without blanks around".into(),
            Self::OpenValue(mark) => format!("end the value with {mark}"),
            Self::NoNumber => "write FIRST-LAST, or the name as =NAME".into(),
            Self::Network(error) => error.cure(),
        }
    }
}

/// What a line holds.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Line<'l> {
    /// Nothing, or what is passed over.
    Nothing,
    /// A rule.
    Rule(Rule<'l>),
}

/// A rule: records under one key, or under many for a range.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Rule<'l> {
    /// The key as it is written.
    pub(crate) key: &'l [u8],
    /// What a cdb holds for it.
    pub(crate) record: Vec<u8>,
}

/// A fault and the byte of the line where it is.
pub(crate) type Fault = (usize, Wrong);

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

/// Takes the end that tcprules takes: line ends and blanks.
pub(crate) fn trimmed(line: &[u8], grammar: Grammar) -> &[u8] {
    let is_end = |byte: u8| {
        is_blank(byte) || byte == b'\n' || (byte == b'\r' && grammar == Grammar::Extended)
    };
    let kept = line.iter().rposition(|&byte| !is_end(byte)).map_or(0, |last| last + 1);
    &line[..kept]
}

/// Reads a line whose end was taken.
pub(crate) fn read(line: &[u8], grammar: Grammar) -> Result<Line<'_>, Fault> {
    let first = match grammar {
        Grammar::Exact => line.first(),
        Grammar::Extended => line.iter().find(|byte| !is_blank(**byte)),
    };
    match first {
        None | Some(b'#') => return Ok(Line::Nothing),
        Some(_) => {}
    }
    let colon = match (colon(line), grammar) {
        (Some(colon), _) => colon,
        (None, Grammar::Exact) => return Ok(Line::Nothing),
        (None, Grammar::Extended) => return Err((0, Wrong::NoColon)),
    };
    let (key, mut at) = (&line[..colon], colon + 1);
    let mut record = Vec::new();
    let rest = &line[at..];
    if rest.starts_with(b"deny") {
        record.extend_from_slice(b"D\0");
        at += 4;
    } else if rest.starts_with(b"allow") {
        at += 5;
    } else {
        return Err((at, Wrong::NoVerdict));
    }
    while let Some(&next) = line.get(at) {
        match next {
            b',' => at = variable(line, at + 1, &mut record)?,
            _ if grammar == Grammar::Extended && is_comment(&line[at..]) => break,
            _ => return Err((at, Wrong::Behind)),
        }
    }
    Ok(Line::Rule(Rule { key, record }))
}

/// The colon that ends the key: the first one with a verdict behind it, else the first.
fn colon(line: &[u8]) -> Option<usize> {
    let colons = || line.iter().enumerate().filter(|(_, byte)| **byte == b':').map(|(at, _)| at);
    let has_verdict = |at: &usize| {
        let rest = &line[at + 1..];
        rest.starts_with(b"deny") || rest.starts_with(b"allow")
    };
    colons().find(has_verdict).or_else(|| colons().next())
}

fn is_comment(rest: &[u8]) -> bool {
    let blanks = rest.iter().take_while(|byte| is_blank(**byte)).count();
    blanks > 0 && rest.get(blanks) == Some(&b'#')
}

/// Reads a variable behind its comma; tells where it ends.
fn variable(line: &[u8], begin: usize, record: &mut Vec<u8>) -> Result<usize, Fault> {
    let equals = line[begin..].iter().position(|&byte| byte == b'=');
    let mark = equals.map(|equals| begin + equals + 1).filter(|mark| *mark < line.len());
    let mark = mark.ok_or((begin, Wrong::NoValue))?;
    let value = mark + 1;
    let end = line[value..].iter().position(|&byte| byte == line[mark]);
    let end = end.ok_or((mark, Wrong::OpenValue(char::from(line[mark]))))?;
    record.push(b'+');
    record.extend_from_slice(&line[begin..mark]);
    record.extend_from_slice(&line[value..value + end]);
    record.push(0);
    Ok(value + end + 1)
}

/// A range of numbers in a key: what stands before it, its ends, and what stands behind it.
#[derive(Debug, PartialEq, Eq)]
struct Numbers {
    before: Range<usize>,
    low: u64,
    high: u64,
    behind: Range<usize>,
}

impl Rule<'_> {
    /// The keys of its records, in the order of the cdb.
    pub(crate) fn keys(&self, grammar: Grammar) -> Result<Vec<Vec<u8>>, Fault> {
        let keys = match numbers(self.key)? {
            None => vec![self.key.to_vec()],
            Some(Numbers { before, low, high, behind }) => {
                let (before, behind) = (&self.key[before], &self.key[behind]);
                let numbers = (low..=high).map(|number| number.to_string());
                numbers.map(|number| [before, number.as_bytes(), behind].concat()).collect()
            }
        };
        let is_network = !is_name(self.key) && self.key.contains(&b'/');
        if grammar == Grammar::Exact || !is_network {
            return Ok(keys);
        }
        let network = |key: &Vec<u8>| network::key(key).map_err(|error| (0, Wrong::Network(error)));
        keys.iter().map(network).collect()
    }
}

/// Keys of names, and of users, hold no range.
fn is_name(key: &[u8]) -> bool {
    key.contains(&b'=') || key.contains(&b'@')
}

/// The range in a key, if it has one; the last number is at most 255.
fn numbers(key: &[u8]) -> Result<Option<Numbers>, Fault> {
    if is_name(key) {
        return Ok(None);
    }
    let Some(dash) = key.iter().position(|&byte| byte == b'-') else { return Ok(None) };
    let left = key[..dash].iter().rposition(|&byte| byte == b'.').map_or(0, |dot| dot + 1);
    let begin = dash + 1;
    let right = key[begin..].iter().position(|&byte| byte == b'.');
    let right = right.map_or(key.len(), |dots| begin + dots);
    let low = number(&key[left..dash]).ok_or((left, Wrong::NoNumber))?;
    let high = number(&key[begin..right]).ok_or((begin, Wrong::NoNumber))?.min(255);
    Ok(Some(Numbers { before: 0..left, low, high, behind: right..key.len() }))
}

/// A number as tcprules reads it: none is 0, one that is too large wraps, and a zero byte ends it.
fn number(text: &[u8]) -> Option<u64> {
    text.iter().take_while(|byte| **byte != 0).try_fold(0_u64, |number, &byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        Some(number.wrapping_mul(10).wrapping_add(digit))
    })
}
