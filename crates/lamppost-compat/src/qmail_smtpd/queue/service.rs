//! The running Lamppost, by the socket that local programs hand in mail at.
//!
//! The socket tells who is at its other end, so the user that tcpserver runs this as needs no other right
//! than to be one of `trusted-users`, who send under any address. Lamppost is asked about each recipient when
//! the client names it: what it does not take is refused then, and never bounced.

use std::path::{Path, PathBuf};

use lamppost_smtp::Reply;

use super::{Queue, Variables};
use crate::exit::{Code, Failure};
use crate::qmail_smtpd::{said, warn};
use crate::sendmail::{Answer, Dialogue, Wire};

/// Messages go to the socket.
pub(in crate::qmail_smtpd) struct Service {
    socket: PathBuf,
    /// The domain of addresses that have none.
    domain: Vec<u8>,
    under_way: Option<UnderWay>,
}

/// A message that Lamppost is told of.
struct UnderWay {
    dialogue: Dialogue,
    wire: Wire,
    /// What went wrong since it began.
    trouble: Option<Reply>,
}

impl Service {
    pub(in crate::qmail_smtpd) fn new(socket: PathBuf, domain: Vec<u8>) -> Self {
        Self { socket, domain, under_way: None }
    }
}

impl Queue for Service {
    fn recipient(&mut self, sender: &[u8], recipient: &[u8]) -> Result<(), Reply> {
        let recipient = path(recipient, &self.domain)?;
        let under_way = match &mut self.under_way {
            Some(under_way) => under_way,
            none => {
                let sender = path(sender, &self.domain)?;
                let is_ascii = sender.is_ascii() && recipient.is_ascii();
                none.insert(UnderWay::begin(&self.socket, &sender, is_ascii)?)
            }
        };
        expect(under_way.dialogue.ask(&format!("RCPT TO:<{recipient}>")), 250).map(drop)
    }

    fn open(&mut self, head: &[u8], _: &Variables) -> Result<(), Reply> {
        let under_way = self.under_way.as_mut().ok_or_else(unanswered)?;
        expect(under_way.dialogue.ask("DATA"), 354)?;
        under_way.put(head);
        Ok(())
    }

    fn put(&mut self, piece: &[u8]) {
        if let Some(under_way) = &mut self.under_way {
            under_way.put(piece);
        }
    }

    fn finish(&mut self) -> Result<String, Reply> {
        let UnderWay { mut dialogue, wire, trouble } =
            self.under_way.take().ok_or_else(unanswered)?;
        if let Some(trouble) = trouble {
            return Err(trouble);
        }
        let sent = dialogue.send(wire.end()).and_then(|()| dialogue.reply());
        let stored = expect(sent, 250)?;
        // It is stored, whatever happens to the farewell.
        drop(dialogue.ask("QUIT"));
        let id = stored.lines.last().and_then(|line| line.split(' ').next_back());
        Ok(id.unwrap_or_default().to_owned())
    }

    fn abandon(&mut self) {
        // A message that does not end is none.
        self.under_way = None;
    }
}

impl UnderWay {
    fn begin(socket: &Path, sender: &str, is_ascii: bool) -> Result<Self, Reply> {
        let mut dialogue = Dialogue::begin(socket).map_err(|failure| trouble(&failure))?;
        let utf8 = if is_ascii { "" } else { " SMTPUTF8" };
        let reply = dialogue.ask(&format!("MAIL FROM:<{sender}> BODY=8BITMIME{utf8}"));
        if let Ok(reply) = &reply
            && reply.code == NOT_OWNED
        {
            // That is about us and not about the client.
            let lines = reply.lines.join(" ");
            warn(&format!(
                "Lamppost lets this user send under its own address only ({lines}); let trusted-users in \
                 [mail.sendmail] name it"
            ));
            return Err(said(451, "4.3.0", "qq unable to read configuration"));
        }
        expect(reply, 250)?;
        Ok(Self { dialogue, wire: Wire::new(), trouble: None })
    }

    fn put(&mut self, piece: &[u8]) {
        if self.trouble.is_some() {
            return;
        }
        // A CR alone, which qmail keeps, is a line end to Lamppost: as text none of them can end a message.
        let mut piece = piece.to_vec();
        piece.iter_mut().filter(|byte| **byte == b'\r').for_each(|byte| *byte = b'\n');
        let sent = self.dialogue.send(&self.wire.encode(&piece));
        self.trouble = sent.err().map(|failure| trouble(&failure));
    }
}

