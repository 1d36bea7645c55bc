//! What the greylist says of an attempt, and what that means by the settings in force.

use std::net::IpAddr;

use lamppost_greylist::{Decision, Hold, Passed, Why};
use lamppost_roles::Verdict;
use tracing::{debug, error, info};

use super::{Policy, PolicySettings, StoreFailure, chain};

/// An attempt to send.
pub(super) struct Attempt<'a> {
    pub(super) peer: IpAddr,
    /// Sender and recipient; the null sender is empty.
    pub(super) addresses: (&'a str, &'a str),
    /// Whether the client is one of those who wait though others need not.
    pub(super) although_off: bool,
}

impl Policy {
    /// Decides an attempt by its sender and recipient; each decision is told in the log and counted.
    pub(super) async fn greylisted(
        &self,
        attempt: Attempt<'_>,
        settings: &PolicySettings,
    ) -> Verdict {
        let Attempt { peer, addresses: (from, to), although_off } = attempt;
        let (greylist, now) = (&self.greylist, self.clock.now());
        let checked = if although_off {
            greylist.check_although_off(peer, from, to, now).await
        } else {
            greylist.check(peer, from, to, now).await
        };
        let decision = match checked {
            Ok(decision) => decision,
            Err(error) => {
                error!(%peer, to, reason = %chain(&error), "the greylist could not be asked");
                self.metrics.greylist_decision("unavailable");
                return match settings.when_store_fails {
                    StoreFailure::Accept => Verdict::Pass { waited: None },
                    StoreFailure::Defer => Verdict::Unavailable,
                };
            }
        };
        let reason = decision.reason();
        self.metrics.greylist_decision(reason);
        if settings.logs_to_store && matches!(decision, Decision::Accept(_)) {
            self.greylist.log(Passed {
                peer,
                name: None,
                is_mismatch: false,
                sender: from.to_owned(),
                recipient: to.to_owned(),
            });
        }
        match decision {
            Decision::Accept(Why::Waited { since_first }) => {
                let waited_s = since_first.as_secs();
                info!(%peer, from, to, reason, waited_s, "greylist passes");
                Verdict::Pass { waited: Some(since_first) }
            }
            // Most mail is from those who are known.
            Decision::Accept(_) => {
                debug!(%peer, from, to, reason, "greylist passes");
                Verdict::Pass { waited: None }
            }
            Decision::Defer(
                Hold::New { retry_in } | Hold::Early { retry_in } | Hold::Blocked { retry_in },
            ) => {
                let retry_in_s = retry_in.as_millis().div_ceil(1000);
                if settings.observes {
                    info!(%peer, from, to, reason, retry_in_s, "greylist would defer");
                    return Verdict::Pass { waited: None };
                }
                info!(%peer, from, to, reason, retry_in_s, "greylist defers");
                Verdict::Wait { reason: reason.to_owned(), retry_in }
            }
        }
    }
}
