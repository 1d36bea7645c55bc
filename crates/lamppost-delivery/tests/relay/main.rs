//! Delivery to a relay: over real sockets, to a host of all manners.
#![allow(clippy::unwrap_used, clippy::allow_attributes, reason = "a test fails by panicking")]

mod host;
mod hostile;
mod standing;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use host::{Fault, Host, Manner, Tls};
use lamppost_delivery::{MaildirTemplate, Relay, RelaySettings, RelayTls, Settings};
use lamppost_disk::{Blocking, RealDisk};
use lamppost_net::link::{Port, link};
use lamppost_net::{ClientTls, Trust};
use lamppost_roles::{
    Content, ContentAnswer, ContentRequest, DeliveryAnswer, DeliveryRequest, Origin, Outcome,
    QueueId, RelayJob, Timestamp,
};
use lamppost_smtp::{ClientTimeouts, Credentials, Secret};
use lamppost_telemetry::Metrics;

/// A content that lies aside.
static LARGE: [u8; 700_001] = {
    let mut content = [b'x'; 700_001];
    let mut at = 70;
    while at < content.len() {
        content[at] = b'\n';
        at += 71;
    }
    content
};

/// A message whose first lines are short and whose last lines are long, and its bytes.
const UNEVEN: u64 = 777;
const UNEVEN_LENGTH: u64 = 400_000;

fn uneven(offset: u64, length_max: usize) -> ContentAnswer {
    let mut content = b"Subject: x\n\n".to_vec();
    content.extend(b"x\n".repeat(70_000));
    content.extend(format!("{}\n", "y".repeat(50_000)).repeat(5).bytes());
    content.resize(399_999, b'y');
    content.push(b'\n');
    let rest = content.split_off(usize::try_from(offset).unwrap());
    ContentAnswer::Piece(Bytes::copy_from_slice(&rest[..rest.len().min(length_max)]))
}

/// The delivery role and the way out that it knows.
struct Role {
    port: Port<DeliveryRequest, DeliveryAnswer>,
    relay: Relay,
    metrics: Arc<Metrics>,
}

impl Role {
    fn start() -> Self {
        let (content, mut contents) = link::<ContentRequest, ContentAnswer>();
        tokio::spawn(async move {
            while let Some((ContentRequest { id, offset, length_max }, reply)) =
                contents.next().await
            {
                let from = usize::try_from(offset).unwrap().min(LARGE.len());
                let rest = &LARGE[from..];
                let piece = &rest[..rest.len().min(length_max as usize)];
                reply.send(match id {
                    QueueId(666) if offset > 0 => ContentAnswer::Failed("bad sector".into()),
                    QueueId(UNEVEN) => uneven(offset, length_max as usize),
                    _ => ContentAnswer::Piece(Bytes::from_static(piece)),
                });
            }
        });
        let relay = Relay::default();
        let settings = Settings {
            maildir: MaildirTemplate::new("/nowhere/{domain}/{local}".into()).unwrap(),
            hostname: "mail.lamppost.test".into(),
            writers_max: 1,
            patience: Duration::from_secs(20),
            silent_max: 16,
            health: lamppost_telemetry::Health::default(),
            way: None,
            blocking: Blocking::Threads,
            relay: relay.clone(),
            owners: None,
        };
        let (port, inbox) = link();
        let metrics = Metrics::new();
        tokio::spawn(lamppost_delivery::run(
            settings,
            Arc::new(RealDisk),
            metrics.clone(),
            inbox,
            content,
        ));
        Self { port, relay, metrics }
    }

    /// A role whose way out is this host.
    fn to(host: &Host, change: impl FnOnce(&mut RelaySettings)) -> Self {
        let role = Self::start();
        let mut settings = settings(host.address);
        change(&mut settings);
        role.relay.set(Some(settings));
        role
    }

    async fn deliver(&self, jobs: Vec<RelayJob>) -> Vec<String> {
        let outcomes = self.port.ask(DeliveryRequest::Relay(jobs)).await.unwrap().0;
        outcomes.iter().map(outcome).collect()
    }

