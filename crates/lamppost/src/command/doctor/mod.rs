//! doctor: looks at all that the service needs around it, and tells the cure of what is not as it should be.

mod files;
mod lists;
mod machine;
mod mailboxes;
mod ports;

use std::time::Duration;

use clap::Args;
use lamppost_config::{Remark, Severity};
use lamppost_console::{Client, ClientError, HostStatus, Status};

use super::{out, remarks, status, wait};
use crate::exit::{Code, Failure};
use crate::place::{Opened, Place};

/// How long anything outside of this program may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Look at ports, DNS, disk, clock, certificate, database and permissions, and tell what to mend
#[derive(Args, Debug)]
pub(crate) struct Doctor {
    /// Ask no name server
    #[arg(long)]
    no_dns: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// How it stands with something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
enum Level {
    Ok,
    Warn,
    Fail,
}

/// One line of the report.
#[derive(Clone, Debug, serde::Serialize)]
struct Finding {
    level: Level,
    area: &'static str,
    what: String,
    /// What to do about it; nothing when it is well.
    cure: Option<String>,
}

impl Finding {
    fn ok(area: &'static str, what: impl Into<String>) -> Self {
        Self { level: Level::Ok, area, what: what.into(), cure: None }
    }

    fn warn(area: &'static str, what: impl Into<String>, cure: impl Into<String>) -> Self {
        Self { level: Level::Warn, cure: Some(cure.into()), ..Self::ok(area, what) }
    }

    fn fail(area: &'static str, what: impl Into<String>, cure: impl Into<String>) -> Self {
        Self { level: Level::Fail, ..Self::warn(area, what, cure) }
    }

    /// What `lamppost check` tells too.
    fn of(area: &'static str, remark: Remark) -> Self {
        match remark.severity {
            Severity::Error => Self::fail(area, remark.what, remark.cure),
            Severity::Warning => Self::warn(area, remark.what, remark.cure),
        }
    }

