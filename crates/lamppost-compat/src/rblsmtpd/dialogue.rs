//! What a client that is refused may say: it is greeted, and each of its recipients is refused, so that it
//! knows why.

use std::io::{self, Read as _, Write as _};

/// Bytes of a text that a client is told.
const TEXT_MAX: usize = 200;
/// Bytes of a line that are kept; no verb that counts has as many.
const LINE_MAX: usize = 512;
/// Bytes that are read at once.
const READ_MAX: usize = 512;

const GREETING: &[u8] = b"220 rblsmtpd.local\r\n";
const TAKEN: &[u8] = b"250 rblsmtpd.local\r\n";
const FAREWELL: &[u8] = b"221 rblsmtpd.local\r\n";

/// The line that refuses, without its end.
pub(super) fn refusal(text: &[u8], for_good: bool) -> Vec<u8> {
    let code: &[u8] = if for_good { b"553 " } else { b"451 " };
    let shown = text.iter().take(TEXT_MAX);
    let shown = shown.map(|&byte| if (32..127).contains(&byte) { byte } else { b'?' });
    code.iter().copied().chain(shown).collect()
}

/// Talks with a client to the end, by descriptors 0 and 1.
pub(super) fn talk(refusal: &[u8]) -> io::Result<()> {
    let (mut from, mut to) = (io::stdin().lock(), io::stdout().lock());
    let mut say = |reply: &[u8]| to.write_all(reply).and_then(|()| to.flush());
    say(GREETING)?;
    let (mut lines, mut bytes) = (Lines::default(), [0; READ_MAX]);
    loop {
        let length = from.read(&mut bytes)?;
        if length == 0 {
            return Ok(());
        }
        for line in bytes[..length].iter().filter_map(|&byte| lines.take(byte)) {
            let reply = reply(&line, refusal);
            say(&reply)?;
            if reply == FAREWELL {
                return Ok(());
            }
        }
    }
}

/// What a line is answered with.
fn reply(line: &[u8], refusal: &[u8]) -> Vec<u8> {
    let verb = line.split(|&byte| byte == b' ').next().unwrap_or_default();
    match &verb.to_ascii_lowercase()[..] {
        b"quit" => FAREWELL.to_owned(),
        b"helo" | b"ehlo" | b"mail" | b"rset" | b"noop" => TAKEN.to_owned(),
        _ => [refusal, b"\r\n"].concat(),
    }
}

/// Bytes that become lines.
#[derive(Debug, Default)]
struct Lines(Vec<u8>);

impl Lines {
    /// Takes a byte; gives the line that it ends.
    fn take(&mut self, byte: u8) -> Option<Vec<u8>> {
        if byte != b'\n' {
            if self.0.len() < LINE_MAX {
                self.0.push(byte);
            }
            return None;
        }
        let mut line = std::mem::take(&mut self.0);
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        Some(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_one_line() {
        let told = refusal("see\r\n250 b\u{f6}s%".as_bytes(), false);
        assert_eq!(String::from_utf8(told).unwrap(), "451 see??250 b??s%");
        assert_eq!(refusal(&[b'x'; 300], true).len(), 4 + TEXT_MAX);
    }

    #[test]
    fn a_line_without_an_end_takes_no_more_memory() {
        let mut lines = Lines::default();
        assert!((0..100_000).all(|_| lines.take(b'x').is_none()));
        assert_eq!(lines.take(b'\n').map(|line| line.len()), Some(LINE_MAX));
        assert_eq!(b"noop\r\n".iter().find_map(|&byte| lines.take(byte)), Some(b"noop".to_vec()));
    }
}
