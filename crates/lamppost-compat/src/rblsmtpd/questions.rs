//! The lists are asked, all at once, until one decides or the time is over.

use std::net::IpAddr;

use futures_util::stream::{FuturesOrdered, StreamExt as _};
use lamppost_dns::list::{self, Meaning};
use lamppost_dns::{LookupError, NameServers, Resolver};
use tokio::runtime::Builder;
use tokio::time::{Instant, timeout_at};

use super::decision::{Answer, Decision, Heard};
use super::name_servers;
use super::options::{Kind, List, Options};

/// Asks all lists, and gives what the first that decides says. Those that fail are handed to `failed`.
pub(super) fn ask(
    options: &Options<'_>,
    ip: &str,
    mut failed: impl FnMut(&List<'_>, &str),
) -> Option<Decision> {
    let runtime = Builder::new_current_thread().enable_all().build();
    let asked = runtime.map_err(|error| error.to_string()).and_then(|runtime| {
        runtime.block_on(async {
            let servers = NameServers::new(&name_servers::to_ask(), name_servers::PATIENCE);
            let servers = servers.map_err(|error| error.to_string())?;
            Ok(hear_all(options, ip, &servers, &mut failed).await)
        })
    });
    asked.unwrap_or_else(|reason| {
        let mut heard = Heard::default();
        options.lists.iter().find_map(|list| {
            failed(list, &reason);
            heard.hear(list, Answer::Failed)
        })
    })
}

/// Hears the lists in their order while all of them are asked.
async fn hear_all(
    options: &Options<'_>,
    ip: &str,
    resolver: &impl Resolver,
    failed: &mut impl FnMut(&List<'_>, &str),
) -> Option<Decision> {
    let deadline = Instant::now() + options.patience;
    let asked = options.lists.iter().map(|list| async move {
        (list, Question { list, ip, resolver, deadline }.answer().await)
    });
    let mut answers: FuturesOrdered<_> = asked.collect();
    let mut heard = Heard::default();
    while let Some((list, answer)) = answers.next().await {
        let answer = answer.unwrap_or_else(|why| {
            failed(list, &why.to_string());
            Answer::Failed
        });
        let decision = heard.hear(list, answer);
        if decision.is_some() {
            return decision;
        }
    }
    None
}

/// One list asked about one client.
struct Question<'q, R> {
    list: &'q List<'q>,
    ip: &'q str,
    resolver: &'q R,
    deadline: Instant,
}

/// Why a list tells nothing.
#[derive(Debug)]
enum Unanswered {
    Lookup(LookupError),
    /// It answers as no list does, and how.
    Wrong(String),
}

impl std::fmt::Display for Unanswered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Lookup(error) => error.fmt(f),
            Self::Wrong(reason) => f.write_str(reason),
        }
    }
}

impl<R: Resolver> Question<'_, R> {
    async fn answer(&self) -> Result<Answer, Unanswered> {
        let name = name(self.ip, self.list.base);
        match self.list.kind {
            Kind::Allow => {
                let addresses = self.in_time(self.resolver.addresses(&name)).await?;
                let is_there = !addresses.is_empty();
                Ok(if is_there { Answer::Listed(Vec::new()) } else { Answer::Absent })
            }
            Kind::Refuse => {
                let text = self.in_time(self.resolver.texts(&name)).await?.concat();
                if text.is_empty() {
                    return Ok(Answer::Absent);
                }
                // A domain that was sold has a text too, as has a list that refuses to answer.
                let addresses = self.in_time(self.resolver.addresses(&name)).await;
                match addresses.map(|addresses| list::meaning(&addresses, &[])) {
                    Ok(Meaning::Wrong(reason)) => Err(Unanswered::Wrong(reason)),
                    _ => Ok(Answer::Listed(text.into_bytes())),
                }
            }
        }
    }

    async fn in_time<T>(
        &self,
        asked: impl Future<Output = Result<T, LookupError>>,
    ) -> Result<T, Unanswered> {
        let answer = timeout_at(self.deadline, asked).await;
        answer.unwrap_or(Err(LookupError::Silent)).map_err(Unanswered::Lookup)
    }
}

/// The name that is looked up. What is no address is turned around between its dots, and dots that
/// separate nothing are passed over, as by the original.
fn name(ip: &str, base: &[u8]) -> String {
    let turned = match ip.parse::<IpAddr>() {
        Ok(address) => list::name(address, ""),
        Err(_) => ip.rsplit('.').flat_map(|part| [part, "."]).collect(),
    };
    let whole = turned + &String::from_utf8_lossy(base);
    let labels: Vec<_> = whole.split('.').filter(|label| !label.is_empty()).collect();
    labels.join(".")
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::net::{Ipv4Addr, Ipv6Addr};

    use futures_util::FutureExt as _;
    use futures_util::future::BoxFuture;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whatever the variables hold, what is asked for is a name without empty labels.
        #[test]
        fn any_client_has_a_name(ip in ".{0,60}", base in prop::collection::vec(any::<u8>(), 0..60)) {
            let name = name(&ip, &base);
            prop_assert!(name.is_empty() || name.split('.').all(|label| !label.is_empty()));
        }
    }

    /// Lists under `listed` hold everybody, those under `silent` never answer.
    struct Lists;

    impl Resolver for Lists {
        fn addresses<'a>(
            &'a self,
            _: &'a str,
        ) -> BoxFuture<'a, Result<Vec<Ipv4Addr>, LookupError>> {
            std::future::ready(Ok(Vec::new())).boxed()
        }

        fn texts<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Vec<String>, LookupError>> {
            if name.ends_with("silent") {
                return std::future::pending().boxed();
            }
            let texts =
                if name.ends_with("listed") { vec!["a".into(), "b".into()] } else { vec![] };
            std::future::ready(Ok(texts)).boxed()
        }

        fn v6_addresses<'a>(
            &'a self,
            _: &'a str,
        ) -> BoxFuture<'a, Result<Vec<Ipv6Addr>, LookupError>> {
            std::future::ready(Ok(Vec::new())).boxed()
        }

        fn exchanges<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Vec<String>, LookupError>> {
            std::future::ready(Ok(Vec::new())).boxed()
        }

        fn names(&self, _: IpAddr) -> BoxFuture<'_, Result<Vec<String>, LookupError>> {
            std::future::ready(Ok(Vec::new())).boxed()
        }
    }

    #[tokio::test]
    async fn nobody_waits_for_lists_that_cannot_matter() {
        let line = "-T 100000 -b -r none -r listed -c -r silent x";
        let words: Vec<_> = line.split(' ').map(OsString::from).collect();
        let options = Options::parse(&words).unwrap();
        let decided = hear_all(&options, "192.0.2.1", &Lists, &mut |_, _| ()).await;
        let expected = Decision::Refuse { text: b"ab".to_vec(), for_good: true };
        assert_eq!(decided, Some(expected));
    }

    #[test]
    fn names_are_those_of_the_original_and_of_the_standard() {
        let check = |ip: &str, base: &str, expected: &str| {
            assert_eq!(name(ip, base.as_bytes()), expected, "{ip} {base}");
        };
        check("192.0.2.7", "bl.test", "7.2.0.192.bl.test");
        check("192.0.2.7", ".bl..test.", "7.2.0.192.bl.test");
        check("192.0.2.7", "", "7.2.0.192");
        check("::ffff:192.0.2.7", "bl.test", "7.2.0.192.bl.test");
        check("foo.bar", "bl.test", "bar.foo.bl.test");
        check("", "bl.test", "bl.test");
        let nibbles = "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.bl.test";
        check("2001:db8::1", "bl.test", nibbles);
    }
}
