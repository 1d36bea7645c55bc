//! Messages for elsewhere, to the one host that takes them all (docs/concepts/relay.md).

mod connection;
mod content;
mod open;
mod pool;
mod settings;

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use lamppost_net::link::Port;
use lamppost_roles::{ContentAnswer, ContentRequest, Outcome, Reason, RelayJob};
use lamppost_smtp::{Complaint, Outgoing, Speaker, Status, Verdict};
use lamppost_telemetry::Metrics;
use tracing::{info, warn};

use self::connection::{Connection, Sent};
use self::content::{Reader, measure};
use self::pool::{Pool, Turn};
use crate::trace;

pub use self::settings::{RelaySettings, RelayTls};

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
        let mut errand = Errand { turn: pool.turn().await, content, connection: None };
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
struct Errand {
    turn: Turn,
    content: Port<ContentRequest, ContentAnswer>,
    connection: Option<Connection>,
}

impl Errand {
    /// Hands one message over; an error when there is no connection to do it by.
    async fn send(&mut self, job: &RelayJob) -> Result<Vec<Verdict>, Complaint> {
        let lines = trace::relay_lines(job);
        let measured = match measure(&lines, job, &self.content).await {
            Ok(measured) => measured,
            Err(reason) => return Ok(unreadable(job, &reason)),
        };
        loop {
            let mut reader = Reader::new(job, &self.content);
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
                None => open::open(self.turn.settings()).await?,
            };
            match connection.send(outgoing, lines.as_bytes(), &mut reader).await {
                Sent::Decided(verdicts) => {
                    log(job, &verdicts, connection.peer());
                    self.connection = Some(connection).filter(Connection::is_ready);
                    return Ok(verdicts);
                }
                // The host may end a connection that waited; a fresh one carries the message.
                Sent::Unnoticed(_) if is_kept => {}
                Sent::Unnoticed(complaint) => return Err(complaint),
            }
        }
    }

    /// Keeps the connection for the next request.
    fn finish(self) {
        if let Some(connection) = self.connection {
            self.turn.keep(connection);
        }
    }

    fn outcomes(&self, verdicts: Vec<Verdict>) -> impl Iterator<Item = Outcome> {
        let host = &self.turn.settings().host;
        verdicts.into_iter().map(|verdict| match verdict {
            Verdict::Taken(_) => Outcome::Done,
            Verdict::Deferred(complaint) => Outcome::Deferred(reason(complaint, host)),
            Verdict::Refused(complaint) => Outcome::Failed(reason(complaint, host)),
        })
    }
}

fn reason(Complaint { status, text, by }: Complaint, host: &str) -> Reason {
    let remote = match by {
        Speaker::Host => Some(host.to_owned()),
        Speaker::Client => None,
    };
    Reason { status, text, remote }
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

/// Tells what the host said to a message that it took: its own name of the message is in there.
fn log(job: &RelayJob, verdicts: &[Verdict], peer: &str) {
    let taken = verdicts.iter().find_map(|verdict| match verdict {
        Verdict::Taken(text) => Some(text),
        _ => None,
    });
    if let Some(reason) = taken {
        info!(queue_id = %job.id, session = job.origin.session, from = %job.sender, peer, reason, "message relayed");
    }
}
