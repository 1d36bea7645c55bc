//! What a load is told, and the threads that carry it.

use std::io;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::journal::Journal;
use crate::session::{self, Tally};
use crate::{Report, Token};

/// What a load is told.
#[derive(Clone, Debug)]
pub struct Load {
    /// Where the server listens.
    pub address: SocketAddr,
    /// Sessions at once, each a thread.
    pub sessions: usize,
    /// Sizes of messages in bytes; each message has one of them.
    pub sizes: Vec<usize>,
    /// The envelope's sender.
    pub sender: String,
    /// Whom messages are for; each goes to some of them.
    pub recipients: Vec<String>,
    /// To how many of them.
    pub recipients_per_message: RangeInclusive<usize>,
    /// Whether a session keeps its connection for many messages, or makes a fresh one for each.
    pub keep_connections: bool,
    /// Whether MAIL, RCPT and DATA go out in one piece (RFC 2920); the server must offer that.
    pub pipelining: bool,
    /// Whether a session whose connection ended connects again. Otherwise it ends with it.
    pub reconnect: bool,
    /// How long one reply, or connecting again, may take.
    pub patience: Duration,
    /// Messages after which the load ends.
    pub count: Option<u64>,
    /// Time after which the load ends; messages that are under way are finished.
    pub duration: Option<Duration>,
    /// The time between the beginnings of a session's messages, where the server is fast enough; the
    /// sessions take turns. Zero is as fast as it goes.
    pub interval: Duration,
    /// What the messages are made from. Loads whose messages meet need different seeds.
    pub seed: u64,
    /// Where acknowledged tokens are noted, durably, before the session's next message.
    pub journal: Option<PathBuf>,
}

impl Load {
    /// One session that sends messages of 4 KiB to one of the recipients each, until it is stopped.
    pub fn new(address: SocketAddr, recipients: &[&str]) -> Self {
        Self {
            address,
            sessions: 1,
            sizes: vec![4096],
            sender: "load@elsewhere.test".to_owned(),
            recipients: recipients.iter().map(|&recipient| recipient.to_owned()).collect(),
            recipients_per_message: 1..=1,
            keep_connections: true,
            pipelining: false,
            reconnect: false,
            patience: Duration::from_secs(60),
            count: None,
            duration: None,
            interval: Duration::ZERO,
            seed: 1,
            journal: None,
        }
    }

    /// Starts the sessions.
    ///
    /// # Errors
    ///
    /// When the journal cannot be opened or a thread cannot be started.
    pub fn start(self) -> io::Result<Running> {
        let journal = self.journal.as_deref().map(Journal::open).transpose()?;
        let begun = Instant::now();
        let sessions = self.sessions;
        let shared = Arc::new(Shared {
            load: self,
            journal,
            begun,
            next: AtomicU64::new(0),
            acknowledged: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            stopping: AtomicBool::new(false),
        });
        let mut running = Running { shared, threads: Vec::new() };
        for place in 0..sessions {
            let shared = running.shared.clone();
            let turn = shared.load.interval * u32::try_from(place).unwrap_or(u32::MAX)
                / u32::try_from(sessions).unwrap_or(u32::MAX);
            let thread = std::thread::Builder::new().name("load".into());
            running.threads.push(thread.spawn(move || session::run(&shared, begun + turn))?);
        }
        Ok(running)
    }

    /// The message with this number.
    pub(crate) fn token(&self, number: u64) -> Token {
        let token = Token { seed: self.seed, number, size: 0 };
        let size = token.random().index(self.sizes.len());
        Token { size: self.sizes.get(size).copied().unwrap_or_default(), ..token }
    }

    /// Whom a message is for. This follows from its token.
    pub fn recipients_of(&self, token: &Token) -> Vec<String> {
        let mut random = token.random();
        // The first number chose the size.
        random.number();
        let (least, most) = self.recipients_per_message.clone().into_inner();
        let count = least + random.index(most.saturating_sub(least) + 1);
        let mut left = self.recipients.clone();
        let mut chosen = Vec::new();
        while chosen.len() < count && !left.is_empty() {
            chosen.push(left.swap_remove(random.index(left.len())));
        }
        chosen
    }
}

/// What the sessions of a load share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) load: Load,
    pub(crate) journal: Option<Journal>,
    begun: Instant,
    next: AtomicU64,
    pub(crate) acknowledged: AtomicU64,
    pub(crate) refused: AtomicU64,
    stopping: AtomicBool,
}

impl Shared {
    /// Whether no further message shall go out.
    pub(crate) fn is_over(&self) -> bool {
        let is_late = self.load.duration.is_some_and(|duration| self.begun.elapsed() >= duration);
        is_late || self.stopping.load(Ordering::Relaxed)
    }

    /// The next message to send; none when the load is over.
    pub(crate) fn take(&self) -> Option<Token> {
        if self.is_over() {
            return None;
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let within = self.load.count.is_none_or(|count| number < count);
        within.then(|| self.load.token(number))
    }
}

/// A load that is under way. Dropped without [`Running::finish`], it stops by itself.
#[derive(Debug)]
pub struct Running {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<Tally>>,
}

impl Running {
    /// How many messages were acknowledged so far.
    pub fn acknowledged(&self) -> u64 {
        self.shared.acknowledged.load(Ordering::Relaxed)
    }

    /// How many messages were refused so far.
    pub fn refused(&self) -> u64 {
        self.shared.refused.load(Ordering::Relaxed)
    }

    /// Tells the sessions to end after the message that each is at.
    pub fn stop(&self) {
        self.shared.stopping.store(true, Ordering::Relaxed);
    }

    /// Waits until all sessions have ended.
    pub fn finish(mut self) -> Report {
        let mut report = Report::default();
        for thread in std::mem::take(&mut self.threads) {
            let Ok(tally) = thread.join() else {
                report.complaints.push("a session's thread ended in a panic".to_owned());
                continue;
            };
            report.sent.extend(tally.sent);
            report.cuts += tally.cuts;
            report.complaints.extend(tally.complaint);
        }
        report.elapsed = self.shared.begun.elapsed();
        report.sent.sort_by_key(|sent| sent.token.number);
        report
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop();
    }
}
