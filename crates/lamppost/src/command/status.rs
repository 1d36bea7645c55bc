//! status.

use std::fmt::Write as _;
use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use clap::Args;
use lamppost_console::{
    Blocked, Client, ClientError, HostStatus, Phase, Reading, RelayStatus, Status as Shown,
};
use lamppost_roles::QueueStatus;
use lamppost_telemetry::State;

use super::{client, out, security, unanswered};
use crate::exit::{Code, Failure};
use crate::place::Place;

/// Show what runs and how it is.
#[derive(Args, Debug)]
pub(crate) struct Status {
    /// Show what each process may do: what the kernel holds it to
    #[arg(long)]
    security: bool,
    /// Show it again and again, every so many seconds (2 unless it is said), with what came and went since
    #[arg(
        long,
        value_name = "SECONDS",
        num_args = 0..=1,
        default_missing_value = "2",
        value_parser = clap::value_parser!(u64).range(1..=3600),
        conflicts_with = "security"
    )]
    watch: Option<u64>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Status {
    pub(crate) async fn execute(self, place: &Place) -> Result<(), Failure> {
        if let Some(seconds) = self.watch {
            return self.watch(place, Duration::from_secs(seconds)).await;
        }
        let status = ask(place).await?;
        if self.security {
            let processes = security::processes(&status.host);
            return if self.json {
                out::json(&processes)
            } else {
                out::print(&security::text(&processes))
            };
        }
        if self.json {
            out::json(&status)?;
        } else {
            out::print(&text(&status))?;
        }
        answered(&status)
    }

    /// Shows it until somebody ends this command, or nobody reads it any more.
    async fn watch(&self, place: &Place, every: Duration) -> Result<(), Failure> {
        let mut before: Option<(Shown, Instant)> = None;
        let mut ticks = tokio::time::interval(every);
        loop {
            ticks.tick().await;
            let (status, now) = (ask(place).await?, Instant::now());
            if self.json {
                out::json_line(&status)?;
            } else {
                let rates = before.as_ref().and_then(|(before, at)| {
                    let (before, now_there) = (before.queue.as_ref()?, status.queue.as_ref()?);
                    Some(rates(before, now_there, now.duration_since(*at)))
                });
                // The screen is for one at a time; a file gets one after another.
                let begin = if std::io::stdout().is_terminal() { "\x1b[H\x1b[2J" } else { "" };
                let text = text(&status);
                out::print(&format!("{begin}{text}{}\n", rates.unwrap_or_default()))?;
            }
            before = Some((status, now));
        }
    }
}

async fn ask(place: &Place) -> Result<Shown, Failure> {
    of(&client(place)?).await?.map_err(|error| unanswered(&error))
}

/// How the program is. It tells within a few seconds that a part of it does not answer; one that tells nothing
/// hangs itself.
pub(super) async fn of(client: &Client) -> Result<Result<Shown, ClientError>, Failure> {
    const PATIENCE: Duration = Duration::from_secs(12);
    tokio::time::timeout(PATIENCE, client.get("/v1/status")).await.map_err(|_| {
        let seconds = PATIENCE.as_secs();
        let what =
            format!("the program runs, and its control role says nothing for {seconds} seconds");
        Failure::new(Code::Unavailable, what).cure(
            "the log may tell why; when the process of `lamppost role control` is gone, as after \
             `kill -9` of it, all roles begin again",
        )
    })
}

/// Fails when a part of the program does not answer, though none begins.
fn answered(status: &Shown) -> Result<(), Failure> {
    if status.host.phase == Phase::Beginning {
        return Ok(());
    }
    let silent = status.host.roles.iter().filter(|role| !role.answers);
    let mut names: Vec<_> = silent.map(|role| role.name.as_str()).collect();
    if status.queue.is_none() && !names.contains(&"queue") {
        names.push("queue");
    }
    if status.host.pid == 0 {
        names.push("supervisor");
    }
    if names.is_empty() {
        return Ok(());
    }
    let what = format!("a part of the program does not answer: {}", names.join(", "));
    Err(Failure::new(Code::Unavailable, what))
}

/// What the program is at and what that waits for; nothing when all of it is at work.
pub(super) fn phase(host: &HostStatus) -> Option<String> {
    match host.phase {
        Phase::AtWork => None,
        Phase::EndingSessions => {
            let sessions = u64::try_from(host.sessions).unwrap_or_default();
            let left = host
                .phase_left_s
                .map(|left| format!(", for {} at most", out::age(Duration::from_secs(left))));
            Some(format!(
                "new connections wait until those that are open have ended ({}{})",
                out::count(sessions, "session"),
                left.unwrap_or_default()
            ))
        }
        Phase::Beginning => {
            let read = host.reading.map(|Reading { segments, of }| {
                format!(": {segments} of {} are read", out::count(of, "segment"))
            });
            let read = read.unwrap_or_default();
            Some(format!("all roles begin, which takes as long as the queue takes to read{read}"))
        }
    }
}

