//! status and reload.

use std::fmt::Write as _;
use std::io::IsTerminal as _;
use std::path::Path;
use std::time::{Duration, Instant};

use clap::Args;
use lamppost_console::{Blocked, ClientError, RelayStatus, Status as Shown};
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
        if self.json { out::json(&status) } else { out::print(&text(&status)) }
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
                let rates = before.as_ref().map(|(before, at)| {
                    rates(&before.queue, &status.queue, now.duration_since(*at))
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
    client(place)?.get("/v1/status").await.map_err(|error| unanswered(&error))
}

/// What came and went in a second.
fn rates(before: &QueueStatus, now: &QueueStatus, time: Duration) -> String {
    let rate = |before: u64, now: u64| {
        // Counters of roles that began anew begin at 0.
        let tenths = u128::from(now.saturating_sub(before)) * 10_000 / time.as_millis().max(1);
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
        "lamppost {}, process {}, up {}\nstate     {}\n\n",
        host.version,
        host.pid,
        out::age(Duration::from_secs(host.uptime_s)),
        host.state.display()
    );
    let listeners: Vec<_> = host
        .listeners
        .iter()
        .map(|one| {
            let state = if one.listening { "listening" } else { "waiting for the address" };
            let (kind, tls) = out::words_of(one);
            [one.address.as_str(), kind, tls, state].map(str::to_owned)
        })
        .collect();
    text.push_str(&out::table(["LISTENER", "FOR", "TLS", "STATE"], &listeners));
    let _infallible = write!(
        text,
        "\nsessions  {} open\nqueue     {} ({} held), {} waiting, {} failed\n\
         spool     {}; since the start {} accepted, {} delivered, {}\n",
        host.sessions,
        out::count(queue.messages, "message"),
        queue.held,
        out::count(queue.waiting, "recipient"),
        queue.failed,
        out::size(queue.spool_bytes),
        out::count(queue.accepted, "message"),
        out::count(queue.delivered, "recipient"),
        out::count(queue.syncs, "sync")
    );
    if !host.paused.is_empty() {
        let paused: Vec<_> = host.paused.iter().map(|part| part.name()).collect();
        let paused = paused.join(", ");
        let _infallible = writeln!(text, "paused    {paused}; `lamppost resume` has each go on");
    }
    if let Some(relay) = &host.relay {
        text.push_str(&relay_line(relay, queue.waiting_for_relay));
    }
    let Blocked { addresses, accounts } = host.blocked;
    if addresses + accounts > 0 {
        let addresses = match addresses {
            1 => "1 address".to_owned(),
            many => format!("{many} addresses"),
        };
        let accounts = out::count(accounts, "account");
        let _infallible =
            writeln!(text, "blocked   {addresses}, {accounts}, after wrong passwords");
    }
    if let Some(fault) = &queue.fault {
        let _infallible = writeln!(text, "FAIL      spool: {fault}");
    }
    for damage in &queue.damage {
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

/// The host of `relay-to`: whether it takes mail, and what waits for it.
fn relay_line(relay: &RelayStatus, waiting: u64) -> String {
    let since = |seconds: Option<u64>| out::age(Duration::from_secs(seconds.unwrap_or_default()));
    let state = match relay.up {
        None => "not tried yet".to_owned(),
        Some(true) => format!("up for {}", since(relay.for_s)),
        Some(false) => format!("DOWN for {}", since(relay.for_s)),
    };
    let mut line = format!(
        "relay     {}: {state}, {} connections open, {waiting} recipients waiting\n",
        relay.host, relay.connections
    );
    if let Some(error) = &relay.last_error {
        let ago = since(relay.last_error_ago_s);
        let _infallible = writeln!(line, "          last error, {ago} ago: {error}");
    }
    line
}

/// Make the running program read its file again.
pub(crate) async fn reload(place: &Place) -> Result<(), Failure> {
    let client = client(place).map_err(|failure| {
        failure.or_cure("a running program was not asked: its configuration stays in force")
    })?;
    let lost = |error: &ClientError| {
        let failure = unanswered(error);
        match error {
            ClientError::NotRunning { .. } => failure.cure(
                "start it with `lamppost run`; if it runs and `state` or `control-socket` was \
                 changed in the file since, name its folder with --state DIR: `lamppost run` \
                 printed it",
            ),
            _ => failure,
        }
    };
    let status: Shown = client.get("/v1/status").await.map_err(|error| lost(&error))?;
    if let (Some(named), Some(its)) = (place.named_file(), &status.host.file)
        && !is_same(&named, its)
    {
        let (named, its) = (named.display(), its.display());
        let what = format!("the running program reads {its}, not {named}");
        return Err(Failure::new(Code::Usage, what).cure(format!(
            "`lamppost reload --config {its}` makes it read its own again; for another file, \
             start it again with `lamppost run --config {named}`"
        )));
    }
    match client.post::<serde_json::Value>("/v1/reload", &()).await {
        Ok(done) => out::print(&format!("{}\n", done["done"].as_str().unwrap_or("reloaded"))),
        Err(ClientError::Refused(text)) => Err(Failure::new(Code::Config, text)),
        Err(error) => Err(lost(&error)),
    }
}

/// Have the program's file take the place of what runs, and wait until it has.
pub(crate) async fn upgrade(place: &Place) -> Result<(), Failure> {
    /// How long sessions may take to end, and the queue to be read, before nobody waits any more.
    const PATIENCE: Duration = Duration::from_secs(300);
    const LOOK_EVERY: Duration = Duration::from_millis(50);
    let client = client(place)?;
    let before: Shown = client.get("/v1/status").await.map_err(|error| unanswered(&error))?;
    let done = client.post::<serde_json::Value>("/v1/upgrade", &()).await;
    let done = done.map_err(|error| match error {
        ClientError::Refused(text) => Failure::new(Code::Data, text)
            .cure("what runs goes on; put a program there that begins"),
        error => unanswered(&error),
    })?;
    out::print(&format!("{}\n", done["done"].as_str().unwrap_or_default()))?;
    let begun = Instant::now();
    loop {
        let left = PATIENCE.saturating_sub(begun.elapsed());
        match tokio::time::timeout(left, client.get::<Shown>("/v1/status")).await {
            Ok(Ok(now))
                if !now.host.roles.is_empty()
                    && now.host.roles.iter().all(|role| !before.host.roles.contains(role)) =>
            {
                return out::print(&format!("lamppost {} is at work.\n", now.host.version));
            }
            // The socket stays open from one program to the next.
            Ok(Err(error @ ClientError::NotRunning { .. })) => return Err(unanswered(&error)),
            Ok(_) => {}
            Err(_) => {
                let what = "the new program does not answer";
                return Err(Failure::new(Code::Unavailable, what).cure("look into its log"));
            }
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Whether two paths lead to the same file.
fn is_same(one: &Path, other: &Path) -> bool {
    let whole = |path: &Path| {
        path.canonicalize().or_else(|_| std::path::absolute(path)).unwrap_or(path.to_owned())
    };
    whole(one) == whole(other)
}
