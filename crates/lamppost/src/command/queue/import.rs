//! queue import: mail from files.

use std::fmt::Write as _;
use std::fs::File;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use clap::Args;
use lamppost_console::{Client, ClientError, ImportHead, Imported};
use lamppost_roles::{MessageView, Origin, QueueId, Timestamp};
use lamppost_smtp::{Address, ReversePath};
use serde::Serialize;

use super::envelope;
use super::export::tell;
use super::known::{Content, Known, remember, take_remembered};
use super::source::Source;
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
    /// Import also what is in the queue, or was imported before; recipients get it twice
    #[arg(long)]
    again: bool,
    /// Show what would be imported, and import nothing
    #[arg(long)]
    dry_run: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What became of a file.
#[derive(Serialize)]
struct Line {
    file: PathBuf,
    outcome: Outcome,
    /// The message in the queue, or the one that it was.
    id: Option<QueueId>,
    /// For whom it was imported.
    recipients: u64,
    /// Why it was not.
    reason: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Outcome {
    /// It is in the queue.
    Imported,
    /// It would be.
    WouldBeImported,
    /// It was in the queue before, or nobody waits for it any more.
    ThereAlready,
    /// It cannot be imported.
    Refused,
}

/// Where the files go, and what is there.
struct Target<'a> {
    client: Client,
    host: String,
    known: Known<'a>,
    /// Whether it was told that imports cannot be remembered.
    is_forgetful: bool,
}

impl Import {
    pub(super) async fn execute(self, place: &Place) -> Result<(), Failure> {
        let client = client(place)?;
        let source = Source::Running(client.clone());
        let is_running = client.get::<serde_json::Value>("/v1/status").await;
        let is_running = match is_running {
            Ok(_) => true,
            Err(ClientError::NotRunning { .. }) if self.dry_run => false,
            // Told once, not for each file.
            Err(error) => return Err(unanswered(&error)),
        };
        let files = self.files();
        let sizes =
            files.iter().filter_map(|file| Some(file.as_ref().ok()?.metadata().ok()?.len()));
        let sizes =
            sizes.fold((u64::MAX, 0), |(least, most), size| (size.min(least), size.max(most)));
        let known = if self.again || !is_running || sizes.0 > sizes.1 {
            Known::nothing(&source)
        } else {
            Known::in_queue(&source, sizes).await?
        };
        let mut to = Target { client, host: place.open()?.hostname(), known, is_forgetful: false };
        let mut lines = Vec::new();
        let mut lost = None;
        for file in files {
            let line = match file {
                Ok(path) => match self.file(&mut to, &path).await {
                    // What comes after it would be lost too.
                    Err(failure) if failure.code() == Code::Unavailable => {
                        lost = Some(failure);
                        break;
                    }
                    Err(failure) => refused(path, &failure),
                    Ok(line) => line,
                },
                Err((path, failure)) => refused(path, &failure),
            };
            if !self.json && line.outcome != Outcome::Refused {
                out::print(&text(&line))?;
            }
            lines.push(line);
        }
        self.report(&lines, lost)
    }

    fn report(&self, lines: &[Line], lost: Option<Failure>) -> Result<(), Failure> {
        let count_of = |outcome| lines.iter().filter(|line| line.outcome == outcome).count() as u64;
        let (there, refused) = (count_of(Outcome::ThereAlready), count_of(Outcome::Refused));
        if self.json {
            out::json(&lines)?;
        } else {
            let (done, outcome) = if self.dry_run {
                ("would be imported", Outcome::WouldBeImported)
            } else {
                ("imported", Outcome::Imported)
            };
            let mut text = format!("{} {done}", count(count_of(outcome), "message"));
            if there > 0 {
                let _infallible = write!(text, ", {there} there already");
            }
            if refused > 0 {
                let _infallible = write!(text, ", {refused} refused");
            }
            out::print(&format!("{text}.\n"))?;
        }
        match (lost, refused) {
            (Some(lost), _) => Err(lost.cure(
                "start it with `lamppost run`; the same import goes on where this one broke off",
            )),
            (None, 0) => Ok(()),
            (None, 1) => Err(Failure::new(Code::Data, "1 file was refused")),
            (None, refused) => {
                Err(Failure::new(Code::Data, format!("{refused} files were refused")))
            }
        }
    }

    /// The files in the order of their names, so that a second run does the same; or why there are
    /// none where they were looked for.
    fn files(&self) -> Vec<Result<PathBuf, (PathBuf, Failure)>> {
        let mut files = Vec::new();
        for path in &self.paths {
            if !path.is_dir() {
                // They come with their messages when a shell's pattern names all files.
                let is_beside = has_end(path, "json") || has_end(path, "imported");
                if !is_beside || !path.with_extension("eml").exists() {
                    files.push(Ok(path.clone()));
                }
                continue;
            }
            match found(path) {
                Ok(found) => files.extend(found.into_iter().map(Ok)),
                Err(failure) => files.push(Err((path.clone(), failure))),
            }
        }
        files
    }

