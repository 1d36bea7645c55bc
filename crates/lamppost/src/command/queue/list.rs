//! queue list.

use std::fmt::Write as _;
use std::time::Duration;

use clap::Args;
use lamppost_roles::{MessageView, RecipientState, RecipientView};
use lamppost_smtp::ReversePath;

use super::filters::Filters;
use super::source::Source;
use super::{client, count, out};
use crate::exit::{Code, Failure};
use crate::place::Place;

/// List the messages.
#[derive(Args, Debug, Default)]
pub(crate) struct List {
    #[command(flatten)]
    filters: Filters,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl List {
    /// Whether nothing was asked for but all messages.
    pub(super) fn is_plain(&self) -> bool {
        !self.json && self.filters.is_empty()
    }

    pub(super) async fn execute(&self, place: &Place) -> Result<(), Failure> {
        let source = Source::Running(client(place)?);
        let mut pages = source.pages(self.filters.filter());
        let mut printer = Printer::new(self.json);
        while let Some(page) = pages.next().await? {
            printer.page(&page)?;
        }
        let nothing = if self.filters.is_empty() {
            "The queue is empty.\n"
        } else {
            "No message in the queue matches.\n"
        };
        printer.end(nothing)
    }
}

/// Prints messages as they come, page by page.
pub(super) struct Printer {
    json: bool,
    /// Columns are as wide as their widest cell so far.
    widths: [usize; 6],
    pub(super) messages: u64,
    recipients: u64,
    bytes: u64,
    /// Whether any was tried in vain.
    is_troubled: bool,
}

const HEAD: [&str; 6] = ["ID", "AGE", "SIZE", "FROM", "TO", "STATE"];

impl Printer {
    pub(super) fn new(json: bool) -> Self {
        let widths = HEAD.map(str::len);
        Self { json, widths, messages: 0, recipients: 0, bytes: 0, is_troubled: false }
    }

    pub(super) fn page(&mut self, messages: &[MessageView]) -> Result<(), Failure> {
        if self.json {
            return self.json_page(messages);
        }
        let rows: Vec<_> = messages.iter().flat_map(rows).collect();
        let mut text = String::new();
        for row in &rows {
            for (width, cell) in self.widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        if self.messages == 0 {
            self.line(&mut text, &HEAD);
        }
        for row in &rows {
            self.line(&mut text, &row.each_ref().map(String::as_str));
        }
        let mut recipients = messages.iter().flat_map(|message| &message.recipients);
        self.is_troubled |= recipients.any(|one| one.last.is_some() && !one.state.is_settled());
        self.messages += messages.len() as u64;
        self.recipients += rows.len() as u64;
        self.bytes += messages.iter().map(|message| message.size).sum::<u64>();
        out::print(&text)
    }

    fn line(&self, text: &mut String, cells: &[&str; 6]) {
        let mut line = String::new();
        for (cell, width) in cells.iter().zip(self.widths) {
            let _infallible = write!(line, "{cell:width$}  ");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }

    /// The elements of one array, as if it were printed whole.
    fn json_page(&mut self, messages: &[MessageView]) -> Result<(), Failure> {
        let mut text = String::new();
        for message in messages {
            let element = serde_json::to_string_pretty(message)
                .map_err(|error| Failure::at(Code::Software, "cannot print JSON", &error))?;
            text.push_str(if self.messages == 0 { "[\n  " } else { ",\n  " });
            text.push_str(&element.replace('\n', "\n  "));
            self.messages += 1;
        }
        out::print(&text)
    }

    /// Ends the list with a summary, or says that there is nothing.
    pub(super) fn end(self, nothing: &str) -> Result<(), Failure> {
        match (self.json, self.messages) {
            (true, 0) => out::print("[]\n"),
            (true, _) => out::print("\n]\n"),
            (false, 0) => out::print(nothing),
            (false, messages) => out::print(&format!(
                "{}, {} waiting or failed, {}{}\n",
                count(messages, "message"),
                count(self.recipients, "recipient"),
                out::size(self.bytes),
                if self.is_troubled { "; `lamppost queue show ID` tells why" } else { "" }
            )),
        }
    }
}

/// A row for each recipient that has not got its mail.
fn rows(message: &MessageView) -> Vec<[String; 6]> {
    let age = out::now_ms().saturating_sub(message.id.received().0);
    let open = message.recipients.iter().filter(|one| !one.state.is_settled());
    let rows = open.map(|recipient| {
        let mut state = state(recipient, message.held);
        if message.fault.is_some() {
            state.push_str(", damaged");
        }
        [
            message.id.to_string(),
            out::age(Duration::from_millis(age)),
            out::size(message.size),
            sender(&message.sender),
            recipient.address.clone(),
            state,
        ]
    });
    rows.collect()
}

pub(super) fn sender(sender: &ReversePath) -> String {
    format!("<{sender}>")
}

/// How far a recipient is, in a few words that begin with those of the filters.
pub(super) fn state(recipient: &RecipientView, held: bool) -> String {
    let word = match recipient.state {
        RecipientState::New => "new",
        RecipientState::Deferred => "deferred",
        RecipientState::Delivering => "delivering",
        RecipientState::Delivered => "delivered",
        RecipientState::Failed => "failed",
        RecipientState::Bounced => "bounced",
    };
    let is_held = held && !recipient.state.is_settled();
    let mut text = if is_held { format!("held, {word}") } else { word.to_owned() };
    if recipient.attempts > 0 {
        let tries = if recipient.attempts == 1 { "try" } else { "tries" };
        let _infallible = write!(text, ", {} {tries}", recipient.attempts);
    }
    if let Some(due) = recipient.due.filter(|_| !held) {
        let wait = due.0.saturating_sub(out::now_ms());
        let _infallible = write!(text, ", next in {}", out::age(Duration::from_millis(wait)));
    }
    text
}
