//! Hosts that break the rules, over real sockets.

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use super::*;

/// A host whose connections are each served by this.
fn host<F: Future<Output = ()> + Send + 'static>(
    serve: impl Fn(usize, Wire) -> F + Send + 'static,
) -> SocketAddr {
    let listener = lamppost_net::Listener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.address();
    tokio::spawn(async move {
        for number in 0.. {
            let (stream, _) = listener.accept().await;
            tokio::spawn(serve(number, Wire(BufReader::new(stream))));
        }
    });
    address
}

/// The host's end of a connection.
struct Wire(BufReader<TcpStream>);

impl Wire {
    async fn say(&mut self, reply: &str) {
        // A client may have left.
        drop(self.0.write_all(reply.as_bytes()).await);
    }

    async fn hear(&mut self) -> String {
        let mut line = String::new();
        drop(self.0.read_line(&mut line).await);
        line
    }

    /// As far as the leave to send content.
    async fn up_to_content(&mut self) {
        for reply in ["220 mx\r\n", "250 mx\r\n", "250 Ok\r\n", "250 Ok\r\n", "354 Go\r\n"] {
            self.say(reply).await;
            if !reply.starts_with("354") {
                self.hear().await;
            }
        }
    }

    /// Takes a content to its end.
    async fn content(&mut self) {
        while !matches!(self.hear().await.as_str(), ".\r\n" | "") {}
    }
}

fn to(address: SocketAddr, change: impl FnOnce(&mut RelaySettings)) -> Role {
    let role = Role::start();
    let mut settings = settings(address);
    change(&mut settings);
    role.relay.set(Some(settings));
    role
}

fn large() -> RelayJob {
    RelayJob { content: Content::Aside { length: 700_001 }, ..job(1, &["a@elsewhere.test"]) }
}

#[tokio::test]
async fn what_was_put_before_tls_is_not_believed() {
    let address = host(|_, mut wire| async move {
        wire.say("220 mx\r\n").await;
        wire.hear().await;
        wire.say("250-mx\r\n250 STARTTLS\r\n").await;
        wire.hear().await;
        wire.say("220 Go\r\n250-mx\r\n250 AUTH PLAIN\r\n").await;
        assert_eq!(wire.hear().await, "", "nothing more is said");
    });
    let anybody = ClientTls::new(&Trust::Anybody).unwrap();
    let outcome = to(address, |to| to.tls = RelayTls::Opportunistic(anybody)).one().await;
    let text = "deferred 4.7.0: something came in clear after the reply to STARTTLS";
    assert_eq!(outcome, text);
}

#[tokio::test]
async fn a_refusal_in_the_middle_of_the_content_counts() {
    for (reply, expected) in [
        ("552 5.3.4 Too large\r\n", "failed 5.3.4 by 127.0.0.1: 552 5.3.4 Too large"),
        ("451 4.3.1 Full\r\n", "deferred 4.3.1 by 127.0.0.1: 451 4.3.1 Full"),
    ] {
        let address = host(move |_, mut wire| async move {
            wire.up_to_content().await;
            wire.hear().await;
            wire.say(reply).await;
            // It listens on, and never answers again.
            drop(wire.0.read_to_end(&mut Vec::new()).await);
        });
        assert_eq!(to(address, |_| {}).deliver(vec![large()]).await, [expected]);
    }
}

#[tokio::test]
async fn a_host_that_takes_nothing_more_is_heard() {
    // It refuses, closes, and leaves the rest of the content unread.
    let address = host(|_, mut wire| async move {
        wire.up_to_content().await;
        wire.say("554 5.7.1 Spam\r\n").await;
    });
    let outcome = to(address, |_| {}).deliver(vec![large()]).await;
    let refused = outcome[0] == "failed 5.7.1 by 127.0.0.1: 554 5.7.1 Spam";
    // With what it did not read, the machine may have thrown its words away.
    assert!(refused || outcome[0].starts_with("deferred 4."), "{outcome:?}");
}

#[tokio::test]
async fn one_reply_too_many_costs_a_connection_and_nothing_else() {
    // As a host of LMTP: one reply for each recipient, the second for nobody here.
    let address = host(|_, mut wire| async move {
        wire.up_to_content().await;
        wire.content().await;
        wire.say("250 2.0.0 Ok\r\n550 5.1.1 Nobody\r\n").await;
        // Whatever comes next would be answered a step too late.
        while !wire.hear().await.is_empty() {
            wire.say("550 5.1.1 Nobody\r\n").await;
        }
    });
    let role = to(address, |_| {});
    let jobs = (1..=3).map(|id| job(id, &["a@elsewhere.test"])).collect();
    assert_eq!(role.deliver(jobs).await, ["done"; 3]);
    assert_eq!(role.one().await, "done");
}

#[tokio::test]
async fn replies_without_end_are_given_up() {
    let address = host(|number, mut wire| async move {
        let flood = if number == 0 { "220-more\r\n".repeat(200) } else { "2".repeat(4096) };
        while wire.0.write_all(flood.as_bytes()).await.is_ok() {}
    });
    let role = to(address, |_| {});
    let nonsense = "deferred 4.5.0: the host answered something that is no SMTP reply";
    assert_eq!(role.one().await, nonsense);
    assert_eq!(role.one().await, nonsense);
}