/// What came and went in a second.
fn rates(before: &QueueStatus, now: &QueueStatus, time: Duration) -> String {
    let rate = |before: u64, now: u64| {
        // Counters of roles that began anew began at 0, and what was counted since is all there.
        let more = now.checked_sub(before).unwrap_or(now);
        let tenths = u128::from(more) * 10_000 / time.as_millis().max(1);
        format!("{}.{}", tenths / 10, tenths % 10)
    };
    format!(
        "a second  {} messages accepted, {} recipients delivered, {} syncs\n",
        rate(before.accepted, now.accepted),
        rate(before.delivered, now.delivered),
        rate(before.syncs, now.syncs)
    )
}

fn text(status: &Shown) -> String {
    let Shown { host, queue } = status;
    let mut text = format!(
        "lamppost {}, process {}, up {}\nstate     {}\n",
        host.version,
        host.pid,
        out::age(Duration::from_secs(host.uptime_s)),
        host.state.display()
    );
    if let Some(phase) = phase(host) {
        let _infallible = writeln!(text, "now       {phase}");
    }
    let listeners: Vec<_> = host
        .listeners
        .iter()
        .map(|one| {
            let state = if one.listening { "listening" } else { "waiting for the address" };
            let (kind, tls) = out::words_of(one);
            [one.address.as_str(), kind, tls, state].map(str::to_owned)
        })
        .collect();
    text.push('\n');
    text.push_str(&out::table(["LISTENER", "FOR", "TLS", "STATE"], &listeners));
    let _infallible = writeln!(text, "\nsessions  {} open", host.sessions);
    match queue {
        Some(queue) => text.push_str(&queue_lines(queue)),
        None if host.phase == Phase::Beginning => text.push_str("queue     it is being read\n"),
        None => text.push_str("FAIL      queue: it does not answer\n"),
    }
    if !host.paused.is_empty() {
        let paused: Vec<_> = host.paused.iter().map(|part| part.name()).collect();
        let paused = paused.join(", ");
        let _infallible = writeln!(text, "paused    {paused}; `lamppost resume` has each go on");
    }
    if let Some(relay) = &host.relay {
        let waiting = queue.as_ref().map(|queue| queue.waiting_for_relay);
        text.push_str(&relay_line(relay, waiting));
    }
    let Blocked { addresses, accounts } = host.blocked;
    if addresses + accounts > 0 {
        let (addresses, accounts) =
            (out::count(addresses, "address"), out::count(accounts, "account"));
        let _infallible =
            writeln!(text, "blocked   {addresses}, {accounts}, after wrong passwords");
    }
    for fault in queue.iter().filter_map(|queue| queue.fault.as_ref()) {
        let _infallible = writeln!(text, "FAIL      spool: {fault}");
    }
    for damage in queue.iter().flat_map(|queue| &queue.damage) {
        let _infallible = writeln!(text, "WARN      spool: {damage}");
    }
    for fact in &host.health {
        let word = match fact.state {
            State::Ok => "ok",
            State::Warn => "WARN",
            State::Fail => "FAIL",
        };
        let _infallible = writeln!(text, "{word:8}  {}: {}", fact.component, fact.text);
    }
    text
}

fn queue_lines(queue: &QueueStatus) -> String {
    format!(
        "queue     {} ({} held), {} waiting, {} failed\n\
         spool     {}; since the start {} accepted, {} delivered, {}\n",
        out::count(queue.messages, "message"),
        queue.held,
        out::count(queue.waiting, "recipient"),
        queue.failed,
        out::size(queue.spool_bytes),
        out::count(queue.accepted, "message"),
        out::count(queue.delivered, "recipient"),
        out::count(queue.syncs, "sync")
    )
}

/// The host of `relay-to`: whether it takes mail, and what waits for it.
fn relay_line(relay: &RelayStatus, waiting: Option<u64>) -> String {
    let since = |seconds: Option<u64>| out::age(Duration::from_secs(seconds.unwrap_or_default()));
    let state = match relay.up {
        None => "not tried yet".to_owned(),
        Some(true) => format!("up for {}", since(relay.for_s)),
        Some(false) => format!("DOWN for {}", since(relay.for_s)),
    };
    let connections = out::count(relay.connections, "connection");
    let mut line = format!("relay     {}: {state}, {connections} open", relay.host);
    if let Some(waiting) = waiting {
        let _infallible = write!(line, ", {} waiting", out::count(waiting, "recipient"));
    }
    line.push('\n');
    if let Some(error) = &relay.last_error {
        let ago = since(relay.last_error_ago_s);
        let _infallible = writeln!(line, "          last error, {ago} ago: {error}");
    }
    line
}
