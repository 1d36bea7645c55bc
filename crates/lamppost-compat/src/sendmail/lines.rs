//! Line ends: what programs write, what a message has inside, and what travels.

/// Makes each line end of standard input an LF, and finds the line that ends it.
#[derive(Debug)]
pub(super) struct Lines {
    dots_are_content: bool,
    place: Place,
    carriage_return: bool,
}

/// Where in a line the input is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Start,
    /// Behind a dot at the start, which may be all there is.
    Dot,
    Inside,
    /// A line with a dot alone came.
    End,
}

impl Lines {
    pub(super) fn new(dots_are_content: bool) -> Self {
        Self { dots_are_content, place: Place::Start, carriage_return: false }
    }

    /// Whether a line with a dot alone came: what follows is none of the message.
    pub(super) fn ended(&self) -> bool {
        self.place == Place::End
    }

    /// Takes what came and puts it behind the message.
    pub(super) fn take(&mut self, bytes: &[u8], message: &mut Vec<u8>) {
        for &byte in bytes {
            let after_return = std::mem::replace(&mut self.carriage_return, byte == b'\r');
            match (byte, self.place) {
                (_, Place::End) => return,
                (b'\n', _) if after_return => {}
                (b'\r' | b'\n', Place::Dot) => self.place = Place::End,
                (b'\r' | b'\n', _) => {
                    message.push(b'\n');
                    self.place = Place::Start;
                }
                (b'.', Place::Start) if !self.dots_are_content => self.place = Place::Dot,
                (_, place) => {
                    if place == Place::Dot {
                        message.push(b'.');
                    }
                    message.push(byte);
                    self.place = Place::Inside;
                }
            }
        }
    }
}

/// Content as it travels after DATA: CRLF, and dots doubled at the start of lines (RFC 5321 §4.5.2).
#[derive(Debug)]
pub(crate) struct Wire {
    at_start: bool,
}

impl Wire {
    pub(crate) fn new() -> Self {
        Self { at_start: true }
    }

    /// Content with LF line ends, as it travels.
    pub(crate) fn encode(&mut self, content: &[u8]) -> Vec<u8> {
        let mut wire = Vec::with_capacity(content.len() + content.len() / 16 + 16);
        for &byte in content {
            match byte {
                b'\n' => wire.extend_from_slice(b"\r\n"),
                b'.' if self.at_start => wire.extend_from_slice(b".."),
                _ => wire.push(byte),
            }
            self.at_start = byte == b'\n';
        }
        wire
    }

    /// What ends the content.
    pub(crate) fn end(&self) -> &'static [u8] {
        if self.at_start { b".\r\n" } else { b"\r\n.\r\n" }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(input: &str, dots_are_content: bool, expected: &str) {
        let mut lines = Lines::new(dots_are_content);
        let mut message = Vec::new();
        lines.take(input.as_bytes(), &mut message);
        assert_eq!(String::from_utf8(message).unwrap(), expected, "{input:?}");
    }

    #[test]
    fn all_line_ends_are_one() {
        check("a\r\nb\nc\rd\r\n\r\ne", true, "a\nb\nc\nd\n\ne");
        check("\r\r\n\n", true, "\n\n\n");
    }

    #[test]
    fn a_dot_alone_ends_the_message_unless_it_may_not() {
        check("a\n.\nb\n", false, "a\n");
        check("a\r\n.\r\nb\r\n", false, "a\n");
        check("a\n.\nb\n", true, "a\n.\nb\n");
        check("..a\n.b\n", false, "..a\n.b\n");
    }

    #[test]
    fn dots_are_doubled_on_the_wire() {
        let mut wire = Wire::new();
        assert_eq!(wire.encode(b".a\n"), b"..a\r\n");
        assert_eq!(wire.encode(b".\n.b"), b"..\r\n..b");
        assert_eq!(wire.end(), b"\r\n.\r\n");
    }

    proptest! {
        #[test]
        fn splits_change_nothing(input in "[.\r\na]{0,40}", at in 0..40_usize, dots: bool) {
            let at = at.min(input.len());
            let (mut whole, mut split) = (Vec::new(), Vec::new());
            Lines::new(dots).take(input.as_bytes(), &mut whole);
            let mut lines = Lines::new(dots);
            lines.take(&input.as_bytes()[..at], &mut split);
            lines.take(&input.as_bytes()[at..], &mut split);
            prop_assert_eq!(&whole, &split);
            // Nothing in between can end the message on the wire.
            let sent = Wire::new().encode(&whole);
            prop_assert!(!sent.windows(5).any(|five| five == b"\r\n.\r\n"));
        }
    }
}
