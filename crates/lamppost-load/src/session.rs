//! One session of a load: message after message.

use std::fmt::Write as _;
use std::io;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::connection::{Connection, Reply};
use crate::load::Shared;
use crate::{Outcome, Sent, Token};

/// How long a session waits before it connects again.
const RECONNECT_PAUSE: Duration = Duration::from_millis(5);

/// What a session did.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) sent: Vec<Sent>,
    pub(crate) cuts: u64,
    pub(crate) complaint: Option<String>,
}

/// Sends until the load is over, or the connection ends and is not to be made again; the first
/// message at a given time.
pub(crate) fn run(shared: &Shared, first: Instant) -> Tally {
    let mut tally = Tally::default();
    if let Err(error) = send_all(shared, first, &mut tally) {
        tally.complaint = Some(error.to_string());
    }
    tally
}

fn send_all(shared: &Shared, mut next: Instant, tally: &mut Tally) -> io::Result<()> {
    let mut kept = None;
    while !shared.is_over() {
        wait_until(next);
        // What a slow server kept from being sent in time is not sent later all at once.
        next = Instant::now().max(next + shared.load.interval);
        let mut connection = match kept.take() {
            Some(connection) => connection,
            None => connect(shared)?,
        };
        let Some(token) = shared.take() else {
            // Goodbye is politeness; nothing is lost when it is not heard.
            connection.quit().ok();
            break;
        };
        let recipients = shared.load.recipients_of(&token);
        let mut sent = Sent { token, recipients, outcome: Outcome::Cut, latency: Duration::ZERO };
        let done = send(shared, &mut connection, &mut sent);
        let is_acknowledged = matches!(sent.outcome, Outcome::Acknowledged(_));
        let is_closed = sent.outcome == Outcome::Refused(421);
        if matches!(sent.outcome, Outcome::Refused(_)) {
            shared.refused.fetch_add(1, Ordering::Relaxed);
        }
        tally.sent.push(sent);
        if is_acknowledged {
            shared.acknowledged.fetch_add(1, Ordering::Relaxed);
            if let Some(journal) = &shared.journal {
                journal.note(token)?;
            }
        }
        match done {
            Ok(()) if is_closed => tally.cuts += 1,
            Ok(()) if shared.load.keep_connections => kept = Some(connection),
            Ok(()) => connection.quit()?,
            Err(error) => {
                tally.cuts += 1;
                if !shared.load.reconnect {
                    return Err(error);
                }
            }
        }
    }
    if let Some(connection) = kept {
        connection.quit().ok();
    }
    Ok(())
}

fn wait_until(time: Instant) {
    loop {
        let left = time.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        std::thread::park_timeout(left);
    }
}

/// Connects; where the load says so, again and again until patience ends.
fn connect(shared: &Shared) -> io::Result<Connection> {
    let patience = shared.load.patience;
    let begun = Instant::now();
    loop {
        match Connection::open(shared.load.address, patience) {
            Ok(connection) => return Ok(connection),
            Err(error) if !shared.load.reconnect => return Err(error),
            Err(error) if shared.is_over() || begun.elapsed() > patience => return Err(error),
            Err(_) => std::thread::park_timeout(RECONNECT_PAUSE),
        }
    }
}

/// Sends one message. What became of it stands in `sent` even when the connection ended.
fn send(shared: &Shared, connection: &mut Connection, sent: &mut Sent) -> io::Result<()> {
    let content = sent.token.wire();
    if let Some(refusal) = announce(shared, connection, &sent.token, &sent.recipients)? {
        sent.outcome = Outcome::Refused(refusal.code);
        return if refusal.code == 421 { Ok(()) } else { connection.ask(b"RSET\r\n").map(drop) };
    }
    connection.send_first(&content)?;
    sent.outcome = Outcome::Unknown;
    let (reply, latency) = connection.send_last(&content)?;
    sent.latency = latency;
    sent.outcome = if reply.is_positive() {
        Outcome::Acknowledged(reply.text)
    } else {
        Outcome::Refused(reply.code)
    };
    Ok(())
}

/// Names sender and recipients and asks to send content; returns the first refusal.
fn announce(
    shared: &Shared,
    connection: &mut Connection,
    token: &Token,
    recipients: &[String],
) -> io::Result<Option<Reply>> {
    let mut commands = vec![format!("MAIL FROM:<{}>\r\n", shared.load.sender)];
    commands.extend(recipients.iter().map(|recipient| format!("RCPT TO:<{recipient}>\r\n")));
    if !shared.load.pipelining {
        commands.push("DATA\r\n".to_owned());
        for command in commands {
            let reply = connection.ask(command.as_bytes())?;
            if !reply.is_positive() {
                return Ok(Some(reply));
            }
        }
        return Ok(None);
    }
    let mut together = commands.concat();
    write!(together, "DATA\r\n").map_err(io::Error::other)?;
    connection.send(together.as_bytes())?;
    let mut refusal = None;
    for _ in &commands {
        let reply = connection.reply()?;
        if !reply.is_positive() && refusal.is_none() {
            refusal = Some(reply);
        }
    }
    let go_on = connection.reply()?;
    match refusal {
        // Some recipients were taken: the message that the server now waits for is left out, and
        // there is no other way out of that than an end of the connection.
        Some(refusal) if go_on.code == 354 => {
            Err(io::Error::other(format!("{token}: {} {}", refusal.code, refusal.text)))
        }
        Some(refusal) => Ok(Some(refusal)),
        None if go_on.code == 354 => Ok(None),
        None => Ok(Some(go_on)),
    }
}
