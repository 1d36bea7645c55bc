//! The greylist as administrators see and change it.

use std::time::Duration;

use lamppost_evidence::{Evidence, ReverseName};
use lamppost_greylist::import::{Remembered, Taken};
use lamppost_greylist::{
    Attempt, Census, Filter, NEVER, Record, Ruling, StoreError, Triplet, Whom, Wildcard,
};
use lamppost_net::link::Inbox;
use lamppost_roles::{
    EvidenceView, GreylistAnswer, GreylistAttempt, GreylistFilter, GreylistImported,
    GreylistListing, GreylistMemory, GreylistRequest, GreylistStats, GreylistWhy, ManualRow,
    ManualWhom, Timestamp, TripletView,
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
            GreylistRequest::Why(GreylistAttempt { ip, sender, recipient, helo }) => {
                let attempt = Attempt {
                    peer: ip,
                    helo: &helo,
                    sender: sender_of(&sender),
                    recipient: &recipient,
                    although_off: false,
                };
                let ruling = self.greylist.look(&attempt, Some(self), now).await?;
                GreylistAnswer::Why(Box::new(self.why(ruling)))
            }
            GreylistRequest::Stats => GreylistAnswer::Stats(self.stats().await?),
            GreylistRequest::Forget(filter) => {
                let forgotten = self.greylist.forget(self.filter(filter)).await? as u64;
                info!(forgotten, "an administrator had triplets forgotten");
                GreylistAnswer::Forgotten(forgotten)
            }
            GreylistRequest::Import(rows) => {
                let rows = rows.into_iter().map(remembered).collect();
                let Taken { taken, unchanged, left_out } =
                    self.greylist.take_over(rows, now).await?;
                info!(
                    taken,
                    unchanged,
                    left_out,
                    "an administrator had another greylist's memory taken over"
                );
                GreylistAnswer::Imported(GreylistImported { taken, unchanged, left_out })
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

    async fn stats(&self) -> Result<GreylistStats, StoreError> {
        let counted = self.greylist.census().await;
        let condition = self.greylist.condition();
        let census = match counted {
            Err(_) if condition.away.is_some() => Census::default(),
            counted => counted?,
        };
        Ok(GreylistStats {
            waiting: census.waiting,
            known: census.known,
            journalled: condition.journalled as u64,
            lost: condition.lost,
            away: condition.away,
        })
    }

    fn why(&self, ruling: Ruling) -> GreylistWhy {
        let retry_in = ruling.decision.retry_in();
        let Evidence { spf, name, is_dynamic, is_listed } = ruling.evidence;
        GreylistWhy {
            passes: retry_in.is_none(),
            reason: ruling.decision.reason().into(),
            retry_in_ms: retry_in.map(|wait| ms(wait).0),
            observes: self.settings.load().observes,
            held_until_data: ruling.is_held,
            rule: ruling.rule.name().into(),
            delay_ms: ms(ruling.delay).0,
            networks: ruling.networks,
            evidence: EvidenceView {
                spf: spf.result.name().into(),
                spf_domain: spf.domain,
                name: match name {
                    ReverseName::Confirmed(name) => Some(name.name),
                    ReverseName::Unconfirmed | ReverseName::Unknown => None,
                },
                dynamic: is_dynamic,
                listed: is_listed,
            },
            triplet: ruling.record.map(|(triplet, record)| view(triplet, record)),
        }
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

fn remembered(row: GreylistMemory) -> Remembered {
    let GreylistMemory { client, sender, recipient, first, last, passed } = row;
    let [first, last] = [first, last].map(|time| Duration::from_millis(time.0));
    let sender = sender.map(|sender| sender_of(&sender).to_owned());
    Remembered { client, sender, recipient, first, last, passed }
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
