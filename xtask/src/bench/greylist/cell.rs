//! One cell of the matrix: all subjects are asked the same kind of questions, in turn, several times.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use lamppost_load::{Mix, PolicyLoad, PolicyReport, percentile};

use super::subject::{Running, Subject};
use crate::bench::table::{Table, figure, median_of};

/// The delay that all subjects impose, and what their clocks may cut off.
const DELAY: Duration = Duration::from_millis(2100);
/// How long the known triplets may take to be learnt.
const PATIENCE: Duration = Duration::from_secs(300);
/// Connections by which they are.
const CONNECTIONS: usize = 20;

/// What is asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    Known,
    Mixed,
    New,
}

impl Asked {
    pub(super) const ALL: [Self; 3] = [Self::Known, Self::Mixed, Self::New];

    fn name(self) -> &'static str {
        match self {
            Self::Known => "known triplets",
            Self::Mixed => "9 known triplets to 1 new",
            Self::New => "new triplets",
        }
    }

    fn new_percent(self) -> u64 {
        match self {
            Self::Known => 0,
            Self::Mixed => 10,
            Self::New => 100,
        }
    }
}

/// One setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cell {
    pub(super) asked: Asked,
    pub(super) connections: usize,
}

impl Cell {
    /// For people.
    pub(super) fn name(self) -> String {
        let plural = if self.connections == 1 { "" } else { "s" };
        format!("{}, {} connection{plural}", self.asked.name(), self.connections)
    }
}

/// What was measured of a subject in a cell.
#[derive(Clone, Copy, Debug)]
pub(super) struct Figures {
    pub(super) per_second: f64,
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
    /// Of the subject and its database.
    pub(super) cpu_us: f64,
    /// Statements that a database of its own was sent for a decision.
    pub(super) statements: Option<f64>,
}

