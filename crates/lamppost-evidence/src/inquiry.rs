//! Evidence from name servers: all lookups at once, within one deadline, and kept for a while.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use lamppost_dns::Resolver;
use parking_lot::Mutex;
use tokio::time::{Instant, timeout_at};

use crate::spf::{self, Subject};
use crate::{Client, Evidence, Investigator, Spf, SpfResult, confirmed_names};

/// How long an inquiry may take, and what is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How long all lookups about a client may take together; what is not known then is unknown.
    pub deadline: Duration,
    /// How long what was found is kept, so that one more recipient waits for nothing. Name servers are asked
    /// again after that, or what they said before, as long as it holds.
    pub kept_for: Duration,
    /// Clients of whom something is kept at once.
    pub kept_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            deadline: Duration::from_secs(2),
            kept_for: Duration::from_secs(60),
            kept_max: 10_000,
        }
    }
}

/// Who asks name servers about clients.
#[derive(Default)]
pub struct DnsInvestigator {
    asked: ArcSwapOption<Asked>,
    kept: Mutex<Kept>,
}

/// Whom to ask, and for how long.
struct Asked {
    resolver: Arc<dyn Resolver>,
    limits: Limits,
}

/// A client with the sender of its mail, of whatever length.
type Key = (IpAddr, Box<str>, Box<str>);

/// What was found lately, in two halves: when the newer one is full, the older one is let go.
#[derive(Default)]
struct Kept {
    newer: HashMap<Key, (Instant, Evidence)>,
    older: HashMap<Key, (Instant, Evidence)>,
}

impl DnsInvestigator {
    /// Asks by this resolver from the next client on.
    pub fn set(&self, resolver: Arc<dyn Resolver>, limits: Limits) {
        self.asked.store(Some(Arc::new(Asked { resolver, limits })));
    }

    /// Asks nobody any more: of every client it is unknown what there is to know.
    pub fn stop(&self) {
        self.asked.store(None);
    }
}

impl Asked {
    async fn inquire(&self, client: Client<'_>) -> Evidence {
        let deadline = Instant::now() + self.limits.deadline;
        let named = timeout_at(deadline, confirmed_names(&*self.resolver, client.ip));
        let (spf, named) = tokio::join!(self.spf(client, deadline), named);
        let names = named.ok().and_then(Result::ok);
        Evidence::of(client.ip, spf, names.as_deref())
    }

    async fn spf(&self, client: Client<'_>, deadline: Instant) -> Spf {
        let Some(subject) = Subject::of(client) else {
            return Spf { result: SpfResult::None, ..Spf::default() };
        };
        let resolver = &*self.resolver;
        let result = timeout_at(deadline, spf::check(resolver, &subject)).await;
        let result = result.unwrap_or(SpfResult::TempError);
        let is_narrow = result == SpfResult::Pass
            && timeout_at(deadline, spf::is_narrow(resolver, &subject)).await.unwrap_or(false);
        Spf { result, domain: subject.domain, is_narrow }
    }
}

impl Investigator for DnsInvestigator {
    fn investigate<'a>(&'a self, client: Client<'a>) -> BoxFuture<'a, Evidence> {
        async move {
            // The DNS tells nothing of this machine's own addresses.
            let asked = self.asked.load_full();
            let Some(asked) = asked.filter(|_| !client.ip.to_canonical().is_loopback()) else {
                return Evidence::default();
            };
            let Limits { kept_for, kept_max, .. } = asked.limits;
            let key = (client.ip, client.helo.into(), client.sender.into());
            let now = Instant::now();
            if let Some(evidence) = self.kept.lock().find(&key, now, kept_for) {
                return evidence;
            }
            let evidence = asked.inquire(client).await;
            self.kept.lock().keep(key, (now, evidence.clone()), kept_max);
            evidence
        }
        .boxed()
    }
}

impl Kept {
    fn find(&self, key: &Key, now: Instant, kept_for: Duration) -> Option<Evidence> {
        let (since, evidence) = self.newer.get(key).or_else(|| self.older.get(key))?;
        (now.duration_since(*since) < kept_for).then(|| evidence.clone())
    }

    fn keep(&mut self, key: Key, found: (Instant, Evidence), max: usize) {
        if self.newer.len() >= max / 2 {
            self.older = std::mem::take(&mut self.newer);
        }
        self.newer.insert(key, found);
    }
}
