//! `qmail-smtpd`: SMTP on descriptors 0 and 1 for one client, as qmail's does (`qmail-smtpd.c` of netqmail,
//! and its patches for AUTH).
//!
//! The dialogue is that of `lamppost-smtp`, in qmail's manner. What differs: messages go to Lamppost where no
//! `$QMAILQUEUE` is set, and nothing is waited for without end.

mod controls;
mod hops;
mod password;
mod program;
mod queue;
mod scanner;
mod visitor;
mod wire;

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use lamppost_smtp::{
    Action, Answer, AuthOffer, BareNewline, Greeting, Interrupt, Kind, Limits, Link, QmailQuestion,
    Question, Reply, Session, Settings,
};

use self::controls::Controls;
use self::hops::Hops;
use self::password::Claim;
use self::queue::{Program, Queue, Service, Variables};
use self::visitor::{Visitor, seconds, variable};
use self::wire::{Gone, READ_AT_ONCE};
use crate::words;

/// qmail's folder, and the variable that names another.
const HOME: &str = "/var/qmail";
const HOME_VARIABLE: &str = "QMAILHOME";
/// The variable that names a program in the place of qmail-queue.
const QUEUE_VARIABLE: &str = "QMAILQUEUE";
/// How long a wrong password is answered late, and the variable that says otherwise in seconds.
const FAILURE_DELAY: Duration = Duration::from_secs(5);
const FAILURE_DELAY_VARIABLE: &str = "AUTHSLEEP";
/// Wrong passwords of a session.
const AUTH_TRIES_MAX: usize = 10;
/// Recipients of a message.
const RECIPIENTS_MAX: usize = 1000;
/// Commands of a session that make no sense.
const ERRORS_MAX: usize = 100;
/// Bytes of a command.
const COMMAND_LINE_MAX: usize = 4096;

/// `qmail-smtpd [CHECKPASSWORD PROGRAM [ARGUMENT …]]`
pub fn qmail_smtpd(arguments: &[OsString]) -> ExitCode {
    let home = variable(HOME_VARIABLE).map_or_else(|| HOME.into(), OsString::from_vec);
    let controls = match std::env::set_current_dir(&home) {
        Ok(()) => Controls::read().map_err(|unread| unread.to_string()),
        Err(error) => Err(format!(
            "unable to enter {}: {}\n  help: {HOME_VARIABLE} names another folder",
            PathBuf::from(&home).display(),
            words::of(&error)
        )),
    };
    let controls = match controls {
        Ok(controls) => controls,
        Err(what) => {
            tell("fatal", &what);
            drop(wire::write(b"421 unable to read controls (#4.3.0)\r\n", FAILURE_DELAY));
            return ExitCode::FAILURE;
        }
    };
    let mut conversation = Conversation::new(controls, arguments);
    match conversation.run() {
        Ok(()) if conversation.is_over => ExitCode::SUCCESS,
        // As there: who is cut off, or goes without a farewell.
        Ok(()) | Err(_) => ExitCode::FAILURE,
    }
}

/// A reply that refuses.
fn said(code: u16, enhanced: &'static str, text: &'static str) -> Reply {
    Reply { code, enhanced, text: text.into() }
}

/// Tells whoever reads tcpserver's log.
fn warn(what: &str) {
    tell("warning", what);
}

fn tell(severity: &str, what: &str) {
    words::tell(format!("qmail-smtpd: {severity}: {what}").as_bytes());
}

/// All that is known while one client is served.
struct Conversation {
    session: Session,
    controls: Controls,
    visitor: Visitor,
    /// The checkpassword program and what it runs, if there is one.
    checker: Vec<OsString>,
    queue: Box<dyn Queue>,
    /// The sender of the message that is under way.
    sender: Vec<u8>,
    hops: Hops,
    /// What programs are told beside what tcpserver said.
    variables: Variables,
    /// By when the command that is awaited must have come.
    deadline: Option<Instant>,
    /// Whether the client said farewell.
    is_over: bool,
}

impl Conversation {
    fn new(controls: Controls, checker: &[OsString]) -> Self {
        let limits = Limits {
            command_line_max: COMMAND_LINE_MAX,
            data_line_max: usize::MAX,
            recipients_max: RECIPIENTS_MAX,
            message_size_max: controls.size_max,
            errors_max: ERRORS_MAX,
            auth_tries_max: AUTH_TRIES_MAX,
            command_timeout: controls.patience,
            data_start_timeout: controls.patience,
            data_block_timeout: controls.patience,
            ..Limits::default()
        };
        let settings = Settings {
            hostname: controls.greeting.clone(),
            kind: Kind::Mx,
            starttls: false,
            auth: if checker.is_empty() { AuthOffer::Never } else { AuthOffer::Always },
            limits,
        };
        let link = Link { tls: false, bare_newline: BareNewline::RefuseInContent };
        let queue: Box<dyn Queue> = match variable(QUEUE_VARIABLE) {
            Some(name) => Box::new(Program::new(&name)),
            None => Box::new(Service::new(crate::socket(), controls.domain.clone())),
        };
        Self {
            session: Session::new(Arc::new(settings), link).as_qmail(),
            controls,
            visitor: Visitor::from_environment(),
            checker: checker.to_vec(),
            queue,
            sender: Vec::new(),
            hops: Hops::default(),
            variables: Variables::new(),
            deadline: None,
            is_over: false,
        }
    }

