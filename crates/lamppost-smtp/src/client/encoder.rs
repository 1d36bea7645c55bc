//! The content of a message into the stream of bytes after DATA.
//!
//! Every line end becomes CRLF, a CR alone too, so that nothing in the content can be taken for its
//! end by a host that takes anything but CRLF.CRLF for one (RFC 5321 §2.3.8, §4.5.2).

use bytes::BytesMut;

/// Encodes a content piece by piece.
#[derive(Debug)]
pub(super) struct Encoder {
    at_line_start: bool,
    /// Whether the last piece ended in a CR, whose line end is written already.
    after_cr: bool,
}

impl Encoder {
    pub(super) fn new() -> Self {
        Self { at_line_start: true, after_cr: false }
    }

    /// Encodes the next piece.
    pub(super) fn encode(&mut self, mut piece: &[u8], output: &mut BytesMut) {
        // Room for a CR in lines of 32 bytes: few contents need more.
        output.reserve(piece.len() + piece.len() / 32);
        while let Some(&first) = piece.first() {
            if std::mem::take(&mut self.after_cr) && first == b'\n' {
                piece = &piece[1..];
                continue;
            }
            if self.at_line_start && first == b'.' {
                output.extend_from_slice(b".");
            }
            let Some(length) = memchr::memchr2(b'\r', b'\n', piece) else {
                output.extend_from_slice(piece);
                self.at_line_start = false;
                return;
            };
            output.extend_from_slice(&piece[..length]);
            output.extend_from_slice(b"\r\n");
            self.after_cr = piece[length] == b'\r';
            self.at_line_start = true;
            piece = &piece[length + 1..];
        }
    }

    /// Ends the content; a last line without its end gets one.
    pub(super) fn finish(self, output: &mut BytesMut) {
        if !self.at_line_start {
            output.extend_from_slice(b"\r\n");
        }
        output.extend_from_slice(b".\r\n");
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::BareNewline;
    use crate::content::{Decoded, Decoder};

    fn encode(content: &[u8], pieces: &[usize]) -> BytesMut {
        let mut encoder = Encoder::new();
        let mut output = BytesMut::new();
        let mut rest = content;
        let mut pieces = pieces.iter().cycle();
        while !rest.is_empty() {
            let (piece, after) = rest.split_at((*pieces.next().unwrap()).clamp(1, rest.len()));
            encoder.encode(piece, &mut output);
            rest = after;
        }
        encoder.finish(&mut output);
        output
    }

    #[track_caller]
    fn check(content: &str, wire: &str) {
        for piece in 1..=content.len().max(1) {
            let encoded = encode(content.as_bytes(), &[piece]);
            assert_eq!(String::from_utf8_lossy(&encoded), wire, "{content:?} by {piece}");
        }
    }

    #[test]
    fn lines_end_in_crlf_and_dots_are_doubled() {
        check("", ".\r\n");
        check("a\n", "a\r\n.\r\n");
        check("a", "a\r\n.\r\n");
        check(".\n..a\nb.\n", "..\r\n...a\r\nb.\r\n.\r\n");
        check("\n\n", "\r\n\r\n.\r\n");
        check(".", "..\r\n.\r\n");
    }

    #[test]
    fn a_carriage_return_ends_a_line_too() {
        check("a\r\nb\r\n", "a\r\nb\r\n.\r\n");
        check("a\r.\rb", "a\r\n..\r\nb\r\n.\r\n");
        check("a\r\r\n.\r\n", "a\r\n\r\n..\r\n.\r\n");
    }

    proptest! {
        /// The server's own decoder gives the content back, whatever is in it.
        #[test]
        fn the_other_side_gets_the_content(
            content in proptest::collection::vec(
                prop_oneof![Just(b'\n'), Just(b'.'), Just(b'a'), any::<u8>()],
                0..200,
            ),
            pieces in proptest::collection::vec(1_usize..9, 1..20),
        ) {
            let content: Vec<u8> = content.into_iter().filter(|&byte| byte != b'\r').collect();
            let mut wire = encode(&content, &pieces);
            prop_assert_eq!(&wire, &encode(&content, &[content.len().max(1)]));
            let mut decoded = BytesMut::new();
            let ended = Decoder::data(BareNewline::Refuse, usize::MAX)
                .decode(&mut wire, &mut decoded, true);
            prop_assert_eq!((ended, wire.len()), (Decoded::End, 0));
            let mut expected = content;
            if expected.last().is_some_and(|&last| last != b'\n') {
                expected.push(b'\n');
            }
            prop_assert_eq!(decoded.to_vec(), expected);
        }

        /// With carriage returns in it too, only the end is an end, in any pieces.
        #[test]
        fn nothing_inside_ends_the_content(
            content in proptest::collection::vec(
                prop_oneof![Just(b'\r'), Just(b'\n'), Just(b'.'), Just(b'a')],
                0..200,
            ),
            pieces in proptest::collection::vec(1_usize..9, 1..20),
        ) {
            let mut wire = encode(&content, &pieces);
            prop_assert_eq!(&wire, &encode(&content, &[content.len().max(1)]));
            let ended = Decoder::data(BareNewline::Refuse, usize::MAX)
                .decode(&mut wire, &mut BytesMut::new(), true);
            prop_assert_eq!((ended, wire.len()), (Decoded::End, 0));
        }
    }
}
