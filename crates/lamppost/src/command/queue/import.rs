//! queue import: mail from files.

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use clap::Args;
use lamppost_console::{Client, ClientError, ImportHead, Imported};
use lamppost_roles::{MessageView, Origin, QueueId, RecipientState, Timestamp};
use lamppost_smtp::{Address, ReversePath};
use serde::Serialize;

use super::export::tell;
use super::{client, count, out, unanswered};
use crate::exit::{Code, Failure};
use crate::place::Place;

/// Put mail from files into the queue of the running program.
#[derive(Args, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of the command line")]
pub(crate) struct Import {
    /// Files, or folders with .eml files
    #[arg(required = true)]
    paths: Vec<PathBuf>,
    /// Where a bounce goes, instead of what a .json file says; `<>` for nowhere
    #[arg(long, value_name = "ADDRESS", value_parser = sender)]
    from: Option<ReversePath>,
    /// Who gets it, instead of what a .json file says; may be repeated
    #[arg(long, value_name = "ADDRESS")]
    to: Vec<Address>,
    /// Import also messages that were held; they are delivered then
    #[arg(long)]
    include_held: bool,
    /// Go on after a file that cannot be imported
    #[arg(long)]
    keep_going: bool,
    /// Show what would be imported, and import nothing
    #[arg(long)]
    dry_run: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// A file that was imported.
#[derive(Serialize)]
struct Line {
    file: PathBuf,
    id: Option<QueueId>,
    recipients: u64,
}

impl Import {
    pub(super) async fn execute(self, place: &Place) -> Result<(), Failure> {
        let client = client(place)?;
        if !self.dry_run {
            // Told once, not for each file.
            let running = client.get::<serde_json::Value>("/v1/status").await;
            running.map_err(|error| unanswered(&error))?;
        }
        let host = host(place)?;
        let mut lines = Vec::new();
        let (mut imported, mut failed) = (0, 0);
        for path in self.files()? {
            match self.file(&client, &host, &path).await {
                Ok(line) => {
                    imported += u64::from(line.recipients > 0);
                    if self.json {
                        lines.push(line);
                    } else {
                        out::print(&text(&line))?;
                    }
                }
                Err(failure) if self.keep_going => {
                    failed += 1;
                    tell(&format!("error: {}", failure.text()));
                }
                Err(failure) => {
                    if self.json {
                        out::json(&lines)?;
                    }
                    return Err(failure);
                }
            }
        }
        if self.json {
            out::json(&lines)?;
        } else {
            let done = if self.dry_run { "would be imported" } else { "imported" };
            out::print(&format!("{} {done}.\n", count(imported, "message")))?;
        }
        match failed {
            0 => Ok(()),
            failed => {
                let what = format!("{} could not be imported", count(failed, "file"));
                Err(Failure::new(Code::Data, what))
            }
        }
    }

    /// The files in the order of their names, so that a second run does the same.
    fn files(&self) -> Result<Vec<PathBuf>, Failure> {
        let mut files = Vec::new();
        for path in &self.paths {
            if !path.is_dir() {
                files.push(path.clone());
                continue;
            }
            let unread = |error| unread(path, &error);
            let mut found = Vec::new();
            for entry in std::fs::read_dir(path).map_err(unread)? {
                let path = entry.map_err(unread)?.path();
                if path.extension().is_some_and(|end| end == "eml") {
                    found.push(path);
                }
            }
            found.sort();
            files.extend(found);
        }
        Ok(files)
    }

    async fn file(&self, client: &Client, host: &str, path: &Path) -> Result<Line, Failure> {
        let head = self.head(host, path)?;
        let recipients = head.recipients.len() as u64;
        let mut line = Line { file: path.to_owned(), id: None, recipients };
        let content = File::open(path).map_err(|error| unread(path, &error))?;
        if recipients > 0 && !self.dry_run {
            let sent = client.send_content("/v1/queue/import", &head, content).await;
            let sent: Imported = sent.map_err(|error| match error {
                ClientError::NotRunning { .. } => unanswered(&error),
                error => Failure::at(Code::Data, &path.display().to_string(), &error),
            })?;
            line.id = Some(sent.id);
        }
        Ok(line)
    }