    async fn one(&self) -> String {
        let outcomes = self.deliver(vec![job(1, &["a@elsewhere.test"])]).await;
        assert_eq!(outcomes.len(), 1);
        outcomes.into_iter().next().unwrap()
    }
}

/// An outcome in one line, without the relay's port, which differs from run to run, and without its
/// name where nobody but this host says something of it.
fn outcome(outcome: &Outcome) -> String {
    let (word, reason) = match outcome {
        Outcome::Done => return "done".into(),
        Outcome::Deferred(reason) => ("deferred", reason),
        Outcome::Failed(reason) => ("failed", reason),
    };
    let by = reason.remote.as_ref().map(|host| format!(" by {}", host.rsplit_once(':').unwrap().0));
    let text = match reason.text.strip_prefix("relay ").and_then(|text| text.split_once(": ")) {
        Some((_, text)) => text,
        None => &reason.text,
    };
    format!("{word} {}{}: {text}", reason.status, by.unwrap_or_default())
}

fn settings(address: SocketAddr) -> RelaySettings {
    RelaySettings {
        host: address.ip().to_string(),
        port: address.port(),
        hostname: "mail.lamppost.test".into(),
        tls: RelayTls::Off,
        credentials: None,
        connections_max: 2,
        connect_timeout: Duration::from_secs(5),
        idle_timeout: Duration::from_secs(30),
        timeouts: ClientTimeouts::default(),
    }
}

fn job(id: u64, recipients: &[&str]) -> RelayJob {
    RelayJob {
        id: QueueId(id),
        sender: "demo@lamppost.test".parse().unwrap(),
        recipients: recipients.iter().map(|text| text.parse().unwrap()).collect(),
        origin: Origin {
            session: "s1".into(),
            peer: "192.0.2.1".parse().unwrap(),
            helo: "laptop.test".into(),
            host: "mail.lamppost.test".into(),
            protocol: "ESMTPSA".into(),
            tls: None,
            account: Some("demo@lamppost.test".parse().unwrap()),
            received: Timestamp(1_800_000_000_123),
        },
        content: Content::Inline(Bytes::from_static(b"Subject: x\n\n.dot\nend")),
    }
}

fn trusting(host: &Host) -> ClientTls {
    ClientTls::new(&Trust::read(&host.ca).unwrap()).unwrap()
}

fn credentials(password: &str, without_tls: bool) -> Credentials {
    Credentials { user: "demo".into(), password: Secret::new(password.into()), without_tls }
}

#[tokio::test]
async fn messages_arrive_with_a_received_line_over_one_connection() {
    let host = Host::start(Manner::default());
    let role = Role::to(&host, |_| {});
    let jobs = vec![
        job(1, &["a@elsewhere.test"]),
        job(2, &["nobody@elsewhere.test", "b@elsewhere.test", "later@elsewhere.test"]),
        job(3, &["nobody@elsewhere.test"]),
        RelayJob { content: Content::Aside { length: 700_001 }, ..job(4, &["c@elsewhere.test"]) },
    ];
    let refused = "failed 5.1.1 by 127.0.0.1: 550 5.1.1 ";
    let outcomes = role.deliver(jobs).await;
    assert_eq!(outcomes.len(), 6);
    for (at, begin) in
        ["done", refused, "done", "deferred 4.7.1 by 127.0.0.1: 451 4.7.1 ", refused, "done"]
            .into_iter()
            .enumerate()
    {
        assert!(outcomes[at].starts_with(begin), "{outcomes:?}");
    }
    // A second request finds the connection of the first.
    assert_eq!(role.one().await, "done");
    assert_eq!(host.connections(), 1);
    let arrived = host.arrived();
    assert_eq!(arrived.len(), 4);
    assert_eq!(
        String::from_utf8(arrived[0].content.clone()).unwrap(),
        "Received: from laptop.test ([192.0.2.1])\n\tby mail.lamppost.test with ESMTPSA\n\
         \tid 0000000000001 for <a@elsewhere.test>; Fri, 15 Jan 2027 08:00:00 +0000\n\
         Subject: x\n\n.dot\nend\n"
    );
    assert_eq!(arrived[1].sender, "demo@lamppost.test");
    assert_eq!(arrived[1].recipients, ["b@elsewhere.test"]);
    // Several recipients do not learn of each other.
    assert!(!String::from_utf8_lossy(&arrived[1].content).contains("for <"));
    assert!(arrived[2].content.ends_with(&[&LARGE[..], b"\n"].concat()));
}

