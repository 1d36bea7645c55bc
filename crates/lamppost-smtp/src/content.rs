//! The content of a message out of the stream of bytes, by DATA or by BDAT.
//!
//! Only CRLF is a line end, and only CRLF.CRLF ends the content of DATA (RFC 5321 §2.3.8, §4.1.1.4):
//! servers that take anything else for the end let a message smuggle another one in. Content comes
//! out with LF line ends.

use bytes::{Buf, BytesMut};

use crate::BareNewline;

/// Decodes a content piece by piece.
#[derive(Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a fact of its own about the bytes so far"
)]
pub(crate) struct Decoder {
    bare: BareNewline,
    /// Whether dots at line starts are doubled and a dot alone ends the content (DATA, not BDAT).
    dots: bool,
    line_max: usize,
    line_length: usize,
    /// Whether a CRLF, and nothing else, came just before.
    at_line_start: bool,
    /// Whether a line was longer than it may be; decoding went on.
    pub(crate) line_too_long: bool,
    /// Whether the last chunk ended in a CR that waits for its LF.
    held_cr: bool,
}

/// What came of the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decoded {
    /// A CR or LF alone, from a client that must not send any.
    Bare,
    /// The content of DATA is complete.
    End,
    /// All of the input that can be decoded yet.
    More,
}

impl Decoder {
    /// For content after DATA.
    pub(crate) fn data(bare: BareNewline, line_max: usize) -> Self {
        Self {
            bare,
            dots: true,
            line_max,
            line_length: 0,
            at_line_start: true,
            line_too_long: false,
            held_cr: false,
        }
    }

    /// For content in chunks; one decoder for all chunks of a message.
    pub(crate) fn chunks(bare: BareNewline, line_max: usize) -> Self {
        Self { dots: false, ..Self::data(bare, line_max) }
    }

    /// Decodes from the input to the output; `more_follows` is false when nothing comes after the
    /// input, so that a CR at its end is a CR alone.
    pub(crate) fn decode(
        &mut self,
        input: &mut BytesMut,
        output: &mut BytesMut,
        more_follows: bool,
    ) -> Decoded {
        let mut at = 0;
        let decoded = loop {
            let rest = &input[at..];
            if self.dots && self.at_line_start {
                match rest {
                    [b'.', b'\r', b'\n', ..] => {
                        at += 3;
                        break Decoded::End;
                    }
                    [] | [b'.'] | [b'.', b'\r'] => break Decoded::More,
                    [b'.', ..] => at += 1,
                    _ => {}
                }
                self.at_line_start = false;
                continue;
            }
            let Some(length) = memchr::memchr2(b'\r', b'\n', rest) else {
                self.put(rest, output);
                at += rest.len();
                break Decoded::More;
            };
            self.put(&rest[..length], output);
            at += length;
            match rest[length..] {
                [b'\r', b'\n', ..] => {
                    at += 2;
                    self.at_line_start = true;
                }
                [b'\r'] if more_follows => break Decoded::More,
                [b'\r', ..] if self.bare == BareNewline::RefuseInContent => {
                    self.put(b"\r", output);
                    at += 1;
                    continue;
                }
                _ if self.bare != BareNewline::Fix => break Decoded::Bare,
                // Mended, but not a line start: what follows a bare newline ends nothing.
                _ => at += 1,
            }
            output.extend_from_slice(b"\n");
            self.line_length = 0;
        };
        input.advance(at);
        decoded
    }

    /// Decodes a piece of a chunk; `more_follows` is false at the end of the last chunk.
    pub(crate) fn decode_chunk(
        &mut self,
        piece: BytesMut,
        output: &mut BytesMut,
        more_follows: bool,
    ) -> Decoded {
        let mut input = BytesMut::new();
        if std::mem::take(&mut self.held_cr) {
            input.extend_from_slice(b"\r");
        }
        input.unsplit(piece);
        let decoded = self.decode(&mut input, output, more_follows);
        self.held_cr = decoded == Decoded::More && !input.is_empty();
        decoded
    }

