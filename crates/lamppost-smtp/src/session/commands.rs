//! What each command does.

use crate::command::{Forward, Mail};
use crate::reply::{Manner, Say};
use crate::transaction::Transaction;
use crate::{Command, SyntaxError};

use super::{Action, Answer, Asked, Chunk, Helo, Question, Session, State};

impl Session {
    /// Obeys a command line.
    pub(super) fn command(&mut self, command: Result<Command, SyntaxError>) {
        let idle = !matches!(
            command,
            Ok(Command::Mail(_)
                | Command::Rcpt(_)
                | Command::Data
                | Command::Bdat { .. }
                | Command::Quit)
        );
        if idle {
            self.counts.idle_commands += 1;
            if self.counts.idle_commands > self.settings.limits.commands_max {
                return self.close_saying(Say::TooManyCommands);
            }
        }
        match command {
            Ok(command) => self.obey(command),
            Err(error) => self.error(Say::Syntax(error)),
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Auth { mechanism, initial } => self.auth(&mechanism, initial.as_deref()),
            Command::Bdat { length, last } => self.bdat(length, last),
            Command::Data => self.data(),
            Command::Ehlo(name) => self.ehlo(name),
            Command::Helo(name) => {
                self.hello(name, false);
                let settings = self.settings.clone();
                self.say(Say::Hello(&settings.hostname));
            }
            Command::Help => self.say(Say::Help),
            Command::Mail(mail) => self.mail(mail),
            Command::Noop => self.say(Say::Ok),
            Command::Quit => {
                let settings = self.settings.clone();
                self.close_saying(Say::Bye(&settings.hostname));
            }
            Command::Rcpt(forward) => self.rcpt(forward),
            Command::Rset => {
                self.drop_content();
                self.say(Say::Reset);
            }
            Command::StartTls => self.starttls(),
            Command::Unsupported => self.error(Say::Unsupported),
            Command::Vrfy => self.say(Say::Vrfy),
        }
    }

    /// EHLO and HELO give up what is under way (RFC 5321 §4.1.4).
    fn hello(&mut self, name: String, extended: bool) {
        self.drop_content();
        self.helo = Some(Helo { name, extended });
    }

    fn ehlo(&mut self, name: String) {
        self.hello(name, true);
        if self.manner == Manner::Qmail {
            return self.qmail_ehlo();
        }
        let limits = &self.settings.limits;
        let size_max = self.announced_size_max();
        let mut lines = format!(
            "{}\nPIPELINING\nSIZE {}\n8BITMIME\nSMTPUTF8\nCHUNKING\nENHANCEDSTATUSCODES\n\
             LIMITS MAILMAX={} RCPTMAX={}",
            self.settings.hostname, size_max, limits.messages_max, limits.recipients_max
        );
        if self.settings.starttls && !self.link.tls {
            lines.push_str("\nSTARTTLS");
        }
        if self.offers_auth() {
            lines.push_str("\nAUTH PLAIN LOGIN");
        }
        if let Some(account) = self.account.as_ref().filter(|_| self.account_is_given) {
            // The client learns under which name it is known.
            lines.push_str("\nXACCOUNT ");
            lines.push_str(account.as_str());
        }
        self.say(Say::Ehlo(&lines));
    }

    /// 0 stands for no limit (RFC 1870 §4).
    pub(super) fn announced_size_max(&self) -> u64 {
        let max = self.settings.limits.message_size_max;
        if max == u64::MAX { 0 } else { max }
    }

    fn starttls(&mut self) {
        if self.link.tls {
            return self.error(Say::TlsAlready);
        }
        if !self.settings.starttls {
            return self.error(Say::StartTlsNotOffered);
        }
        // What came with STARTTLS in plain text may come from somebody in between, who would have
        // it obeyed as if it came under TLS (CVE-2011-0411).
        if !self.input.is_empty() {
            self.input.clear();
            return self.close_saying(Say::PipelinedBehindStartTls);
        }
        self.drop_content();
        self.say(Say::ReadyForTls);
        self.actions.push_back(Action::StartTls);
        self.state = State::Tls;
    }

