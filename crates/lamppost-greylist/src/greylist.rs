//! The greylist: a policy that can change while it is asked, and a store.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use lamppost_evidence::{Client, Evidence, Investigator};
use parking_lot::Mutex;

use crate::attempt::Inquiry;
use crate::by_hand::ByHand;
use crate::import::{self, Remembered, Taken};
use crate::known::Known;
use crate::log::Log;
use crate::unwritten::Unwritten;
use crate::{
    Algorithm, Attempt, Census, Decision, Filter, Life, Outcome, Page, Passage, Policy, Record,
    Ruling, Store, StoreError, Triplet, Why,
};

/// Records that are swept out in one go; the store answers attempts between.
const EXPIRE_AT_ONCE: usize = 1000;
/// Triplets whose changes wait to be written, before those who change more write themselves.
const UNWRITTEN_MAX: usize = 10_000;

/// Who must come back later.
pub struct Greylist {
    policy: ArcSwap<Policy>,
    pub(crate) store: Box<dyn Store>,
    known: Known,
    unwritten: Mutex<Unwritten>,
    pub(crate) by_hand: ByHand,
    pub(crate) log: Log,
    /// One writes at a time.
    writer: tokio::sync::Mutex<()>,
}

impl Greylist {
    /// How often [`Self::write`] should be called: what was decided since then is lost with the process.
    pub const WRITE_EVERY: Duration = Duration::from_millis(500);

    /// A greylist over a store.
    pub fn new(policy: Policy, store: Box<dyn Store>) -> Self {
        Self {
            policy: ArcSwap::from_pointee(policy),
            store,
            known: Known::default(),
            unwritten: Mutex::default(),
            by_hand: ByHand::default(),
            log: Log::default(),
            writer: tokio::sync::Mutex::default(),
        }
    }

    /// Decides by another policy from the next attempt on.
    pub fn set_policy(&self, policy: Policy) {
        self.policy.store(Arc::new(policy));
    }

    /// May this mail come in now? `now` is the time since 1970. Who asks says by [`Self::settle`] what became
    /// of it where the ruling has a passage.
    ///
    /// # Errors
    /// When the store cannot be asked.
    pub async fn check(
        &self,
        attempt: &Attempt<'_>,
        investigator: Option<&dyn Investigator>,
        now: Duration,
    ) -> Result<Ruling, StoreError> {
        let policy = self.policy.load_full();
        let (sender, recipient) = (attempt.sender.to_lowercase(), attempt.recipient.to_lowercase());
        let own_delay = match policy.spares(attempt, &recipient) {
            Ok(own_delay) => own_delay,
            Err(why) => return Ok(Ruling::at_once(Decision::Accept(why))),
        };
        if let Some(decision) = self.ruled(attempt.peer, &recipient, now) {
            return Ok(Ruling::at_once(decision));
        }
        let own = Triplet { network: policy.network(attempt.peer), sender, recipient };
        if self.known.has(&own, now) {
            return Ok(self.pass_known(&policy, own, now));
        }
        self.make_room().await?;
        let evidence = evidence(&policy, attempt, investigator).await;
        let inquiry = Inquiry::new(&policy, &own, (attempt.peer, evidence), own_delay);
        if self.unwritten.lock().has_ended(inquiry.own()) {
            self.write().await?;
        }
        let writing = self.unwritten.lock().writing();
        let seen = self.store.look(inquiry.triplets.clone(), now).await?;
        // From here on no other attempt on the same triplet comes between.
        let mut unwritten = self.unwritten.lock();
        let shown = inquiry.triplets.iter().zip(seen.records);
        let records: Vec<_> =
            shown.map(|(triplet, shown)| unwritten.on(triplet, shown, &writing)).collect();
        let ruling = rule(&policy, attempt, inquiry, &records, seen.now);
        let record = ruling.record.as_ref().map(|(_, record)| record);
        let change = ruling.verdict().change(&policy, record, seen.now);
        let is_known = ruling.decision == Decision::Accept(Why::Known);
        if is_known {
            self.known.learn(&own, &change.on(record), now);
        }
        // Who must wait is remembered at once, and who is known unless its message's end is waited for.
        if ruling.decision.retry_in().is_some() || (is_known && ruling.passage.is_none()) {
            for network in &ruling.networks {
                unwritten.add(own.under(network), change);
            }
        }
        Ok(ruling)
    }

