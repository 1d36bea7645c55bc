//! What must be known of a content before it is sent: its size on the wire, and its header section.

use super::message::HeaderText;

/// Measures a content piece by piece.
#[derive(Clone, Debug)]
pub struct Measure {
    size: u64,
    /// The last byte so far; that of an empty content is as good as a line end.
    last: u8,
    header: HeaderText,
    /// How far the present line of the header section is; nothing after it.
    header_line: Option<HeaderLine>,
}

/// A line of the header section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum HeaderLine {
    Empty,
    /// It has a carriage return alone.
    Return,
    Begun,
}

impl Default for Measure {
    fn default() -> Self {
        Self {
            size: 0,
            last: b'\n',
            header: HeaderText::Ascii,
            header_line: Some(HeaderLine::Empty),
        }
    }
}

impl Measure {
    /// Takes the next piece.
    pub fn add(&mut self, piece: &[u8]) {
        self.read_header(piece);
        self.size += piece.len() as u64;
        for at in memchr::memchr2_iter(b'\r', b'\n', piece) {
            let before = if at == 0 { self.last } else { piece[at - 1] };
            // Each line end gets two bytes, be it CR, LF or both.
            if (before, piece[at]) == (b'\r', b'\n') {
                self.size -= 1;
            } else {
                self.size += 1;
            }
        }
        self.last = piece.last().copied().unwrap_or(self.last);
    }

    /// How many bytes all of it has on the wire: with CRLF at the end of each line, the last one
    /// too, and before dots are doubled (RFC 1870 §3).
    pub fn size(&self) -> u64 {
        self.size + if matches!(self.last, b'\r' | b'\n') { 0 } else { 2 }
    }

    /// What its header fields are written in.
    pub fn header(&self) -> HeaderText {
        self.header
    }

    fn read_header(&mut self, piece: &[u8]) {
        for &byte in piece {
            let Some(line) = self.header_line else { return };
            self.header_line = match (byte, line) {
                (b'\n', HeaderLine::Empty | HeaderLine::Return) => None,
                (b'\n', HeaderLine::Begun) => Some(HeaderLine::Empty),
                (b'\r', HeaderLine::Empty) => Some(HeaderLine::Return),
                _ => Some(HeaderLine::Begun),
            };
            if !byte.is_ascii() {
                self.header = HeaderText::Utf8;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use proptest::prelude::*;

    use super::super::encoder::Encoder;
    use super::*;

    fn measure(content: &[u8], piece: usize) -> Measure {
        let mut measure = Measure::default();
        content.chunks(piece.max(1)).for_each(|piece| measure.add(piece));
        measure
    }

    #[test]
    fn only_the_header_section_decides() {
        let check = |content: &str, header| {
            for piece in 1..=content.len() {
                let found = measure(content.as_bytes(), piece).header();
                assert_eq!(found, header, "{content:?} by {piece}");
            }
        };
        check("Subject: x\n\nbücher\n", HeaderText::Ascii);
        check("Subject: x\r\n\r\nbücher\r\n", HeaderText::Ascii);
        check("Subject: bücher\n\nx\n", HeaderText::Utf8);
        check("Subject: x\n bücher", HeaderText::Utf8);
        check("\nbücher", HeaderText::Ascii);
        assert_eq!(Measure::default().header(), HeaderText::Ascii);
    }

    #[test]
    fn a_size_counts_what_travels_but_no_doubled_dots() {
        for (content, size) in [
            ("", 0),
            ("a", 3),
            ("a\n", 3),
            ("a\r\n", 3),
            ("a\rb", 6),
            ("\n\n", 4),
            ("\r\r\n", 4),
            (".\n..\n", 7),
        ] {
            assert_eq!(measure(content.as_bytes(), 1).size(), size, "{content:?}");
        }
    }

    proptest! {
        /// The size is that of what is sent, without the dots that are sent twice and the end.
        #[test]
        fn a_size_is_what_the_encoder_sends(
            content in proptest::collection::vec(
                prop_oneof![Just(b'\r'), Just(b'\n'), Just(b'a'), any::<u8>()],
                0..200,
            ),
            piece in 1_usize..9,
        ) {
            let content: Vec<u8> = content.into_iter().filter(|&byte| byte != b'.').collect();
            let mut wire = BytesMut::new();
            let mut encoder = Encoder::new();
            encoder.encode(&content, &mut wire);
            encoder.finish(&mut wire);
            prop_assert_eq!(measure(&content, piece).size(), wire.len() as u64 - 3);
        }
    }
}
