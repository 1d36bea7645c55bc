//! What the greylist says of an attempt, and what that means by the settings in force.

use std::net::IpAddr;
use std::time::Duration;

use futures_util::future::BoxFuture;
use lamppost_evidence::{Client, Evidence, Investigator, ReverseName};
use lamppost_greylist::{Attempt, Decision, Outcome, Passage, Passed, Ruling, StoreError, Why};
use lamppost_roles::{Passage as Leave, PolicyAnswer, Route, Verdict};
use lamppost_smtp::{Address, Refusal, ReversePath};
use tracing::{debug, error, info};

use super::{Policy, PolicySettings, StoreFailure, chain};

/// What an attempt meets.
pub(super) enum Greylisting {
    /// It may proceed.
    Pass {
        /// How long the sender had to wait for that, if it is its first mail to pass.
        waited: Option<Duration>,
        /// What is to be settled once it is known what became of the message.
        passage: Option<Passage>,
    },
    /// Not yet.
    Wait {
        /// Why.
        reason: &'static str,
        /// How long the sender should wait; never zero.
        retry_in: Duration,
        /// Whether it is told so only after RCPT.
        is_held: bool,
    },
    /// The greylist cannot be asked, and mail waits until it can.
    Unavailable,
}

impl Policy {
    /// Decides an attempt; each decision is told in the log and counted.
    pub(super) async fn greylisted(
        &self,
        attempt: &Attempt<'_>,
        settings: &PolicySettings,
    ) -> Greylisting {
        let Attempt { peer, sender: from, recipient: to, .. } = *attempt;
        let ruling = match self.greylist.check(attempt, Some(self), self.clock.now()).await {
            Ok(ruling) => ruling,
            Err(error) => {
                let reason = chain(&error);
                // That a database is away is told once, and by `lamppost status`.
                if matches!(error, StoreError::Away { .. }) {
                    debug!(%peer, to, reason, "the greylist could not be asked");
                } else {
                    error!(%peer, to, reason, "the greylist could not be asked");
                }
                self.metrics.greylist_decision("unavailable");
                return match settings.when_store_fails {
                    StoreFailure::Defer if !settings.observes => Greylisting::Unavailable,
                    StoreFailure::Accept | StoreFailure::Defer => {
                        Greylisting::Pass { waited: None, passage: None }
                    }
                };
            }
        };
        let reason = ruling.decision.reason();
        self.metrics.greylist_decision(reason);
        if settings.logs_to_store && matches!(ruling.decision, Decision::Accept(_)) {
            let name = &ruling.evidence.name;
            self.greylist.log(Passed {
                peer,
                name: match name {
                    ReverseName::Confirmed(name) => Some(name.name.clone()),
                    ReverseName::Unconfirmed | ReverseName::Unknown => None,
                },
                is_mismatch: *name == ReverseName::Unconfirmed,
                sender: from.to_owned(),
                recipient: to.to_owned(),
            });
        }
        let Ruling { decision, is_held, passage, .. } = &ruling;
        let (is_held, passage) = (*is_held, passage.clone());
        match *decision {
            // Most mail is from those who are known.
            Decision::Accept(Why::Known | Why::OptedOut | Why::SwitchedOff) => {
                debug!(%peer, from, to, reason, "greylist passes");
                Greylisting::Pass { waited: None, passage }
            }
            Decision::Accept(why) => {
                let waited = match why {
                    Why::Waited { since_first } => Some(since_first),
                    _ => None,
                };
                let waited_s = waited.map(|waited| waited.as_secs());
                let (rule, networks) = (ruling.rule.name(), ruling.networks.join(" "));
                info!(%peer, from, to, reason, waited_s, rule, networks, "greylist passes");
                Greylisting::Pass { waited, passage }
            }
            Decision::Defer(_) => {
                let retry_in = ruling.decision.retry_in().unwrap_or_default();
                let retry_in_s = retry_in.as_millis().div_ceil(1000);
                let (rule, networks) = (ruling.rule.name(), ruling.networks.join(" "));
                if settings.observes {
                    info!(%peer, from, to, reason, retry_in_s, rule, networks, "greylist would defer");
                    return Greylisting::Pass { waited: None, passage: None };
                }
                info!(%peer, from, to, reason, retry_in_s, rule, networks, "greylist defers");
                Greylisting::Wait { reason, retry_in, is_held }
            }
        }
    }