    /// The envelope: what the command line says, else what the .json file beside says.
    fn head(&self, host: &str, path: &Path) -> Result<ImportHead, Failure> {
        let message = read_envelope(&path.with_extension("json"))?;
        if message.as_ref().is_some_and(|message| message.held) && !self.include_held {
            let what = format!("{} was held when it was exported", path.display());
            return Err(Failure::new(Code::Data, what)
                .cure("import it with --include-held if it may be delivered now"));
        }
        let from_file = message.as_ref().map(|message| message.sender.clone());
        let Some(sender) = self.from.clone().or(from_file) else {
            return Err(no_envelope(path, "--from"));
        };
        let recipients = match &message {
            _ if !self.to.is_empty() => self.to.clone(),
            Some(message) => waiting(message, path)?,
            None => return Err(no_envelope(path, "--to")),
        };
        let origin = match message {
            Some(MessageView { origin: Some(origin), .. }) => origin,
            Some(message) => own_origin(host, message.id.received()),
            None => own_origin(host, Timestamp(out::now_ms())),
        };
        Ok(ImportHead { sender, recipients, origin: Some(origin), received: None })
    }
}

fn text(line: &Line) -> String {
    let file = line.file.display();
    let recipients = count(line.recipients, "recipient");
    match line.id {
        Some(id) => format!("{file}: {id} for {recipients}\n"),
        None if line.recipients == 0 => format!("{file}: nobody waits for it any more\n"),
        None => format!("{file}: for {recipients}\n"),
    }
}

/// The recipients that have not got their mail.
fn waiting(message: &MessageView, path: &Path) -> Result<Vec<Address>, Failure> {
    let is_over = |state| matches!(state, RecipientState::Delivered | RecipientState::Bounced);
    let open = message.recipients.iter().filter(|recipient| !is_over(recipient.state));
    let parsed = open.map(|recipient| {
        recipient.address.parse().map_err(|error| {
            let step = format!("{}: the recipient `{}`", path.display(), recipient.address);
            Failure::at(Code::Data, &step, &error)
        })
    });
    parsed.collect()
}

fn read_envelope(path: &Path) -> Result<Option<MessageView>, Failure> {
    let text = match std::fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unread(path, &error)),
    };
    serde_json::from_slice(&text).map(Some).map_err(|error| {
        Failure::at(Code::Data, &format!("{} is no exported envelope", path.display()), &error)
    })
}

fn no_envelope(path: &Path, option: &str) -> Failure {
    let what = format!("{} has no .json file beside it that says the envelope", path.display());
    Failure::new(Code::Usage, what).cure(format!("say it with {option}"))
}

fn unread(path: &Path, error: &std::io::Error) -> Failure {
    Failure::at(Code::Io, &format!("cannot read {}", path.display()), error)
}

/// The name of the host that hands in what no client did.
fn host(place: &Place) -> Result<String, Failure> {
    let named = place.open()?.config.server.hostname;
    Ok(named.unwrap_or_else(|| rustix::system::uname().nodename().to_string_lossy().into_owned()))
}

fn own_origin(host: &str, received: Timestamp) -> Origin {
    Origin {
        session: "import".into(),
        peer: IpAddr::V4(Ipv4Addr::LOCALHOST),
        helo: String::new(),
        host: host.to_owned(),
        protocol: "SMTP".into(),
        tls: None,
        account: None,
        received,
    }
}

fn sender(text: &str) -> Result<ReversePath, String> {
    let text = if text == "<>" { "" } else { text };
    text.parse().map_err(|error: lamppost_smtp::AddressError| error.to_string())
}
