//! What a whole run found: tables, and the document that holds them.

use std::fmt::Write as _;

use super::subject::Subject;
use crate::bench::table::{Table, figure};

/// Who connects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Clients {
    /// Each from an address that nobody came from before.
    New,
    /// The same few again and again.
    Known,
}

/// One setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cell {
    pub(super) clients: Clients,
    pub(super) connections: usize,
}

impl Cell {
    /// For people.
    pub(super) fn name(self) -> String {
        let plural = if self.connections == 1 { "" } else { "s" };
        let clients = match self.clients {
            Clients::New => "clients that are new each",
            Clients::Known => "a hundred clients",
        };
        format!("{clients}, {} connection{plural} at once", self.connections)
    }
}

/// What was measured of a subject in a cell.
#[derive(Clone, Copy, Debug)]
pub(super) struct Figures {
    pub(super) per_second: f64,
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
    pub(super) cpu_ms: f64,
}

/// A figure, for a table of its own.
type Pick = (&'static str, fn(&Figures) -> f64);

const PICKS: [Pick; 4] = [
    ("Connections per second", |figures| figures.per_second),
    ("Median of the greeting, ms", |figures| figures.p50_ms),
    ("99th percentile of the greeting, ms", |figures| figures.p99_ms),
    ("CPU ms per connection", |figures| figures.cpu_ms),
];

pub(super) struct Report {
    /// What was measured where.
    pub(super) facts: Vec<String>,
    /// Lamppost first.
    pub(super) subjects: Vec<Subject>,
    pub(super) cells: Vec<(Cell, Vec<(Subject, Figures)>)>,
}

impl Report {
    /// One figure of all subjects in all cells; behind each other one, Lamppost's ratio to it.
    fn table(&self, (_, pick): Pick) -> Table {
        let mut head = vec![String::new()];
        for &subject in &self.subjects {
            head.push(subject.name().to_owned());
            if subject != Subject::Lamppost {
                head.push("ratio".to_owned());
            }
        }
        let mut table = Table::new(head);
        for (cell, measured) in &self.cells {
            let value = |subject| {
                let found = measured.iter().find(|(one, _)| *one == subject);
                found.map_or(f64::NAN, |(_, figures)| pick(figures))
            };
            let mut row = vec![cell.name()];
            for &subject in &self.subjects {
                row.push(figure(value(subject)));
                if subject != Subject::Lamppost {
                    row.push(figure(value(Subject::Lamppost) / value(subject)));
                }
            }
            table.row(row);
        }
        table
    }

    /// What stands at the end of the terminal's output.
    pub(super) fn text(&self) -> String {
        let mut text = format!("\n{}\n", self.facts.join("\n"));
        for pick in PICKS {
            let _infallible = write!(text, "\n{}\n\n{}", pick.0, self.table(pick).text());
        }
        text
    }

    /// The document.
    pub(super) fn markdown(&self) -> String {
        let mut text = String::from(
            "# Who may connect, beside tcpserver with rblsmtpd and Postfix\n\n\
             Written by `cargo xtask bench admission --save`; [what is measured and how](../../bench/README.md#admission).\n\n",
        );
        for fact in &self.facts {
            let _infallible = writeln!(text, "- {fact}");
        }
        text.push_str(
            "\nA ratio is Lamppost's figure divided by the other's. Both tcpservers start rblsmtpd, which \
             starts a program that only greets; Lamppost and Postfix are whole mail servers.\n",
        );
        for pick in PICKS {
            let _infallible = write!(text, "\n## {}\n\n{}", pick.0, self.table(pick).markdown());
        }
        text
    }
}