#[tokio::test]
async fn nowhere_to_go() {
    let role = Role::start();
    assert_eq!(role.one().await, "deferred 4.4.4: no way out is configured (relay-to)");
    // A port that nobody listens on: that of a listener that is gone.
    let address = {
        let listener = lamppost_net::Listener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        listener.address()
    };
    role.relay.set(Some(settings(address)));
    let jobs = vec![job(1, &["a@elsewhere.test", "b@elsewhere.test"]), job(2, &["c@d.test"])];
    let outcomes = role.deliver(jobs).await;
    assert_eq!(outcomes.len(), 3);
    for outcome in outcomes {
        assert!(outcome.starts_with("deferred 4.4.1: cannot connect to the relay"), "{outcome}");
    }
    // A label that is longer than names can have, so that no name server is asked.
    let nameless = RelaySettings { host: "x".repeat(64), ..settings(address) };
    role.relay.set(Some(nameless));
    let outcome = role.one().await;
    assert!(outcome.starts_with("deferred 4.4.3: the relay xxx"), "{outcome}");
}

#[tokio::test]
async fn a_connection_that_breaks_defers_and_the_next_try_gets_through() {
    for (fault, arrived) in [(Fault::BreakInContent, 1), (Fault::BreakAtEnd, 2)] {
        let host = Host::start(Manner { fault, ..Manner::default() });
        let role = Role::to(&host, |_| {});
        let large = || RelayJob {
            content: Content::Aside { length: 700_001 },
            ..job(1, &["a@elsewhere.test"])
        };
        let outcomes = role.deliver(vec![large(), job(2, &["b@elsewhere.test"])]).await;
        assert!(outcomes[0].starts_with("deferred 4.4.2: the connection"), "{outcomes:?}");
        // In the middle of the content, the end may be on its way already or not.
        let doubt = outcomes[0].contains("may have taken");
        assert!(doubt || fault == Fault::BreakInContent, "{outcomes:?}");
        assert_eq!(outcomes[1], "done");
        let whole = host.arrived().iter().filter(|message| !message.sender.is_empty()).count();
        assert_eq!((host.connections(), whole), (2, arrived), "{fault:?}");
    }
}

#[tokio::test]
async fn a_host_that_takes_leave_defers() {
    for (fault, code) in [(Fault::LeaveAtRecipient, "421 4.3.2"), (Fault::Busy, "421 4.")] {
        let host = Host::start(Manner { fault, ..Manner::default() });
        let outcome = Role::to(&host, |_| {}).one().await;
        assert!(outcome.starts_with("deferred 4.") && outcome.contains(code), "{outcome}");
        assert!(outcome.contains(" by 127.0.0.1: "), "{outcome}");
    }
}

#[tokio::test]
async fn a_connection_that_was_ended_while_it_waited_costs_nothing() {
    let host = Host::start(Manner { fault: Fault::LeaveAtSecond, ..Manner::default() });
    let role = Role::to(&host, |_| {});
    for _ in 0..3 {
        assert_eq!(role.one().await, "done");
    }
    let jobs = (1..=3).map(|id| job(id, &["a@elsewhere.test"])).collect();
    assert_eq!(role.deliver(jobs).await, ["done"; 3]);
    assert_eq!(host.arrived().len(), 6);
    assert_eq!(host.connections(), 6);
}

