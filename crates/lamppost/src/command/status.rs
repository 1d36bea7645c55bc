//! status and reload.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use clap::Args;
use lamppost_console::{Blocked, ClientError, RelayStatus, Status as Shown};
use lamppost_telemetry::State;

use super::{client, out, unanswered};
use crate::exit::{Code, Failure};
use crate::place::Place;

/// Show what runs and how it is.
#[derive(Args, Debug)]
pub(crate) struct Status {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Status {
    pub(crate) async fn execute(self, place: &Place) -> Result<(), Failure> {
        let status: Shown =
            client(place)?.get("/v1/status").await.map_err(|error| unanswered(&error))?;
        if self.json { out::json(&status) } else { out::print(&text(&status)) }
    }
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

/// Whether two paths lead to the same file.
fn is_same(one: &Path, other: &Path) -> bool {
    let whole = |path: &Path| {
        path.canonicalize().or_else(|_| std::path::absolute(path)).unwrap_or(path.to_owned())
    };
    whole(one) == whole(other)
}
