//! Messages that follow from their tokens.

use std::fmt;
use std::str::FromStr;

use crate::Random;

/// Letters of the filler, 64 of them.
const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
/// Bytes of a line of filler, its line feed included.
const LINE_BYTES: usize = 77;
/// How a token begins.
const PREFIX: &str = "lamp-";
/// The header field that holds the token.
const FIELD: &[u8] = b"Subject: lamp-";

/// What a message is made from: the load's seed, the message's number, and its size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token {
    /// The seed of the load.
    pub seed: u64,
    /// The number of the message in its load.
    pub number: u64,
    /// Bytes of the message, with LF line ends; a message is never shorter than its header.
    pub size: usize,
}

/// Why a file is not a message of this load as it was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stranger {
    /// There is no token in it.
    NoToken,
    /// It has a token, and other bytes than that token's message.
    Changed(Token),
}

impl fmt::Display for Stranger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoToken => f.write_str("there is no token in it"),
            Self::Changed(token) => write!(f, "its bytes are not those of {token}"),
        }
    }
}

impl std::error::Error for Stranger {}

impl Token {
    /// The message, with LF line ends, as it must lie in a Maildir below the lines that the server
    /// puts before it.
    pub fn message(&self) -> Vec<u8> {
        let header = format!(
            "From: <load@elsewhere.test>\nDate: Thu, 01 Jan 2026 00:00:00 +0000\n\
             Message-ID: <{self}@elsewhere.test>\nSubject: {self}\n\n"
        );
        let mut message = header.into_bytes();
        message.reserve(self.size.saturating_sub(message.len()));
        let mut random = self.random();
        while message.len() + 1 < self.size {
            let line = (self.size - message.len()).min(LINE_BYTES) - 1;
            filler(&mut random, line, &mut message);
            message.push(b'\n');
        }
        if message.len() < self.size {
            message.push(b'\n');
        }
        message
    }

    /// The message as it goes over the wire: CRLF line ends, dots doubled, and the final dot.
    pub fn wire(&self) -> Vec<u8> {
        let message = self.message();
        let mut wire = Vec::with_capacity(message.len() + message.len() / 32 + 8);
        for line in message.split_inclusive(|byte| *byte == b'\n') {
            if line.starts_with(b".") {
                wire.push(b'.');
            }
            wire.extend_from_slice(line.strip_suffix(b"\n").unwrap_or(line));
            wire.extend_from_slice(b"\r\n");
        }
        wire.extend_from_slice(b".\r\n");
        wire
    }

    /// Numbers that follow from this token.
    pub(crate) fn random(&self) -> Random {
        Random::new(self.seed ^ self.number.wrapping_mul(0x2545_f491_4f6c_dd1d))
    }

    /// The token in a message that arrived, whatever the rest of it is.
    pub fn found_in(arrived: &[u8]) -> Option<Self> {
        let header = arrived.split(|byte| *byte == b'\n').take_while(|line| !line.is_empty());
        let line = header.into_iter().find(|line| line.starts_with(FIELD))?;
        let text = std::str::from_utf8(&line[b"Subject: ".len()..]).ok()?;
        text.trim_end().parse().ok()
    }

    /// The token of a message that arrived, when the message is byte for byte what was sent, below
    /// the lines that the server put before it.
    ///
    /// # Errors
    ///
    /// When there is no token, or other bytes than its message's.
    pub fn recognise(arrived: &[u8]) -> Result<Self, Stranger> {
        let token = Self::found_in(arrived).ok_or(Stranger::NoToken)?;
        // The server's own lines are few; more of them means that the message was repeated inside.
        let sent = token.message();
        let lines = arrived.strip_suffix(sent.as_slice()).ok_or(Stranger::Changed(token))?;
        if Self::found_in(lines).is_some() { Err(Stranger::Changed(token)) } else { Ok(token) }
    }
}

/// A line of letters that begins with a dot now and then.
fn filler(random: &mut Random, length: usize, into: &mut Vec<u8>) {
    let end = into.len() + length;
    if length > 0 && random.below(16) == 0 {
        into.push(b'.');
    }
    while into.len() < end {
        let bits = random.number();
        let letters = (end - into.len()).min(10);
        into.extend((0..letters).map(|letter| LETTERS[usize::from(low(bits >> (6 * letter)))]));
    }
}

fn low(bits: u64) -> u8 {
    bits.to_le_bytes()[0] & 63
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{:x}-{}-{}", self.seed, self.number, self.size)
    }
}

impl FromStr for Token {
    type Err = Stranger;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let mut parts = text.strip_prefix(PREFIX)?.split('-');
            let token = Self {
                seed: u64::from_str_radix(parts.next()?, 16).ok()?,
                number: parts.next()?.parse().ok()?,
                size: parts.next()?.parse().ok()?,
            };
            parts.next().is_none().then_some(token)
        };
        parse().ok_or(Stranger::NoToken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(size: usize) -> Token {
        Token { seed: 0xabc, number: 7, size }
    }

    #[test]
    fn messages_have_their_size() {
        let least = token(0).message().len();
        for size in (0..=3).map(|more| least + more).chain([4096, 100 * 1024, 300_001]) {
            // The digits of the size stand twice in the header.
            let message = token(size).message();
            assert!(message.len() == size || size < least + 6, "{size}: {}", message.len());
            assert!(message.ends_with(b"\n"));
        }
    }

    #[test]
    fn a_token_is_read_back() {
        assert_eq!(token(4096).to_string(), "lamp-abc-7-4096");
        assert_eq!("lamp-abc-7-4096".parse(), Ok(token(4096)));
        for bad in ["", "lamp-", "lamp-abc-7", "lamp-abc-7-4096-1", "lamp-x-7-1"] {
            assert_eq!(bad.parse::<Token>(), Err(Stranger::NoToken), "{bad}");
        }
    }

    #[test]
    fn what_arrived_unchanged_is_recognised() {
        let mut arrived = b"Return-Path: <x@y.test>\nReceived: from z\n\tby q\n".to_vec();
        arrived.extend(token(5000).message());
        assert_eq!(Token::recognise(&arrived), Ok(token(5000)));
    }

    #[test]
    fn what_was_changed_is_not() {
        let sent = token(5000).message();
        let mut flipped = sent.clone();
        flipped[4000] ^= 1;
        let cut = &sent[..4999];
        let longer = [&sent[..], b"x\n"].concat();
        let doubled = [&sent[..], &sent[..]].concat();
        for changed in [&flipped[..], cut, &longer, &doubled] {
            assert_eq!(Token::recognise(changed), Err(Stranger::Changed(token(5000))));
        }
        assert_eq!(Token::recognise(b"Subject: x\n\nlamp\n"), Err(Stranger::NoToken));
    }

    #[test]
    fn the_wire_form_doubles_dots() {
        let wire = String::from_utf8(token(50_000).wire()).unwrap();
        assert!(wire.contains("\r\n..") && wire.ends_with("\r\n.\r\n"));
        let lines = wire.strip_suffix(".\r\n").unwrap().split_terminator("\r\n");
        let back: Vec<_> = lines.map(|line| line.strip_prefix('.').unwrap_or(line)).collect();
        assert_eq!((back.join("\n") + "\n").into_bytes(), token(50_000).message());
    }
}