    /// A triplet that is known here passes without a look into the store.
    fn pass_known(&self, policy: &Policy, own: Triplet, now: Duration) -> Ruling {
        let mut ruling = Ruling::at_once(Decision::Accept(Why::Known));
        if policy.algorithm == Algorithm::Relaydelay {
            let networks = vec![own.network];
            ruling.passage = Some(Passage { networks, ..Passage::default() });
            return ruling;
        }
        let change = ruling.verdict().change(policy, None, now);
        let mut unwritten = self.unwritten.lock();
        // A store that takes nothing costs those who are known a longer life, and not their passing.
        if unwritten.len() < UNWRITTEN_MAX {
            unwritten.add(own, change);
        }
        drop(unwritten);
        ruling
    }

    /// Has those who change more write themselves, when much waits to be written.
    async fn make_room(&self) -> Result<(), StoreError> {
        if self.unwritten.lock().len() >= UNWRITTEN_MAX {
            self.write().await?;
        }
        Ok(())
    }

    /// What became of a message that had leave to pass.
    ///
    /// A triplet whose first message is refused must start over, and counts against its networks.
    pub fn settle(
        &self,
        passage: &Passage,
        (sender, recipient): (&str, &str),
        outcome: Outcome,
        now: Duration,
    ) {
        let policy = self.policy.load();
        let (sender, recipient) = (sender.to_lowercase(), recipient.to_lowercase());
        let (change, reputation) = policy.settled(passage, sender.is_empty(), outcome, now);
        let mut unwritten = self.unwritten.lock();
        for network in &passage.networks {
            let triplet = Triplet {
                network: network.clone(),
                sender: sender.clone(),
                recipient: recipient.clone(),
            };
            if outcome == Outcome::Accepted {
                self.known.learn(&triplet, &change.on(None), now);
            }
            unwritten.add(triplet, change);
            if let Some(mut reputation) = reputation {
                if passage.promoted.contains(network) {
                    reputation.life = Some(Life::KnownUntil(now + policy.lifetime));
                }
                unwritten.add(Triplet::reputation(network), reputation);
            }
        }
    }

    /// A message of a client was refused although its triplet is known.
    pub fn aborted(&self, peer: IpAddr, addresses: (&str, &str), now: Duration) {
        let networks = vec![self.policy.load().network(peer)];
        let passage = Passage { networks, ..Passage::default() };
        self.settle(&passage, addresses, Outcome::Refused, now);
    }

    /// A client guessed a recipient who is not there.
    pub fn guessed(&self, peer: IpAddr, now: Duration) {
        let policy = self.policy.load();
        if let Some(change) = policy.misbehaviour(now) {
            let reputation = Triplet::reputation(&policy.network(peer));
            self.unwritten.lock().add(reputation, change);
        }
    }

    /// Somebody here writes to somebody elsewhere, who may answer without waiting.
    pub fn expect_answer(&self, sender: &str, recipient: &str, now: Duration) {
        let policy = self.policy.load();
        let domain = recipient.rsplit_once('@').map(|(_, domain)| domain);
        if let Some(change) = policy.opening(now)
            && let Some(domain) = domain
            && !sender.is_empty()
        {
            self.unwritten.lock().add(Triplet::answer(domain, sender), change);
        }
    }

    /// Writes what was decided since the last time; returns of how many triplets.
    ///
    /// # Errors
    /// When the store takes nothing: it waits for the next time.
    pub async fn write(&self) -> Result<usize, StoreError> {
        let _alone = self.writer.lock().await;
        let Some(changes) = self.unwritten.lock().begin() else { return Ok(0) };
        let count = changes.len();
        let done = self.store.apply(changes).await;
        let mut unwritten = self.unwritten.lock();
        match done {
            Ok(()) => unwritten.written(),
            Err(error) => {
                unwritten.failed();
                return Err(error);
            }
        }
        Ok(count)
    }

    /// Forgets all triplets whose record has expired; returns how many.
    ///
    /// # Errors
    /// When the store cannot be asked.
    pub async fn expire(&self, now: Duration) -> Result<usize, StoreError> {
        self.write().await?;
        let mut expired = 0;
        loop {
            let some = self.store.expire(now, EXPIRE_AT_ONCE).await?;
            expired += some;
            if some < EXPIRE_AT_ONCE {
                return Ok(expired);
            }
        }
    }

