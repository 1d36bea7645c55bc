//! The name servers that rblsmtpd asks: `$DNSCACHEIP`, or those of the system.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use lamppost_dns::{PORT, Patience};

/// The variable that names the name servers, and the file that does otherwise.
const SERVERS_VARIABLE: &str = "DNSCACHEIP";
const SERVERS_FILE: &str = "/etc/resolv.conf";
/// Name servers that the variable may name.
const SERVERS_MAX: usize = 16;

/// How they are asked; whoever asks has a deadline of its own, which ends it.
pub(super) const PATIENCE: Patience =
    Patience { each_try: Duration::from_secs(1), tries_more: 60, at_once_max: 64, answers_max: 16 };

/// The name servers to ask.
pub(super) fn to_ask() -> Vec<SocketAddr> {
    let named = std::env::var(SERVERS_VARIABLE).map(|text| named(&text)).unwrap_or_default();
    if !named.is_empty() {
        return named;
    }
    lamppost_dns::name_servers(&std::fs::read_to_string(SERVERS_FILE).unwrap_or_default())
}

/// Name servers of a variable: an address, with a port if that is not 53, or IPv4 addresses with dots
/// between them, as in the original (`dns_rcip.c`).
fn named(text: &str) -> Vec<SocketAddr> {
    let one = text.parse::<IpAddr>().map(|address| SocketAddr::new(address, PORT));
    if let Ok(server) = one.or_else(|_| text.parse()) {
        return vec![server];
    }
    let parts: Vec<_> = text.split('.').filter(|part| !part.is_empty()).collect();
    let addresses = parts.chunks(4).map_while(|four| four.join(".").parse::<IpAddr>().ok());
    addresses.take(SERVERS_MAX).map(|address| SocketAddr::new(address, PORT)).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_text_is_read(text in "[0-9.:a-f]{0,200}|.{0,50}") {
            prop_assert!(named(&text).len() <= SERVERS_MAX);
        }
    }

    #[test]
    fn servers_are_read_as_there_and_with_ports() {
        let check = |text: &str, expected: &[&str]| {
            let expected: Vec<SocketAddr> =
                expected.iter().map(|one| one.parse().unwrap()).collect();
            assert_eq!(named(text), expected, "{text}");
        };
        check("", &[]);
        check("x", &[]);
        check("127.0.0.1", &["127.0.0.1:53"]);
        check("127.0.0.1.127.0.0.2", &["127.0.0.1:53", "127.0.0.2:53"]);
        check(".127.0.0.1.", &["127.0.0.1:53"]);
        check("127.0.0.1:5353", &["127.0.0.1:5353"]);
        check("::1", &["[::1]:53"]);
    }
}
