//! Messages for elsewhere, to the one host that takes them all (docs/concepts/relay.md).

mod connection;
mod content;
mod open;
mod pool;
mod settings;
mod standing;

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use lamppost_net::link::Port;
use lamppost_roles::{ContentAnswer, ContentRequest, Outcome, Reason, RelayJob};
use lamppost_smtp::{Complaint, Outgoing, Speaker, Status, Verdict};
use lamppost_telemetry::Metrics;
use tokio::time::Instant;
use tracing::{info, warn};

use self::connection::{Connection, Sent};
use self::content::{Reader, measure};
use self::pool::{Pool, Turn};
use crate::trace;

pub use self::settings::{RelaySettings, RelayTls};
pub use self::standing::{RelayFault, RelayReach, RelayStanding};

/// The way to the host that takes mail for elsewhere; it may change while the program runs.
#[derive(Clone, Debug, Default)]
pub struct Relay {
    pool: Arc<ArcSwapOption<Pool>>,
}

impl Relay {
    /// Sends mail to another host, or nowhere, from the next request on.
    pub fn set(&self, settings: Option<RelaySettings>) {
        self.pool.store(settings.map(Pool::new));
    }

    /// How it stands with the host; nothing when there is none.
    pub fn standing(&self) -> Option<RelayStanding> {
        let pool = self.pool.load_full()?;
        Some(pool.standing.told(pool.settings().name()))
    }

    /// Hands messages over; an outcome for each recipient of each message, in order.
    pub(crate) async fn deliver(
        &self,
        jobs: Vec<RelayJob>,
        content: Port<ContentRequest, ContentAnswer>,
        metrics: &Metrics,
    ) -> Vec<Outcome> {
        let Some(pool) = self.pool.load_full() else {
            let reason = Reason::own(Status::NO_ROUTE, "no way out is configured (relay-to)");
            let recipients = jobs.iter().flat_map(|job| &job.recipients);
            return recipients.map(|_| Outcome::Deferred(reason.clone())).collect();
        };
        let turn = pool.turn().await;
        let mut errand = Errand { turn, content, connection: None, metrics };
        let mut outcomes = Vec::new();
        let mut jobs = jobs.into_iter();
        while let Some(job) = jobs.next() {
            match errand.send(&job).await {
                Ok(verdicts) => outcomes.extend(errand.outcomes(verdicts)),
                // Where no connection is to be had, none of the others fares better.
                Err(complaint) => {
                    let left = std::iter::once(job).chain(jobs.by_ref());
                    let left = left.map(|job| job.recipients.len()).sum();
                    outcomes.extend(errand.outcomes(vec![Verdict::Deferred(complaint); left]));
                }
            }
        }
        errand.finish();
        for outcome in &outcomes {
            metrics.delivery(match outcome {
                Outcome::Done => "relayed",
                Outcome::Deferred(_) => "deferred",
                Outcome::Failed(_) => "failed",
            });
        }
        outcomes
    }
}

/// The messages of one request on their way, one after the other over one connection.
struct Errand<'a> {
    turn: Turn,
    content: Port<ContentRequest, ContentAnswer>,
    connection: Option<Connection>,
    metrics: &'a Metrics,
}

