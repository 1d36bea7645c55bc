//! How many clients a domain lets send.
//!
//! Whoever comes from anywhere among them counts as the same sender, so they must be known and few: a domain that
//! lets everybody send would have all the spam of the world wait but once.

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use lamppost_dns::Resolver;

use super::SpfResult;
use super::network::{Network, addresses};
use super::record::Mechanism;
use super::spec::Spec;
use super::subject::Subject;
use super::walk::{Stop, Walk};

/// Addresses of IPv4 that a domain may let send: a /16.
const IPV4_MAX: u128 = 1 << 16;
/// Addresses of IPv6 that a domain may let send: a /32, of which a registry gives one to a provider.
const IPV6_MAX: u128 = 1 << 96;

/// Nobody knows how many they are, or they are all.
struct Boundless;

/// Whether the clients of the subject's family that its domain lets send are known and few. Whatever depends on the
/// client, as many macros do, or on its name, is not known.
pub(crate) async fn is_narrow(resolver: &dyn Resolver, subject: &Subject) -> bool {
    let mut walk = Walk::new(resolver, subject);
    let mut networks = Vec::new();
    if walk.gather(subject.domain.clone(), &mut networks).await.is_err() {
        return false;
    }
    let is_v4 = subject.ip.is_ipv4();
    addresses(&networks, is_v4) <= if is_v4 { IPV4_MAX } else { IPV6_MAX }
}

impl From<Stop> for Boundless {
    fn from(_: Stop) -> Self {
        Self
    }
}

impl Walk<'_> {
    /// Gathers the networks that a domain lets send.
    fn gather<'w>(
        &'w mut self,
        domain: String,
        networks: &'w mut Vec<Network>,
    ) -> BoxFuture<'w, Result<(), Boundless>> {
        async move {
            let record = self.record(&domain).await?.ok_or(Boundless)?;
            for directive in &record.directives {
                let is_pass = directive.result == SpfResult::Pass;
                match &directive.mechanism {
                    Mechanism::All if is_pass => return Err(Boundless),
                    // Nothing behind it counts.
                    Mechanism::All => return Ok(()),
                    _ if !is_pass => {}
                    Mechanism::Network(network) => networks.push(*network),
                    Mechanism::Hosts(hosts) => {
                        if hosts.name.as_ref().is_some_and(Spec::is_changing) {
                            return Err(Boundless);
                        }
                        networks.extend(self.hosts(hosts, &domain).await?);
                    }
                    Mechanism::Include(spec) => self.gather_from(spec, &domain, networks).await?,
                    Mechanism::Exists(_) | Mechanism::Ptr(_) => return Err(Boundless),
                }
            }
            match &record.redirect {
                Some(redirect) => self.gather_from(redirect, &domain, networks).await,
                None => Ok(()),
            }
        }
        .boxed()
    }

    async fn gather_from(
        &mut self,
        spec: &Spec,
        domain: &str,
        networks: &mut Vec<Network>,
    ) -> Result<(), Boundless> {
        if spec.is_changing() {
            return Err(Boundless);
        }
        self.spend()?;
        let target = self.expand(spec, domain).await;
        self.gather(target, networks).await
    }
}
