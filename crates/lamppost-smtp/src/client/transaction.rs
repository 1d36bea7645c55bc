//! One message over a connection that is ready: MAIL, RCPT, DATA, content, and the verdicts.

use std::collections::VecDeque;

use crate::{Address, ReversePath, Status};

use super::encoder::Encoder;
use super::extensions::Extensions;
use super::message::{Complaint, HeaderText, Outgoing, Verdict};
use super::reply::HostReply;
use super::{Awaited, Client, ClientAction, State};

/// Commands whose replies may be outstanding, so that neither side ever waits for the other to read
/// (RFC 2920 §3.1).
const IN_FLIGHT_MAX: usize = 50;

/// A message under way.
#[derive(Debug)]
pub(super) struct Transaction {
    sender: ReversePath,
    recipients: Vec<(Address, Standing)>,
    /// Whether the whole message needs SMTPUTF8.
    smtputf8: bool,
    size: u64,
    /// What is to be said still, in order.
    steps: VecDeque<Step>,
    /// Whether the host answered anything that concerns this message.
    pub(super) noticed: bool,
    /// Whether the host holds a transaction that only its end or RSET ends.
    open: bool,
    encoder: Encoder,
}

/// How far a recipient is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Standing {
    /// The host has not said yes or no.
    Asked,
    /// The host said yes to RCPT.
    Accepted,
    /// It is decided.
    Decided(Verdict),
}

/// A command of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Reset,
    Mail,
    /// To the recipient at this place.
    Recipient(usize),
    Data,
}

impl Transaction {
    fn new(outgoing: Outgoing, extensions: &Extensions, reset: bool) -> Self {
        let Outgoing { sender, recipients, size, header } = outgoing;
        let ascii_sender = matches!(&sender, ReversePath::Null)
            || matches!(&sender, ReversePath::Mailbox(address) if address.is_ascii());
        let whole = !ascii_sender || header == HeaderText::Utf8;
        let any = whole || recipients.iter().any(|recipient| !recipient.is_ascii());
        let too_large = extensions.size_max.filter(|&max| size > max);
        let standing = |recipient: &Address| {
            if let Some(max) = too_large {
                let text = format!("the message has {size} bytes and the host takes {max}");
                Standing::refused(Status::TOO_LARGE, text)
            } else if (whole || !recipient.is_ascii()) && !extensions.smtputf8 {
                let text = "the host does not offer SMTPUTF8, which the message needs";
                Standing::refused(Status::NEEDS_UTF8, text.to_owned())
            } else {
                Standing::Asked
            }
        };
        let recipients: Vec<_> = recipients
            .into_iter()
            .map(|recipient| {
                let standing = standing(&recipient);
                (recipient, standing)
            })
            .collect();
        let asked = recipients.iter().enumerate().filter(|(_, (_, at))| *at == Standing::Asked);
        let mut steps: VecDeque<_> = asked.map(|(at, _)| Step::Recipient(at)).collect();
        if !steps.is_empty() {
            steps.push_front(Step::Mail);
            steps.push_back(Step::Data);
            if reset {
                steps.push_front(Step::Reset);
            }
        }
        let smtputf8 = any && extensions.smtputf8;
        let encoder = Encoder::new();
        Self { sender, recipients, smtputf8, size, steps, noticed: false, open: false, encoder }
    }

    fn has_accepted(&self) -> bool {
        self.recipients.iter().any(|(_, standing)| *standing == Standing::Accepted)
    }

    /// Decides for all that are not decided.
    pub(super) fn decide(&mut self, verdict: &Verdict) {
        for (_, standing) in &mut self.recipients {
            if !matches!(standing, Standing::Decided(_)) {
                *standing = Standing::Decided(verdict.clone());
            }
        }
    }