    fn mail(&mut self, mail: Mail) {
        let limits = &self.settings.limits;
        if self.helo.is_none() {
            return self.error(Say::NeedsHello);
        }
        if self.transaction.is_some() {
            return self.error(Say::InTransaction);
        }
        if self.needs_auth() {
            return self.error(Say::AuthRequired);
        }
        if self.counts.messages >= limits.messages_max {
            return self.close_saying(Say::TooManyMessages);
        }
        if mail.auth && !self.offers_auth() {
            return self.error(Say::Syntax(SyntaxError::Parameter));
        }
        let size = mail.size.unwrap_or(0);
        if size > limits.message_size_max {
            let max = limits.message_size_max;
            return self.say(Say::MessageTooBig(max));
        }
        let ascii = match &mail.sender {
            crate::ReversePath::Null => true,
            crate::ReversePath::Mailbox(sender) => sender.is_ascii(),
        };
        if !ascii && !mail.smtputf8 {
            return self.error(Say::NotUtf8Address);
        }
        let asked = Asked::Sender { smtputf8: mail.smtputf8, size };
        self.ask(Question::Sender { sender: mail.sender, size }, asked);
    }

    pub(super) fn sender_known(&mut self, answer: &Answer, smtputf8: bool, size: u64) {
        if let Some(refusal) = answer.refusal() {
            return self.say(refusal);
        }
        self.transaction = Some(Transaction::new(smtputf8, size));
        self.say(Say::SenderOk);
    }

    fn rcpt(&mut self, forward: Forward) {
        let Some(transaction) = &self.transaction else {
            return self.error(Say::NeedsSender);
        };
        if transaction.chunks.is_some() {
            return self.error(Say::InTransaction);
        }
        let max = self.settings.limits.recipients_max;
        if transaction.recipients >= max {
            return self.say(Say::TooManyRecipients(max));
        }
        let recipient = match forward {
            Forward::Mailbox(recipient) if !recipient.is_ascii() && !transaction.smtputf8 => {
                return self.error(Say::NotUtf8Address);
            }
            Forward::Mailbox(recipient) => recipient,
            Forward::Postmaster => {
                let own = format!("postmaster@{}", self.settings.hostname).parse();
                // A host without a proper name has no postmaster that could be written to.
                let Ok(own) = own else {
                    return self.say(&crate::Refusal::UnknownMailbox);
                };
                own
            }
        };
        self.ask(Question::Recipient { recipient }, Asked::Recipient);
    }

    pub(super) fn recipient_known(&mut self, answer: &Answer) {
        if let Some(refusal) = answer.refusal() {
            // Refused recipients are no errors of the protocol, but guessing names must end.
            self.counts.idle_commands += 1;
            return self.say(refusal);
        }
        if let Some(transaction) = &mut self.transaction {
            transaction.recipients += 1;
        }
        self.say(Say::RecipientOk);
    }

    fn data(&mut self) {
        let Some(transaction) = &self.transaction else {
            return self.error(Say::NeedsSender);
        };
        if transaction.recipients == 0 {
            return self.error(Say::NeedsRecipient);
        }
        if transaction.chunks.is_some() {
            return self.error(Say::BdatAfterData);
        }
        let size = transaction.announced;
        self.ask(Question::Room { size }, Asked::RoomForData);
    }

    /// The bytes of a chunk follow its command at once, so they are read whatever the answer is.
    fn bdat(&mut self, length: u64, last: bool) {
        let max = self.settings.limits.message_size_max;
        if length > max {
            // Too much to read for nothing.
            return self.close_saying(Say::MessageTooBig(max));
        }
        let chunk = Chunk { length, remaining: length, last };
        match &self.transaction {
            None => self.skip_chunk(chunk, Say::NeedsSender),
            Some(transaction) if transaction.recipients == 0 => {
                self.skip_chunk(chunk, Say::NeedsRecipient);
            }
            Some(transaction) if transaction.size + length > max => {
                self.skip_chunk(chunk, Say::MessageTooBig(max));
                self.drop_content();
            }
            Some(transaction) if transaction.chunks.is_some() => self.take_chunk(chunk),
            Some(transaction) => {
                let size = transaction.announced;
                self.ask(Question::Room { size }, Asked::RoomForChunk(chunk));
            }
        }
    }
}
