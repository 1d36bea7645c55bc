//! A folder as qmail has it, and `qmail-smtpd` in it: on pipes, or served by our tcpserver.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use tempfile::TempDir;

use super::{lamppost, until};

/// A program in the place of qmail-queue that keeps what it gets, then ends with what `code` says.
const RECORDER: &str = "#!/bin/sh\ncd \"$(dirname \"$0\")\" || exit 61\n\
    cat > message.new || exit 53\ncat <&1 > envelope.new || exit 53\nenv > variables\n\
    mv message.new message && mv envelope.new envelope\nexit \"$(cat code 2>/dev/null || echo 0)\"\n";
/// A checkpassword program that keeps what it is told, and knows one password, in plain or as a digest.
const CHECKER: &str = "#!/bin/sh\ncat <&3 > \"$KEPT\"\nif tr '\\0' '\\n' < \"$KEPT\" | sed -n 2p | \
    grep -qxE \"open sesame|$DIGEST\"; then exec \"$@\"; fi\nexit 1\n";

/// qmail's folder, open to every user.
pub(crate) struct Home {
    folder: TempDir,
}

/// One `qmail-smtpd` on pipes.
pub(crate) struct Dialogue {
    child: Child,
    to: Option<ChildStdin>,
    from: BufReader<ChildStdout>,
}

/// How a dialogue ended.
#[derive(Debug)]
pub(crate) struct End {
    /// What it said since it was read last.
    pub(crate) said: String,
    pub(crate) code: Option<i32>,
    pub(crate) told: String,
}

impl Home {
    /// With `here.test` as what it takes mail for, and messages to the recorder.
    pub(crate) fn new() -> Self {
        let home = Self { folder: tempfile::tempdir().unwrap() };
        std::fs::set_permissions(home.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
        std::fs::create_dir(home.path().join("control")).unwrap();
        home.control("me", "mail.here.test\n");
        home.control("rcpthosts", "# those of this machine\n\nhere.test  \n.Below.test\n");
        home.script("recorder", RECORDER);
        home.script("checker", CHECKER);
        home
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn control(&self, name: &str, text: &str) {
        std::fs::write(self.path().join("control").join(name), text).unwrap();
    }

    /// Writes a program into the folder.
    pub(crate) fn script(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    /// What the recorder, or the checker, kept.
    pub(crate) fn kept(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path().join(name)).unwrap()
    }

    pub(crate) fn kept_text(&self, name: &str) -> String {
        String::from_utf8(self.kept(name)).unwrap()
    }

    /// The variables that all have here; no scanner of the machine's is asked.
    pub(crate) fn set(&self, command: &mut Command) {
        for name in ["RELAYCLIENT", "DATABYTES", "GREYLISTING", "TCPREMOTEHOST", "TCPREMOTEINFO"] {
            command.env_remove(name);
        }
        command.env("QMAILHOME", self.path()).env("QMAILQUEUE", "recorder");
        command.env("ENVELOPESCANNER", self.path().join("scanner")).env("AUTHSLEEP", "0");
        command.env("KEPT", self.path().join("kept"));
    }

    /// The program for a client at 192.0.2.1.
    pub(crate) fn smtpd(&self, checker: &[&str]) -> Command {
        let mut command = lamppost();
        command.arg("qmail-smtpd").args(checker);
        self.set(&mut command);
        command.env("TCPREMOTEIP", "192.0.2.1").env("TCPLOCALHOST", "mx.here.test");
        command
    }

    pub(crate) fn begin(&self) -> Dialogue {
        Dialogue::begin(&mut self.smtpd(&[]))
    }
}

impl Dialogue {
    pub(crate) fn begin(command: &mut Command) -> Self {
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let to = child.stdin.take();
        let from = BufReader::new(child.stdout.take().unwrap());
        Self { child, to, from }
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        // One that has ended does not read.
        drop(self.to.as_mut().unwrap().write_all(bytes));
    }

    /// The next reply, with its last line.
    pub(crate) fn reply(&mut self) -> String {
        let mut reply = String::new();
        loop {
            let begin = reply.len();
            if self.from.read_line(&mut reply).unwrap() == 0
                || reply[begin..].get(3..4) == Some(" ")
            {
                return reply.trim_end().replace('\r', "");
            }
        }
    }

    /// Says a line and reads the reply.
    pub(crate) fn ask(&mut self, line: &str) -> String {
        self.send(format!("{line}\r\n").as_bytes());
        self.reply()
    }

    /// Replies to each of these lines must be those.
    #[track_caller]
    pub(crate) fn expect(&mut self, lines: &[(&str, &str)]) {
        for (line, expected) in lines {
            assert_eq!(self.ask(line), *expected, "{line}");
        }
    }

    /// Greets, and names sender and recipient; the message may come.
    #[track_caller]
    pub(crate) fn begin_message(&mut self) {
        assert_eq!(self.reply(), "220 mail.here.test ESMTP");
        let steps = [
            ("MAIL FROM:<a@b.test>", "250 ok"),
            ("RCPT TO:<c@here.test>", "250 ok"),
            ("DATA", "354 go ahead"),
        ];
        self.expect(&steps);
    }

    /// Closes the connection, and waits for what comes of it.
    pub(crate) fn end(mut self) -> End {
        drop(self.to.take());
        let mut said = String::new();
        self.from.read_to_string(&mut said).unwrap();
        let mut told = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut told).unwrap();
        End { said: said.replace('\r', ""), code: self.child.wait().unwrap().code(), told }
    }

    /// Whether the process has ended by itself.
    pub(crate) fn ends(&mut self) -> bool {
        until(|| self.child.try_wait().unwrap().is_some())
    }
}

impl Drop for Dialogue {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
