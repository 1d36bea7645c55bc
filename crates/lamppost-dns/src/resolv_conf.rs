//! The name servers of `/etc/resolv.conf` (resolv.conf(5)).

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// The port of name servers.
pub const PORT: u16 = 53;
/// Name servers that are asked; others in the file are passed over, as by the C library (MAXNS).
const SERVERS_MAX: usize = 3;

/// The name servers that a `resolv.conf` with this text names; without any, the one of this machine.
pub fn name_servers(text: &str) -> Vec<SocketAddr> {
    let servers = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        // An address with a zone is one of a link, by which no socket of ours is bound.
        (words.next() == Some("nameserver")).then(|| words.next()?.parse::<IpAddr>().ok())?
    });
    let servers: Vec<_> =
        servers.take(SERVERS_MAX).map(|address| SocketAddr::new(address, PORT)).collect();
    if servers.is_empty() { vec![SocketAddr::from((Ipv4Addr::LOCALHOST, PORT))] } else { servers }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_read_as_the_c_library_reads_them() {
        let check = |text: &str, expected: &[&str]| {
            let expected: Vec<SocketAddr> =
                expected.iter().map(|one| one.parse().unwrap()).collect();
            assert_eq!(name_servers(text), expected, "{text}");
        };
        check("", &["127.0.0.1:53"]);
        check("# none\nsearch example.org\nnameserver\nnameserver x\n", &["127.0.0.1:53"]);
        check(
            "options edns0\nnameserver 192.0.2.1\nnameserver\t2001:db8::1 # ours\n;nameserver 192.0.2.2\n",
            &["192.0.2.1:53", "[2001:db8::1]:53"],
        );
        check("nameserver fe80::1%eth0\nnameserver 192.0.2.1\n", &["192.0.2.1:53"]);
        let many = "nameserver 192.0.2.1\n".repeat(5);
        check(&many, &["192.0.2.1:53"; 3]);
    }
}
