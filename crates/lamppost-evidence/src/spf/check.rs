//! Whether a domain lets a client send (`check_host()` of RFC 7208 §4).

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use lamppost_dns::Resolver;

use super::SpfResult;
use super::record::{Mechanism, Record};
use super::subject::Subject;
use super::walk::{Stop, Walk};

/// What SPF says of a client.
pub(crate) async fn check(resolver: &dyn Resolver, subject: &Subject) -> SpfResult {
    let mut walk = Walk::new(resolver, subject);
    match walk.result(subject.domain.clone()).await {
        Ok(result) => result,
        Err(Stop::Permanent) => SpfResult::PermError,
        Err(Stop::Temporary) => SpfResult::TempError,
    }
}

impl Walk<'_> {
    /// What a domain says of the client; it may be one that another leads to.
    fn result(&mut self, domain: String) -> BoxFuture<'_, Result<SpfResult, Stop>> {
        async move {
            let Some(Record { directives, redirect }) = self.record(&domain).await? else {
                return Ok(SpfResult::None);
            };
            for directive in &directives {
                if self.matches(&directive.mechanism, &domain).await? {
                    return Ok(directive.result);
                }
            }
            let Some(redirect) = redirect else { return Ok(SpfResult::Neutral) };
            self.spend()?;
            let target = self.expand(&redirect, &domain).await;
            self.led_to(target).await
        }
        .boxed()
    }

    async fn matches(&mut self, mechanism: &Mechanism, domain: &str) -> Result<bool, Stop> {
        let ip = self.subject.ip;
        match mechanism {
            Mechanism::All => Ok(true),
            Mechanism::Network(network) => Ok(network.contains(ip)),
            Mechanism::Hosts(hosts) => {
                let networks = self.hosts(hosts, domain).await?;
                Ok(networks.iter().any(|network| network.contains(ip)))
            }
            Mechanism::Exists(spec) => self.exists(spec, domain).await,
            Mechanism::Ptr(spec) => self.is_named(spec.as_ref(), domain).await,
            Mechanism::Include(spec) => {
                self.spend()?;
                let target = self.expand(spec, domain).await;
                Ok(self.led_to(target).await? == SpfResult::Pass)
            }
        }
    }

    /// What a domain says that a record leads to: it must have one too.
    async fn led_to(&mut self, domain: String) -> Result<SpfResult, Stop> {
        match self.result(domain).await? {
            SpfResult::None => Err(Stop::Permanent),
            result => Ok(result),
        }
    }
}
