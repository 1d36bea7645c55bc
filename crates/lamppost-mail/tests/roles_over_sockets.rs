//! The roles as processes would run them: every link between front, policy, queue and delivery is a
//! socketpair, and nothing else is shared. A message goes all the way into its Maildir.
#![allow(clippy::unwrap_used, clippy::allow_attributes, reason = "a test fails by panicking")]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use lamppost_accounts::Accounts;
use lamppost_database::{Database, Survives};
use lamppost_delivery::{MaildirTemplate, Relay};
use lamppost_disk::{Blocking, RealDisk};
use lamppost_greylist::{Greylist, MemoryStore, Policy as GreylistPolicy};
use lamppost_mail::policy::{Elsewhere, LocalSettings, Policy, PolicySettings, StoreFailure};
use lamppost_mail::{Front, FrontEnds, FrontLimits, FrontSettings, ListenerSettings, TlsMode};
use lamppost_net::link::{Inbox, Port, carry_answers, carry_questions, link};
use lamppost_net::{Clock, Drain, SystemClock};
use lamppost_queue::{Ends, Queue};
use lamppost_smtp::{AuthOffer, Kind, Limits, Secret, Settings};
use lamppost_telemetry::Metrics;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, DuplexStream};
use tokio::net::UnixStream;

/// The two ends of a link over a socketpair.
fn socket<Q, A>() -> (Port<Q, A>, Inbox<Q, A>)
where
    Q: Serialize + DeserializeOwned + Send + Sync + 'static,
    A: Serialize + DeserializeOwned + Send + Sync + 'static,
{
    let (port, asked) = link();
    let (answering, inbox) = link();
    let (here, there) = UnixStream::pair().unwrap();
    tokio::spawn(carry_questions(asked, here));
    tokio::spawn(carry_answers(answering, there));
    (port, inbox)
}

async fn start(folder: &Path) -> (Front, Queue) {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let (policy_port, policy) = socket();
    let (intake_port, intake) = socket();
    let (content_port, content) = socket();
    let (delivery_port, delivery) = socket();
    let (_control_port, control) = socket();
    let (routing_port, routing) = socket();

    let database = Database::open(&folder.join("state.db"), Survives::Kill).unwrap();
    let accounts = Accounts::open(database, lamppost_accounts::Settings::default()).await.unwrap();
    accounts.add(&"demo@lamppost.test".parse().unwrap(), &Secret::new("x".into())).await.unwrap();
    let greylist = GreylistPolicy {
        enabled: false,
        ..GreylistPolicy::by_address(Duration::ZERO, Duration::ZERO, Duration::ZERO)
    };
    let greylist = Arc::new(Greylist::new(greylist, Box::new(MemoryStore::default())));
    let settings = PolicySettings {
        hostname: "mail.lamppost.test".into(),
        domains: vec!["lamppost.test".into()],
        user_domains: Vec::new(),
        postmaster: None,
        when_store_fails: StoreFailure::Defer,
        observes: false,
        logs_to_store: false,
        elsewhere: Elsewhere::Nowhere,
        local: LocalSettings::default(),
    };
    let answering = Policy::new(settings, accounts, greylist, clock.clone());
    tokio::spawn(answering.clone().run(policy));
    tokio::spawn(answering.run_routes(routing));

    let template = format!("{}/mail/{{domain}}/{{local}}", folder.display());
    let settings = lamppost_delivery::Settings {
        maildir: MaildirTemplate::new(template).unwrap(),
        hostname: "mail.lamppost.test".into(),
        writers_max: 4,
        patience: Duration::from_secs(20),
        silent_max: 16,
        health: lamppost_telemetry::Health::default(),
        way: None,
        blocking: Blocking::Threads,
        relay: Relay::default(),
        owners: None,
    };
    let disk = Arc::new(RealDisk);
    let delivering = lamppost_delivery::run(settings, disk, Metrics::new(), delivery, content_port);
    tokio::spawn(delivering);

    let settings = lamppost_queue::Settings {
        directory: folder.join("spool"),
        // The folder of temporary files may be in memory.
        accept_volatile: true,
        ..lamppost_queue::Settings::default()
    };
    let ends = Ends { intake, control, content, delivery: delivery_port, routing: routing_port };
    let queue = Queue::start(settings, clock.clone(), Metrics::new(), ends).await.unwrap();

    let settings = FrontSettings {
        hostname: "mail.lamppost.test".into(),
        limits: FrontLimits { inline_max: 64 * 1024, ..FrontLimits::default() },
        grounds: Vec::new(),
    };
    let ends = FrontEnds { policy: policy_port, intake: intake_port };
    (Front::new(settings, ends, (clock, Metrics::new()), Drain::default()), queue)
}

fn listener() -> Arc<ListenerSettings> {
    let smtp = Settings {
        hostname: "mail.lamppost.test".into(),
        kind: Kind::Mx,
        starttls: false,
        auth: AuthOffer::Never,
        limits: Limits::default(),
    };
    Arc::new(ListenerSettings {
        name: "test".into(),
        smtp: Arc::new(smtp),
        tls: TlsMode::Off,
        proxy_from: Vec::new(),
        fix_for: Vec::new(),
    })
}

/// Sends messages of these sizes over one connection; each must be accepted.
async fn send(stream: DuplexStream, sizes: &[usize]) {
    let mut stream = BufReader::new(stream);
    let mut ask = async |command: String, expected: &str| {
        stream.get_mut().write_all(command.as_bytes()).await.unwrap();
        let mut reply = String::new();
        stream.read_line(&mut reply).await.unwrap();
        assert!(reply.starts_with(expected), "{command:.40}: {reply}");
    };
    ask(String::new(), "220").await;
    ask("HELO client.test\r\n".into(), "250").await;
    for size in sizes {
        ask("MAIL FROM:<a@elsewhere.test>\r\n".into(), "250").await;
        ask("RCPT TO:<nobody@lamppost.test>\r\n".into(), "550 5.1.1").await;
        ask("RCPT TO:<demo@lamppost.test>\r\n".into(), "250").await;
        ask("DATA\r\n".into(), "354").await;
        let line = format!("{}\r\n", "x".repeat(98));
        ask(format!("Subject: x\r\n\r\n{}.\r\n", line.repeat(size / 100)), "250 2.0.0").await;
    }
    ask("QUIT\r\n".into(), "221").await;
}

#[tokio::test]
async fn messages_small_and_large_reach_their_maildir() {
    let folder = tempfile::tempdir().unwrap();
    let (front, queue) = start(folder.path()).await;
    let (client, server) = tokio::io::duplex(64 * 1024);
    let peer = "192.0.2.1".parse().unwrap();
    let serving = front.serve(server, peer, listener(), None);
    tokio::join!(serving, send(client, &[1_000, 1_000_000]));
    let new = folder.path().join("mail/lamppost.test/demo/new");
    let count = || std::fs::read_dir(&new).map_or(0, Iterator::count);
    let patience = tokio::time::Instant::now() + Duration::from_secs(20);
    while count() < 2 {
        assert!(tokio::time::Instant::now() < patience, "only {} messages came", count());
        tokio::task::yield_now().await;
    }
    let mut sizes: Vec<_> = std::fs::read_dir(&new)
        .unwrap()
        .map(|file| file.unwrap().metadata().unwrap().len())
        .collect();
    sizes.sort_unstable();
    assert!(sizes[0] > 990 && sizes[0] < 2_000 && sizes[1] > 990_000, "{sizes:?}");
    queue.stop(Duration::from_secs(5)).await;
}
