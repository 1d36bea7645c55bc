//! The dialogue with the running program: SMTP on a UNIX socket, where the socket itself tells who asks.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use crate::exit::{Code, Failure};

/// How long the program may take to answer (RFC 5321 §4.5.3.2.6), and to take what it is sent.
const PATIENCE: Duration = Duration::from_secs(10 * 60);
/// Bytes of a reply of any number of lines.
const REPLY_MAX: u64 = 64 * 1024;

/// A connection to the running program.
#[derive(Debug)]
pub(crate) struct Dialogue {
    stream: BufReader<UnixStream>,
    /// What the program calls the domain of local users.
    pub(super) domain: String,
    /// The address of the user who asks.
    pub(super) account: String,
}

/// A reply of the program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reply {
    pub(crate) code: u16,
    pub(crate) lines: Vec<String>,
}

/// Connects, or says that mail must wait.
pub(super) fn connect(socket: &Path) -> Result<UnixStream, Failure> {
    let stream = UnixStream::connect(socket).map_err(|error| {
        let cure = match (error.kind(), barrier(socket)) {
            (io::ErrorKind::PermissionDenied, Some(folder)) => {
                let folder = folder.display();
                format!(
                    "this user may not pass through the folder {folder}: `chmod a+x {folder}` lets all pass \
                     and nobody look into it"
                )
            }
            (io::ErrorKind::PermissionDenied, None) => {
                "this user may not use it (socket-mode and socket-group in [mail.sendmail])".into()
            }
            _ => "is `lamppost run` at work?".to_owned(),
        };
        let socket = socket.display();
        let what = format!("the message was not taken: no answer on {socket}: {error}; {cure}");
        Failure::new(Code::TemporaryFailure, what)
    })?;
    let limited = stream
        .set_read_timeout(Some(PATIENCE))
        .and_then(|()| stream.set_write_timeout(Some(PATIENCE)));
    limited.map_err(|error| lost(&error))?;
    Ok(stream)
}

/// The first folder on the way through which this user may not pass.
fn barrier(socket: &Path) -> Option<&Path> {
    let folders: Vec<_> = socket.ancestors().skip(1).collect();
    let is_closed = |folder: &&&Path| {
        // To look at what is in it, be it itself, is to pass through it.
        let seen = std::fs::metadata(folder.join("."));
        seen.is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
    };
    folders.iter().rev().find(is_closed).copied()
}

impl Dialogue {
    /// Connects and greets.
    pub(crate) fn begin(socket: &Path) -> Result<Self, Failure> {
        let stream = BufReader::new(connect(socket)?);
        let mut dialogue = Self { stream, domain: String::new(), account: String::new() };
        dialogue.reply()?.expect(220, "the greeting")?;
        let hello = dialogue.ask("EHLO localhost")?.expect(250, "EHLO")?;
        let word = |line: &str| line.split(' ').next().unwrap_or_default().to_owned();
        dialogue.domain = hello.lines.first().map(|line| word(line)).unwrap_or_default();
        let account = hello.lines.iter().find_map(|line| line.strip_prefix("XACCOUNT "));
        dialogue.account = account.map(word).unwrap_or_default();
        Ok(dialogue)
    }

    /// Says a line and waits for the reply.
    pub(crate) fn ask(&mut self, line: &str) -> Result<Reply, Failure> {
        self.send(format!("{line}\r\n").as_bytes())?;
        self.reply()
    }

    /// Sends bytes; when the program has gone, its last words tell why.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        match self.stream.get_mut().write_all(bytes) {
            Ok(()) => Ok(()),
            Err(error) => match self.reply() {
                Ok(reply) => Err(reply.refusal("the message")),
                Err(_) => Err(lost(&error)),
            },
        }
    }

    /// Waits for a reply.
    pub(crate) fn reply(&mut self) -> Result<Reply, Failure> {
        let mut lines = Vec::new();
        let mut stream = self.stream.by_ref().take(REPLY_MAX);
        loop {
            let mut line = Vec::new();
            stream.read_until(b'\n', &mut line).map_err(|error| lost(&error))?;
            let line = String::from_utf8_lossy(&line);
            let Some(text) = line.strip_suffix("\r\n") else {
                return Err(lost(&io::ErrorKind::UnexpectedEof.into()));
            };
            let code = text.get(..3).and_then(|code| code.parse().ok());
            let Some(code) = code.filter(|code| (200..600).contains(code)) else {
                let what = format!("what answers is no Lamppost: {text}");
                return Err(Failure::new(Code::TemporaryFailure, what));
            };
            lines.push(text.get(4..).unwrap_or_default().to_owned());
            if !text[3..].starts_with('-') {
                return Ok(Reply { code, lines });
            }
        }
    }
}

fn lost(error: &io::Error) -> Failure {
    let what = format!("the message was not taken: the connection to Lamppost broke: {error}");
    Failure::new(Code::TemporaryFailure, what)
}

impl Reply {
    /// The reply, if it has this code.
    pub(super) fn expect(self, code: u16, to: &str) -> Result<Self, Failure> {
        if self.code == code { Ok(self) } else { Err(self.refusal(to)) }
    }

    /// The failure that it is.
    pub(super) fn refusal(&self, to: &str) -> Failure {
        let text = self.lines.join(" ");
        let code = match (self.code, text.split(' ').next().unwrap_or_default()) {
            (..500, _) => Code::TemporaryFailure,
            (_, "5.1.1") => Code::NoUser,
            (_, "5.1.3" | "5.1.7" | "5.3.4" | "5.6.0" | "5.6.7") => Code::Data,
            (553, "5.7.1") => Code::NoPermission,
            (500..504, _) => Code::Software,
            _ => Code::Unavailable,
        };
        Failure::new(code, format!("the message was not taken: {to}: {} {text}", self.code))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(code: u16, text: &str, expected: Code) {
        let reply = Reply { code, lines: vec![text.into()] };
        assert_eq!(reply.refusal("x").code, expected, "{code} {text}");
    }

    #[test]
    fn callers_learn_from_the_code_whether_to_try_again() {
        check(421, "4.3.2 the server is shutting down", Code::TemporaryFailure);
        check(452, "4.3.1 no space left", Code::TemporaryFailure);
        check(550, "5.1.1 no such mailbox here", Code::NoUser);
        check(501, "5.1.3 the address is not of the form", Code::Data);
        check(552, "5.3.4 a message may have 25 bytes", Code::Data);
        check(553, "5.7.1 a@b does not belong to your account", Code::NoPermission);
        check(550, "5.7.1 no way out", Code::Unavailable);
        check(554, "5.4.6 in a loop", Code::Unavailable);
    }
}
