//! Days of greylisting on simulated hosts: the real front, policy, accounts and greylist, a
//! simulated network and a simulated clock. The same seed gives the same story.
#![allow(clippy::unwrap_used, clippy::allow_attributes, reason = "a test fails by panicking")]

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lamppost_accounts::Accounts;
use lamppost_database::Database;
use lamppost_greylist::{Greylist, Policy as GreylistPolicy, SqliteStore};
use lamppost_mail::policy::{Elsewhere, LocalSettings, Policy, PolicySettings, StoreFailure};
use lamppost_mail::{Front, FrontEnds, FrontLimits, FrontSettings, ListenerSettings, TlsMode};
use lamppost_net::link::link;
use lamppost_net::{Clock, Drain, TokioClock};
use lamppost_roles::{IntakeAnswer, IntakeRequest, QueueId};
use lamppost_smtp::{AuthOffer, Kind, Limits, Secret, Settings};
use lamppost_telemetry::Metrics;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::time::{Instant, sleep};
use turmoil::net::{TcpListener, TcpStream};

const PORT: u16 = 25;
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(60 * 60);

/// What the senders were told: who, in which minute, and the reply to RCPT.
type Story = Arc<Mutex<Vec<(&'static str, u64, String)>>>;

/// The server as it runs, with a queue that stores everything at once.
async fn serve(folder: PathBuf) -> turmoil::Result {
    let clock: Arc<dyn Clock> = Arc::new(TokioClock::starting_at(HOUR * 500_000));
    let database = Database::open_inline(&folder.join("state.db"))?;
    let accounts = Accounts::open(database.clone(), lamppost_accounts::Settings::default()).await?;
    let demo = "demo@lamppost.test".parse()?;
    if accounts.find(&demo).await?.is_none() {
        accounts.add(&demo, &Secret::new("unused".into())).await?;
    }
    let greylist = GreylistPolicy {
        // Simulated hosts are neighbours.
        ipv4_prefix: 32,
        ipv6_prefix: 128,
        ..GreylistPolicy::by_address(MINUTE * 5, HOUR * 10, HOUR * 48)
    };
    let store = SqliteStore::open(database).await?;
    let greylist = Arc::new(Greylist::new(greylist, Box::new(store)));
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
    let (policy_port, policy_inbox) = link();
    tokio::spawn(Policy::new(settings, accounts, greylist, clock.clone()).run(policy_inbox));
    let (intake, mut inbox) = link();
    tokio::spawn(async move {
        while let Some((request, reply)) = inbox.next().await {
            reply.send(match request {
                IntakeRequest::Submit { .. } => IntakeAnswer::Stored(QueueId(1)),
                _ => IntakeAnswer::Proceed,
            });
        }
    });
    let front = FrontSettings {
        hostname: "mail.lamppost.test".into(),
        limits: FrontLimits::default(),
        grounds: Vec::new(),
    };
    let ends = FrontEnds { policy: policy_port, intake };
    let front = Arc::new(Front::new(front, ends, (clock, Metrics::new()), Drain::default()));
    let smtp = Settings {
        hostname: "mail.lamppost.test".into(),
        kind: Kind::Mx,
        starttls: false,
        auth: AuthOffer::Never,
        limits: Limits::default(),
    };
    let settings = Arc::new(ListenerSettings {
        name: "simulated".into(),
        smtp: Arc::new(smtp),
        tls: TlsMode::Off,
        proxy_from: Vec::new(),
        fix_for: Vec::new(),
    });
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)).await?;
    loop {
        let (stream, peer) = listener.accept().await?;
        let (front, settings) = (front.clone(), settings.clone());
        tokio::spawn(async move { front.serve(stream, peer.ip(), settings, None).await });
    }
}

