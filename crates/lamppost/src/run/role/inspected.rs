//! What a role tells control of itself: while it works, and once more when another has taken its place.

use lamppost_console::Blocked;
use lamppost_net::link::Inbox;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::{ORPHANS_GRACE, Start};
use crate::exit::{Code, Failure};
use crate::run::orders::{Condition, Inspect, Inspected};

/// What a role counted that another has taken the place of: control asks for it before it ends.
#[derive(Clone, Default)]
pub(super) struct Legacy {
    /// Nothing is counted any more.
    is_final: CancellationToken,
    /// Nobody asks any more.
    is_known: CancellationToken,
}

impl Legacy {
    /// Lets control know what was counted, unless that hangs.
    pub(super) async fn hand_over(&self) {
        self.is_final.cancel();
        drop(timeout(ORPHANS_GRACE, self.is_known.cancelled()).await);
    }
}

impl Start {
    /// Answers the control role's questions about this one; `more` adds what only the role knows.
    pub(super) fn inspected(
        &mut self,
        more: impl Fn(Condition) -> Condition + Send + 'static,
    ) -> Result<(), Failure> {
        let inbox = self.links.inbox("inspect");
        let mut inbox: Inbox<Inspect, Inspected> =
            inbox.map_err(|error| Failure::of(Code::Software, &error))?;
        let (metrics, force, legacy) =
            (self.metrics.clone(), self.force.clone(), self.legacy.clone());
        tokio::spawn(async move {
            while let Some((question, reply)) = inbox.next().await {
                let answer = match question {
                    Inspect::LastMetrics => {
                        let (metrics, is_final) = (metrics.clone(), legacy.is_final.clone());
                        tokio::spawn(async move {
                            is_final.cancelled().await;
                            reply.send(Inspected::Metrics(metrics.encode()));
                        });
                        continue;
                    }
                    Inspect::Metrics => Inspected::Metrics(metrics.encode()),
                    Inspect::Condition => Inspected::Condition(more(Condition {
                        pid: std::process::id(),
                        sessions: metrics.smtp_sessions_open.get(),
                        health: Vec::new(),
                        relay: None,
                        blocked: Blocked::default(),
                        force: force.clone(),
                        owners: Vec::new(),
                    })),
                };
                reply.send(answer);
            }
            legacy.is_known.cancel();
        });
        Ok(())
    }
}