    /// What an attempt would meet now, and by what; nothing changes.
    ///
    /// # Errors
    /// When the store cannot be asked.
    pub async fn look(
        &self,
        attempt: &Attempt<'_>,
        investigator: Option<&dyn Investigator>,
        now: Duration,
    ) -> Result<Ruling, StoreError> {
        self.write().await?;
        let policy = self.policy.load_full();
        let (sender, recipient) = (attempt.sender.to_lowercase(), attempt.recipient.to_lowercase());
        let own_delay = match policy.spares(attempt, &recipient) {
            Ok(own_delay) => own_delay,
            Err(why) => return Ok(Ruling::at_once(Decision::Accept(why))),
        };
        if let Some(decision) = self.ruled(attempt.peer, &recipient, now) {
            return Ok(Ruling::at_once(decision));
        }
        let own = Triplet { network: policy.network(attempt.peer), sender, recipient };
        let evidence = evidence(&policy, attempt, investigator).await;
        let inquiry = Inquiry::new(&policy, &own, (attempt.peer, evidence), own_delay);
        let seen = self.store.look(inquiry.triplets.clone(), now).await?;
        Ok(rule(&policy, attempt, inquiry, &seen.records, seen.now))
    }

    /// The network of an address, as triplets name it.
    pub fn network(&self, peer: IpAddr) -> String {
        self.policy.load().network(peer)
    }

    /// As [`Store::list`].
    ///
    /// # Errors
    /// When the store cannot be asked.
    pub async fn list(
        &self,
        filter: Filter,
        after: Option<String>,
        limit: usize,
    ) -> Result<Page, StoreError> {
        self.write().await?;
        self.store.list(filter, after, limit).await
    }

    /// Forgets all triplets that are meant; returns how many.
    ///
    /// # Errors
    /// When the store cannot be asked.
    pub async fn forget(&self, filter: Filter) -> Result<usize, StoreError> {
        // Those who are known here would be written again as they pass meanwhile.
        self.known.clear();
        self.write().await?;
        let mut forgotten = 0;
        loop {
            let some = self.store.forget(filter.clone(), EXPIRE_AT_ONCE).await?;
            forgotten += some;
            if some < EXPIRE_AT_ONCE {
                // After the store forgot them, so that no look brings one back.
                self.known.clear();
                return Ok(forgotten);
            }
        }
    }

    /// Takes over what another greylist remembers, as if it had been met here; who is known as well
    /// already is left as it is.
    ///
    /// # Errors
    /// When the store cannot be asked, or takes nothing.
    pub async fn take_over(
        &self,
        rows: Vec<Remembered>,
        now: Duration,
    ) -> Result<Taken, StoreError> {
        self.write().await?;
        let network = |client| self.network(client);
        let (wanted, left_out) = import::wanted(&self.policy.load(), network, rows, now);
        let triplets: Vec<_> = wanted.keys().cloned().collect();
        let count = triplets.len() as u64;
        let seen = self.store.look(triplets, now).await?;
        let changes: HashMap<_, _> = wanted
            .into_iter()
            .zip(&seen.records)
            .filter_map(|((triplet, wanted), held)| {
                Some((triplet, import::missing(wanted, held.as_ref(), seen.now)?))
            })
            .collect();
        let taken = changes.len() as u64;
        if taken > 0 {
            self.store.apply(Arc::new(changes)).await?;
        }
        Ok(Taken { taken, unchanged: count - taken, left_out })
    }

    /// How many triplets are remembered, by what they are.
    ///
    /// # Errors
    /// When the store cannot be asked.
    pub async fn census(&self) -> Result<Census, StoreError> {
        self.write().await?;
        self.store.census().await
    }
}

/// What is known of a client; nobody asks where it decides nothing.
async fn evidence(
    policy: &Policy,
    attempt: &Attempt<'_>,
    investigator: Option<&dyn Investigator>,
) -> Evidence {
    let Attempt { peer: ip, helo, sender, .. } = *attempt;
    match (&policy.algorithm, investigator) {
        (Algorithm::Adaptive(_), Some(investigator)) => {
            investigator.investigate(Client { ip, helo, sender }).await
        }
        _ => Evidence::default(),
    }
}

/// Decides by what is remembered of all that was asked about.
fn rule(
    policy: &Policy,
    attempt: &Attempt<'_>,
    inquiry: Inquiry,
    records: &[Option<Record>],
    now: Duration,
) -> Ruling {
    let verdict = inquiry.decide(policy, records, now);
    let winner = verdict.winner.and_then(|at| Some((inquiry.own()[at].clone(), records[at]?)));
    let passage = inquiry.passage(policy, &verdict, records, now);
    let Inquiry { networks, evidence, .. } = inquiry;
    Ruling {
        decision: verdict.decision,
        rule: verdict.rule,
        delay: verdict.delay,
        is_held: policy.holds_until_data(attempt.sender),
        networks,
        evidence,
        record: winner,
        passage,
    }
}
