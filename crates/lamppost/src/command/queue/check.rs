//! queue check: the spool of a program that does not run.

use std::fmt::Write as _;
use std::path::Path;

use clap::Args;
use lamppost_queue::{Finding, OfflineSpool, Repaired, Report, Severity};

use super::source::{settings, unopened};
use super::{count, out};
use crate::exit::{Code, Failure};
use crate::place::Place;

/// Look for damage in the spool of a program that does not run, and repair it.
#[derive(Args, Debug)]
pub(crate) struct Check {
    /// Repair what is damaged
    #[arg(long)]
    repair: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Check {
    pub(super) fn execute(&self, place: &Place) -> Result<(), Failure> {
        let opened = place.open()?;
        let spool = OfflineSpool::open(settings(&opened)).map_err(|error| unopened(&error))?;
        let report = spool.report().clone();
        if self.repair && !report.findings.is_empty() {
            let repaired = spool.repair().map_err(|error| unopened(&error))?;
            return self.repaired(&report, &repaired);
        }
        if self.json && self.repair {
            // Of one shape, whether there was anything to repair or not.
            let (done, lost) = (Vec::new(), Vec::new());
            let repaired = Repaired { done, lost, report: report.clone() };
            return self.repaired(&report, &repaired);
        }
        if self.json {
            out::json(&report)?;
        } else {
            out::print(&text(&report))?;
        }
        sound(&report)
    }

    fn repaired(&self, before: &Report, repaired: &Repaired) -> Result<(), Failure> {
        if self.json {
            out::json(&serde_json::json!({ "before": before, "repair": repaired }))?;
            return sound(&repaired.report);
        }
        let mut text = text(before);
        let spool = before.spool.display().to_string();
        text.push_str("\nRepair:\n");
        for line in &repaired.done {
            let _infallible = writeln!(text, "  {}", line.replace(&format!("{spool}/"), ""));
        }
        match repaired.lost.len() as u64 {
            0 => {}
            1 => text.push_str("1 message lost; the next start tells its sender.\n"),
            lost => {
                let _infallible =
                    writeln!(text, "{lost} messages lost; the next start tells their senders.");
            }
        }
        if before.unknown > 0 {
            let lost = count(before.unknown, "record");
            let _infallible =
                writeln!(text, "{lost} lost, and what was in there is unknown: nobody is told.");
        }
        if repaired.report.is_sound() {
            text.push_str("The spool is sound now.\n");
        }
        out::print(&text)?;
        sound(&repaired.report)
    }
}

fn sound(report: &Report) -> Result<(), Failure> {
    if report.is_sound() {
        return Ok(());
    }
    Err(Failure::new(Code::Data, "the spool is damaged")
        .cure("copy the spool's folder elsewhere, then `lamppost queue check --repair`"))
}

fn text(report: &Report) -> String {
    let mut text = format!(
        "spool     {}\nlog       {} with {}, {} made ahead\nqueue     {}, {}, {} in files of their own\n",
        report.spool.display(),
        count(report.segments, "segment"),
        count(report.records, "record"),
        report.spares,
        count(report.messages, "message"),
        out::size(report.content_bytes),
        report.bodies,
    );
    for finding in &report.findings {
        text.push_str(&finding_text(finding, &report.spool));
    }
    if report.is_sound() {
        text.push_str("\nThe spool is sound.\n");
    }
    text
}

fn finding_text(finding: &Finding, spool: &Path) -> String {
    let word = match finding.severity {
        Severity::Damage => "DAMAGE",
        Severity::Note => "note",
    };
    let path = finding.path.strip_prefix(spool).unwrap_or(&finding.path).display();
    format!("\n{word:<9} {path}: {}\n          {}\n", finding.what, finding.cure)
}
