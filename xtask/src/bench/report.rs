//! What a whole run found: tables, expectations, the plot, and the document that holds them.

use std::fmt::Write as _;
use std::time::Duration;

use super::cell::{Cell, Figures, Measured};
use super::latency::{Answers, PACED};
use super::load::Connections;
use super::peer::Peer;
use super::plot::{Line, Panel, Plot};
use super::probe::Probe;
use super::table::{Table, figure};

pub(crate) struct Report {
    /// What was measured where: machine, file system, versions.
    pub(crate) facts: Vec<String>,
    pub(crate) peers: Vec<Peer>,
    pub(crate) cells: Vec<Measured>,
    pub(crate) probe: Probe,
    /// The 99th percentiles of Lamppost's answers to DATA at 20 sessions.
    pub(crate) answers: Option<Answers>,
}

/// The title of what the load reaches by itself.
const SINK: &str = "The load itself";

/// A figure of a server in a cell, for a row or a table of its own.
type Pick = (&'static str, fn(&Figures) -> Option<f64>);

const PICKS: [Pick; 6] = [
    ("messages per second", |figures| Some(figures.per_second)),
    ("sync calls per message", |figures| Some(figures.syncs)),
    ("device flushes per message", |figures| figures.flushes),
    ("CPU ms per message", |figures| Some(figures.cpu_ms)),
    ("KiB written to the device per message", |figures| figures.written_kib),
    ("memory in MiB (sum of PSS, the most seen)", |figures| Some(figures.memory_mib)),
];

impl Measured {
    /// A cell alone, with ratios.
    pub(crate) fn table(&self, peers: &[Peer]) -> Table {
        let there: Vec<_> = peers.iter().filter(|peer| self.of(**peer).is_some()).collect();
        let first = there.first().copied();
        let mut head = vec![String::new()];
        for &peer in &there {
            head.push(peer.name().to_owned());
            if Some(peer) != first {
                head.push("ratio".to_owned());
            }
        }
        let mut table = Table::new(head);
        for (name, pick) in PICKS {
            let value = |peer: &Peer| self.of(*peer).and_then(pick).unwrap_or(f64::NAN);
            let own = first.map_or(f64::NAN, value);
            let mut row = vec![name.to_owned()];
            for &peer in &there {
                row.push(figure(value(peer)));
                if Some(peer) != first {
                    row.push(figure(own / value(peer)));
                }
            }
            table.row(row);
        }
        table
    }
}

impl Report {
    fn cell(&self, size: u32, sessions: u32, connections: Connections) -> Option<&Measured> {
        self.cells.iter().find(|measured| {
            let cell = measured.cell;
            cell.size == size && cell.sessions == sessions && cell.connections == connections
        })
    }

    /// One figure of all servers in all cells; behind each peer, Lamppost's ratio to it.
    fn table(&self, (_, pick): Pick) -> Table {
        let ours = self.peers.first().copied();
        let mut head = vec![String::new()];
        for peer in &self.peers {
            head.push(peer.name().to_owned());
            if Some(*peer) != ours {
                head.push("ratio".to_owned());
            }
        }
        let mut table = Table::new(head);
        for measured in &self.cells {
            let value = |peer: Peer| measured.of(peer).and_then(pick).unwrap_or(f64::NAN);
            let own = ours.map_or(f64::NAN, value);
            let mut row = vec![measured.cell.name()];
            for &peer in &self.peers {
                row.push(figure(value(peer)));
                if Some(peer) != ours {
                    row.push(figure(own / value(peer)));
                }
            }
            table.row(row);
        }
        table
    }

    /// What the same load reaches where nothing is kept, and how much of that a server reaches.
    fn sink_table(&self) -> Table {
        let mut head = vec![String::new(), "smtp-sink, a second".to_owned()];
        head.extend(self.peers.iter().map(|peer| format!("{}, share", peer.name())));
        let mut table = Table::new(head);
        for measured in &self.cells {
            let mut row = vec![measured.cell.name(), figure(measured.sink)];
            row.extend(self.peers.iter().map(|&peer| {
                figure(measured.of(peer).map_or(f64::NAN, |one| one.per_second / measured.sink))
            }));
            table.row(row);
        }
        table
    }

    /// What the disk can do without a server.
    pub(crate) fn probe_table(&self) -> Table {
        let mut table =
            Table::new(["4 KiB messages in", "messages per second", "p99 of a sync, ms"]);
        for way in self.probe.files.iter().chain(&self.probe.logs).chain(&self.probe.sessions) {
            table.row([way.name.clone(), figure(way.per_second), figure(way.sync_p99_ms)]);
        }
        table
    }

    /// What is expected of Lamppost, and what was measured.
    pub(crate) fn expectations(&self) -> Table {
        let mut table = Table::new(["expected", "wanted", "measured", ""]);
        let mut check = |name: &str, wanted: f64, at_least: bool, measured: Option<f64>| {
            let Some(measured) = measured.filter(|value| value.is_finite()) else { return };
            let reached = if at_least { measured >= wanted } else { measured <= wanted };
            let relation = if at_least { "≥" } else { "≤" };
            let verdict = if reached { "reached" } else { "MISSED" };
            table.row([name, &format!("{relation} {wanted}"), &figure(measured), verdict]);
        };
        let fresh = |sessions| self.cell(4096, sessions, Connections::Fresh);
        let ratio = |sessions| {
            let cell = fresh(sessions)?;
            Some(cell.of(Peer::Lamppost)?.per_second / cell.of(Peer::Postfix)?.per_second)
        };
        let ours = |sessions| fresh(sessions)?.of(Peer::Lamppost);
        check("times Postfix, 4 KiB, 20 sessions, fresh", 10.0, true, ratio(20));
        check("times Postfix, 4 KiB, 100 sessions, fresh", 10.0, true, ratio(100));
        check("times Postfix, 4 KiB, 1 session, fresh", 3.0, true, ratio(1));
        let syncs = ours(20).map(|figures| figures.syncs);
        check("sync calls per message, 4 KiB, 20 sessions, fresh", 0.3, false, syncs);
        let grouped = self.probe.shared(20).map(|way| way.per_second);
        for (name, connections) in [
            ("share of the disk's group commit, 20 sessions, fresh", Connections::Fresh),
            ("share of the disk's group commit, 20 sessions, kept", Connections::Kept),
        ] {
            let cell = self.cell(4096, 20, connections);
            let speed = cell.and_then(|cell| cell.of(Peer::Lamppost)).map(|one| one.per_second);
            check(name, 0.5, true, speed.zip(grouped).map(|(speed, limit)| speed / limit));
        }
        let bandwidth = self
            .cells
            .iter()
            .filter(|measured| measured.cell.size == 102_400)
            .filter_map(|measured| measured.of(Peer::Lamppost))
            .map(|figures| 2.0 * 102_400.0 * figures.per_second / 1e6 / self.probe.sequential_mb_s)
            .reduce(f64::max);
        check(
            "share of the disk's bandwidth, 100 KiB, once to the log, once to the Maildir",
            0.7,
            true,
            bandwidth,
        );
        let sync_ms = self.probe.shared(20).map(|way| way.sync_p99_ms);
        let in_syncs = |answer: Duration| sync_ms.map(|sync| answer.as_secs_f64() * 1e3 / sync);
        let paced = format!(
            "p99 of the answer to DATA, 20 sessions, {PACED} messages a second, in p99 of the disk's sync"
        );
        let answers = self.answers.as_ref();
        check(&paced, 3.0, false, answers.and_then(|answers| in_syncs(answers.paced)));
        check(
            "p99 of the answer to DATA, 20 sessions, as fast as it goes, in p99 of the disk's sync",
            3.0,
            false,
            answers.and_then(|answers| in_syncs(answers.saturated)),
        );
        table
    }

    /// What stands at the end of the terminal's output.
    pub(crate) fn text(&self) -> String {
        let mut text = format!("\n{}\n", self.facts.join("\n"));
        let _infallible = write!(text, "\nThe disk itself\n\n{}", self.probe_table().text());
        let _infallible = writeln!(text, "{}", self.bandwidth());
        for pick in PICKS {
            let _infallible = write!(text, "\n{}\n\n{}", pick.0, self.table(pick).text());
        }
        let _infallible = write!(text, "\n{SINK}\n\n{}", self.sink_table().text());
        let expectations = self.expectations();
        if !expectations.is_empty() {
            let _infallible = write!(text, "\n{}", expectations.text());
        }
        if let Some(answers) = &self.answers {
            let _infallible = writeln!(text, "\n{}", answers.line());
        }
        text
    }

    fn bandwidth(&self) -> String {
        format!(
            "one file written from end to end and synced: {} MB/s",
            figure(self.probe.sequential_mb_s)
        )
    }

    /// The document.
    pub(crate) fn markdown(&self) -> String {
        let mut text = String::from(
            "# Messages per second, beside Postfix, Exim and OpenSMTPD\n\n\
             Written by `cargo xtask bench mail --save`; [what is measured and how](../../bench/README.md).\n\n\
             ![Messages per second over sessions](mail.svg)\n\n",
        );
        for fact in &self.facts {
            let _infallible = writeln!(text, "- {fact}");
        }
        text.push_str(
            "\nA ratio is Lamppost's figure divided by the peer's. OpenSMTPD answers before anything is \
             durable and takes at most 4 sessions; Postfix, Exim and Lamppost sync before they answer. A \
             dash is what was not or could not be measured.\n",
        );
        for pick in PICKS {
            let mut name = pick.0.to_owned();
            name.replace_range(..1, &name[..1].to_uppercase());
            let _infallible = write!(text, "\n## {name}\n\n{}", self.table(pick).markdown());
        }
        let _infallible = write!(
            text,
            "\n## {SINK}\n\nPostfix's smtp-sink takes every message and keeps none. No server on this machine \
             can be faster than that with this load, which shares the processors with it.\n\n{}",
            self.sink_table().markdown()
        );
        let _infallible = write!(
            text,
            "\n## The disk itself\n\nIn the same run, without any server.\n\n{}\n{}.\n",
            self.probe_table().markdown(),
            self.bandwidth().replacen('o', "O", 1)
        );
        if let Some(answers) = &self.answers {
            let _infallible = writeln!(text, "\n{}.", answers.line());
        }
        let _infallible = write!(text, "\n## Expected\n\n{}", self.expectations().markdown());
        text
    }

    pub(crate) fn svg(&self) -> String {
        let mut sessions: Vec<_> = self.cells.iter().map(|one| one.cell.sessions).collect();
        sessions.sort_unstable();
        sessions.dedup();
        let mut kinds: Vec<Cell> = Vec::new();
        for measured in &self.cells {
            let cell = measured.cell;
            if !kinds
                .iter()
                .any(|kind| kind.size == cell.size && kind.connections == cell.connections)
            {
                kinds.push(cell);
            }
        }
        let panels = kinds.into_iter().map(|kind| self.panel(kind, &sessions)).collect();
        let subtitle = self.facts.iter().take(2).cloned().collect::<Vec<_>>().join(" · ");
        Plot {
            title: "Until all messages lie in Maildirs: messages per second".to_owned(),
            subtitle,
            places: sessions.iter().map(u32::to_string).collect(),
            horizontal: "sessions at once",
            vertical: "messages per second (logarithmic)",
            panels,
        }
        .svg()
    }

    fn panel(&self, kind: Cell, sessions: &[u32]) -> Panel {
        let speed = |peer: Peer, sessions: u32| {
            let figures = self.cell(kind.size, sessions, kind.connections)?.of(peer)?;
            Some(figures.per_second)
        };
        let mut lines = Vec::new();
        if kind.size == 4096 {
            lines.push(Line {
                name: "the disk: a log that the sessions share".to_owned(),
                colour: "#999",
                dashed: true,
                values: sessions
                    .iter()
                    .map(|sessions| self.probe.shared(*sessions).map(|way| way.per_second))
                    .collect(),
            });
        }
        lines.extend(self.peers.iter().rev().map(|&peer| Line {
            name: match peer {
                Peer::Opensmtpd => format!("{} (answers before it is durable)", peer.name()),
                _ => peer.name().to_owned(),
            },
            colour: colour(peer),
            dashed: false,
            values: sessions.iter().map(|&sessions| speed(peer, sessions)).collect(),
        }));
        Panel { title: format!("{}, {}", kind.size_name(), kind.connections_name()), lines }
    }
}

fn colour(peer: Peer) -> &'static str {
    match peer {
        Peer::Lamppost => "#d9480f",
        Peer::Postfix => "#1864ab",
        Peer::Exim => "#2b8a3e",
        Peer::Opensmtpd => "#862e9c",
    }
}