#[tokio::test]
async fn there_are_never_more_connections_than_allowed() {
    let host = Host::start(Manner::default());
    let role = Role::to(&host, |settings| settings.idle_timeout = Duration::from_millis(50));
    let deliveries = (0..40).map(|_| role.one());
    for outcome in futures_util::future::join_all(deliveries).await {
        assert_eq!(outcome, "done");
    }
    assert!(host.open_max() <= 2, "{} at once", host.open_max());
    // And none stays for long.
    host.deserted().await;
    assert_eq!(role.one().await, "done");
}

#[tokio::test]
async fn each_mode_of_tls_holds_what_it_promises() {
    let with = |tls| Host::start(Manner { tls, ..Manner::default() });
    let (plain, starttls, implicit) = (with(Tls::Off), with(Tls::Offered), with(Tls::Implicit));
    let protocol = |host: &Host| host.arrived().last().unwrap().protocol.clone();
    let deliver =
        async |host: &Host, tls| Role::to(host, |settings| settings.tls = tls).one().await;

    assert_eq!(deliver(&starttls, RelayTls::Off).await, "done");
    assert_eq!(protocol(&starttls), "ESMTP");
    let anybody = || ClientTls::new(&Trust::Anybody).unwrap();
    for (host, expected) in [(&plain, "ESMTP"), (&starttls, "ESMTPS")] {
        assert_eq!(deliver(host, RelayTls::Opportunistic(anybody())).await, "done");
        assert_eq!(protocol(host), expected);
    }
    assert_eq!(deliver(&starttls, RelayTls::StartTls(trusting(&starttls))).await, "done");
    assert_eq!(protocol(&starttls), "ESMTPS");
    assert_eq!(deliver(&implicit, RelayTls::Implicit(trusting(&implicit))).await, "done");
    assert_eq!(protocol(&implicit), "ESMTPS");

    // Not offered, and a certificate of somebody else.
    let outcome = deliver(&plain, RelayTls::StartTls(trusting(&starttls))).await;
    assert!(outcome.contains("does not offer STARTTLS"), "{outcome}");
    for (host, tls) in [
        (&starttls, RelayTls::StartTls(trusting(&implicit))),
        (&implicit, RelayTls::Implicit(trusting(&starttls))),
    ] {
        let before = host.arrived().len();
        let outcome = deliver(host, tls).await;
        assert!(outcome.starts_with("deferred 4.7.5: TLS with the relay"), "{outcome}");
        assert_eq!(host.arrived().len(), before);
    }
}

#[tokio::test]
async fn a_certificate_for_another_name_is_not_believed() {
    let host = Host::start(Manner { tls: Tls::Offered, ..Manner::default() });
    let called = |name: &str| {
        Role::to(&host, |settings| {
            settings.tls = RelayTls::StartTls(trusting(&host));
            settings.host = name.into();
        })
    };
    // Its certificate is for 127.0.0.1 and localhost, and not for all names of the same address.
    assert_eq!(called("127.0.0.1").one().await, "done");
    let outcome = called("127.1").one().await;
    assert!(outcome.starts_with("deferred 4.7.5: TLS with the relay"), "{outcome}");
}

#[tokio::test]
async fn tls_that_does_not_work_is_done_without_where_that_is_allowed() {
    let manner = Manner { fault: Fault::BrokenTls, tls: Tls::Offered, ..Manner::default() };
    let host = Host::start(manner);
    let anybody = ClientTls::new(&Trust::Anybody).unwrap();
    let role = Role::to(&host, |settings| settings.tls = RelayTls::Opportunistic(anybody));
    assert_eq!(role.one().await, "done");
    assert_eq!(host.arrived()[0].protocol, "ESMTP");
    let strict = trusting(&host);
    let role = Role::to(&host, |settings| settings.tls = RelayTls::StartTls(strict));
    let outcome = role.one().await;
    assert!(outcome.starts_with("deferred 4.7.5"), "{outcome}");
}