/// Tries to send a message; returns the reply to RCPT, or that to DATA when only that says no.
async fn attempt(sender: &str) -> std::io::Result<String> {
    let mut stream = BufReader::new(TcpStream::connect(("mx", PORT)).await?);
    let mut reply = String::new();
    stream.read_line(&mut reply).await?;
    let from = match sender {
        "bounce" => String::new(),
        sender => format!("{sender}@elsewhere.test"),
    };
    for command in
        ["HELO client.test", &format!("MAIL FROM:<{from}>"), "RCPT TO:<demo@lamppost.test>"]
    {
        stream.get_mut().write_all(format!("{command}\r\n").as_bytes()).await?;
        reply.clear();
        stream.read_line(&mut reply).await?;
    }
    let told = reply.trim().to_owned();
    if told.starts_with("250") {
        for text in ["DATA\r\n", "Subject: x\r\n\r\nx\r\n.\r\n"] {
            stream.get_mut().write_all(text.as_bytes()).await?;
            reply.clear();
            stream.read_line(&mut reply).await?;
            if reply.starts_with("451") {
                return Ok(reply.trim().to_owned());
            }
        }
        assert!(reply.starts_with("250 2.0.0"), "{reply}");
    }
    Ok(told)
}

/// Tries at the given times after the start and notes what was said.
async fn sender(name: &'static str, times: Vec<Duration>, story: Story) -> turmoil::Result {
    let begun = Instant::now();
    for time in times {
        sleep(time.saturating_sub(begun.elapsed())).await;
        let told = attempt(name).await?;
        story.lock().unwrap().push((name, begun.elapsed().as_secs() / 60, told));
    }
    Ok(())
}

fn days(seed: u64) -> Vec<(&'static str, u64, String)> {
    let folder = tempfile::tempdir().unwrap();
    let story = Story::default();
    let mut simulation = turmoil::Builder::new()
        .tick_duration(Duration::from_secs(1))
        .simulation_duration(HOUR * 24 * 6)
        .rng_seed(seed)
        .build();
    let path = folder.path().to_owned();
    simulation.host("mx", move || serve(path.clone()));
    let at = |hours: &[(u32, u32)]| {
        hours.iter().map(|&(h, m)| HOUR * h + MINUTE * m).collect::<Vec<_>>()
    };
    // A real server retries, and writes again on the following days.
    let real = at(&[(1, 0), (1, 2), (1, 10), (25, 0), (72, 0), (124, 0)]);
    simulation.client("real", sender("real", real, story.clone()));
    // A spammer never comes back.
    simulation.client("spammer", sender("spammer", at(&[(2, 0)]), story.clone()));
    // A slow one comes back after its window.
    simulation.client("slow", sender("slow", at(&[(3, 0), (14, 0), (14, 30)]), story.clone()));
    // Nobody's own mail is told later that it must wait, and that nothing came of it changes nothing.
    simulation
        .client("bounce", sender("bounce", at(&[(4, 0), (4, 3), (4, 6), (5, 0)]), story.clone()));
    simulation.run().unwrap();
    let mut told = std::mem::take(&mut *story.lock().unwrap());
    told.sort_by_key(|&(name, minute, _)| (name, minute));
    told
}

#[test]
fn senders_wait_once_and_are_known_for_days() {
    let replies: Vec<_> =
        days(1).into_iter().map(|(name, minute, told)| (name, minute / 60, told)).collect();
    let deferred =
        |why, seconds| format!("451 4.7.1 greylisted ({why}): try again in {seconds} seconds");
    let accepted = "250 2.1.5 recipient ok".to_owned();
    assert_eq!(
        replies,
        [
            ("bounce", 4, deferred("new", 300)),
            ("bounce", 4, deferred("early", 120)),
            ("bounce", 4, accepted.clone()),
            ("bounce", 5, accepted.clone()),
            ("real", 1, deferred("new", 300)),
            ("real", 1, deferred("early", 179)),
            ("real", 1, accepted.clone()),
            ("real", 25, accepted.clone()),
            ("real", 72, accepted.clone()),
            // More than two days after the last: unknown again.
            ("real", 124, deferred("new", 300)),
            ("slow", 3, deferred("new", 300)),
            ("slow", 14, deferred("new", 300)),
            ("slow", 14, accepted),
            ("spammer", 2, deferred("new", 300)),
        ]
    );
}

#[test]
fn the_same_seed_gives_the_same_story() {
    assert_eq!(days(7), days(7));
}
