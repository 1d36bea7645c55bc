//! Command lines out of the stream of bytes.

use bytes::BytesMut;

use crate::BareNewline;

/// Bytes of an endless line that are swallowed before the connection is given up.
const SWALLOW_MAX: usize = 64 * 1024;

/// Finds lines in what has arrived.
#[derive(Debug, Default)]
pub(crate) struct LineReader {
    /// Bytes at the start of the input that hold no line feed.
    searched: usize,
    /// Bytes of a line that is too long, already dropped.
    swallowed: usize,
}

/// What the input begins with.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Line {
    /// A line, without its end.
    Whole(BytesMut),
    /// A line that ends in a bare line feed.
    Bare,
    /// The end of a line that is too long.
    TooLong,
    /// A line that is too long and does not end.
    Endless,
    /// A part of a line.
    Incomplete,
}

impl LineReader {
    /// Takes the next line from the input; `length_max` is in bytes with the CRLF.
    pub(crate) fn take(
        &mut self,
        input: &mut BytesMut,
        length_max: usize,
        bare: BareNewline,
    ) -> Line {
        let Some(found) = memchr::memchr(b'\n', &input[self.searched..]) else {
            return self.wait(input, length_max);
        };
        let line_feed = self.searched + found;
        let too_long = self.swallowed > 0 || line_feed + 1 > length_max;
        let mut line = input.split_to(line_feed + 1);
        *self = Self::default();
        line.truncate(line_feed);
        if line.ends_with(b"\r") {
            line.truncate(line_feed - 1);
        } else if bare == BareNewline::Refuse {
            return Line::Bare;
        }
        if too_long { Line::TooLong } else { Line::Whole(line) }
    }

    fn wait(&mut self, input: &mut BytesMut, length_max: usize) -> Line {
        self.searched = input.len();
        if input.len() > length_max {
            // The last byte stays: it may be the CR of the line's end.
            let drop = input.len() - 1;
            self.swallowed += drop;
            self.searched = 1;
            drop_front(input, drop);
        }
        if self.swallowed > SWALLOW_MAX { Line::Endless } else { Line::Incomplete }
    }
}

fn drop_front(input: &mut BytesMut, count: usize) {
    bytes::Buf::advance(input, count);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(bytes: &[u8], piece: usize, bare: BareNewline) -> Vec<Line> {
        let mut reader = LineReader::default();
        let mut input = BytesMut::new();
        let mut lines = Vec::new();
        for piece in bytes.chunks(piece) {
            input.extend_from_slice(piece);
            loop {
                match reader.take(&mut input, 10, bare) {
                    Line::Incomplete => break,
                    line => lines.push(line),
                }
                if lines.last() == Some(&Line::Endless) {
                    return lines;
                }
            }
        }
        lines
    }

    #[test]
    fn lines_are_the_same_in_any_pieces() {
        let bytes = b"NOOP\r\nQUIT\rx\r\n0123456789abc\r\nshort\nRSET\r\n12345678\r\n123456789\r\n";
        let whole = lines(bytes, bytes.len(), BareNewline::Refuse);
        assert_eq!(
            whole,
            [
                Line::Whole(b"NOOP"[..].into()),
                Line::Whole(b"QUIT\rx"[..].into()),
                Line::TooLong,
                Line::Bare,
                Line::Whole(b"RSET"[..].into()),
                Line::Whole(b"12345678"[..].into()),
                Line::TooLong,
            ]
        );
        for piece in 1..bytes.len() {
            assert_eq!(lines(bytes, piece, BareNewline::Refuse), whole, "in pieces of {piece}");
        }
    }

    #[test]
    fn an_old_device_may_end_lines_with_a_line_feed() {
        let fixed = lines(b"NOOP\nRSET\r\n", 3, BareNewline::Fix);
        assert_eq!(fixed, [Line::Whole(b"NOOP"[..].into()), Line::Whole(b"RSET"[..].into())]);
    }

    #[test]
    fn an_endless_line_is_not_kept() {
        let endless = vec![b'x'; 10 * SWALLOW_MAX];
        assert_eq!(lines(&endless, 1000, BareNewline::Refuse), [Line::Endless]);
    }
}
