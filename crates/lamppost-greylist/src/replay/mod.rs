//! What a greylist would have decided of mail that came: attempts of the past against a scratch store and a
//! clock that follows them.

mod delivery;
mod exim;
mod log;
mod open;
mod own;
mod postfix;
mod stamp;
mod summary;

use std::time::Duration;

use futures_util::future::{BoxFuture, ready};
use lamppost_evidence::{Client, Evidence, Investigator};
use serde::Serialize;

pub use delivery::{Delivery, End, NotADelivery};
pub use log::{Log, LogKind};
pub use summary::{OtherDelay, Summary, Waits};

use self::summary::Tally;
use crate::{
    Attempt, Change, Changes, Decision, Greylist, MemoryStore, Outcome, Passage, Policy, Record,
    Store, StoreError, Triplet, Why,
};

/// How often what nobody needs any more is swept out, by the clock of the attempts.
const SWEEP_EVERY: Duration = Duration::from_secs(60 * 60);
/// Rows that are put into the scratch store at once.
const ROWS_AT_ONCE: usize = 10_000;

/// A greylist that decides mail of the past.
pub struct Replay {
    greylist: Greylist,
    store: MemoryStore,
    policy: Policy,
    tally: Tally,
    /// The domains whose mail comes in: mail of accounts to others may be answered.
    domains: Vec<String>,
    swept: Duration,
}

/// What a client would have been told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Answer {
    /// In reply to each RCPT.
    pub to: Vec<Told>,
    /// In reply to DATA; nothing where the client does not get there.
    pub data: Option<Word>,
}

/// What a client would have been told of a recipient.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Told {
    /// What it is told in reply to RCPT.
    pub decision: Word,
    /// Why: the word that replies, the log and the metrics use.
    pub reason: &'static str,
    /// In how many seconds it should come back; nothing where it need not.
    pub retry_in: Option<u64>,
}

/// What a client is told, in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Word {
    /// It may go on.
    Accept,
    /// Not yet.
    Defer,
    /// Never.
    Reject,
}

/// What is known of the client of a delivery, without asking anybody.
struct Given<'a>(&'a Evidence);

impl Investigator for Given<'_> {
    fn investigate<'a>(&'a self, _: Client<'a>) -> BoxFuture<'a, Evidence> {
        Box::pin(ready(self.0.clone()))
    }
}

impl Replay {
    /// A greylist that knows nobody yet. Mail of accounts that goes elsewhere than to these domains may be
    /// answered.
    pub fn new(policy: Policy, domains: Vec<String>) -> Self {
        // It is played, whether the running greylist is on or not.
        let policy = Policy { enabled: true, ..policy };
        let store = MemoryStore::default();
        let greylist = Greylist::new(policy.clone(), Box::new(store.clone()));
        let tally = Tally::new();
        Self { greylist, store, policy, tally, domains, swept: Duration::ZERO }
    }

    /// Begins with what a greylist knows.
    ///
    /// # Errors
    /// Never: the scratch store takes everything.
    pub async fn begin_with(
        &self,
        rows: impl IntoIterator<Item = (Triplet, Record)>,
    ) -> Result<(), StoreError> {
        let mut rows = rows.into_iter().peekable();
        while rows.peek().is_some() {
            let some = rows.by_ref().take(ROWS_AT_ONCE);
            let changes = some.map(|(triplet, record)| {
                let change = Change {
                    at: Duration::ZERO,
                    block_expires: record.block_expires,
                    record_expires: record.record_expires,
                    blocked: record.blocked_count,
                    passed: record.passed_count,
                    aborted: record.aborted_count,
                    life: None,
                };
                (triplet, change)
            });
            self.store.apply(Changes::new(changes.collect())).await?;
        }
        Ok(())
    }