/// A figure, for a row or a table of its own.
pub(super) type Pick = (&'static str, fn(&Figures) -> Option<f64>);

pub(super) const PICKS: [Pick; 5] = [
    ("decisions per second", |figures| Some(figures.per_second)),
    ("median of the answer, ms", |figures| Some(figures.p50_ms)),
    ("99th percentile of the answer, ms", |figures| Some(figures.p99_ms)),
    ("CPU µs per decision, the database's included", |figures| Some(figures.cpu_us)),
    ("statements to MariaDB per decision", |figures| figures.statements),
];

/// A subject that runs, and what it has been asked about.
pub(super) struct Contender {
    subject: Subject,
    running: Running,
    mix: Mix,
}

impl Contender {
    /// Starts it and makes triplets known to it.
    pub(super) fn start(subject: Subject, folder: &Path, known: u64) -> Result<Self> {
        let running = subject.start(folder)?;
        let mix = Mix { known, new_percent: 0, new_from: known };
        let contender = Self { subject, running, mix };
        for _ in 0..2 {
            contender.learn(known)?;
            std::thread::park_timeout(DELAY);
        }
        let deferred = contender.learn(known)?;
        ensure!(deferred == 0, "{deferred} of {known} triplets are not known after their delay");
        Ok(contender)
    }

    /// Asks about each known triplet; returns how many were deferred.
    fn learn(&self, known: u64) -> Result<u64> {
        let report = self.ask(self.mix, CONNECTIONS, known, PATIENCE)?;
        ensure!(report.questions() == known, "only {} questions were answered", report.questions());
        Ok(report.deferred)
    }

    fn ask(
        &self,
        mix: Mix,
        connections: usize,
        questions_max: u64,
        duration: Duration,
    ) -> Result<PolicyReport> {
        let address = self.running.address;
        Ok(PolicyLoad { address, connections, mix, questions_max, duration }.run()?)
    }

    fn run(&mut self, cell: Cell, duration: Duration) -> Result<Figures> {
        let mix = Mix { new_percent: cell.asked.new_percent(), ..self.mix };
        let before = (self.running.cpu_s(), self.running.statements());
        let report = self.ask(mix, cell.connections, u64::MAX / 100, duration)?;
        let after = (self.running.cpu_s(), self.running.statements());
        let questions = report.questions();
        self.mix.new_from = mix.new_after(questions);
        ensure!(questions > 0, "nothing was answered");
        let new = self.mix.new_from - mix.new_from;
        let expected = if self.subject == Subject::Probe { 0 } else { new };
        ensure!(
            report.deferred.abs_diff(expected) * 100 <= questions,
            "{} of {questions} were deferred; {expected} should have been",
            report.deferred
        );
        #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^52 questions")]
        let questions = questions as f64;
        let ms = |fraction| percentile(&report.latencies, fraction).as_secs_f64() * 1e3;
        let figures = Figures {
            per_second: questions / report.elapsed.as_secs_f64(),
            p50_ms: ms(0.5),
            p99_ms: ms(0.99),
            cpu_us: (after.0 - before.0) * 1e6 / questions,
            statements: before.1.zip(after.1).map(|(one, two)| (two - one) / questions),
        };
        println!(
            "  {:17} {:>9.0} decisions a second, p99 {} ms",
            self.subject.name(),
            figures.per_second,
            figure(figures.p99_ms)
        );
        Ok(figures)
    }
}

/// All subjects in one cell.
pub(super) struct Measured {
    pub(super) cell: Cell,
    figures: Vec<(Subject, Figures)>,
}

impl Measured {
    /// Measures all; a run that fails is told and does not count.
    pub(super) fn of(
        cell: Cell,
        contenders: &mut [Contender],
        duration: Duration,
        runs: u32,
    ) -> Self {
        let mut all: Vec<(Subject, Vec<Figures>)> =
            contenders.iter().map(|one| (one.subject, Vec::new())).collect();
        for _ in 0..runs {
            for (contender, (subject, runs)) in contenders.iter_mut().zip(&mut all) {
                match contender.run(cell, duration) {
                    Ok(figures) => runs.push(figures),
                    Err(error) => println!("  {:17} left out: {error:#}", subject.name()),
                }
            }
        }
        let figures = all.into_iter().filter_map(|(subject, runs)| Some((subject, median(&runs)?)));
        Self { cell, figures: figures.collect() }
    }

    pub(super) fn figures(&self, subject: Subject) -> Option<&Figures> {
        self.figures.iter().find(|(one, _)| *one == subject).map(|(_, figures)| figures)
    }

    /// The cell alone, with Lamppost's ratio to each.
    pub(super) fn table(&self) -> Table {
        let mut head = vec![String::new()];
        for (subject, _) in &self.figures {
            head.push(subject.name().to_owned());
            if *subject != Subject::Lamppost {
                head.push("ratio".to_owned());
            }
        }
        let mut table = Table::new(head);
        for (name, pick) in PICKS {
            let own = self.figures(Subject::Lamppost).and_then(pick).unwrap_or(f64::NAN);
            let mut row = vec![name.to_owned()];
            for (subject, figures) in &self.figures {
                let value = pick(figures).unwrap_or(f64::NAN);
                row.push(figure(value));
                if *subject != Subject::Lamppost {
                    row.push(figure(own / value));
                }
            }
            table.row(row);
        }
        table
    }
}

/// Each figure's median; nothing of nothing.
fn median(runs: &[Figures]) -> Option<Figures> {
    let middle = |figure: &dyn Fn(&Figures) -> Option<f64>| {
        median_of(&mut runs.iter().filter_map(figure).collect::<Vec<_>>())
    };
    Some(Figures {
        per_second: middle(&|run| Some(run.per_second))?,
        p50_ms: middle(&|run| Some(run.p50_ms))?,
        p99_ms: middle(&|run| Some(run.p99_ms))?,
        cpu_us: middle(&|run| Some(run.cpu_us))?,
        statements: middle(&|run| run.statements),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_cells() {
        let cell = Cell { asked: Asked::Mixed, connections: 1 };
        assert_eq!(cell.name(), "9 known triplets to 1 new, 1 connection");
    }

    #[test]
    fn medians_of_each_figure() {
        let run = |per_second, statements| Figures {
            per_second,
            p50_ms: 1.0,
            p99_ms: 2.0,
            cpu_us: 3.0,
            statements,
        };
        let figures = median(&[run(3.0, None), run(1.0, Some(2.0))]).unwrap();
        assert!((figures.per_second - 2.0).abs() < 1e-9);
        assert_eq!(figures.statements, Some(2.0));
        assert!(median(&[]).is_none());
    }
}