    async fn file(&self, to: &mut Target<'_>, path: &Path) -> Result<Line, Failure> {
        let content =
            File::open(path).and_then(Content::of).map_err(|error| unread(path, &error))?;
        if content.size == 0 {
            return Err(Failure::new(Code::Data, "it is empty"));
        }
        let mut head = self.head(&to.host, path, content)?;
        let mut there = None;
        if !self.again {
            let remembered = take_remembered(path, &mut head, content);
            let remembered = remembered.map_err(|error| unread(path, &error))?;
            there = to.known.take_away(&mut head, content).await?.map(|id| (id, None));
            there = there.or(remembered.map(|(id, at)| (id, Some(at))));
        }
        let recipients = head.recipients.len() as u64;
        let line = |outcome, id, reason| {
            Ok(Line { file: path.to_owned(), outcome, id, recipients, reason })
        };
        if recipients == 0 {
            let reason = match there {
                Some((_, Some(at))) => format!("it was imported {}", out::time(at.0)),
                Some((_, None)) => "it is in the queue".into(),
                None => "nobody waits for it any more".into(),
            };
            return line(Outcome::ThereAlready, there.map(|(id, _)| id), Some(reason));
        }
        if self.dry_run {
            return line(Outcome::WouldBeImported, None, None);
        }
        let file = File::open(path).map_err(|error| unread(path, &error))?;
        let sent = to.client.send_content("/v1/queue/import", &head, file).await;
        let Imported { id } = sent.map_err(|error| unanswered(&error))?;
        to.remember(path, &head, (content, id));
        line(Outcome::Imported, Some(id), None)
    }

    /// The envelope: what the command line says, else what the .json file beside says.
    fn head(&self, host: &str, path: &Path, content: Content) -> Result<ImportHead, Failure> {
        let message = match envelope::read(&path.with_extension("json")) {
            // Nothing of it is wanted.
            Err(_) if self.from.is_some() && !self.to.is_empty() => None,
            read => read?,
        };
        if message.as_ref().is_some_and(|message| message.held) && !self.include_held {
            return Err(Failure::new(Code::Data, "it was held when it was exported")
                .cure("import it with --include-held if it may be delivered now"));
        }
        let from_file = message.as_ref().map(|message| message.sender.clone());
        let Some(sender) = self.from.clone().or(from_file) else {
            return Err(envelope::absent(path));
        };
        let recipients = match &message {
            _ if !self.to.is_empty() => self.to.clone(),
            Some(message) => envelope::waiting(message)?,
            None => return Err(envelope::absent(path)),
        };
        let origin = match message {
            Some(MessageView { origin: Some(origin), .. }) => origin,
            Some(message) => own_origin(host, content, message.id.received()),
            None => own_origin(host, content, Timestamp(out::now_ms())),
        };
        Ok(ImportHead { sender, recipients, origin: Some(origin), received: None })
    }
}

impl Target<'_> {
    fn remember(&mut self, path: &Path, head: &ImportHead, (content, id): (Content, QueueId)) {
        self.known.add(head, content, id);
        if let Err(error) = remember(path, head, (content, id))
            && !std::mem::replace(&mut self.is_forgetful, true)
        {
            let folder = path.parent().unwrap_or(path).display();
            tell(&format!(
                "warning: it cannot be remembered in {folder} what was imported ({error}): the same \
                 import leaves out only what is still in the queue"
            ));
        }
    }
}

/// Tells why a file was refused, and what to do about it.
fn refused(file: PathBuf, failure: &Failure) -> Line {
    let reason = failure.whole();
    tell(&format!("error: {}: {reason}", file.display()));
    let reason = Some(failure.text().to_owned());
    Line { file, outcome: Outcome::Refused, id: None, recipients: 0, reason }
}

/// The messages in a folder.
fn found(folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    let unread = |error| unread(folder, &error);
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(unread)? {
        let path = entry.map_err(unread)?.path();
        if has_end(&path, "eml") {
            found.push(path);
        }
    }
    if found.is_empty() {
        return Err(Failure::new(Code::Data, "there is no .eml file in this folder")
            .cure("name files with other endings one by one"));
    }
    found.sort();
    Ok(found)
}

fn has_end(path: &Path, end: &str) -> bool {
    path.extension().is_some_and(|found| found == end)
}

fn text(line: &Line) -> String {
    let file = line.file.display();
    let recipients = count(line.recipients, "recipient");
    match (line.outcome, line.id, &line.reason) {
        (Outcome::ThereAlready, Some(id), Some(reason)) => {
            format!("{file}: there already as {id}: {reason}\n")
        }
        (_, None, Some(reason)) => format!("{file}: {reason}\n"),
        (_, Some(id), _) => format!("{file}: {id} for {recipients}\n"),
        (_, None, None) => format!("{file}: for {recipients}\n"),
    }
}

pub(super) fn unread(path: &Path, error: &std::io::Error) -> Failure {
    Failure::at(Code::Io, &format!("cannot read {}", path.display()), error)
}

fn own_origin(host: &str, content: Content, received: Timestamp) -> Origin {
    Origin {
        session: content.session(),
        peer: Ipv4Addr::LOCALHOST.into(),
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