    /// Decides the next attempt.
    ///
    /// # Errors
    /// Never: the scratch store answers always.
    pub async fn decide(&mut self, delivery: &Delivery) -> Result<Answer, StoreError> {
        let now = delivery.at;
        self.sweep(now).await?;
        if delivery.is_authenticated {
            return Ok(self.pass_own(delivery));
        }
        let evidence = delivery.evidence();
        let (mut to, mut passages) = (Vec::with_capacity(delivery.recipients.len()), Vec::new());
        let (mut is_held, mut is_taken) = (false, false);
        for recipient in &delivery.recipients {
            let attempt = Attempt {
                peer: delivery.peer,
                helo: &delivery.helo,
                sender: &delivery.sender,
                recipient,
                although_off: false,
            };
            let ruling = self.greylist.check(&attempt, Some(&Given(&evidence)), now).await?;
            self.tally.decided(&attempt, &ruling, now);
            let retry_in = ruling.decision.retry_in();
            let is_told_now = retry_in.is_some() && !ruling.is_held;
            is_held |= retry_in.is_some() && ruling.is_held;
            is_taken |= !is_told_now;
            to.push(Told {
                decision: if is_told_now { Word::Defer } else { Word::Accept },
                reason: ruling.decision.reason(),
                retry_in: retry_in.map(seconds),
            });
            if let Decision::Accept(why) = ruling.decision {
                passages.push((recipient, why, ruling.passage));
            }
        }
        let data = match delivery.end {
            End::Left => None,
            _ if !is_taken => None,
            _ if is_held => Some(Word::Defer),
            End::Taken => Some(Word::Accept),
            End::Refused => Some(Word::Reject),
        };
        if let Some(word @ (Word::Accept | Word::Reject)) = data {
            self.settle(delivery, &passages, word);
        }
        Ok(Answer { to, data })
    }

    /// What the greylist learns of a message's end.
    fn settle(
        &mut self,
        delivery: &Delivery,
        passages: &[(&String, Why, Option<Passage>)],
        word: Word,
    ) {
        let now = delivery.at;
        for (recipient, why, passage) in passages {
            let addresses = (&delivery.sender[..], &recipient[..]);
            let outcome = match word {
                Word::Accept => Outcome::Accepted,
                Word::Defer | Word::Reject => Outcome::Refused,
            };
            match passage {
                Some(passage) => self.greylist.settle(passage, addresses, outcome, now),
                None if outcome == Outcome::Refused => {
                    self.greylist.aborted(delivery.peer, addresses, now);
                }
                None => {}
            }
            if outcome == Outcome::Accepted {
                self.tally.taken(*why);
            }
        }
    }

    /// An account's own mail passes, and may be answered.
    fn pass_own(&mut self, delivery: &Delivery) -> Answer {
        for recipient in &delivery.recipients {
            if self.is_elsewhere(&delivery.sender, recipient) {
                self.greylist.expect_answer(&delivery.sender, recipient, delivery.at);
            }
        }
        self.tally.authenticated(delivery.recipients.len());
        let told = Told { decision: Word::Accept, reason: "authenticated", retry_in: None };
        let data = match delivery.end {
            End::Left => None,
            End::Taken => Some(Word::Accept),
            End::Refused => Some(Word::Reject),
        };
        Answer { to: vec![told; delivery.recipients.len()], data }
    }

    fn is_elsewhere(&self, sender: &str, recipient: &str) -> bool {
        let domain =
            |address: &str| address.rsplit_once('@').map(|(_, domain)| domain.to_lowercase());
        let (from, to) = (domain(sender), domain(recipient));
        from != to && to.is_some_and(|to| !self.domains.contains(&to))
    }

    /// Forgets whose time is over, so that memory holds those only who are remembered.
    async fn sweep(&mut self, now: Duration) -> Result<(), StoreError> {
        if now < self.swept + SWEEP_EVERY {
            return Ok(());
        }
        self.swept = now;
        self.greylist.write().await?;
        self.store.expire(now, usize::MAX).await?;
        self.tally.sweep(&self.policy, now);
        Ok(())
    }

    /// What came of all attempts.
    pub fn summary(&self) -> Summary {
        self.tally.summary(&self.policy)
    }
}

/// A wait in whole seconds: whoever comes back then is not too early.
fn seconds(wait: Duration) -> u64 {
    u64::try_from(wait.as_millis().div_ceil(1000)).unwrap_or(u64::MAX)
}
