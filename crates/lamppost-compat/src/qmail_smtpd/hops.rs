//! How often a message was received or delivered already, counted as it passes.

/// A message that has as many is in a loop.
const HOPS_MAX: usize = 100;
/// What the lines begin with that are counted.
const COUNTED: [&[u8]; 2] = [b"received", b"delivered"];

/// Counts in the header of one message.
#[derive(Debug, Default)]
pub(super) struct Hops {
    count: usize,
    /// What the line begins with, as far as it matters.
    line: Vec<u8>,
    is_over: bool,
}

impl Hops {
    /// Takes the next piece of the message, with LF line ends.
    pub(super) fn take(&mut self, piece: &[u8]) {
        for &byte in piece {
            match byte {
                _ if self.is_over => return,
                b'\n' if self.line.is_empty() => self.is_over = true,
                b'\n' => self.line.clear(),
                // One more tells an empty line from one that begins so.
                _ if self.line.len() > COUNTED[1].len() => {}
                byte => {
                    self.line.push(byte.to_ascii_lowercase());
                    self.count += usize::from(COUNTED.contains(&self.line.as_slice()));
                }
            }
        }
    }

    /// Whether the message is in a loop.
    pub(super) fn are_too_many(&self) -> bool {
        self.count >= HOPS_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_header_are_counted_in_any_pieces() {
        let header = "Received: x\nDELIVERED-TO: y\n received: folded\nReceive: z\nReceived\n\nReceived: body\n";
        for piece in 1..header.len() {
            let mut hops = Hops::default();
            header.as_bytes().chunks(piece).for_each(|piece| hops.take(piece));
            assert_eq!(hops.count, 3, "in pieces of {piece}");
        }
    }

    #[test]
    fn a_hundred_are_too_many() {
        let mut hops = Hops::default();
        hops.take("Received: x\n".repeat(99).as_bytes());
        assert!(!hops.are_too_many());
        hops.take(b"Delivered-To: x\n");
        assert!(hops.are_too_many());
    }
}
