//! Lists in the DNS: whether each answers, and as a list does (RFC 5782 §5).

use std::net::Ipv4Addr;

use futures_util::future::join_all;
use lamppost_config::WhenListsFail;
use lamppost_dns::list::{self, ALWAYS_LISTED, Meaning, NEVER_LISTED, Test};
use lamppost_dns::{LookupError, NameServers, Resolver};
use tokio::time::timeout;

use super::{Finding, PATIENCE};
use crate::place::Opened;

const AREA: &str = "dns lists";

/// Asks each list about its test entries, all at once.
pub(super) async fn look(opened: &Opened) -> Vec<Finding> {
    let mail = &opened.config.mail;
    if mail.dns_list.is_empty() {
        return Vec::new();
    }
    let resolver = match crate::run::name_servers(&opened.config) {
        Ok(resolver) => resolver,
        Err(error) => {
            let cure = "name others in `servers` of [dns]";
            let what = format!("the name servers cannot be asked: {error}");
            return vec![Finding::fail(AREA, what, cure)];
        }
    };
    let defers = mail.dns_lists.when_lists_fail == WhenListsFail::Defer;
    let asked = mail.dns_list.iter().map(|list| async {
        let zone = &list.zone;
        let asked = async {
            tokio::join!(of(&resolver, zone, NEVER_LISTED), of(&resolver, zone, ALWAYS_LISTED))
        };
        let (never, always) = timeout(PATIENCE, asked)
            .await
            .unwrap_or((Err(LookupError::Silent), Err(LookupError::Silent)));
        finding(zone, never, always, defers)
    });
    join_all(asked).await
}

/// What a list answers for an entry.
async fn of(
    resolver: &NameServers,
    zone: &str,
    entry: Ipv4Addr,
) -> Result<Vec<Ipv4Addr>, LookupError> {
    resolver.addresses(&list::name(entry.into(), zone)).await
}

type Answers = Result<Vec<Ipv4Addr>, LookupError>;

/// How it stands with a list that answers so. `defers` says that mail waits for lists that fail.
fn finding(zone: &str, never: Answers, always: Answers, defers: bool) -> Finding {
    let own = "let a name server of this machine ask, as unbound on 127.0.0.1, and name it in \
               `servers` of [dns]; many lists answer no public one";
    let said = always.as_deref().map(|answers| list::meaning(answers, &[]));
    if let Ok(Meaning::Wrong(reason)) = said {
        let what = format!("{zone} is not asked by the service: {reason}");
        return Finding::fail(AREA, what, format!("{own}, or remove the list if it is no more"));
    }
    match Test::of(never, always) {
        Test::Passed => {
            Finding::ok(AREA, format!("{zone} holds 127.0.0.2, and not 127.0.0.1, as it must"))
        }
        Test::Empty => {
            let what = format!("{zone} does not hold its test entry 127.0.0.2");
            let cure = format!("look whether it is still kept, and whether it wants a key; {own}");
            Finding::warn(AREA, what, cure)
        }
        Test::ListsAll => {
            let what =
                format!("{zone} lists everybody, also 127.0.0.1: the service does not ask it");
            let cure = "remove the list, which may be no more, or a name server that answers for names \
                        that there are not";
            Finding::fail(AREA, what, cure)
        }
        Test::Unknown(error) => {
            let cure = "look at the network, at `servers` of [dns] or /etc/resolv.conf, and at the \
                        zone's name; `--no-dns` leaves it out";
            let happens = if defers { "mail is deferred for that" } else { "it refuses nobody" };
            let finding =
                Finding::fail(AREA, format!("{zone} does not answer, so {happens}: {error}"), cure);
            if defers { finding } else { finding.milder() }
        }
    }
}