    /// The same where it does no harm for now.
    fn milder(self) -> Self {
        Self { level: Level::Warn, ..self }
    }
}

impl Doctor {
    pub(crate) fn execute(self, place: &Place) -> Result<(), Failure> {
        let opened = place.open()?;
        let mut findings = wait(configuration(&opened))?;
        let (running, asked) = wait(program(&opened))?;
        findings.extend(asked);
        findings.extend(users(&opened, &running));
        findings.extend(wait(ports::look(&opened, &running))?);
        if !self.no_dns {
            findings.push(machine::name(&opened));
            findings.extend(wait(lists::look(&opened))?);
        }
        findings.extend(machine::disk(&opened));
        findings.push(machine::clock(&opened));
        findings.extend(files::certificate(&opened));
        findings.extend(wait(files::databases(&opened))?);
        findings.extend(wait(mailboxes::look(&opened, running.host()))?);
        findings.extend(files::permissions(&opened));
        if self.json {
            out::json(&findings)?;
        } else {
            out::print(&text(&findings))?;
        }
        let failed = findings.iter().filter(|finding| finding.level == Level::Fail).count();
        if failed == 0 {
            return Ok(());
        }
        let is = if failed == 1 { "is" } else { "are" };
        let what = format!("{failed} of {} {is} not well", findings.len());
        Err(Failure::new(Code::Unavailable, what))
    }
}

fn text(findings: &[Finding]) -> String {
    let lines = findings.iter().map(|Finding { level, area, what, cure }| {
        let word = match level {
            Level::Ok => "ok",
            Level::Warn => "WARN",
            Level::Fail => "FAIL",
        };
        let cure = cure.as_ref().map(|cure| format!("      help: {cure}\n")).unwrap_or_default();
        format!("{word:4}  {area}: {what}\n{cure}")
    });
    lines.collect()
}

/// What `lamppost check` tells of the file, but for what has an area of its own here.
async fn configuration(opened: &Opened) -> Vec<Finding> {
    let area = "configuration";
    let Some(file) = &opened.file else {
        let cure = "`lamppost init FILE` writes a file to begin with";
        return vec![Finding::warn(area, "the built-in demo, for trying out only", cure)];
    };
    let postmaster = remarks::unknown_postmaster(opened).await;
    let remarks = remarks::of_values(opened).into_iter();
    let remarks = remarks.chain(remarks::of_others(&opened.config)).chain(postmaster);
    let found = remarks.map(|remark| {
        let key = remark.key.clone();
        let mut finding = Finding::of(area, remark);
        if let Some(line) = opened.place_of(&key) {
            finding.what = format!("{line}: {}", finding.what);
        }
        finding
    });
    let found: Vec<_> = found.collect();
    if found.is_empty() { vec![Finding::ok(area, file.display().to_string())] } else { found }
}

/// Whether the program runs.
enum Running {
    No,
    /// It does, and does not tell this user how it is.
    Silently,
    Yes(Box<HostStatus>),
}

impl Running {
    fn host(&self) -> Option<&HostStatus> {
        match self {
            Self::Yes(host) => Some(host),
            Self::No | Self::Silently => None,
        }
    }
}

/// Whether the program runs, and what it says of itself.
async fn program(opened: &Opened) -> (Running, Vec<Finding>) {
    let area = "program";
    let client = Client::new(&opened.control_socket);
    let asked = match status::of(&client).await {
        Ok(asked) => asked,
        Err(failure) => {
            let cure = "look into its log; `kill -9` of its control role has all roles begin again";
            return (Running::Silently, vec![Finding::fail(area, failure.text(), cure)]);
        }
    };
    let Status { host, queue } = match asked {
        Ok(status) => status,
        Err(error @ ClientError::NotRunning { .. }) => {
            let cure = "`lamppost run` starts it";
            return (Running::No, vec![Finding::fail(area, error.to_string(), cure)]);
        }
        Err(error) => {
            let cure = "run this as root, or as the user that lamppost runs as";
            return (Running::Silently, vec![Finding::fail(area, error.to_string(), cure)]);
        }
    };
    let up = out::age(Duration::from_secs(host.uptime_s));
    let mut findings = vec![Finding::ok(area, format!("runs as process {}, up {up}", host.pid))];
    let cure = "`lamppost status` and the log tell more";
    findings.extend(
        status::phase(&host).map(|phase| Finding::warn(area, phase, "ask again when that is over")),
    );
    for fact in &host.health {
        let what = format!("{}: {}", fact.component, fact.text);
        match fact.state {
            lamppost_telemetry::State::Ok => {}
            lamppost_telemetry::State::Warn => findings.push(Finding::warn(area, what, cure)),
            lamppost_telemetry::State::Fail => findings.push(Finding::fail(area, what, cure)),
        }
    }
    let spool = "`lamppost queue check` looks through the spool of a program that does not run, and \
                 mends it with --repair";
    if let Some(queue) = queue {
        findings.extend(queue.fault.map(|fault| Finding::fail("queue", fault, spool)));
        let damage = queue.damage.into_iter().map(|damage| Finding::warn("queue", damage, spool));
        findings.extend(damage);
    }
    (Running::Yes(Box::new(host)), findings)
}

/// Whether roles that root begins have users of their own.
fn users(opened: &Opened, running: &Running) -> Option<Finding> {
    // Who runs it now is likely to run it next time.
    let owner = running.host().and_then(|host| {
        use std::os::unix::fs::MetadataExt as _;
        Some(std::fs::metadata(format!("/proc/{}", host.pid)).ok()?.uid())
    });
    let odd = match owner {
        Some(0) => crate::run::odd_users(opened),
        Some(_) => None,
        None => remarks::users(opened),
    };
    odd.map(|(what, cure)| Finding::warn("users", what, cure))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_has_its_cure() {
        let findings = [Finding::ok("disk", "well"), Finding::fail("dns", "no name", "give one")];
        assert_eq!(text(&findings), "ok    disk: well\nFAIL  dns: no name\n      help: give one\n");
    }
}