    fn into_verdicts(self) -> Vec<Verdict> {
        let verdict = |standing| match standing {
            Standing::Decided(verdict) => verdict,
            // Each way to the end decides for all; should one not, the message is tried again.
            _ => Verdict::Deferred(Complaint::own(Status::PROTOCOL, "the host gave no verdict")),
        };
        self.recipients.into_iter().map(|(_, standing)| verdict(standing)).collect()
    }
}

impl Standing {
    fn refused(status: Status, text: String) -> Self {
        Self::Decided(Verdict::Refused(Complaint::own(status, text)))
    }
}

impl Client {
    /// Begins a message; to be called after [`ClientAction::Ready`] only.
    pub fn send(&mut self, outgoing: Outgoing) {
        // It ended while it waited, as the next action tells.
        if self.state == State::Closed {
            return;
        }
        let reset = std::mem::take(&mut self.needs_reset);
        let transaction = Transaction::new(outgoing, &self.extensions, reset);
        // With nobody left to ask for, nothing was said and RSET still is due.
        self.needs_reset = reset && transaction.steps.is_empty();
        self.transaction = Some(transaction);
        self.state = State::Listening;
        // Replies that nobody waited for would be taken for those to this message.
        self.expect_silence();
        if self.state == State::Listening {
            self.go_on();
        }
    }

    /// Takes the next piece of the content, which has LF line ends; to be called after
    /// [`ClientAction::Content`] only.
    pub fn content(&mut self, piece: &[u8]) {
        if let (State::Content, Some(transaction)) = (&self.state, &mut self.transaction) {
            transaction.encoder.encode(piece, &mut self.output);
        }
    }

    /// The content is complete.
    pub fn content_end(&mut self) {
        if let (State::Content, Some(transaction)) = (&self.state, &mut self.transaction) {
            let encoder = std::mem::replace(&mut transaction.encoder, Encoder::new());
            encoder.finish(&mut self.output);
            if !self.input.is_empty() {
                let heard = self.replies.take(&mut self.input);
                return self.heard_in_content(&heard);
            }
            self.awaited.push_back(Awaited::Taken);
            self.state = State::Listening;
        }
    }

    /// Says as many of the commands that are left as may be said now; ends the transaction when
    /// there is nothing left to say or hear.
    pub(super) fn go_on(&mut self) {
        let Some(transaction) = &mut self.transaction else { return };
        let in_flight_max = if self.extensions.pipelining { IN_FLIGHT_MAX } else { 1 };
        while self.awaited.len() < in_flight_max {
            let Some(step) = transaction.steps.pop_front() else { break };
            let heard_all = self.awaited.is_empty();
            if step == Step::Data && heard_all && !transaction.has_accepted() {
                break;
            }
            let awaited = match step {
                Step::Reset => Awaited::Reset,
                Step::Mail => Awaited::Mail,
                Step::Recipient(at) => Awaited::Recipient(at),
                Step::Data => Awaited::Data,
            };
            let line = transaction.line(step, &self.extensions);
            self.output.extend_from_slice(line.as_bytes());
            self.output.extend_from_slice(b"\r\n");
            self.awaited.push_back(awaited);
        }
        if self.awaited.is_empty() {
            self.finish_transaction();
        }
    }

    fn finish_transaction(&mut self) {
        if let Some(transaction) = self.transaction.take() {
            self.needs_reset |= transaction.open;
            self.actions.push_back(ClientAction::Done(transaction.into_verdicts()));
            self.state = State::Ready;
        }
    }

    pub(super) fn reset_answered(&mut self, reply: &HostReply) {
        if reply.class() == 2 {
            self.go_on();
        } else {
            self.end(Complaint::unexpected(reply));
        }
    }

    pub(super) fn mail_answered(&mut self, reply: &HostReply) {
        let Some(transaction) = &mut self.transaction else { return };
        transaction.noticed = true;
        match reply.class() {
            2 => transaction.open = true,
            // TLS or a password is missing (RFC 3207 §4, RFC 4954 §6), which is no fault of the message.
            _ if reply.code == 530 => return self.end(Complaint::said(reply)),
            4 | 5 => {
                transaction.decide(&Complaint::said(reply).into_verdict());
                transaction.steps.clear();
            }
            _ => return self.end(Complaint::unexpected(reply)),
        }
        self.go_on();
    }

