//! The greylist as administrators see and change it.

use std::time::Duration;

use lamppost_greylist::{
    Census, Decision, Filter, Hold, NEVER, Record, StoreError, Triplet, Whom, Wildcard,
};
use lamppost_net::link::Inbox;
use lamppost_roles::{
    GreylistAnswer, GreylistAttempt, GreylistFilter, GreylistListing, GreylistRequest,
    GreylistStats, GreylistWhy, ManualRow, ManualWhom, Timestamp, TripletView,
};
use tracing::info;

use super::{Policy, chain};

/// Longer than anybody means by a date.
const LIFETIME: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);
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
                let found = self.greylist.list(self.filter(filter), after, limit).await?;
                let rows = found.triplets.into_iter();
                let triplets = rows.map(|(triplet, record)| view(triplet, record)).collect();
                GreylistAnswer::Listing(GreylistListing { triplets, next: found.next })
            }
            GreylistRequest::Why(GreylistAttempt { ip, sender, recipient }) => {
                let sender = sender_of(&sender);
                let (triplet, seen, decision) =
                    self.greylist.look(ip, sender, &recipient, now).await?;
                let retry_in = match decision {
                    Decision::Accept(_) => None,
                    Decision::Defer(
                        Hold::New { retry_in }
                        | Hold::Early { retry_in }
                        | Hold::Blocked { retry_in },
                    ) => Some(retry_in),
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
                let counted = self.greylist.census().await;
                let condition = self.greylist.condition();
                let census = match counted {
                    Err(_) if condition.away.is_some() => Census::default(),
                    counted => counted?,
                };
                GreylistAnswer::Stats(GreylistStats {
                    waiting: census.waiting,
                    known: census.known,
                    journalled: condition.journalled as u64,
                    lost: condition.lost,
                    away: condition.away,
                })
            }
            GreylistRequest::Forget(filter) => {
                let forgotten = self.greylist.forget(self.filter(filter)).await? as u64;
                info!(forgotten, "an administrator had triplets forgotten");
                GreylistAnswer::Forgotten(forgotten)
            }
            GreylistRequest::Expire => {
                GreylistAnswer::Forgotten(self.greylist.expire(now).await? as u64)
            }
            GreylistRequest::Manual => self.manual(now).await?,
            GreylistRequest::WriteManual(rows) => {
                info!(rows = rows.len(), "an administrator wrote manual rows");
                let wildcards = rows.into_iter().map(wildcard).collect();
                self.greylist.write_wildcards(wildcards, now).await?;
                self.manual(now).await?
            }
            GreylistRequest::ForgetManual(whom) => {
                let whom = whom.into_iter().map(whom_of).collect();
                let forgotten = self.greylist.forget_wildcards(whom, now).await? as u64;
                info!(forgotten, "an administrator had manual rows forgotten");
                GreylistAnswer::Forgotten(forgotten)
            }
        })
    }

    async fn manual(&self, now: Duration) -> Result<GreylistAnswer, StoreError> {
        let wildcards = self.greylist.wildcards(now).await?;
        Ok(GreylistAnswer::Manual(wildcards.into_iter().map(|one| manual_row(one, now)).collect()))
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

fn manual_row(wildcard: Wildcard, now: Duration) -> ManualRow {
    let Wildcard { whom, block_expires, record_expires } = wildcard;
    // Dates that stand for "never" come from the database's clock.
    let until = Some(record_expires).filter(|&until| until < now + LIFETIME);
    ManualRow {
        whom: match whom {
            Whom::Relay(text) => ManualWhom::Relay(text),
            Whom::Recipient(text) => ManualWhom::Recipient(text),
        },
        allows: block_expires < now,
        until: until.map(ms),
    }
}

fn wildcard(row: ManualRow) -> Wildcard {
    let until = row.until.map_or(NEVER, |Timestamp(ms)| Duration::from_millis(ms));
    let whom = whom_of(row.whom);
    if row.allows { Wildcard::allow(whom, until) } else { Wildcard::block(whom, until) }
}

fn whom_of(whom: ManualWhom) -> Whom {
    match whom {
        ManualWhom::Relay(text) => Whom::Relay(text),
        ManualWhom::Recipient(text) => Whom::Recipient(text),
    }
}

fn ms(time: Duration) -> Timestamp {
    Timestamp(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}
