//! Mail logs as attempts: which mail came, from whom, and what had to come back.

use std::net::IpAddr;
use std::time::Duration;

use lamppost_evidence::Spf;

use super::delivery::{Delivery, End};
use super::exim::Exim;
use super::own::Own;
use super::postfix::Postfix;
use super::stamp::Stamps;

/// Messages whose recipients are not all known yet, at most: the log of a busy day has fewer.
pub(super) const OPEN_MAX: usize = 100_000;

/// Whose log it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogKind {
    /// Exim's main log.
    Exim,
    /// Lamppost's log, as text, as JSON, or out of the journal as JSON.
    Lamppost,
    /// Postfix's mail log, as syslog writes it.
    Postfix,
}

/// A mail log that is read line by line.
#[derive(Debug)]
pub struct Log {
    stamps: Stamps,
    reader: Reader,
}

#[derive(Debug)]
enum Reader {
    Exim(Exim),
    Own(Own),
    Postfix(Postfix),
}

impl Log {
    /// A log of which nothing was read yet.
    pub fn new(kind: LogKind) -> Self {
        let reader = match kind {
            LogKind::Exim => Reader::Exim(Exim::default()),
            LogKind::Lamppost => Reader::Own(Own),
            LogKind::Postfix => Reader::Postfix(Postfix::default()),
        };
        Self { stamps: Stamps::default(), reader }
    }

    /// The attempt that is whole with this line, if one is. Lines of other things are passed over.
    pub fn read(&mut self, line: &str) -> Option<Delivery> {
        let line = line.trim_end();
        if let Reader::Own(own) = &mut self.reader {
            return own.read(line, &mut self.stamps);
        }
        let (at, rest) = self.stamps.split(line)?;
        match &mut self.reader {
            Reader::Exim(exim) => exim.read(at, rest),
            Reader::Postfix(postfix) => postfix.read(at, rest),
            Reader::Own(_) => None,
        }
    }

    /// The next of the attempts whose messages are still open at the log's end; nothing after the last.
    pub fn end(&mut self) -> Option<Delivery> {
        match &mut self.reader {
            Reader::Exim(exim) => exim.open.end(),
            Reader::Postfix(postfix) => postfix.open.end(),
            Reader::Own(_) => None,
        }
    }
}

/// A client, as a log shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Shown {
    pub(super) ip: IpAddr,
    pub(super) names: Option<Vec<String>>,
    pub(super) helo: String,
}

impl Delivery {
    pub(super) fn of_log(at: Duration, client: Shown, sender: &str) -> Self {
        Self {
            at,
            peer: client.ip,
            helo: client.helo,
            names: client.names,
            sender: sender.to_owned(),
            recipients: Vec::new(),
            is_authenticated: false,
            spf: Spf::default(),
            is_listed: false,
            end: End::Taken,
        }
    }

    pub(super) fn to(mut self, recipient: &str) -> Self {
        self.recipients.push(recipient.to_owned());
        self
    }
}
