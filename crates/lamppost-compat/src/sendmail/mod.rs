//! `sendmail`: hands a message of a local program to the running Lamppost.
//!
//! It needs no rights of its own: the socket tells who is at its other end (unix(7), `SO_PEERCRED`). So it
//! works where setgid programs do not, as in units with `NoNewPrivileges=`. A message is taken as a whole
//! or not at all: exit code 0 means that it is durable for all its recipients.

mod addresses;
mod dialogue;
mod header;
mod lines;
mod options;
mod reference;

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::path::Path;

use crate::exit::{Code, Failure};
pub(crate) use dialogue::{Dialogue, Reply as Answer};
use header::Header;
use lines::Lines;
pub(crate) use lines::Wire;
use options::{Mode, Options};
pub use reference::{EXIT_CODES, OPTIONS};

/// Bytes of a message that are read before the program is spoken to: a message whose writer takes hours, as
/// that of a job's output, must not hold a session open. Only larger ones do.
const BUFFERED_MAX: usize = 32 * 1024 * 1024;

/// Does what the words after `sendmail` say.
pub(crate) fn sendmail(words: Vec<OsString>) -> Result<(), Failure> {
    let options = Options::parse(words)?;
    match options.mode {
        Mode::Message => submit(&options, &mut io::stdin().lock(), &crate::socket()),
        Mode::Smtp => carry(&crate::socket()),
        Mode::List => Err(crate::list_queue()),
        Mode::Nothing => Ok(()),
        Mode::Help => {
            // A reader that went away has read enough.
            drop(io::stdout().write_all(reference::help().as_bytes()));
            Ok(())
        }
    }
}

/// A message as it is read.
struct Message<'a> {
    input: &'a mut dyn Read,
    lines: Lines,
    /// What came and was not sent yet.
    waiting: Vec<u8>,
    is_over: bool,
}

impl Message<'_> {
    /// Reads on until there are as many bytes or the message is over.
    fn read_to(&mut self, size: usize) -> Result<(), Failure> {
        let mut piece = vec![0; 64 * 1024];
        while self.waiting.len() < size && !self.is_over {
            match self.input.read(&mut piece) {
                Ok(0) => self.is_over = true,
                Ok(count) => self.lines.take(&piece[..count], &mut self.waiting),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    let what = format!("the message cannot be read: {error}");
                    return Err(Failure::new(Code::Io, what));
                }
            }
            self.is_over |= self.lines.ended();
        }
        Ok(())
    }
}

fn submit(options: &Options, input: &mut dyn Read, socket: &Path) -> Result<(), Failure> {
    let lines = Lines::new(options.dots_are_content);
    let mut message = Message { input, lines, waiting: Vec::new(), is_over: false };
    message.read_to(BUFFERED_MAX)?;
    let header = Header::read(&message.waiting);
    let recipients = recipients(options, &header)?;
    let mut dialogue = Dialogue::begin(socket)?;
    let given = recipients;
    let recipients: Vec<_> = given.iter().map(|address| whole(address, &dialogue.domain)).collect();
    let sender = match options.sender.as_deref() {
        Some("" | "<>") => String::new(),
        Some(sender) => match &addresses(sender)?[..] {
            [one] => whole(one, &dialogue.domain),
            _ => return Err(no_address(sender)),
        },
        None => dialogue.account.clone(),
    };
    envelope(&mut dialogue, &sender, &recipients).map_err(|failure| {
        let bare = given.iter().zip(&recipients).find(|(given, whole)| given != whole);
        match bare.filter(|(_, whole)| failure.text.contains(&format!(": {whole}: "))) {
            Some((bare, _)) => no_domain(failure, bare, &dialogue.domain),
            None => failure,
        }
    })?;
    dialogue.ask("DATA")?.expect(354, "DATA")?;
    let from = if sender.is_empty() { &dialogue.account } else { &sender };
    let has_from = header.has("from") || header.has("resent-from");
    let from = (!has_from).then(|| header::from(from, options.full_name.as_deref()));
    let mut wire = Wire::new();
    dialogue.send(&wire.encode(&header.to_bytes(from.as_deref())))?;
    dialogue.send(&wire.encode(&message.waiting[header.end..]))?;
    while !message.is_over {
        message.waiting.clear();
        // A message that breaks off is not ended, so nothing of it is taken.
        message.read_to(1)?;
        dialogue.send(&wire.encode(&message.waiting))?;
    }
    dialogue.send(wire.end())?;
    let stored = dialogue.reply()?.expect(250, "the message")?;
    // It is stored, whatever happens to the farewell.
    drop(dialogue.ask("QUIT"));
    if options.verbose {
        drop(writeln!(io::stdout(), "{}", stored.lines.join(" ")));
    }
    Ok(())
}

