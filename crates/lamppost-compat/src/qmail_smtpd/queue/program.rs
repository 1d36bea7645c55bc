//! A program as qmail-queue is: the message on descriptor 0, the envelope on 1, the answer by its end.

use std::ffi::OsStr;
use std::io::{self, PipeWriter};
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use lamppost_smtp::Reply;
use rustix::event::PollFlags;
use rustix::fs::{OFlags, fcntl_setfl};

use super::{Queue, Variables};
use crate::qmail_smtpd::program::{self, Ended};
use crate::qmail_smtpd::visitor::seconds;
use crate::qmail_smtpd::{said, warn};

/// How long it may take nothing, or not end; and the variable that says otherwise in seconds.
const PATIENCE: Duration = Duration::from_secs(20 * 60);
const PATIENCE_VARIABLE: &str = "QMAILQUEUETIMEOUT";
/// How long one may go on that was told that there is no message after all.
const ABANDONED_PATIENCE: Duration = Duration::from_secs(5);

/// Messages go to this program.
pub(in crate::qmail_smtpd) struct Program {
    path: PathBuf,
    patience: Duration,
    /// The envelope as it is written at the end.
    envelope: Vec<u8>,
    running: Option<Running>,
}

/// It while it takes a message.
struct Running {
    child: Child,
    message: PipeWriter,
    envelope: PipeWriter,
    /// Whether it did not take all.
    is_broken: bool,
}

impl Program {
    /// The program of this name; one that is relative is so to qmail's folder, as there.
    pub(in crate::qmail_smtpd) fn new(name: &[u8]) -> Self {
        let path = std::env::current_dir().unwrap_or_default().join(OsStr::from_bytes(name));
        let patience = seconds(PATIENCE_VARIABLE, PATIENCE);
        Self { path, patience, envelope: Vec::new(), running: None }
    }

    fn begin(&self, variables: &Variables) -> io::Result<Running> {
        let (message_end, message) = io::pipe()?;
        let (envelope_end, envelope) = io::pipe()?;
        for writer in [&message, &envelope] {
            // One that reads nothing must not hold us up.
            fcntl_setfl(writer, OFlags::NONBLOCK)?;
        }
        let mut command = Command::new(&self.path);
        command.envs(variables.iter().map(|(name, value)| (name, value)));
        let child = program::begin(command.stdin(message_end).stdout(envelope_end))?;
        Ok(Running { child, message, envelope, is_broken: false })
    }
}

impl Queue for Program {
    fn recipient(&mut self, sender: &[u8], recipient: &[u8]) -> Result<(), Reply> {
        if self.envelope.is_empty() {
            self.envelope = [b"F", sender, b"\0"].concat();
        }
        self.envelope.extend_from_slice(&[b"T", recipient, b"\0"].concat());
        Ok(())
    }

    fn open(&mut self, head: &[u8], variables: &Variables) -> Result<(), Reply> {
        match self.begin(variables) {
            Ok(running) => self.running = Some(running),
            Err(error) => {
                self.envelope.clear();
                warn(&format!("{} does not start: {error}", self.path.display()));
                return Err(said(451, "4.3.0", "unable to exec qq"));
            }
        }
        self.put(head);
        Ok(())
    }

    fn put(&mut self, piece: &[u8]) {
        let patience = self.patience;
        if let Some(running) = self.running.as_mut().filter(|running| !running.is_broken) {
            running.is_broken = write(&running.message, piece, patience).is_err();
        }
    }

