//! A resolver that answers at once: no name exists.

use std::net::UdpSocket;

use anyhow::{Context, Result};

/// Where it answers, at port 53.
pub(crate) const ADDRESS: &str = "127.9.9.9";

/// Answers as long as the program runs.
pub(crate) fn start() -> Result<()> {
    let socket = UdpSocket::bind((ADDRESS, 53))
        .with_context(|| format!("cannot answer questions at {ADDRESS} port 53"))?;
    std::thread::spawn(move || {
        let mut packet = [0; 1500];
        while let Ok((length, peer)) = socket.recv_from(&mut packet) {
            if let Some(reply) = packet.get_mut(..length).and_then(refuse) {
                drop(socket.send_to(reply, peer));
            }
        }
    });
    Ok(())
}

/// Turns a question into the answer that there is no such name (RFC 1035 §4.1.1).
fn refuse(packet: &mut [u8]) -> Option<&[u8]> {
    let end = question_end(packet)?;
    let header = packet.first_chunk_mut::<12>()?;
    // A response, recursion as desired and available, NXDOMAIN.
    header[2] = 0x80 | (header[2] & 0x79);
    header[3] = 0x83;
    // Nothing but the question: an OPT record is not repeated.
    header[6..].fill(0);
    packet.get(..end)
}

/// The end of the only question.
fn question_end(packet: &[u8]) -> Option<usize> {
    let mut at = 12;
    loop {
        match packet.get(at)? {
            0 => break,
            length => at += 1 + usize::from(*length),
        }
    }
    let end = at + 5;
    (end <= packet.len()).then_some(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_answered_with_no_such_name() {
        let mut packet =
            b"\x12\x34\x01\0\0\x01\0\0\0\0\0\x01\x01a\x04test\0\0\x01\0\x01\0\0\x29".to_vec();
        let reply = refuse(&mut packet).unwrap();
        assert_eq!(reply, b"\x12\x34\x81\x83\0\x01\0\0\0\0\0\0\x01a\x04test\0\0\x01\0\x01");
    }

    #[test]
    fn a_torn_question_is_not_answered() {
        assert_eq!(refuse(&mut b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x05a".to_vec()), None);
    }
}
