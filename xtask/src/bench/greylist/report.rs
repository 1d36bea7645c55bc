//! What a whole run found: tables, expectations, and the document that holds them.

use std::fmt::Write as _;

use super::cell::{Asked, Figures, Measured, PICKS, Pick};
use super::memory::Memory;
use super::subject::Subject;
use crate::bench::table::{Table, figure};

pub(super) struct Report {
    /// What was measured where: machine, file system, versions.
    pub(super) facts: Vec<String>,
    /// Lamppost first.
    pub(super) subjects: Vec<Subject>,
    pub(super) cells: Vec<Measured>,
    pub(super) memory: Option<Memory>,
}

impl Report {
    fn there(&self, pick: Pick) -> impl Iterator<Item = Subject> {
        let is_there = move |subject: &Subject| {
            self.cells.iter().any(|cell| cell.figures(*subject).and_then(pick.1).is_some())
        };
        self.subjects.iter().copied().filter(is_there)
    }

    /// One figure of all subjects in all cells; behind each other one, Lamppost's ratio to it.
    fn table(&self, pick: Pick) -> Table {
        let subjects: Vec<_> = self.there(pick).collect();
        let has_ratios = subjects.contains(&Subject::Lamppost);
        let mut head = vec![String::new()];
        for subject in &subjects {
            head.push(subject.name().to_owned());
            if has_ratios && *subject != Subject::Lamppost {
                head.push("ratio".to_owned());
            }
        }
        let mut table = Table::new(head);
        for measured in &self.cells {
            let value = |subject| measured.figures(subject).and_then(pick.1).unwrap_or(f64::NAN);
            let mut row = vec![measured.cell.name()];
            for &subject in &subjects {
                row.push(figure(value(subject)));
                if has_ratios && subject != Subject::Lamppost {
                    row.push(figure(value(Subject::Lamppost) / value(subject)));
                }
            }
            table.row(row);
        }
        table
    }

    /// What is expected of Lamppost, and what was measured.
    fn expectations(&self) -> Table {
        let mut table = Table::new(["expected", "wanted", "measured", ""]);
        let mut check = |name: &str, wanted: f64, at_least: bool, measured: Option<f64>| {
            let Some(measured) = measured.filter(|value| value.is_finite()) else { return };
            let reached = if at_least { measured >= wanted } else { measured <= wanted };
            let relation = if at_least { "≥" } else { "≤" };
            let verdict = if reached { "reached" } else { "MISSED" };
            table.row([name, &format!("{relation} {wanted}"), &figure(measured), verdict]);
        };
        let at_50 = |asked, subject| {
            let is_it = |one: &&Measured| one.cell.asked == asked && one.cell.connections == 50;
            self.cells.iter().find(is_it)?.figures(subject)
        };
        let known = |subject| at_50(Asked::Known, subject);
        for ours in [Subject::Lamppost, Subject::LamppostMariadb] {
            let ratio = |peer| Some(known(ours)?.per_second / known(peer)?.per_second);
            let name =
                |what: &str| format!("known triplets, 50 connections, {}: {what}", ours.name());
            for (peer, wanted) in [
                (Subject::Postgrey, 20.0),
                (Subject::Sqlgrey, 5.0),
                (Subject::SqlgreyMariadb, 5.0),
                (Subject::Probe, 0.5),
            ] {
                let what = format!("decisions per second to those of {}", peer.name());
                check(&name(&what), wanted, true, ratio(peer));
            }
            check(&name("p99, ms"), 5.0, false, known(ours).map(|figures| figures.p99_ms));
        }
        let statements = |figures: Option<&Figures>| figures.and_then(|one| one.statements);
        let ours = Subject::LamppostMariadb;
        check("statements per known triplet", 0.05, false, statements(known(ours)));
        check("statements per new triplet", 1.05, false, statements(at_50(Asked::New, ours)));
        let bytes = self.memory.as_ref().map(Memory::bytes_per_known);
        check("bytes of memory per known triplet", 200.0, false, bytes);
        table
    }

    /// What stands at the end of the terminal's output.
    pub(super) fn text(&self) -> String {
        let mut text = format!("\n{}\n", self.facts.join("\n"));
        for pick in PICKS {
            if self.there(pick).next().is_some() {
                let _infallible = write!(text, "\n{}\n\n{}", pick.0, self.table(pick).text());
            }
        }
        if let Some(memory) = &self.memory {
            let _infallible = write!(text, "\n{}", memory.table().text());
        }
        let _infallible = write!(text, "\n{}", self.expectations().text());
        text
    }

    /// The document.
    pub(super) fn markdown(&self) -> String {
        let mut text = String::from(
            "# Greylisting, beside postgrey and sqlgrey\n\n\
             Written by `cargo xtask bench greylist --save`; [what is measured and how](../../bench/README.md#greylist).\n\n",
        );
        for fact in &self.facts {
            let _infallible = writeln!(text, "- {fact}");
        }
        text.push_str(
            "\nA ratio is Lamppost's figure divided by the other's. DUNNO is a server that gives this \
             one answer to everything: no other can be faster beside this load on this machine. A dash \
             is what was not or could not be measured.\n",
        );
        for pick in PICKS {
            if self.there(pick).next().is_none() {
                continue;
            }
            let mut name = pick.0.to_owned();
            name.get_mut(..1).into_iter().for_each(str::make_ascii_uppercase);
            let _infallible = write!(text, "\n## {name}\n\n{}", self.table(pick).markdown());
        }
        if let Some(memory) = &self.memory {
            let _infallible = write!(text, "\n## Memory\n\n{}", memory.table().markdown());
        }
        let _infallible = write!(text, "\n## Expected\n\n{}", self.expectations().markdown());
        text
    }
}
