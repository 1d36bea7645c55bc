//! The lines that tcpserver writes to standard error, each in one piece.

use crate::words;

/// Bytes of a field of a line.
const FIELD_MAX: usize = 100;

/// A connection as its lines tell it.
#[derive(Clone, Debug)]
pub(super) struct Ends {
    /// Name, address and port of this end.
    pub(super) local: (Vec<u8>, String, u16),
    /// Name, address, user and port of the client's.
    pub(super) remote: (Vec<u8>, String, Vec<u8>, u16),
}

/// Tells why a connection is given up.
pub(super) fn dropped(why: &[u8]) {
    words::tell(&[b"tcpserver: warning: dropping connection, ", why].concat());
}

/// What is told when a connection begins and is decided: `pid P from IP`, then `ok P …` or `deny P …`.
///
/// All of it is there before the process is, so that writing it takes no memory.
#[derive(Debug)]
pub(super) struct Announcement {
    /// What comes before each number of the process, and behind the last.
    parts: [Vec<u8>; 3],
    line: Vec<u8>,
}

impl Announcement {
    /// Of a connection from this address; `decided` is the word and the ends, if it came so far.
    pub(super) fn new(ip: &str, decided: Option<(&str, &Ends)>) -> Self {
        let from = [b" from ", &safe(ip.as_bytes())[..], b"\n"].concat();
        let parts = match decided {
            None => [b"tcpserver: pid ".to_vec(), from, Vec::new()],
            Some((word, ends)) => {
                let next = [&from[..], b"tcpserver: ", word.as_bytes(), b" "].concat();
                [b"tcpserver: pid ".to_vec(), next, ends.shown()]
            }
        };
        let size = parts.iter().map(Vec::len).sum::<usize>() + 2 * DIGITS_MAX;
        Self { parts, line: Vec::with_capacity(size) }
    }

    /// Writes it for a process.
    pub(super) fn write(&mut self, process: u32) {
        let [first, second, third] = &self.parts;
        self.line.extend_from_slice(first);
        append(process, &mut self.line);
        self.line.extend_from_slice(second);
        if !third.is_empty() {
            append(process, &mut self.line);
            self.line.extend_from_slice(third);
        }
        // With standard error closed there is nobody to tell.
        let _written = rustix::io::write(rustix::stdio::stderr(), &self.line);
    }
}

/// Digits of a number of a process.
const DIGITS_MAX: usize = 10;

fn append(number: u32, line: &mut Vec<u8>) {
    let mut digits = [0; DIGITS_MAX];
    let (mut left, mut begin) = (number, DIGITS_MAX);
    loop {
        begin -= 1;
        digits[begin] = b'0' + (left % 10).to_le_bytes()[0];
        left /= 10;
        if left == 0 {
            break;
        }
    }
    line.extend_from_slice(&digits[begin..]);
}

impl Ends {
    /// Both ends, as the line of a decision has them.
    fn shown(&self) -> Vec<u8> {
        let Self { local, remote } = self;
        let (local_port, remote_port) = (local.2.to_string(), remote.3.to_string());
        let fields = [
            (&b" "[..], word(&local.0)),
            (b":", safe(local.1.as_bytes())),
            (b":", local_port.into_bytes()),
            (b" ", word(&remote.0)),
            (b":", safe(remote.1.as_bytes())),
            (b":", word(&remote.2)),
            (b":", remote_port.into_bytes()),
        ];
        let shown = fields.iter().flat_map(|(before, field)| [*before, field]);
        let mut shown = shown.collect::<Vec<_>>().concat();
        shown.push(b'\n');
        shown
    }
}

/// `end P status W`, with the status as wait(2) tells it.
pub(super) fn ends(process: u32, status: i32) -> String {
    format!("tcpserver: end {process} status {status}")
}

/// `status: N/LIMIT`.
pub(super) fn status(count: u64, limit: u64) -> String {
    format!("tcpserver: status: {count}/{limit}")
}

/// A field that cannot be taken for more than one.
fn word(field: &[u8]) -> Vec<u8> {
    safe(field).into_iter().map(|byte| if byte == b':' { b'?' } else { byte }).collect()
}

/// A field that holds no more than a line may; an address has colons.
fn safe(field: &[u8]) -> Vec<u8> {
    let is_right = |byte: u8| (33..127).contains(&byte) && byte != b'%';
    let shown = field.iter().take(FIELD_MAX).map(|&byte| if is_right(byte) { byte } else { b'?' });
    let mut shown: Vec<u8> = shown.collect();
    if field.len() > FIELD_MAX {
        shown.extend_from_slice(b"...");
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_stay_fields() {
        let check = |field: &str, expected: &str| {
            assert_eq!(String::from_utf8(safe(field.as_bytes())).unwrap(), expected);
        };
        check("mail.example.org", "mail.example.org");
        check("2001:db8::1", "2001:db8::1");
        check("a b%c\n", "a?b?c?");
        check(&"x".repeat(101), &format!("{}...", "x".repeat(100)));
    }

    #[test]
    fn numbers_are_written_whole() {
        for number in [0, 7, 10, 12_345, u32::MAX] {
            let mut line = Vec::new();
            append(number, &mut line);
            assert_eq!(line, number.to_string().into_bytes());
        }
    }
}