    /// Decides an attempt that another mail server asks about. It says nothing of what becomes of the
    /// message: what passes counts as taken.
    pub(super) async fn greylisted_elsewhere(
        &self,
        attempt: &Attempt<'_>,
        settings: &PolicySettings,
    ) -> Verdict {
        match self.greylisted(attempt, settings).await {
            Greylisting::Pass { waited, passage } => {
                if let Some(passage) = passage {
                    let addresses = (attempt.sender, attempt.recipient);
                    let now = self.clock.now();
                    self.greylist.settle(&passage, addresses, Outcome::Accepted, now);
                }
                Verdict::Pass { waited }
            }
            Greylisting::Wait { reason, retry_in, .. } => {
                Verdict::Wait { reason: reason.to_owned(), retry_in }
            }
            Greylisting::Unavailable => Verdict::Unavailable,
        }
    }

    /// What the greylist is told of a message's end.
    pub(super) fn learn(
        &self,
        peer: IpAddr,
        sender: &ReversePath,
        recipients: &[(Address, Option<Leave>)],
        accepted: bool,
    ) {
        let (from, now) = (sender.to_string(), self.clock.now());
        let outcome = if accepted { Outcome::Accepted } else { Outcome::Refused };
        for (recipient, leave) in recipients {
            let addresses = (&from[..], recipient.as_str());
            match leave {
                Some(leave) => {
                    let passage = passage(leave.clone());
                    self.greylist.settle(&passage, addresses, outcome, now);
                }
                None if accepted => {}
                None => self.greylist.aborted(peer, addresses, now),
            }
        }
    }
}

impl Greylisting {
    /// What the front is told about a recipient to whom this is the way.
    pub(super) fn on_the_way(self, route: Route) -> Result<PolicyAnswer, Refusal> {
        match self {
            Self::Pass { passage: None, .. } => Ok(PolicyAnswer::Route(route)),
            Self::Pass { passage: Some(passage), .. } => {
                Ok(PolicyAnswer::Minded { route, hold: None, passage: Some(leave(passage)) })
            }
            Self::Wait { reason, retry_in, is_held } => {
                let refusal = Refusal::Greylisted { reason: reason.to_owned(), retry_in };
                if !is_held {
                    return Err(refusal);
                }
                Ok(PolicyAnswer::Minded { route, hold: Some(refusal), passage: None })
            }
            Self::Unavailable => Err(Refusal::Unavailable),
        }
    }
}

impl Investigator for Policy {
    fn investigate<'a>(&'a self, client: Client<'a>) -> BoxFuture<'a, Evidence> {
        Box::pin(async move {
            // Programs of this machine are not in the DNS as what they are.
            let investigator = self.investigator.as_ref().filter(|_| !client.ip.is_loopback());
            let found = async {
                match investigator {
                    Some(investigator) => investigator.investigate(client).await,
                    None => Evidence::default(),
                }
            };
            let listed = async {
                match &self.lists {
                    Some(lists) => lists.hold(client.ip).await,
                    None => false,
                }
            };
            let (evidence, is_listed) = tokio::join!(found, listed);
            Evidence { is_listed, ..evidence }
        })
    }
}

fn leave(passage: Passage) -> Leave {
    let Passage { networks, promoted, is_first } = passage;
    Leave { networks, promoted, is_first }
}

fn passage(leave: Leave) -> Passage {
    let Leave { networks, promoted, is_first } = leave;
    Passage { networks, promoted, is_first }
}