impl Errand<'_> {
    /// Hands one message over; an error when there is no connection to do it by.
    async fn send(&mut self, job: &RelayJob) -> Result<Vec<Verdict>, Complaint> {
        let lines = trace::relay_lines(job);
        let measured = match measure(&lines, job, &self.content).await {
            Ok(measured) => measured,
            Err(reason) => return Ok(unreadable(job, &reason)),
        };
        loop {
            let outgoing = Outgoing {
                sender: job.sender.clone(),
                recipients: job.recipients.clone(),
                size: measured.size(),
                header: measured.header(),
            };
            let kept = self.connection.take().or_else(|| self.turn.kept());
            let is_kept = kept.is_some();
            let mut connection = match kept {
                Some(connection) => connection,
                None => self.open().await?,
            };
            let mut reader = Reader::new(job, &self.content);
            match connection.send(outgoing, lines.as_bytes(), &mut reader).await {
                Sent::Decided(verdicts) => {
                    self.log(job, &verdicts, connection.peer());
                    self.connection = Some(connection).filter(Connection::is_ready);
                    if self.connection.is_none() {
                        self.ended(&verdicts);
                    }
                    return Ok(verdicts);
                }
                // The host may end a connection that waited; a fresh one carries the message.
                Sent::Unnoticed(_) if is_kept => {}
                Sent::Unnoticed(complaint) => {
                    self.down(&complaint);
                    return Err(complaint);
                }
            }
        }
    }

    /// A fresh connection.
    async fn open(&mut self) -> Result<Connection, Complaint> {
        let begun = Instant::now();
        let opened = open::open(self.turn.settings()).await;
        match opened {
            Ok(mut connection) => {
                self.turn.standing().reached(begun);
                self.metrics.relay_up.set(1);
                let open = self.metrics.relay_connections_open.clone();
                connection.counted(self.turn.standing().presence(open));
                Ok(connection)
            }
            Err(complaint) => {
                self.down(&complaint);
                Err(complaint)
            }
        }
    }

    fn down(&self, complaint: &Complaint) {
        self.metrics.relay_up.set(0);
        let reason = reason(complaint.clone(), &self.turn.settings().name());
        self.turn.standing().lost(reason.to_string());
    }

    /// The host ended the connection in the middle of a message, of whose recipients some wait.
    fn ended(&self, verdicts: &[Verdict]) {
        let why = verdicts.iter().find_map(|verdict| match verdict {
            Verdict::Deferred(complaint) => Some(complaint.clone()),
            _ => None,
        });
        if let Some(complaint) = why {
            let reason = reason(complaint, &self.turn.settings().name());
            self.turn.standing().complained(reason.to_string());
        }
    }

    /// Keeps the connection for the next request.
    fn finish(self) {
        if let Some(connection) = self.connection {
            self.turn.keep(connection);
        }
    }

    fn outcomes(&self, verdicts: Vec<Verdict>) -> impl Iterator<Item = Outcome> {
        let relay = self.turn.settings().name();
        verdicts.into_iter().map(move |verdict| match verdict {
            Verdict::Taken(_) => Outcome::Done,
            Verdict::Deferred(complaint) => Outcome::Deferred(reason(complaint, &relay)),
            Verdict::Refused(complaint) => Outcome::Failed(reason(complaint, &relay)),
        })
    }

    /// Tells what the host said to a message that it took: its own name of the message is in there.
    fn log(&self, job: &RelayJob, verdicts: &[Verdict], peer: &str) {
        let taken = verdicts.iter().find_map(|verdict| match verdict {
            Verdict::Taken(text) => Some(text),
            _ => None,
        });
        if let Some(reason) = taken {
            let relay = self.turn.settings().name();
            info!(queue_id = %job.id, session = job.origin.session, from = %job.sender, relay, peer, reason, "message relayed");
        }
    }
}

/// The relay is named in each reason, but where it has no part in it.
fn reason(Complaint { status, text, by }: Complaint, relay: &str) -> Reason {
    match by {
        Speaker::Host => Reason { status, text, remote: Some(relay.to_owned()) },
        Speaker::Client if status == Status::SYSTEM || text.contains(relay) => {
            Reason::own(status, text)
        }
        Speaker::Client => Reason::own(status, format!("relay {relay}: {text}")),
    }
}

fn unreadable(job: &RelayJob, reason: &str) -> Vec<Verdict> {
    warn!(queue_id = %job.id, reason, "message cannot be read");
    let complaint = Complaint {
        status: Status::SYSTEM,
        text: format!("the message cannot be read: {reason}"),
        by: Speaker::Client,
    };
    vec![Verdict::Deferred(complaint); job.recipients.len()]
}
