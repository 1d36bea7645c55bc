//! What a session does that speaks as qmail-smtpd.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::auth::Exchange;
use crate::qmail::{QmailCommand, parse};
use crate::reply::{Manner, Say};
use crate::transaction::Transaction;
use crate::{BareNewline, QmailQuestion, Refusal};

use super::{Answer, Asked, Question, Session, State};

impl Session {
    /// Speaks as qmail-smtpd: in its words, with addresses that may be anything, without a hello first,
    /// and with lines that may end in an LF alone, though not those of a message. What is asked of the
    /// owner about addresses and digests is [`Question::Qmail`]; [`Answer::Yes`] authenticates.
    #[must_use]
    pub fn as_qmail(mut self) -> Self {
        self.manner = Manner::Qmail;
        self.link.bare_newline = BareNewline::RefuseInContent;
        self
    }

    pub(super) fn qmail_command(&mut self, line: &[u8]) {
        match parse(line) {
            QmailCommand::Mail { sender, size } => self.qmail_mail(sender, size),
            QmailCommand::Other(command) => self.command(command),
            QmailCommand::Rcpt(recipient) => self.qmail_rcpt(recipient),
        }
    }

    /// A second MAIL begins anew, where RFC 5321 §4.1.4 wants RSET before.
    fn qmail_mail(&mut self, sender: Vec<u8>, size: u64) {
        self.drop_content();
        let limits = &self.settings.limits;
        if self.counts.messages >= limits.messages_max {
            return self.close_saying(Say::TooManyMessages);
        }
        if size > limits.message_size_max {
            let max = limits.message_size_max;
            return self.say(Say::MessageTooBig(max));
        }
        let asked = Asked::Sender { smtputf8: false, size };
        self.ask(Question::Qmail(QmailQuestion::Sender { sender }), asked);
    }

    fn qmail_rcpt(&mut self, recipient: Vec<u8>) {
        let Some(Transaction { recipients, .. }) = &self.transaction else {
            return self.error(Say::NeedsSender);
        };
        let max = self.settings.limits.recipients_max;
        if *recipients >= max {
            return self.say(Say::TooManyRecipients(max));
        }
        self.ask(Question::Qmail(QmailQuestion::Recipient { recipient }), Asked::Recipient);
    }

    pub(super) fn qmail_ehlo(&mut self) {
        let mut lines = format!("{}\nPIPELINING\n8BITMIME", self.settings.hostname);
        if self.offers_auth() {
            // The patches for AUTH brought both.
            let size = format!("\nSIZE {}\nAUTH LOGIN PLAIN CRAM-MD5", self.announced_size_max());
            lines.push_str(&size);
        }
        self.say(Say::Ehlo(&lines));
    }

    /// The challenge of CRAM-MD5 is there.
    pub(super) fn challenged(&mut self, answer: Answer) {
        match answer {
            Answer::Challenge(challenge) => {
                self.say(Say::AuthChallenge(&STANDARD.encode(&challenge)));
                self.state = State::Auth(Exchange::CramMd5 { challenge });
            }
            answer => {
                self.failed(answer.refusal().unwrap_or_else(|| (&Refusal::Unavailable).into()));
            }
        }
    }
}