    fn run(&mut self) -> Result<(), Gone> {
        self.session.greet(Greeting::Welcome);
        let mut bytes = vec![0; READ_AT_ONCE];
        loop {
            match self.session.next() {
                Action::Read => self.read(&mut bytes)?,
                Action::Ask(question) => {
                    self.deadline = None;
                    let answer = self.answer(question)?;
                    self.session.answer(answer);
                }
                Action::Content(piece) => {
                    self.hops.take(&piece);
                    self.queue.put(&piece);
                }
                Action::Discard => self.queue.abandon(),
                // It is never offered.
                Action::StartTls => {}
                Action::Close => return self.flush(),
            }
        }
    }

    /// Sends what is to be said and reads once.
    fn read(&mut self, bytes: &mut [u8]) -> Result<(), Gone> {
        self.flush()?;
        let end = Instant::now() + self.session.patience();
        // A command is awaited as a whole, and of a message the next piece.
        let deadline =
            if self.session.in_content() { end } else { *self.deadline.get_or_insert(end) };
        match wire::read(bytes, deadline) {
            Ok(count) => self.session.receive(&bytes[..count]),
            Err(Gone::Silent) => self.session.interrupt(Interrupt::Timeout),
            Err(gone) => return Err(gone),
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Gone> {
        let output = self.session.take_output();
        if output.is_empty() {
            return Ok(());
        }
        self.deadline = None;
        let last = output.trim_ascii_end().rsplit(|&byte| byte == b'\n').next();
        self.is_over = last.is_some_and(|line| line.starts_with(b"221 "));
        wire::write(&output, self.controls.patience)
    }

    fn answer(&mut self, question: Question) -> Result<Answer, Gone> {
        let done = match question {
            Question::Authenticate { user, password } => {
                let secret = password.expose();
                self.authenticate(&Claim { user: &user, secret, challenge: "" })?
            }
            Question::Qmail(QmailQuestion::Challenge) => {
                return Ok(Answer::Challenge(self.challenge()));
            }
            Question::Qmail(QmailQuestion::Digest { user, challenge, digest }) => {
                self.authenticate(&Claim { user: &user, secret: &digest, challenge: &challenge })?
            }
            Question::Qmail(QmailQuestion::Sender { sender }) => {
                self.sender = self.controls.localised(sender);
                Ok(())
            }
            Question::Qmail(QmailQuestion::Recipient { recipient }) => self.recipient(recipient),
            Question::Room { .. } => {
                self.hops = Hops::default();
                let head = self.visitor.received(self.session.helo(), visitor::now());
                self.queue.open(&head, &self.variables)
            }
            Question::Finish => {
                return Ok(self.finish().map_or_else(Answer::Reply, Answer::Stored));
            }
            // Those of the other manner.
            Question::Sender { .. } | Question::Recipient { .. } => {
                Err(said(502, "5.5.1", "unimplemented"))
            }
        };
        Ok(done.map_or_else(Answer::Reply, |()| Answer::Yes))
    }

    /// What is asked of a recipient, in qmail's order.
    fn recipient(&mut self, recipient: Vec<u8>) -> Result<(), Reply> {
        let mut recipient = self.controls.localised(recipient);
        if self.controls.is_bad_sender(&self.sender) {
            let text = "sorry, your envelope sender is in my badmailfrom list";
            return Err(said(553, "5.7.1", text));
        }
        if let Some(end) = &self.visitor.relay {
            recipient.extend_from_slice(end);
        } else {
            self.check(&recipient)?;
        }
        self.queue.recipient(&self.sender, &recipient)
    }

    /// What a client must pass that may not relay.
    fn check(&self, recipient: &[u8]) -> Result<(), Reply> {
        let is_taken = self.controls.takes_for(recipient).map_err(|unread| {
            warn(&unread.to_string());
            said(421, "4.3.0", "unable to read controls")
        })?;
        if !is_taken {
            let text = "sorry, that domain isn't in my list of allowed rcpthosts";
            return Err(said(553, "5.7.1", text));
        }
        if self.visitor.is_excepted { Ok(()) } else { scanner::ask(&self.sender, recipient) }
    }

    fn finish(&mut self) -> Result<String, Reply> {
        if self.hops.are_too_many() {
            self.queue.abandon();
            return Err(said(554, "5.4.6", "too many hops, this message is looping"));
        }
        let number = self.queue.finish()?;
        Ok(format!("{} qp {number}", visitor::now()))
    }

    /// What a client proves its password on: another each time.
    fn challenge(&self) -> String {
        let process = rustix::process::getpid().as_raw_nonzero();
        let local = String::from_utf8_lossy(&self.visitor.local);
        format!("<{process}.{}@{local}>", visitor::now())
    }

    fn authenticate(&mut self, claim: &Claim<'_>) -> Result<Result<(), Reply>, Gone> {
        // What was said before must not wait for it.
        self.flush()?;
        let checked = password::check(&self.checker, claim);
        match &checked {
            Ok(()) => {
                self.visitor.authenticated(claim.user);
                self.variables = vec![
                    ("RELAYCLIENT", OsString::new()),
                    ("TCPREMOTEINFO", OsString::from(claim.user)),
                ];
            }
            Err(refusal) if refusal.code == 535 => {
                let end = Instant::now() + seconds(FAILURE_DELAY_VARIABLE, FAILURE_DELAY);
                while let Some(left) = end.checked_duration_since(Instant::now()) {
                    thread::park_timeout(left);
                }
            }
            Err(_) => {}
        }
        Ok(checked)
    }
}
