//! Name servers that answer wrongly or not at all, and what is said of them.
#![allow(clippy::unwrap_used, clippy::allow_attributes, reason = "a test fails by panicking")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use lamppost_dns::{LookupError, NameServers, Patience, Resolver as _};
use tokio::net::UdpSocket;

const PATIENCE: Patience = Patience {
    each_try: Duration::from_millis(100),
    tries_more: 1,
    at_once_max: 10,
    answers_max: 100,
};

/// A name server that answers each question with this code and these records, and how many came.
async fn serve(code: u8, records: &'static [&'static [u8]]) -> (SocketAddr, Arc<AtomicUsize>) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let (address, asked) = (socket.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
    let count = asked.clone();
    tokio::spawn(async move {
        let mut question = [0; 1500];
        loop {
            let (length, from) = socket.recv_from(&mut question).await.unwrap();
            count.fetch_add(1, Ordering::Relaxed);
            // The name ends with an empty label, and four bytes follow; behind it is an extension.
            let end = 12 + question[12..length].iter().position(|byte| *byte == 0).unwrap() + 5;
            let mut reply = question[..end].to_vec();
            (reply[2], reply[3], reply[7], reply[11]) =
                (0x85, code, u8::try_from(records.len()).unwrap(), 0);
            for record in records {
                // Of the question's name, unless the record begins with another.
                if record.starts_with(&[0]) {
                    reply.extend_from_slice(&[0xc0, 12]);
                }
                reply.extend_from_slice(record);
            }
            socket.send_to(&reply, from).await.unwrap();
        }
    });
    (address, asked)
}

const A: &[u8] = &[0, 1, 0, 1, 0, 0, 1, 0, 0, 4, 127, 0, 0, 2];
const A_NOT_KEPT: &[u8] = &[0, 1, 0, 1, 0, 0, 0, 0, 0, 4, 127, 0, 0, 3];
const TXT: &[u8] = b"\0\x10\0\x01\0\0\x01\0\0\x09\x04see \x02\xf6x\0";

#[tokio::test]
async fn answers_are_read_and_kept_as_long_as_they_say() {
    let (address, asked) = serve(0, &[A]).await;
    let servers = NameServers::new(&[address], PATIENCE).unwrap();
    for _ in 0..3 {
        let found = servers.addresses("2.0.0.127.list.test").await.unwrap();
        assert_eq!(found, ["127.0.0.2".parse::<std::net::Ipv4Addr>().unwrap()]);
    }
    assert_eq!(asked.load(Ordering::Relaxed), 1);

    let (address, asked) = serve(0, &[A_NOT_KEPT]).await;
    let servers = NameServers::new(&[address], PATIENCE).unwrap();
    for _ in 0..3 {
        assert_eq!(servers.addresses("list.test").await.unwrap().len(), 1);
    }
    assert_eq!(asked.load(Ordering::Relaxed), 3);

    let (address, _) = serve(0, &[TXT]).await;
    let servers = NameServers::new(&[address], PATIENCE).unwrap();
    assert_eq!(servers.texts("list.test").await.unwrap(), ["see \u{fffd}x"]);
}

#[tokio::test]
async fn hosts_and_names_are_read() {
    const AAAA: &[u8] = b"\0\x1c\0\x01\0\0\x01\0\0\x10\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x07";
    const MX_LAST: &[u8] = b"\0\x0f\0\x01\0\0\x01\0\0\x0a\0\x09\x01z\x04test\0";
    const MX_FIRST: &[u8] = b"\0\x0f\0\x01\0\0\x01\0\0\x0a\0\x01\x01b\x04test\0";
    const PTR: &[u8] = b"\0\x0c\0\x01\0\0\x01\0\0\x09\x02Mx\x04test\0";
    const PTR_ROOT: &[u8] = b"\0\x0c\0\x01\0\0\x01\0\0\x01\0";

    let (address, _) = serve(0, &[AAAA]).await;
    let servers = NameServers::new(&[address], PATIENCE).unwrap();
    let found = servers.v6_addresses("a.test").await.unwrap();
    assert_eq!(found, ["2001:db8::7".parse::<std::net::Ipv6Addr>().unwrap()]);
    let (address, _) = serve(0, &[MX_LAST, MX_FIRST]).await;
    let servers = NameServers::new(&[address], PATIENCE).unwrap();
    assert_eq!(servers.exchanges("a.test").await.unwrap(), ["b.test", "z.test"]);
    let (address, _) = serve(0, &[PTR, PTR_ROOT]).await;
    let servers = NameServers::new(&[address], PATIENCE).unwrap();
    for ip in ["192.0.2.1", "::ffff:192.0.2.1", "2001:db8::1"] {
        let mut names = servers.names(ip.parse().unwrap()).await.unwrap();
        names.sort();
        assert_eq!(names, ["", "Mx.test"], "{ip}");
    }
}

/// A name server that answers about another name than it was asked about is not believed.
#[tokio::test]
async fn what_was_not_asked_for_is_no_answer() {
    const OF_ANOTHER: &[u8] = b"\x05other\x04test\0\0\x01\0\x01\0\0\x01\0\0\x04\x7f\0\0\x02";
    let (address, _) = serve(0, &[OF_ANOTHER]).await;
    let servers = NameServers::new(&[address], PATIENCE).unwrap();
    assert_eq!(servers.addresses("a.test").await, Ok(Vec::new()));
    let (address, _) = serve(0, &[TXT]).await;
    let servers = NameServers::new(&[address], PATIENCE).unwrap();
    assert_eq!(servers.addresses("a.test").await, Ok(Vec::new()));
}

#[tokio::test]
async fn no_such_name_is_no_error_and_everything_else_is_one() {
    for (code, is_right) in [(0, true), (3, true), (2, false), (5, false)] {
        let (address, _) = serve(code, &[]).await;
        let servers = NameServers::new(&[address], PATIENCE).unwrap();
        let found = servers.addresses("1.0.0.127.list.test").await;
        assert_eq!(found == Ok(Vec::new()), is_right, "{code}: {found:?}");
        let failed = matches!(found, Err(LookupError::Failed { .. }));
        assert_eq!(failed, !is_right, "{code}: {found:?}");
    }
    let silence = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let servers = NameServers::new(&[silence.local_addr().unwrap()], PATIENCE).unwrap();
    assert_eq!(servers.addresses("list.test").await, Err(LookupError::Silent));
    let name = format!("{}.test", "x".repeat(64));
    assert_eq!(servers.texts(&name).await, Err(LookupError::Name { name }));
}

#[tokio::test]
async fn another_server_is_asked_where_one_is_silent() {
    let silence = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let (address, _) = serve(0, &[A]).await;
    let servers = [silence.local_addr().unwrap(), address];
    let servers = NameServers::new(&servers, PATIENCE).unwrap();
    assert_eq!(servers.addresses("list.test").await.unwrap().len(), 1);
}
