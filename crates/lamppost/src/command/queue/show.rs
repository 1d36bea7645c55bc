//! queue show.

use std::fmt::Write as _;

use lamppost_console::Client;
use lamppost_roles::{MessageView, Peer, QueueId};

use super::known::SESSION;
use super::list::{sender, state};
use super::{absent, out};
use crate::exit::Failure;

pub(super) async fn show(client: &Client, id: QueueId, json: bool) -> Result<(), Failure> {
    let path = format!("/v1/queue/{id}");
    let message: MessageView = client.get(&path).await.map_err(|error| absent(id, &error))?;
    if json { out::json(&message) } else { out::print(&text(&message)) }
}

fn text(message: &MessageView) -> String {
    let received = message.origin.as_ref().map_or(message.id.received(), |one| one.received);
    let mut text = format!(
        "message   {}\nreceived  {}\nfrom      {}\nsize      {}\n",
        message.id,
        out::time(received.0),
        sender(&message.sender),
        out::size(message.size),
    );
    let mut line = |name: &str, value: String| {
        let _infallible = writeln!(text, "{name:<9} {value}");
    };
    if let Some(origin) = &message.origin {
        line(
            "client",
            match (origin.peer, origin.helo.as_str()) {
                (Peer::User(uid), _) => {
                    let name = origin.account.as_ref().map_or("?", |account| account.local());
                    format!("{name}, user {uid} of this machine, by `sendmail`")
                }
                (_, "") if origin.session.starts_with(SESSION.trim_end_matches('-')) => {
                    "none: it was imported".into()
                }
                (_, "") => "none: this host wrote it".into(),
                (peer, helo) => format!("{helo} ([{peer}]) by {}", origin.protocol),
            },
        );
        line("session", origin.session.clone());
        if let Some(account) = &origin.account {
            line("account", account.to_string());
        }
    }
    if let Some(fault) = &message.fault {
        line("FAULT", fault.clone());
    }
    if message.held {
        line("held", "by an administrator, until `lamppost queue release`".into());
    }
    for recipient in &message.recipients {
        let state = state(recipient, message.held);
        line("to", format!("{}: {state}", recipient.address));
        if let Some(last) = &recipient.last {
            let status = &last.reason.status;
            line("", format!("last try {}: {status} {}", out::time(last.at.0), last.reason));
        }
    }
    text
}
