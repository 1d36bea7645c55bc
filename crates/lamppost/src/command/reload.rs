//! reload and upgrade.

use std::path::Path;
use std::time::{Duration, Instant};

use lamppost_console::{Client, ClientError, HostStatus, Phase, Reloaded, Status, Warning};

use lamppost_telemetry::{Fact, State};

use super::progress::Waiting;
use super::{client, out, remarks, status, unanswered};
use crate::exit::{Code, Failure};
use crate::place::Place;

/// What is over sooner needs no words.
const QUIET: Duration = Duration::from_millis(700);
/// How often it is looked at what is waited for.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Make the running program read its file again.
pub(crate) async fn reload(place: &Place) -> Result<(), Failure> {
    // A file that is wrong is told by the program too, and with the same words.
    let opened = place.open().map_err(|failure| {
        failure.or_cure("a running program was not asked: its configuration stays in force")
    })?;
    let client = Client::new(&opened.control_socket);
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
    let Status { host, .. } = status::of(&client).await?.map_err(|error| lost(&error))?;
    if let (Some(named), Some(its)) = (place.named_file(), &host.file)
        && !is_same(&named, its)
    {
        let (named, its) = (named.display(), its.display());
        let what = format!("the running program reads {its}, not {named}");
        return Err(Failure::new(Code::Usage, what).cure(format!(
            "`lamppost reload --config {its}` makes it read its own again; for another file, \
             start it again with `lamppost run --config {named}`"
        )));
    }
    let Reloaded { done, mut warnings } = match asked(&client).await {
        Ok(reloaded) => reloaded,
        Err(ClientError::Refused(text)) => return Err(Failure::new(Code::Config, text)),
        Err(error) => return Err(lost(&error)),
    };
    // The accounts are not looked into by the program that read the file.
    let is_its = opened.file.as_deref().zip(host.file.as_deref());
    if is_its.is_some_and(|(one, its)| is_same(one, its)) {
        let (line, column) = (place_line(&opened, "mail.postmaster"), None);
        let postmaster = remarks::unknown_postmaster(&opened).await;
        warnings.extend(postmaster.map(|remark| Warning {
            line,
            column,
            what: remark.what,
            cure: Some(remark.cure),
        }));
    }
    for warning in &warnings {
        out::complain(&told(warning, host.file.as_deref()));
    }
    out::print(&format!("{done}\n"))
}

/// Asks for the reload, and tells what it waits for.
async fn asked(client: &Client) -> Result<Reloaded, ClientError> {
    let mut asked = std::pin::pin!(client.post::<Reloaded>("/v1/reload", &()));
    let mut looks = tokio::time::interval_at(tokio::time::Instant::now() + QUIET, LOOK_EVERY);
    let mut waiting = Waiting::default();
    loop {
        tokio::select! {
            done = &mut asked => return done,
            _ = looks.tick() => {
                let status = tokio::time::timeout(LOOK_EVERY, client.get::<Status>("/v1/status"));
                if let Ok(Ok(Status { host, .. })) = status.await {
                    match status::phase(&host) {
                        Some(text) => waiting.tell(host.phase, &text),
                        None => waiting.forget(),
                    }
                }
            }
        }
    }
}

/// A warning with its place, as `lamppost check` tells it.
fn told(warning: &Warning, file: Option<&Path>) -> String {
    let Warning { line, column, what, cure } = warning;
    let place = line.zip(file).map(|(line, file)| {
        let column = column.map(|column| format!(":{column}")).unwrap_or_default();
        format!(" --> {}:{line}{column}\n", file.display())
    });
    let cure = cure.as_ref().map(|cure| format!("  help: {cure}\n")).unwrap_or_default();
    format!("warning: {what}\n{}{cure}\n", place.unwrap_or_default())
}

fn place_line(opened: &crate::place::Opened, key: &str) -> Option<u64> {
    lamppost_config::line_of(&opened.text, key).map(|line| line as u64)
}

/// Have the program's file take the place of what runs, and wait until it has.
pub(crate) async fn upgrade(place: &Place) -> Result<(), Failure> {
    /// How long sessions may take to end, and a long queue to be read twice, before nobody waits any more.
    const PATIENCE: Duration = Duration::from_secs(60 * 60);
    const LOOK_EVERY: Duration = Duration::from_millis(50);
    let client = client(place)?;
    let before = status::of(&client).await?.map_err(|error| unanswered(&error))?;
    let done = client.post::<serde_json::Value>("/v1/upgrade", &()).await;
    let done = done.map_err(|error| match error {
        ClientError::Refused(text) => Failure::new(Code::Data, text)
            .cure("what runs goes on; put a program there that begins"),
        error => unanswered(&error),
    })?;
    out::print(&format!("{}\n", done["done"].as_str().unwrap_or_default()))?;
    let is_new = |host: &HostStatus| {
        let was = |pid| before.host.roles.iter().any(|role| role.pid == pid);
        host.phase == Phase::AtWork
            && !host.roles.is_empty()
            && host.roles.iter().all(|role| role.answers && !was(role.pid))
    };
    let begun = Instant::now();
    loop {
        let left = PATIENCE.saturating_sub(begun.elapsed());
        match tokio::time::timeout(left, client.get::<Status>("/v1/status")).await {
            Ok(Ok(now)) if is_new(&now.host) => {
                let is_failed =
                    |fact: &&Fact| fact.component == "upgrade" && fact.state == State::Fail;
                if let Some(fact) = now.host.health.iter().find(is_failed) {
                    return Err(Failure::new(Code::Data, format!("no upgrade: {}", fact.text))
                        .cure("look into the log; put a program there that begins"));
                }
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