    fn put(&mut self, text: &[u8], output: &mut BytesMut) {
        output.extend_from_slice(text);
        self.line_length += text.len();
        // The limit counts the CRLF.
        self.line_too_long |= self.line_length + 2 > self.line_max;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Decodes bytes that come in pieces of the given sizes, in turn.
    fn decode(
        mut decoder: Decoder,
        bytes: &[u8],
        pieces: &[usize],
    ) -> (Vec<u8>, Option<Decoded>, usize) {
        let (mut input, mut output) = (BytesMut::new(), BytesMut::new());
        let mut rest = bytes;
        let mut pieces = pieces.iter().cycle();
        while !rest.is_empty() {
            let size = (*pieces.next().unwrap()).clamp(1, rest.len());
            input.extend_from_slice(&rest[..size]);
            rest = &rest[size..];
            let ended = decoder.decode(&mut input, &mut output, true);
            if ended != Decoded::More {
                return (output.to_vec(), Some(ended), input.len() + rest.len());
            }
        }
        (output.to_vec(), None, input.len())
    }

    #[track_caller]
    fn check(bare: BareNewline, bytes: &str, output: &str, ended: Option<Decoded>) {
        let decoder = || Decoder::data(bare, 1000);
        for piece in 1..=bytes.len() {
            let (decoded, end, _) = decode(decoder(), bytes.as_bytes(), &[piece]);
            assert_eq!(String::from_utf8_lossy(&decoded), output, "{bytes:?} in pieces of {piece}");
            assert_eq!(end, ended, "{bytes:?} in pieces of {piece}");
        }
    }

    #[test]
    fn only_crlf_dot_crlf_ends_data() {
        use BareNewline::Refuse;
        check(Refuse, "a\r\n.\r\n", "a\n", Some(Decoded::End));
        check(Refuse, ".\r\n", "", Some(Decoded::End));
        check(Refuse, "a\r\n..\r\n...b\r\n.c\r\n.\r\n", "a\n.\n..b\nc\n", Some(Decoded::End));
        for bare in ["\n.\n", "\n.\r\n", "\r.\r", "\r.\r\n", "\r\r\n.\r\n"] {
            check(Refuse, &format!("a{bare}x"), "a", Some(Decoded::Bare));
        }
        for bare in ["\r\n.\n", "\r\n.\r\r\n", "\r\n.\rx"] {
            check(Refuse, &format!("a{bare}x"), "a\n", Some(Decoded::Bare));
        }
        check(Refuse, "a\r\n.", "a\n", None);
    }

    #[test]
    fn mended_newlines_end_lines_and_nothing_else() {
        use BareNewline::Fix;
        check(Fix, "a\n.\nb\n.\r\nc\r\n.\r\n", "a\n.\nb\n.\nc\n", Some(Decoded::End));
        check(Fix, "a\r\n.\nb\r\n.\r\n", "a\n\nb\n", Some(Decoded::End));
        check(Fix, "a\r\n.\r\r\nb\r\n.\r\n", "a\n\n\nb\n", Some(Decoded::End));
        check(Fix, "a\rb\r\r\n.\r\n", "a\nb\n\n", Some(Decoded::End));
    }

    #[test]
    fn what_follows_the_end_stays_in_the_input() {
        let (_, ended, left) =
            decode(Decoder::data(BareNewline::Refuse, 1000), b"a\r\n.\r\nQUIT\r\n", &[64]);
        assert_eq!((ended, left), (Some(Decoded::End), 6));
    }

    #[test]
    fn chunks_have_no_dots() {
        let mut decoder = Decoder::chunks(BareNewline::Refuse, 1000);
        let mut output = BytesMut::new();
        let mut decode = |piece: &[u8], more_follows| {
            let decoded = decoder.decode_chunk(piece.into(), &mut output, more_follows);
            (decoded, String::from_utf8(output.split().to_vec()).unwrap())
        };
        // The CR waits for the next chunk.
        assert_eq!(decode(b".\r\n..a\r", true), (Decoded::More, ".\n..a".into()));
        assert_eq!(decode(b"\n.", true), (Decoded::More, "\n.".into()));
        assert_eq!(decode(b"\r", false), (Decoded::Bare, String::new()));
    }

    #[test]
    fn long_lines_are_noticed() {
        for (line, too_long) in [("12345678", false), ("123456789", true)] {
            let mut decoder = Decoder::data(BareNewline::Refuse, 10);
            let mut input = BytesMut::from(&*format!("{line}\r\nab\r\n.\r\n"));
            assert_eq!(decoder.decode(&mut input, &mut BytesMut::new(), true), Decoded::End);
            assert_eq!(decoder.line_too_long, too_long, "{line}");
        }
    }

    proptest! {
        /// Any split of the bytes gives the same content, end and rest.
        #[test]
        fn splits_do_not_matter(
            bytes in proptest::collection::vec(
                prop_oneof![Just(b'\r'), Just(b'\n'), Just(b'.'), Just(b'a'), any::<u8>()],
                1..200,
            ),
            pieces in proptest::collection::vec(1_usize..9, 1..20),
            fix: bool,
        ) {
            let bare = if fix { BareNewline::Fix } else { BareNewline::Refuse };
            let whole = decode(Decoder::data(bare, 1000), &bytes, &[bytes.len()]);
            prop_assert_eq!(decode(Decoder::data(bare, 1000), &bytes, &pieces), whole);
        }

        /// What a proper client sends arrives as it was.
        #[test]
        fn stuffed_content_comes_out_as_it_was(
            lines in proptest::collection::vec("[ -~]{0,20}", 0..20),
            pieces in proptest::collection::vec(1_usize..9, 1..20),
        ) {
            let mut wire = String::new();
            let mut content = String::new();
            for line in &lines {
                let stuffing = if line.starts_with('.') { "." } else { "" };
                wire.extend([stuffing, line.as_str(), "\r\n"]);
                content.extend([line.as_str(), "\n"]);
            }
            wire.push_str(".\r\n");
            let (decoded, ended, left) =
                decode(Decoder::data(BareNewline::Refuse, 1000), wire.as_bytes(), &pieces);
            prop_assert_eq!(String::from_utf8(decoded).unwrap(), content);
            prop_assert_eq!((ended, left), (Some(Decoded::End), 0));
        }
    }
}
