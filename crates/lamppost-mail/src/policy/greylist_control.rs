//! The greylist as administrators see and change it.

use std::time::Duration;

use lamppost_greylist::{Decision, Filter, Hold, Record, StoreError, Triplet};
use lamppost_net::link::Inbox;
use lamppost_roles::{
    GreylistAnswer, GreylistAttempt, GreylistFilter, GreylistListing, GreylistRequest,
    GreylistStats, GreylistWhy, Timestamp, TripletView,
};
use tracing::info;

use super::{Policy, chain};

/// Triplets on a page at most.
const PAGE_MAX: u32 = 1000;

impl Policy {
    /// Answers the control role until it is gone.
    pub async fn run_control(self, mut inbox: Inbox<GreylistRequest, GreylistAnswer>) {
        while let Some((question, reply)) = inbox.next().await {
            let answer = self.administer(question).await;
            reply.send(answer.unwrap_or_else(|error| GreylistAnswer::Failed(chain(&error))));
        }
    }

    async fn administer(&self, question: GreylistRequest) -> Result<GreylistAnswer, StoreError> {
        let now = self.clock.now();
        Ok(match question {
            GreylistRequest::List { after, limit, filter } => {
                let limit = limit.clamp(1, PAGE_MAX) as usize;
                let after = after.as_deref().map(triplet_at);
                let found = self.greylist.list(self.filter(filter), after, limit).await?;
                let next =
                    (found.len() == limit).then(|| found.last().map(|(last, _)| place(last)));
                let triplets = found.into_iter().map(|(triplet, record)| view(triplet, record));
                GreylistAnswer::Listing(GreylistListing {
                    triplets: triplets.collect(),
                    next: next.flatten(),
                })
            }
            GreylistRequest::Why(GreylistAttempt { ip, sender, recipient }) => {
                let sender = sender_of(&sender);
                let (triplet, seen, decision) =
                    self.greylist.look(ip, sender, &recipient, now).await?;
                let retry_in = match decision {
                    Decision::Accept(_) => None,
                    Decision::Defer(Hold::New { retry_in } | Hold::Early { retry_in }) => {
                        Some(retry_in)
                    }
                };
                GreylistAnswer::Why(GreylistWhy {
                    passes: retry_in.is_none(),
                    reason: decision.reason().into(),
                    retry_in_ms: retry_in.map(|wait| ms(wait).0),
                    observes: self.settings.load().observes,
                    triplet: seen.map(|record| view(triplet, record)),
                })
            }
            GreylistRequest::Stats => {
                let census = self.greylist.census().await?;
                let (waiting, known) = (census.waiting, census.known);
                GreylistAnswer::Stats(GreylistStats { waiting, known })
            }
            GreylistRequest::Forget(filter) => {
                let forgotten = self.greylist.forget(self.filter(filter)).await? as u64;
                info!(forgotten, "an administrator had triplets forgotten");
                GreylistAnswer::Forgotten(forgotten)
            }
            GreylistRequest::Expire => {
                GreylistAnswer::Forgotten(self.greylist.expire(now).await? as u64)
            }
        })
    }

    fn filter(&self, filter: GreylistFilter) -> Filter {
        let GreylistFilter { ip, sender, recipient } = filter;
        Filter {
            network: ip.map(|ip| self.greylist.network(ip)),
            sender: sender.map(|sender| sender_of(&sender).to_lowercase()),
            recipient: recipient.map(|recipient| recipient.to_lowercase()),
        }
    }
}

/// The null sender is empty, however it is written.
fn sender_of(text: &str) -> &str {
    if text == "<>" { "" } else { text }
}

/// Where a page ends: no part of a triplet has a line end.
fn place(last: &Triplet) -> String {
    let Triplet { network, sender, recipient } = last;
    format!("{network}\n{sender}\n{recipient}")
}

fn triplet_at(place: &str) -> Triplet {
    let mut parts = place.splitn(3, '\n').map(str::to_owned);
    let mut part = || parts.next().unwrap_or_default();
    Triplet { network: part(), sender: part(), recipient: part() }
}

fn view(triplet: Triplet, record: Record) -> TripletView {
    let Triplet { network, sender, recipient } = triplet;
    TripletView {
        network,
        sender,
        recipient,
        passes_from: ms(record.block_expires),
        expires: ms(record.record_expires),
        deferred: record.blocked_count,
        passed: record.passed_count,
    }
}

fn ms(time: Duration) -> Timestamp {
    Timestamp(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}
