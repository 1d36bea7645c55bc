//! An attempt, what is asked about it, and what came of it.

use std::net::IpAddr;
use std::time::Duration;

use lamppost_evidence::{Evidence, keys};

use crate::{Algorithm, Case, Decision, Policy, Record, Rule, Triplet, Verdict, Why, decide};

/// An attempt to send.
#[derive(Clone, Copy, Debug)]
pub struct Attempt<'a> {
    /// The client's address.
    pub peer: IpAddr,
    /// What it calls itself; empty where that is not known.
    pub helo: &'a str,
    /// The sender; empty for the null sender.
    pub sender: &'a str,
    /// The recipient.
    pub recipient: &'a str,
    /// Whether the client is one of those who wait though others need not.
    pub although_off: bool,
}

/// What an attempt meets, and how that came about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ruling {
    /// The decision.
    pub decision: Decision,
    /// By what its delay is as long as it is.
    pub rule: Rule,
    /// That delay.
    pub delay: Duration,
    /// Whether the client learns only after RCPT that it must wait.
    pub is_held: bool,
    /// The networks that the client counts as, if that was asked.
    pub networks: Vec<String>,
    /// What is known of the client, if that was asked.
    pub evidence: Evidence,
    /// The triplet and the record that decided, if one did.
    pub record: Option<(Triplet, Record)>,
    /// What is to be settled once it is known what became of the message; nothing where that changes nothing.
    pub passage: Option<Passage>,
}

/// Leave to pass, which counts once the message was taken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Passage {
    /// The networks that the client counts as.
    pub networks: Vec<String>,
    /// Those among them that count as good once this triplet passes.
    pub promoted: Vec<String>,
    /// Whether the triplet never passed before.
    pub is_first: bool,
}

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was taken.
    Accepted,
    /// It was refused for good.
    Refused,
}

impl Policy {
    /// Why an attempt is not looked at any further, if that is so; otherwise the recipient's own delay.
    pub(crate) fn spares(
        &self,
        attempt: &Attempt<'_>,
        recipient: &str,
    ) -> Result<Option<Duration>, Why> {
        match self.terms_of(recipient) {
            Some(terms) if !terms.enabled => Err(Why::OptedOut),
            Some(terms) => Ok(terms.delay),
            None if self.enabled || attempt.although_off => Ok(None),
            None => Err(Why::SwitchedOff),
        }
    }

    /// The network of an address, by which a triplet is known here.
    pub(crate) fn network(&self, peer: IpAddr) -> String {
        self.networks(&Evidence::default(), peer).pop().unwrap_or_default()
    }

    /// All networks that a client counts as; that of its address is the last.
    pub(crate) fn networks(&self, evidence: &Evidence, peer: IpAddr) -> Vec<String> {
        keys(evidence, peer, self.prefixes())
    }
}

/// An attempt that is looked at: all that the store is asked about it, in one go.
pub(crate) struct Inquiry {
    pub(crate) evidence: Evidence,
    pub(crate) networks: Vec<String>,
    pub(crate) own_delay: Option<Duration>,
    /// The attempt under each network, then the networks' reputations, then mail the other way.
    pub(crate) triplets: Vec<Triplet>,
}

impl Inquiry {
    pub(crate) fn new(
        policy: &Policy,
        own: &Triplet,
        (peer, evidence): (IpAddr, Evidence),
        own_delay: Option<Duration>,
    ) -> Self {
        let networks = policy.networks(&evidence, peer);
        let mut triplets: Vec<_> = networks.iter().map(|network| own.under(network)).collect();
        if let Algorithm::Adaptive(adaptive) = &policy.algorithm {
            triplets.extend(networks.iter().map(|network| Triplet::reputation(network)));
            if !adaptive.answer_window.is_zero() {
                let domains = domains(&own.sender, &networks);
                triplets
                    .extend(domains.iter().map(|domain| Triplet::answer(domain, &own.recipient)));
            }
        }
        Self { evidence, networks, own_delay, triplets }
    }

    /// The triplets of the attempt itself.
    pub(crate) fn own(&self) -> &[Triplet] {
        &self.triplets[..self.networks.len()]
    }

    /// Decides by what is remembered of each of the triplets.
    pub(crate) fn decide(
        &self,
        policy: &Policy,
        records: &[Option<Record>],
        now: Duration,
    ) -> Verdict {
        let count = self.networks.len();
        let (records, others) = records.split_at(count);
        let (reputations, answers) = others.split_at(count.min(others.len()));
        let live = answers.iter().flatten().find(|record| record.is_live(now));
        let case = Case {
            evidence: &self.evidence,
            keys: &self.networks,
            records,
            reputations,
            answers: live.copied(),
            own_delay: self.own_delay,
        };
        decide(policy, &case, now)
    }

    /// What is to be settled when the message was taken.
    pub(crate) fn passage(
        &self,
        policy: &Policy,
        verdict: &Verdict,
        records: &[Option<Record>],
        now: Duration,
    ) -> Option<Passage> {
        let is_first = match verdict.decision {
            Decision::Defer(_) => return None,
            Decision::Accept(why) => why != Why::Known,
        };
        let networks = self.networks.clone();
        let Algorithm::Adaptive(adaptive) = &policy.algorithm else {
            return Some(Passage { networks, promoted: Vec::new(), is_first });
        };
        let reputations = &records[networks.len()..];
        let promoted = networks.iter().zip(reputations);
        let promoted =
            promoted.filter(|(_, record)| adaptive.is_next_promoted(record.as_ref(), now));
        let promoted = promoted.map(|(network, _)| network.clone()).collect();
        is_first.then_some(Passage { networks, promoted, is_first })
    }
}

/// The domains that answer when this sender writes: that of its address; or, since a null sender has none,
/// those that speak for the client.
fn domains(sender: &str, networks: &[String]) -> Vec<String> {
    if let Some((_, domain)) = sender.rsplit_once('@') {
        return vec![domain.to_owned()];
    }
    let named = networks.iter().filter_map(|network| {
        network.strip_prefix("spf:").or_else(|| network.strip_prefix("name:"))
    });
    named.map(ToOwned::to_owned).collect()
}

impl Triplet {
    /// The same two under another network.
    pub(crate) fn under(&self, network: &str) -> Self {
        let Self { sender, recipient, .. } = self.clone();
        Self { network: network.to_owned(), sender, recipient }
    }
}

impl Ruling {
    /// The decision, without how it came about.
    pub(crate) fn verdict(&self) -> Verdict {
        Verdict { decision: self.decision, rule: self.rule, delay: self.delay, winner: None }
    }

    /// A ruling for which nothing was looked up.
    pub(crate) fn at_once(decision: Decision) -> Self {
        Self {
            decision,
            rule: Rule::default(),
            delay: Duration::ZERO,
            is_held: false,
            networks: Vec::new(),
            evidence: Evidence::default(),
            record: None,
            passage: None,
        }
    }
}
