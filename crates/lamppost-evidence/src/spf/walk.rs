//! Lookups on the way through the records of a domain, no more than the standard allows.

use std::borrow::Cow;
use std::net::IpAddr;

use futures_util::future::join_all;
use lamppost_dns::{LookupError, Resolver};

use super::network::Network;
use super::record::{self, Hosts, Record};
use super::spec::{Spec, Values};
use super::subject::Subject;
use crate::confirmation::{self, confirmed_names};

/// Terms that ask name servers, in all records together (RFC 7208 §4.6.4).
const LOOKUPS_MAX: u32 = 10;
/// Of these, those whose answers may be empty.
const VOIDS_MAX: u32 = 2;
/// Hosts that take the mail of one name (RFC 7208 §4.6.4).
const EXCHANGES_MAX: usize = 10;

/// A way through records.
pub(super) struct Walk<'a> {
    pub(super) resolver: &'a dyn Resolver,
    pub(super) subject: &'a Subject,
    lookups_left: u32,
    voids_left: u32,
    /// The client's confirmed names, once they are needed.
    names: Option<Vec<String>>,
}

/// Why a way ends before its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// Records are wrong, or too many.
    Permanent,
    /// Name servers do not tell.
    Temporary,
}

impl<'a> Walk<'a> {
    pub(super) fn new(resolver: &'a dyn Resolver, subject: &'a Subject) -> Self {
        let (lookups_left, voids_left) = (LOOKUPS_MAX, VOIDS_MAX);
        Self { resolver, subject, lookups_left, voids_left, names: None }
    }

    /// Counts a term that asks name servers.
    pub(super) fn spend(&mut self) -> Result<(), Stop> {
        self.lookups_left = self.lookups_left.checked_sub(1).ok_or(Stop::Permanent)?;
        Ok(())
    }

    /// Counts an answer, if it is empty.
    fn counted<T>(&mut self, found: Result<Vec<T>, LookupError>) -> Result<Vec<T>, Stop> {
        let found = told(found)?;
        if found.is_empty() {
            self.voids_left = self.voids_left.checked_sub(1).ok_or(Stop::Permanent)?;
        }
        Ok(found)
    }

    /// The record of a domain.
    pub(super) async fn record(&self, domain: &str) -> Result<Option<Record>, Stop> {
        let texts = told(self.resolver.texts(domain).await)?;
        record::find(&texts).map_err(|_| Stop::Permanent)
    }

    /// A name as it is for the client, in the record of a domain.
    pub(super) async fn expand(&mut self, spec: &Spec, domain: &str) -> String {
        let name = if spec.takes_name() {
            let names = self.names().await;
            let is_own = |name: &&String| is_at_or_below(name, domain);
            names.iter().find(is_own).or(names.first()).cloned()
        } else {
            None
        };
        let Subject { ip, helo, sender, .. } = self.subject;
        let name = name.as_deref().unwrap_or("unknown");
        spec.expand(&Values { ip: *ip, helo, sender, domain, name })
    }

    /// As [`Self::expand`]; the domain itself where there is no name.
    pub(super) async fn target<'d>(
        &mut self,
        spec: Option<&Spec>,
        domain: &'d str,
    ) -> Cow<'d, str> {
        match spec {
            Some(spec) => self.expand(spec, domain).await.into(),
            None => domain.into(),
        }
    }

    /// The client's confirmed names; none where name servers do not tell (RFC 7208 §5.5).
    pub(super) async fn names(&mut self) -> &[String] {
        if self.names.is_none() {
            let found = confirmed_names(self.resolver, self.subject.ip).await;
            self.names = Some(found.unwrap_or_default());
        }
        self.names.as_deref().unwrap_or_default()
    }

    /// The networks, of the client's family, of hosts that a record names.
    pub(super) async fn hosts(
        &mut self,
        hosts: &Hosts,
        domain: &str,
    ) -> Result<Vec<Network>, Stop> {
        self.spend()?;
        let (resolver, ip) = (self.resolver, self.subject.ip);
        let target = self.target(hosts.name.as_ref(), domain).await;
        let addresses = if hosts.are_exchanges {
            let exchanges = self.counted(resolver.exchanges(&target).await)?;
            if exchanges.len() > EXCHANGES_MAX {
                return Err(Stop::Permanent);
            }
            let found = exchanges.iter().map(|name| confirmation::addresses(resolver, name, ip));
            let found: Result<Vec<_>, Stop> = join_all(found).await.into_iter().map(told).collect();
            found?.concat()
        } else {
            self.counted(confirmation::addresses(resolver, &target, ip).await)?
        };
        let bits = if ip.is_ipv4() { hosts.ipv4_bits } else { hosts.ipv6_bits };
        Ok(addresses.into_iter().map(|address: IpAddr| Network::of(address, bits)).collect())
    }

    /// Whether a name has an address.
    pub(super) async fn exists(&mut self, spec: &Spec, domain: &str) -> Result<bool, Stop> {
        self.spend()?;
        let name = self.expand(spec, domain).await;
        let found = self.counted(self.resolver.addresses(&name).await)?;
        Ok(!found.is_empty())
    }

    /// Whether the client has a confirmed name at or below the target.
    pub(super) async fn is_named(
        &mut self,
        spec: Option<&Spec>,
        domain: &str,
    ) -> Result<bool, Stop> {
        self.spend()?;
        let target = self.target(spec, domain).await;
        // What fails does not match (RFC 7208 §5.5).
        let Ok(found) = self.resolver.names(self.subject.ip).await else { return Ok(false) };
        self.counted(Ok(found))?;
        Ok(self.names().await.iter().any(|name| is_at_or_below(name, &target)))
    }
}

/// What name servers tell; what cannot be a name has nothing of what is asked for (RFC 7208 §4.8).
fn told<T>(found: Result<Vec<T>, LookupError>) -> Result<Vec<T>, Stop> {
    match found {
        Ok(found) => Ok(found),
        Err(LookupError::Name { .. }) => Ok(Vec::new()),
        Err(LookupError::Failed { .. } | LookupError::Silent) => Err(Stop::Temporary),
    }
}

fn is_at_or_below(name: &str, domain: &str) -> bool {
    let name = name.len().checked_sub(domain.len()).map(|end| name.split_at_checked(end));
    name.flatten().is_some_and(|(front, end)| {
        end.eq_ignore_ascii_case(domain) && (front.is_empty() || front.ends_with('.'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_below_whole_labels() {
        for (name, expected) in [
            ("b.test", true),
            ("a.B.test", true),
            ("ab.test", false),
            ("test", false),
            ("\u{f6}.test", false),
        ] {
            assert_eq!(is_at_or_below(name, "b.test"), expected, "{name}");
        }
    }
}
