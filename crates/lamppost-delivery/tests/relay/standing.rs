//! What is told of the relay: its name in each reason, whether it is up, and hosts that win no time.

use lamppost_delivery::RelayReach;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};

use super::*;

/// A host that answers each line by the next of these replies, and then says nothing more.
fn scripted(replies: &'static [&'static str]) -> SocketAddr {
    let listener = lamppost_net::Listener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.address();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await;
            tokio::spawn(async move {
                let mut stream = BufReader::new(stream);
                for reply in replies {
                    let mut line = String::new();
                    stream.write_all(reply.as_bytes()).await.unwrap();
                    stream.read_line(&mut line).await.unwrap();
                }
                std::future::pending::<()>().await;
            });
        }
    });
    address
}

async fn outcomes(role: &Role) -> Vec<Outcome> {
    let jobs = vec![job(1, &["a@elsewhere.test", "nobody@elsewhere.test"])];
    role.port.ask(DeliveryRequest::Relay(jobs)).await.unwrap().0
}

#[tokio::test]
async fn every_reason_names_the_relay_and_its_port() {
    let host = Host::start(Manner::default());
    let role = Role::to(&host, |_| {});
    let Outcome::Failed(reason) = &outcomes(&role).await[1] else { panic!("delivered") };
    let said = format!("{} said: 550 5.1.1 ", host.address);
    assert!(reason.to_string().starts_with(&said), "{reason}");
    // What this host found has the name too.
    let address = scripted(&["220 mx\r\n", "250 mx\r\n"]);
    let role = Role::start();
    role.relay.set(Some(RelaySettings {
        credentials: Some(credentials("pass", true)),
        ..settings(address)
    }));
    let Outcome::Deferred(reason) = &outcomes(&role).await[1] else { panic!("not deferred") };
    let found = format!("relay {address}: the host offers neither AUTH PLAIN nor AUTH LOGIN");
    assert_eq!(reason.to_string(), found);
}

#[tokio::test]
async fn a_relay_is_up_once_it_took_a_connection_and_down_when_it_takes_none() {
    let host = Host::start(Manner::default());
    let role = Role::start();
    assert_eq!(role.relay.standing(), None);
    role.relay.set(Some(settings(host.address)));
    let standing = role.relay.standing().unwrap();
    assert_eq!((standing.name, standing.reach), (host.address.to_string(), RelayReach::Untried));
    assert_eq!(role.one().await, "done");
    let standing = role.relay.standing().unwrap();
    assert!(matches!(standing.reach, RelayReach::Up(_)), "{standing:?}");
    assert_eq!((standing.connections, standing.fault), (1, None));
    let metrics = role.metrics.encode();
    assert!(metrics.contains("lamppost_relay_up 1\n"), "{metrics}");
    assert!(metrics.contains("lamppost_relay_connections_open 1\n"), "{metrics}");

    let busy = Host::start(Manner { fault: Fault::Busy, ..Manner::default() });
    role.relay.set(Some(settings(busy.address)));
    role.one().await;
    let standing = role.relay.standing().unwrap();
    assert!(matches!(standing.reach, RelayReach::Down(_)), "{standing:?}");
    assert_eq!(standing.connections, 0);
    let fault = standing.fault.unwrap().text;
    assert!(fault.starts_with(&format!("{} said: 421 4.", busy.address)), "{fault}");
    assert!(role.metrics.encode().contains("lamppost_relay_up 0\n"));
}

#[tokio::test]
async fn a_host_that_ends_a_message_in_the_middle_is_told() {
    let host = Host::start(Manner { fault: Fault::BreakAtEnd, ..Manner::default() });
    let role = Role::to(&host, |_| {});
    role.one().await;
    let standing = role.relay.standing().unwrap();
    assert!(matches!(standing.reach, RelayReach::Up(_)), "{standing:?}");
    let fault = standing.fault.unwrap().text;
    assert!(fault.contains("may have taken the message"), "{fault}");
}

#[tokio::test(start_paused = true)]
async fn a_reply_that_drips_wins_no_time() {
    let listener = lamppost_net::Listener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.address();
    let dripping = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await;
        loop {
            stream.write_all(b"220-").await.unwrap();
            stream.write_all("x".repeat(10).as_bytes()).await.unwrap();
            stream.write_all(b"\r\n").await.unwrap();
            tokio::time::sleep(Duration::from_secs(200)).await;
        }
    });
    let role = Role::start();
    role.relay.set(Some(settings(address)));
    let begun = tokio::time::Instant::now();
    assert_eq!(role.one().await, "deferred 4.4.2: the host did not answer in time");
    assert!(begun.elapsed() < Duration::from_secs(400), "{:?}", begun.elapsed());
    dripping.abort();
}

#[tokio::test(start_paused = true)]
async fn each_reply_has_its_time() {
    // Forty seconds short of five minutes for each, and more than that for all of them.
    let listener = lamppost_net::Listener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.address();
    let slow = tokio::spawn(async move {
        let (stream, _) = listener.accept().await;
        let mut stream = BufReader::new(stream);
        for reply in ["220 mx\r\n", "250 mx\r\n", "250 Ok\r\n", "250 Ok\r\n"] {
            tokio::time::sleep(Duration::from_secs(260)).await;
            stream.write_all(reply.as_bytes()).await.unwrap();
            stream.read_line(&mut String::new()).await.unwrap();
        }
        stream.write_all(b"451 4.3.0 Enough\r\n").await.unwrap();
        std::future::pending::<()>().await;
    });
    let role = Role::start();
    role.relay.set(Some(settings(address)));
    assert_eq!(role.one().await, "deferred 4.3.0 by 127.0.0.1: 451 4.3.0 Enough");
    slow.abort();
}