/// The code for a sender that is not the user's own (RFC 5321 §4.2.3).
const NOT_OWNED: u16 = 553;

/// The reply, if it has this code; another is passed on to the client.
fn expect(reply: Result<Answer, Failure>, code: u16) -> Result<Answer, Reply> {
    let reply = reply.map_err(|failure| trouble(&failure))?;
    if reply.code == code {
        return Ok(reply);
    }
    let text = reply.lines.join(" ");
    let (enhanced, words) = text.split_once(' ').unwrap_or(("", &text));
    let is_enhanced = enhanced.split('.').count() == 3;
    let text = if is_enhanced { format!("{words} (#{enhanced})") } else { text };
    // The connection that ends is ours, and not the client's.
    let code = if reply.code == 421 { 451 } else { reply.code };
    Err(Reply { code, enhanced: "", text: text.into() })
}

/// What the client is told of a connection that does not hold; whoever looks after this one is told all.
fn trouble(failure: &Failure) -> Reply {
    warn(&failure.text);
    if failure.code == Code::TemporaryFailure {
        unanswered()
    } else {
        said(554, "5.3.0", "mail server permanently rejected message")
    }
}

fn unanswered() -> Reply {
    said(451, "4.3.0", "the queue does not answer")
}

/// An address as it is written in a path (RFC 5321 §4.1.2), with a domain; what cannot be is told.
fn path(address: &[u8], domain: &[u8]) -> Result<String, Reply> {
    let syntax = || said(555, "5.5.4", "syntax error");
    let address = str::from_utf8(address).map_err(|_| syntax())?;
    let domain = str::from_utf8(domain).map_err(|_| syntax())?;
    if address.is_empty() {
        return Ok(String::new());
    }
    let (local, domain) = address.rsplit_once('@').unwrap_or((address, domain));
    let is_bad =
        |letter: char| letter.is_control() || matches!(letter, '<' | '>' | ' ' | '"' | '\\');
    if local.contains(char::is_control) || domain.contains(is_bad) {
        return Err(syntax());
    }
    let is_atom = |atom: &str| {
        let is_atext = |letter: char| {
            letter.is_ascii_alphanumeric()
                || !letter.is_ascii()
                || "!#$%&'*+-/=?^_`{|}~".contains(letter)
        };
        !atom.is_empty() && atom.chars().all(is_atext)
    };
    if local.split('.').all(is_atom) {
        return Ok(format!("{local}@{domain}"));
    }
    let quoted = local.replace('\\', "\\\\").replace('"', "\\\"");
    Ok(format!("\"{quoted}\"@{domain}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_written_as_paths_have_them() {
        for (address, expected) in [
            ("a@b.test", Ok("a@b.test")),
            ("", Ok("")),
            ("root", Ok("root@here.test")),
            ("a b@c.test", Ok("\"a b\"@c.test")),
            ("a@b@c.test", Ok("\"a@b\"@c.test")),
            (".a\"\\@c.test", Ok("\".a\\\"\\\\\"@c.test")),
            ("ü@c.test", Ok("ü@c.test")),
            ("@c.test", Ok("\"\"@c.test")),
            ("a@b> SIZE=1", Err(555)),
            ("a\u{7}@b.test", Err(555)),
        ] {
            let path = path(address.as_bytes(), b"here.test").map_err(|reply| reply.code);
            assert_eq!(path.as_deref(), expected.as_ref().map(|path| *path), "{address}");
        }
        assert!(path(b"\xff@b.test", b"here.test").is_err());
    }

    #[test]
    fn what_lamppost_refuses_is_told_in_qmails_form() {
        let reply = |code, line: &str| Answer { code, lines: vec![line.into()] };
        for (answer, expected) in [
            (reply(550, "5.1.1 no such mailbox here"), (550, "no such mailbox here (#5.1.1)")),
            (reply(421, "4.3.2 come back later"), (451, "come back later (#4.3.2)")),
            (reply(554, "no"), (554, "no")),
        ] {
            let Reply { code, text, .. } = expect(Ok(answer), 250).unwrap_err();
            assert_eq!((code, &*text), expected);
        }
    }
}
