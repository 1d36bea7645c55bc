//! Replies of the other host out of the stream of bytes (RFC 5321 §4.2).

use bytes::BytesMut;

use crate::line::{Line, LineReader};
use crate::{BareNewline, Status};

/// Bytes of a line; RFC 5321 §4.5.3.1.5 allows 512, and some hosts take more.
const LINE_MAX: usize = 2048;
/// Lines of a reply; those to EHLO have the most, a dozen or two.
const LINES_MAX: usize = 100;
/// Letters of a reply that are told to people.
const TEXT_MAX: usize = 1000;

/// A whole reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HostReply {
    pub(super) code: u16,
    /// The text of each line, without the code.
    pub(super) lines: Vec<String>,
}

/// What the input begins with.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// A part of a reply.
    Incomplete,
    /// Something that is no reply.
    Malformed,
    /// A reply.
    Whole(HostReply),
}

/// Finds replies in what has arrived.
#[derive(Debug, Default)]
pub(super) struct ReplyReader {
    reader: LineReader,
    /// The lines of a reply that goes on.
    begun: Option<HostReply>,
}

impl ReplyReader {
    /// Takes the next reply from the input.
    pub(super) fn take(&mut self, input: &mut BytesMut) -> Heard {
        loop {
            // Replies end nothing but themselves: a host may end its lines as it likes.
            let line = match self.reader.take(input, LINE_MAX, BareNewline::Fix) {
                Line::Whole(line) => line,
                Line::Incomplete => return Heard::Incomplete,
                Line::Bare | Line::TooLong | Line::Endless => return Heard::Malformed,
            };
            let Some((code, goes_on, text)) = parse_line(&line) else {
                return Heard::Malformed;
            };
            let mut reply = self.begun.take().unwrap_or(HostReply { code, lines: Vec::new() });
            if reply.code != code || reply.lines.len() == LINES_MAX {
                return Heard::Malformed;
            }
            reply.lines.push(text);
            if !goes_on {
                return Heard::Whole(reply);
            }
            self.begun = Some(reply);
        }
    }
}

/// Code, whether more lines follow, and text.
fn parse_line(line: &[u8]) -> Option<(u16, bool, String)> {
    let (code, rest) = line.split_at_checked(3)?;
    let code = match code {
        [b'1'..=b'5', b'0'..=b'9', b'0'..=b'9'] => {
            code.iter().fold(0, |code, digit| code * 10 + u16::from(digit - b'0'))
        }
        _ => return None,
    };
    match rest {
        [] => Some((code, false, String::new())),
        [b' ', text @ ..] => Some((code, false, printable(text))),
        [b'-', text @ ..] => Some((code, true, printable(text))),
        _ => None,
    }
}

/// Text for a log or a bounce: whatever could mean something there is replaced.
fn printable(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    text.trim_end().chars().map(|letter| if letter.is_control() { '?' } else { letter }).collect()
}

impl HostReply {
    /// The first digit of the code: 2 for yes, 3 for go on, 4 for not now, 5 for never.
    pub(super) fn class(&self) -> u16 {
        self.code / 100
    }

    /// The enhanced status code that it begins with, if its class is the code's.
    pub(super) fn enhanced(&self) -> Option<Status> {
        let status: Status = first_word(self.lines.first()?).parse().ok()?;
        (u16::from(status.class()) == self.class()).then_some(status)
    }

    /// Why something was refused: for good or for now by the code, and as exactly as it says.
    pub(super) fn status(&self) -> Status {
        let unknown = if self.class() == 5 { Status::PERMANENT } else { Status::TEMPORARY };
        self.enhanced().unwrap_or(unknown)
    }

    /// The whole reply in one line.
    pub(super) fn text(&self) -> String {
        let mut text = self.code.to_string();
        let enhanced = self.enhanced().map(|status| status.to_string());
        for (at, line) in self.lines.iter().enumerate() {
            let line = match &enhanced {
                // Hosts begin each line with it.
                Some(status) if at > 0 => line.strip_prefix(status.as_str()).unwrap_or(line),
                _ => line,
            };
            let line = line.trim();
            if !line.is_empty() {
                text.push(' ');
                text.push_str(line);
            }
        }
        match text.char_indices().nth(TEXT_MAX) {
            Some((end, _)) => format!("{}…", &text[..end]),
            None => text,
        }
    }
}

fn first_word(line: &str) -> &str {
    line.split(' ').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Everything in the bytes, which come in pieces of one size.
    fn replies(bytes: &[u8], piece: usize) -> Vec<Heard> {
        let mut reader = ReplyReader::default();
        let mut input = BytesMut::new();
        let mut heard = Vec::new();
        for piece in bytes.chunks(piece) {
            input.extend_from_slice(piece);
            loop {
                match reader.take(&mut input) {
                    Heard::Incomplete => break,
                    Heard::Malformed => {
                        heard.push(Heard::Malformed);
                        return heard;
                    }
                    whole @ Heard::Whole(_) => heard.push(whole),
                }
            }
        }
        heard
    }

    #[track_caller]
    fn reply(bytes: &str) -> HostReply {
        match replies(bytes.as_bytes(), bytes.len()).pop() {
            Some(Heard::Whole(reply)) => reply,
            other => panic!("{bytes:?}: {other:?}"),
        }
    }

    #[test]
    fn replies_have_codes_and_statuses() {
        let check = |bytes: &str, status: &str, text: &str| {
            let reply = reply(bytes);
            assert_eq!(
                (reply.status().to_string().as_str(), reply.text().as_str()),
                (status, text)
            );
        };
        check("550 5.1.1 No such user\r\n", "5.1.1", "550 5.1.1 No such user");
        check("550 No such user\r\n", "5.0.0", "550 No such user");
        check("450 5.1.1 Contradiction\r\n", "4.0.0", "450 5.1.1 Contradiction");
        check("450\r\n", "4.0.0", "450");
        check(
            "554-5.7.1 One\n554-5.7.1 Two\n554 5.7.1 Three\n",
            "5.7.1",
            "554 5.7.1 One Two Three",
        );
        check("554-\r\n554 Bell \u{7}\r\n", "5.0.0", "554 Bell ?");
    }

    #[test]
    fn what_is_no_reply_is_malformed() {
        for bad in ["", "25", "250x", "650 x", "050 x", "2a0 x", "HTTP/1.1 400", "250-a\r\n251 b"] {
            let heard = replies(format!("{bad}\r\n").as_bytes(), 1);
            assert_eq!(heard, [Heard::Malformed], "{bad}");
        }
        let endless = "250-more\r\n".repeat(LINES_MAX + 1);
        assert_eq!(replies(endless.as_bytes(), 7), [Heard::Malformed]);
        let long = format!("250 {}\r\n", "x".repeat(LINE_MAX));
        assert_eq!(replies(long.as_bytes(), 100), [Heard::Malformed]);
    }

    #[test]
    fn long_texts_are_cut_for_people() {
        let long = "250-wörter und wörter\r\n".repeat(LINES_MAX - 1) + "250 Ende\r\n";
        assert_eq!(reply(&long).text().chars().count(), TEXT_MAX + 1);
    }

    proptest! {
        #[test]
        fn splits_do_not_matter(
            lines in proptest::collection::vec("(2[0-9]{2}|550)[ -][ -~]{0,20}\r?\n|.{0,10}\r\n", 0..6),
            piece in 1_usize..20,
        ) {
            let bytes = lines.concat();
            prop_assert_eq!(
                replies(bytes.as_bytes(), piece),
                replies(bytes.as_bytes(), bytes.len().max(1))
            );
        }
    }
}