    fn finish(&mut self) -> Result<String, Reply> {
        let mut envelope = std::mem::take(&mut self.envelope);
        envelope.push(0);
        let Some(running) = self.running.take() else {
            return Err(said(451, "4.3.0", "qqt failure"));
        };
        let Running { mut child, message, envelope: writer, mut is_broken } = running;
        drop(message);
        // An envelope that does not end is none.
        is_broken = is_broken || write(&writer, &envelope, self.patience).is_err();
        drop(writer);
        let ended = program::end(&mut child, self.patience);
        if !matches!(ended, Ok(Ended::Code(0..=127))) {
            warn(&format!("{} did not end well: {ended:?}", self.path.display()));
        }
        match ended {
            Ok(Ended::Code(0)) if !is_broken => Ok(child.id().to_string()),
            Ok(Ended::Code(code)) => Err(refusal(code)),
            Ok(Ended::Crashed(_)) => Err(said(451, "4.3.0", "qq crashed")),
            Ok(Ended::Late) => Err(refusal(52)),
            Err(_) => Err(said(451, "4.3.0", "qq waitpid surprise")),
        }
    }

    fn abandon(&mut self) {
        self.envelope.clear();
        let Some(Running { mut child, message, envelope, .. }) = self.running.take() else {
            return;
        };
        drop((message, envelope));
        // How it ends is its own affair, as long as it does.
        drop(program::end(&mut child, ABANDONED_PATIENCE));
    }
}

/// What an exit code means (notqmail: qmail.c).
#[rustfmt::skip]
fn refusal(code: i32) -> Reply {
    match code {
        11 | 115 => said(554, "5.1.3", "envelope address too long for qq"),
        31 => said(554, "5.3.0", "mail server permanently rejected message"),
        51 => said(451, "4.3.0", "qq out of memory"),
        52 => said(451, "4.3.0", "qq timeout"),
        53 => said(451, "4.3.0", "qq write error or disk full"),
        // 0 of one that did not read all.
        0 | 54 => said(451, "4.3.0", "qq read error"),
        55 => said(451, "4.3.0", "qq unable to read configuration"),
        56 => said(451, "4.3.0", "qq trouble making network connection"),
        61 => said(451, "4.3.0", "qq trouble in home directory"),
        62..=66 => said(451, "4.3.0", "qq trouble creating files in queue"),
        71 => said(451, "4.3.0", "mail server temporarily rejected message"),
        72 => said(451, "4.4.1", "connection to mail server timed out"),
        73 => said(451, "4.4.1", "connection to mail server rejected"),
        74 => said(451, "4.4.2", "communication with mail server failed"),
        81 | 91 => said(451, "4.3.0", "qq internal bug"),
        120 => said(451, "4.3.0", "unable to exec qq"),
        11..=40 => said(554, "5.3.0", "qq permanent problem"),
        _ => said(451, "4.3.0", "qq temporary problem"),
    }
}

/// Writes all, or fails when nothing is taken for so long.
fn write(pipe: &PipeWriter, bytes: &[u8], patience: Duration) -> io::Result<()> {
    let mut left = bytes;
    while !left.is_empty() {
        match rustix::io::write(pipe, left) {
            Ok(count) => left = &left[count..],
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::AGAIN) => {
                if !program::ready(pipe, PollFlags::OUT, Instant::now() + patience)? {
                    return Err(io::ErrorKind::TimedOut.into());
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_told_as_qmail_tells_them() {
        for (code, expected) in [
            (11, "554 envelope address too long for qq 5.1.3"),
            (115, "554 envelope address too long for qq 5.1.3"),
            (31, "554 mail server permanently rejected message 5.3.0"),
            (12, "554 qq permanent problem 5.3.0"),
            (40, "554 qq permanent problem 5.3.0"),
            (41, "451 qq temporary problem 4.3.0"),
            (53, "451 qq write error or disk full 4.3.0"),
            (65, "451 qq trouble creating files in queue 4.3.0"),
            (71, "451 mail server temporarily rejected message 4.3.0"),
            (73, "451 connection to mail server rejected 4.4.1"),
            (91, "451 qq internal bug 4.3.0"),
            (111, "451 qq temporary problem 4.3.0"),
            (120, "451 unable to exec qq 4.3.0"),
        ] {
            let Reply { code: reply, text, enhanced } = refusal(code);
            assert_eq!(format!("{reply} {text} {enhanced}"), expected, "{code}");
        }
    }
}