    pub(super) fn recipient_answered(&mut self, reply: &HostReply, at: usize) {
        let Some(transaction) = &mut self.transaction else { return };
        let others = transaction.has_accepted();
        let Some((_, standing)) = transaction.recipients.get_mut(at) else { return };
        // MAIL may have been refused meanwhile, which decided.
        if *standing == Standing::Asked {
            *standing = match reply.class() {
                2 => Standing::Accepted,
                // Too many recipients: those that are left have their turn another time
                // (RFC 5321 §4.5.3.1.10).
                4 | 5 if others && is_too_many(reply) => {
                    let complaint =
                        Complaint { status: Status::TOO_MANY, ..Complaint::said(reply) };
                    Standing::Decided(Verdict::Deferred(complaint))
                }
                4 | 5 => Standing::Decided(Complaint::said(reply).into_verdict()),
                _ => return self.end(Complaint::unexpected(reply)),
            };
        }
        self.go_on();
    }

    pub(super) fn data_answered(&mut self, reply: &HostReply) {
        let Some(transaction) = &mut self.transaction else { return };
        match reply.class() {
            3 if transaction.has_accepted() => self.state = State::Content,
            // It was said before all recipients were known to be refused: an empty message for
            // nobody ends it (RFC 2920 §3.1).
            3 => {
                self.output.extend_from_slice(b".\r\n");
                self.awaited.push_back(Awaited::Taken);
            }
            4 | 5 => {
                transaction.decide(&Complaint::said(reply).into_verdict());
                self.go_on();
            }
            _ => self.end(Complaint::unexpected(reply)),
        }
    }

    pub(super) fn taken(&mut self, reply: &HostReply) {
        let Some(transaction) = &mut self.transaction else { return };
        let verdict = match reply.class() {
            2 => Verdict::Taken(reply.text()),
            4 | 5 => Complaint::said(reply).into_verdict(),
            _ => return self.end(Complaint::unexpected(reply)),
        };
        transaction.open = false;
        transaction.decide(&verdict);
        self.go_on();
    }

    /// The connection carries nothing more; what is not decided waits.
    pub(super) fn end(&mut self, complaint: Complaint) {
        self.state = State::Closed;
        self.awaited.clear();
        let complaint = complaint.for_now();
        self.actions.push_back(match self.transaction.take() {
            Some(mut transaction) if transaction.noticed => {
                transaction.decide(&Verdict::Deferred(complaint));
                ClientAction::Done(transaction.into_verdicts())
            }
            _ => ClientAction::Unusable(complaint),
        });
    }
}

/// Whether a recipient is refused only because there are so many before it.
fn is_too_many(reply: &HostReply) -> bool {
    match reply.enhanced() {
        Some(status) => status.of_class(4) == Status::TOO_MANY,
        None => matches!(reply.code, 452 | 552),
    }
}

impl Transaction {
    fn line(&self, step: Step, extensions: &Extensions) -> String {
        match step {
            Step::Reset => "RSET".to_owned(),
            Step::Mail => {
                let mut line = format!("MAIL FROM:<{}>", self.sender);
                if extensions.size {
                    line.push_str(" SIZE=");
                    line.push_str(&self.size.to_string());
                }
                // Content is sent as it is: to a host that does not offer this too, as all do.
                if extensions.eight_bit_mime {
                    line.push_str(" BODY=8BITMIME");
                }
                if self.smtputf8 {
                    line.push_str(" SMTPUTF8");
                }
                line
            }
            Step::Recipient(at) => match self.recipients.get(at) {
                Some((recipient, _)) => format!("RCPT TO:<{recipient}>"),
                None => "NOOP".to_owned(),
            },
            Step::Data => "DATA".to_owned(),
        }
    }
}
