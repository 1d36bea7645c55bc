//! Forward-confirmed names: the address leads to a name, and the name back to the address.

use std::net::IpAddr;

use futures_util::future::join_all;
use lamppost_dns::{LookupError, Resolver};

/// Names of an address that are looked at (as RFC 7208 §4.6.4 has it for SPF); whoever has the address gives it as
/// many as it likes.
const NAMES_MAX: usize = 10;

/// The names of an address that lead back to it, in lower case and in the order of their letters, so that
/// they are the same each time.
///
/// # Errors
/// When no name is confirmed and name servers did not tell of all.
pub async fn confirmed_names(
    resolver: &dyn Resolver,
    ip: IpAddr,
) -> Result<Vec<String>, LookupError> {
    let ip = ip.to_canonical();
    let mut names = resolver.names(ip).await?;
    for name in &mut names {
        name.make_ascii_lowercase();
    }
    names.sort_unstable();
    names.dedup();
    names.truncate(NAMES_MAX);
    let found = join_all(names.iter().map(|name| addresses(resolver, name, ip))).await;
    let mut failure = None;
    let confirmed: Vec<_> = names
        .into_iter()
        .zip(found)
        .filter_map(|(name, found)| match found {
            Ok(addresses) => addresses.contains(&ip).then_some(name),
            // It is a name that nobody can have.
            Err(LookupError::Name { .. }) => None,
            Err(error) => {
                failure = Some(error);
                None
            }
        })
        .collect();
    match failure {
        Some(error) if confirmed.is_empty() => Err(error),
        _ => Ok(confirmed),
    }
}

/// The addresses of a name that are of the family of this one.
pub(crate) async fn addresses(
    resolver: &dyn Resolver,
    name: &str,
    like: IpAddr,
) -> Result<Vec<IpAddr>, LookupError> {
    // The root's, which some give as no name.
    if name.is_empty() {
        return Ok(Vec::new());
    }
    Ok(if like.is_ipv4() {
        resolver.addresses(name).await?.into_iter().map(IpAddr::V4).collect()
    } else {
        resolver.v6_addresses(name).await?.into_iter().map(IpAddr::V6).collect()
    })
}
