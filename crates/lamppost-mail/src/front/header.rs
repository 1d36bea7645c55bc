//! Reads the header section of a message as far as the front must know it (RFC 5322 §2.2, §3.6).

/// What the front looks for in a header section.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Header {
    /// Where the section ends: before the empty line, or where a line is no field.
    pub(super) end: usize,
    /// Whether an empty line follows there.
    pub(super) closed: bool,
    /// How many Received fields there are.
    pub(super) received: usize,
    /// Whether there is a Date field.
    pub(super) date: bool,
    /// Whether there is a Message-ID field.
    pub(super) message_id: bool,
}

impl Header {
    /// Reads from the start of a message with LF line ends.
    pub(super) fn read(content: &[u8]) -> Self {
        let mut header = Self::default();
        while let Some(line) = content[header.end..].split_inclusive(|&byte| byte == b'\n').next() {
            if line == b"\n" {
                header.closed = true;
                break;
            }
            let folded = line.starts_with(b" ") || line.starts_with(b"\t");
            match field_name(line) {
                Some(name) => header.note(name),
                None if folded && header.end > 0 => {}
                None => break,
            }
            header.end += line.len();
        }
        header
    }

    fn note(&mut self, name: &[u8]) {
        if name.eq_ignore_ascii_case(b"received") {
            self.received += 1;
        } else if name.eq_ignore_ascii_case(b"date") {
            self.date = true;
        } else if name.eq_ignore_ascii_case(b"message-id") {
            self.message_id = true;
        }
    }
}

/// The name of the field that begins on this line (RFC 5322 §2.2: printable ASCII but the colon;
/// obsolete syntax allows spaces before the colon, §4.5).
fn field_name(line: &[u8]) -> Option<&[u8]> {
    let colon = line.iter().position(|&byte| byte == b':')?;
    let name = line[..colon].trim_ascii_end();
    let printable = name.iter().all(u8::is_ascii_graphic);
    (printable && !name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(content: &str, end: usize, expected: Header) {
        assert_eq!(Header::read(content.as_bytes()), Header { end, ..expected });
    }

    #[test]
    fn fields_are_noted_whatever_their_case() {
        check(
            "RECEIVED: a\n\tb\nReceived: c\ndate : today\nMESSAGE-ID:<x>\n\nDate: in the body\n",
            55,
            Header { closed: true, received: 2, date: true, message_id: true, end: 0 },
        );
    }

    #[test]
    fn a_message_without_header_has_an_empty_one() {
        check("\nbody\n", 0, Header { closed: true, ..Header::default() });
        check("hello there\nDate: no\n", 0, Header::default());
        check(" Date: folded into nothing\n", 0, Header::default());
        check("", 0, Header::default());
    }

    #[test]
    fn a_line_that_is_no_field_ends_the_section() {
        check("Date: x\nnonsense\n", 8, Header { date: true, ..Header::default() });
    }

    #[test]
    fn a_header_may_end_with_the_message() {
        check("Subject: x", 10, Header::default());
    }

    proptest! {
        #[test]
        fn any_bytes_give_a_place_inside(content: Vec<u8>) {
            prop_assert!(Header::read(&content).end <= content.len());
        }
    }
}
