//! Name servers on the network, by UDP, and by TCP where an answer is too long for that.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use tokio::sync::Semaphore;

use crate::{LookupError, Resolver};

/// Name servers and what they answered before; that is kept as long as they say.
#[derive(Clone)]
pub struct NameServers {
    resolver: TokioResolver,
    /// For each question that may be under way beside others, as each takes sockets.
    turns: Arc<Semaphore>,
}

/// How long a question may take, and what is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// How long a name server may take, before it or the next one is asked again.
    pub each_try: Duration,
    /// How often a question is asked again.
    pub tries_more: usize,
    /// Questions that may be under way at once.
    pub at_once_max: usize,
    /// Answers that are kept at once.
    pub answers_max: u64,
}

impl NameServers {
    /// Asks these, whose answers are the same.
    ///
    /// # Errors
    /// When they cannot be asked at all.
    pub fn new(servers: &[SocketAddr], patience: Patience) -> Result<Self, LookupError> {
        let servers = servers.iter().map(|server| {
            let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()];
            let connections = connections.map(|mut connection| {
                connection.port = server.port();
                connection
            });
            NameServerConfig::new(server.ip(), true, connections.into())
        });
        let config = ResolverConfig::from_parts(None, Vec::new(), servers.collect());
        let mut options = ResolverOpts::default();
        options.timeout = patience.each_try;
        options.attempts = patience.tries_more;
        options.cache_size = patience.answers_max;
        options.use_hosts_file = ResolveHosts::Never;
        options.max_active_requests = patience.at_once_max;
        let provider = TokioRuntimeProvider::default();
        let builder = TokioResolver::builder_with_config(config, provider).with_options(options);
        let resolver = builder.build().map_err(failed)?;
        Ok(Self { resolver, turns: Arc::new(Semaphore::new(patience.at_once_max)) })
    }

    /// What a name has of one type.
    async fn records<T>(
        &self,
        name: &str,
        kind: RecordType,
        read: impl Fn(&RData) -> Option<T>,
    ) -> Result<Vec<T>, LookupError> {
        let mut absolute =
            Name::from_ascii(name).map_err(|_| LookupError::Name { name: name.to_owned() })?;
        // Nothing of this machine's own is appended to it.
        absolute.set_fqdn(true);
        self.records_of(absolute, kind, read).await
    }

    async fn records_of<T>(
        &self,
        name: Name,
        kind: RecordType,
        read: impl Fn(&RData) -> Option<T>,
    ) -> Result<Vec<T>, LookupError> {
        // Nobody closes it.
        let _turn = self.turns.acquire().await.ok();
        match self.resolver.lookup(name, kind).await {
            Ok(found) => {
                Ok(found.answers().iter().filter_map(|record| read(&record.data)).collect())
            }
            Err(error) if error.is_no_records_found() => Ok(Vec::new()),
            Err(error) => Err(failed(error)),
        }
    }
}

impl Resolver for NameServers {
    fn addresses<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Vec<Ipv4Addr>, LookupError>> {
        let read = |data: &RData| match data {
            RData::A(address) => Some(address.0),
            _ => None,
        };
        self.records(name, RecordType::A, read).boxed()
    }

    fn v6_addresses<'a>(
        &'a self,
        name: &'a str,
    ) -> BoxFuture<'a, Result<Vec<Ipv6Addr>, LookupError>> {
        let read = |data: &RData| match data {
            RData::AAAA(address) => Some(address.0),
            _ => None,
        };
        self.records(name, RecordType::AAAA, read).boxed()
    }

    fn texts<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Vec<String>, LookupError>> {
        let read = |data: &RData| match data {
            RData::TXT(text) => {
                let bytes: Vec<u8> =
                    text.txt_data.iter().flat_map(|piece| piece.iter()).copied().collect();
                Some(String::from_utf8_lossy(&bytes).into_owned())
            }
            _ => None,
        };
        self.records(name, RecordType::TXT, read).boxed()
    }

    fn exchanges<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Vec<String>, LookupError>> {
        let read = |data: &RData| match data {
            RData::MX(one) => Some((one.preference, shown(&one.exchange))),
            _ => None,
        };
        let found = self.records(name, RecordType::MX, read);
        async {
            let mut found = found.await?;
            found.sort_by_key(|(preference, _)| *preference);
            Ok(found.into_iter().map(|(_, exchange)| exchange).collect())
        }
        .boxed()
    }

    fn names(&self, address: IpAddr) -> BoxFuture<'_, Result<Vec<String>, LookupError>> {
        let read = |data: &RData| match data {
            RData::PTR(name) => Some(shown(&name.0)),
            _ => None,
        };
        self.records_of(Name::from(address.to_canonical()), RecordType::PTR, read).boxed()
    }
}

/// A name as text, without the dot at its end.
fn shown(name: &Name) -> String {
    let mut text = name.to_ascii();
    if text.ends_with('.') {
        text.pop();
    }
    text
}

fn failed(error: NetError) -> LookupError {
    match error {
        NetError::Timeout => LookupError::Silent,
        other => LookupError::Failed { reason: other.to_string() },
    }
}
