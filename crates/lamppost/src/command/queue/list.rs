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
            "No message in the queue is like that.\n"
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
}

const HEAD: [&str; 6] = ["ID", "AGE", "SIZE", "FROM", "TO", "STATE"];

impl Printer {
    pub(super) fn new(json: bool) -> Self {
        Self { json, widths: HEAD.map(str::len), messages: 0, recipients: 0, bytes: 0 }
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
                "{}, {} waiting or failed, {}\n",
                count(messages, "message"),
                count(self.recipients, "recipient"),
                out::size(self.bytes)
            )),
        }
    }
}

/// A row for each recipient that has not got its mail.
fn rows(message: &MessageView) -> Vec<[String; 6]> {
    let age = out::now_ms().saturating_sub(message.id.received().0);
    let is_open = |one: &&RecipientView| {
        !matches!(one.state, RecipientState::Delivered | RecipientState::Bounced)
    };
    let rows = message.recipients.iter().filter(is_open).map(|recipient| {
        let mut state = state(recipient, message.held);
        if message.fault.is_some() {
            state.push_str(" (damaged)");
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

/// How far a recipient is, for people.
pub(super) fn state(recipient: &RecipientView, held: bool) -> String {
    let mut text: String = match recipient.state {
        RecipientState::Delivered => "delivered".into(),
        RecipientState::Bounced => "failed for good, and the sender was told".into(),
        _ if held => "held".into(),
        RecipientState::Waiting { due } => {
            let wait = due.0.saturating_sub(out::now_ms());
            format!("next try in {}", out::age(Duration::from_millis(wait)))
        }
        RecipientState::Delivering => "being delivered".into(),
        RecipientState::Failed => "failed for good".into(),
    };
    if let Some(last) = &recipient.last {
        let tries = match recipient.attempts {
            1 => "1 try".into(),
            tries => format!("{tries} tries"),
        };
        let _infallible = write!(text, " ({tries}, last: {})", last.reason);
    }
    text
}
