//! Whether a client may connect, and what is so for its session: policy knows.

use std::net::IpAddr;
use std::sync::Arc;

use lamppost_roles::{Admission, PolicyAnswer, PolicyRequest};
use lamppost_smtp::{BareNewline, Kind, Link, Session};
use tracing::{info, warn};

use super::{Front, Ground, ListenerSettings, TlsMode};

/// Why a connection does not become a session.
pub(super) enum NotAdmitted {
    /// The rules say so.
    Denied,
    /// It cannot be told now.
    Unknown,
}

impl Front {
    /// Whether a client may connect to a listener of this kind: policy is asked where it has anything to
    /// decide by.
    pub(super) async fn admission(
        &self,
        peer: IpAddr,
        kind: Kind,
    ) -> Result<Admission, NotAdmitted> {
        let counts = |ground: &Ground| ground.counts_on(kind);
        if !self.settings.grounds.iter().any(counts) {
            return Ok(Admission::default());
        }
        let lists = Ground::Lists.counts_on(kind);
        match self.ends.policy.ask(PolicyRequest::Connection { peer, lists }).await {
            Ok(PolicyAnswer::Admitted(admission)) => Ok(match kind {
                Kind::Mx => admission,
                // Who hands in mail here says who it is, and has no need to be known by its address.
                Kind::Submission => Admission {
                    message_size_max: admission.message_size_max,
                    host: admission.host,
                    ..Admission::default()
                },
            }),
            Ok(PolicyAnswer::Denied { rule }) => {
                info!(%peer, rule, reason = "denied by a rule", "connection refused");
                self.metrics.connections_denied.inc();
                Err(NotAdmitted::Denied)
            }
            _ => {
                warn!(%peer, reason = "policy cannot tell whether it may connect", "connection refused");
                Err(NotAdmitted::Unknown)
            }
        }
    }
}

/// A session of a client on a listener.
pub(super) fn session(
    settings: &ListenerSettings,
    peer: IpAddr,
    admission: Option<&Admission>,
) -> Session {
    let link = Link {
        tls: settings.tls == TlsMode::Implicit,
        bare_newline: if settings.fix_for.iter().any(|network| network.contains(peer)) {
            BareNewline::Fix
        } else {
            BareNewline::Refuse
        },
    };
    let mut smtp = settings.smtp.clone();
    if let Some(max) = admission.and_then(|admission| admission.message_size_max) {
        Arc::make_mut(&mut smtp).limits.message_size_max = max;
    }
    Session::new(smtp, link)
}