/// Everybody who gets the message, each once.
fn recipients(options: &Options, header: &Header) -> Result<Vec<String>, Failure> {
    let mut all = Vec::new();
    for list in &options.recipients {
        all.extend(addresses(list)?);
    }
    if options.header_recipients {
        all.extend(header.recipients().map_err(|bad| no_address(&bad.0))?);
    }
    let mut recipients = Vec::new();
    for recipient in all {
        if !recipients.contains(&recipient) {
            recipients.push(recipient);
        }
    }
    if recipients.is_empty() {
        let cure = if options.header_recipients {
            "no To, Cc or Bcc names anybody"
        } else {
            "name recipients, or say -t to have them taken from the header"
        };
        return Err(Failure::new(Code::Usage, format!("the message has no recipient: {cure}")));
    }
    Ok(recipients)
}

fn addresses(list: &str) -> Result<Vec<String>, Failure> {
    addresses::addresses(list).map_err(|bad| no_address(&bad.0))
}

fn no_address(list: &str) -> Failure {
    let list = list.trim();
    let shown: String =
        list.chars().map(|letter| if letter.is_control() { '?' } else { letter }).collect();
    Failure::new(Code::Data, format!("the message was not taken: this is no address: {shown}"))
}

/// An address with its domain, which is that of local users where there is none.
fn whole(address: &str, domain: &str) -> String {
    // A quoted local part may hold a sign of its own.
    let outside = address.rsplit('"').next().unwrap_or_default();
    if outside.contains('@') { address.to_owned() } else { format!("{address}@{domain}") }
}

/// What is refused is what a recipient without a domain was taken for: tells which key says otherwise.
fn no_domain(failure: Failure, recipient: &str, domain: &str) -> Failure {
    let Failure { code, text } = failure;
    let text = format!(
        "{text}; {recipient} has no domain, so it is taken to be at {domain}: `domain` in [mail.sendmail] of \
         lamppost.toml names another, such as one of `domains` in [mail]"
    );
    Failure { code, text }
}

/// Says whom the message is from and to; all must be taken, or none is.
fn envelope(dialogue: &mut Dialogue, sender: &str, recipients: &[String]) -> Result<(), Failure> {
    for address in recipients.iter().map(String::as_str).chain([sender]) {
        if address.contains(['\r', '\n', '<', '>']) {
            return Err(no_address(address));
        }
    }
    let ascii = sender.is_ascii() && recipients.iter().all(|recipient| recipient.is_ascii());
    let utf8 = if ascii { "" } else { " SMTPUTF8" };
    let taken = dialogue.ask(&format!("MAIL FROM:<{sender}> BODY=8BITMIME{utf8}"))?;
    taken.expect(250, &format!("the sender {sender}")).map_err(|mut failure| {
        if failure.code == Code::NoPermission {
            failure.text.push_str(
                "; this user sends under its own address only, unless trusted-users in \
                 [mail.sendmail] names it",
            );
        }
        failure
    })?;
    let mut refused: Option<Failure> = None;
    for recipient in recipients {
        let taken = dialogue.ask(&format!("RCPT TO:<{recipient}>"))?.expect(250, recipient);
        match (taken, &mut refused) {
            (Ok(_), _) => {}
            (Err(failure), Some(first)) => {
                first.text.push('\n');
                first.text.push_str(&failure.text);
            }
            (Err(failure), none) => *none = Some(failure),
        }
    }
    refused.map_or(Ok(()), Err)
}

/// `-bs`: carries the dialogue between standard input and output and the running program.
fn carry(socket: &Path) -> Result<(), Failure> {
    let mut stream = match dialogue::connect(socket) {
        Ok(stream) => stream,
        Err(failure) => {
            // Who speaks SMTP here reads this and not standard error.
            drop(writeln!(io::stdout(), "421 4.3.0 Lamppost does not answer: come back later\r"));
            return Err(failure);
        }
    };
    let broke = |error: io::Error| {
        let what = format!("the connection to Lamppost broke: {error}");
        Failure::new(Code::TemporaryFailure, what)
    };
    // A dialogue may pause as long as the program allows.
    stream.set_read_timeout(None).map_err(broke)?;
    let mut upward = stream.try_clone().map_err(broke)?;
    // It ends with the process, also while it waits for input that never comes.
    let _sending = std::thread::spawn(move || {
        drop(io::copy(&mut io::stdin().lock(), &mut upward));
        drop(upward.shutdown(Shutdown::Write));
    });
    let mut out = io::stdout().lock();
    let mut piece = vec![0; 16 * 1024];
    loop {
        match stream.read(&mut piece) {
            Ok(0) => return Ok(()),
            Ok(count) => {
                out.write_all(&piece[..count]).and_then(|()| out.flush()).map_err(broke)?;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(broke(error)),
        }
    }
}