#[tokio::test]
async fn a_password_opens_the_door_and_is_never_overheard() {
    let manner = Manner { tls: Tls::Offered, submission: true, ..Manner::default() };
    let host = Host::start(manner);
    let with = |tls: RelayTls, credentials: Credentials| {
        Role::to(&host, |settings| {
            settings.tls = tls;
            settings.credentials = Some(credentials);
        })
    };
    let role = with(RelayTls::StartTls(trusting(&host)), credentials("pass", false));
    assert_eq!(role.one().await, "done");
    assert_eq!(host.arrived()[0].protocol, "ESMTPSA");
    let outcome =
        with(RelayTls::StartTls(trusting(&host)), credentials("wrong", false)).one().await;
    assert!(outcome.starts_with("deferred 4.7.8 by 127.0.0.1: 535 5.7.8"), "{outcome}");
    let outcome = with(RelayTls::Off, credentials("pass", false)).one().await;
    assert!(outcome.contains("the password is not sent without TLS"), "{outcome}");
    assert_eq!(with(RelayTls::Off, credentials("pass", true)).one().await, "done");
    assert_eq!(host.arrived()[1].protocol, "ESMTPA");
    let outcome = Role::to(&host, |_| {}).one().await;
    assert!(outcome.starts_with("failed 5.7.") || outcome.starts_with("deferred"), "{outcome}");
}

#[tokio::test]
async fn what_the_host_cannot_take_fails_and_what_cannot_be_read_waits() {
    let host = Host::start(Manner { message_size_max: Some(100), ..Manner::default() });
    let outcome = Role::to(&host, |_| {}).one().await;
    assert!(outcome.starts_with("failed 5.3.4: the message has "), "{outcome}");
    let host = Host::start(Manner::default());
    let role = Role::to(&host, |_| {});
    let unreadable =
        RelayJob { content: Content::Aside { length: 700_001 }, ..job(666, &["a@elsewhere.test"]) };
    let outcomes = role.deliver(vec![unreadable, job(2, &["b@elsewhere.test"])]).await;
    assert_eq!(outcomes[0], "deferred 4.3.0: the message cannot be read: bad sector");
    assert_eq!(outcomes[1], "done");
    assert_eq!(host.arrived().len(), 1, "half a message is no message");
}

#[tokio::test(start_paused = true)]
async fn a_host_that_says_nothing_is_given_up() {
    let listener = lamppost_net::Listener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.address();
    let silent = tokio::spawn(async move {
        let accepted = listener.accept().await;
        std::future::pending::<()>().await;
        drop(accepted);
    });
    let role = Role::start();
    role.relay.set(Some(settings(address)));
    assert_eq!(role.one().await, "deferred 4.4.2: the host did not answer in time");
    silent.abort();
}

/// What a host has of the content of the job with this id.
async fn size_there(uneven: &RelayJob) -> u64 {
    let host = Host::start(Manner::default());
    assert_eq!(Role::to(&host, |_| {}).deliver(vec![uneven.clone()]).await, ["done"]);
    let content = &host.arrived()[0].content;
    let lines = content.split(|&byte| byte == b'\n').count() - 1;
    (content.len() + lines) as u64
}

#[tokio::test]
async fn a_size_is_told_exactly() {
    let content = Content::Aside { length: UNEVEN_LENGTH };
    let uneven = RelayJob { content, ..job(UNEVEN, &["a@elsewhere.test"]) };
    let small = job(2, &["a@elsewhere.test"]);
    for job in [uneven, small] {
        let size = size_there(&job).await;
        let with_limit =
            |max| Host::start(Manner { message_size_max: Some(max), ..Manner::default() });
        // The host counts what it has of it, and what it is told, against its limit.
        let host = with_limit(size);
        assert_eq!(Role::to(&host, |_| {}).deliver(vec![job.clone()]).await, ["done"]);
        let outcomes = Role::to(&with_limit(size - 1), |_| {}).deliver(vec![job]).await;
        let expected = format!("the message has {size} bytes and the host takes {}", size - 1);
        assert_eq!(outcomes, [format!("failed 5.3.4: {expected}")]);
    }
}
