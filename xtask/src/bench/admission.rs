//! `cargo xtask bench admission`: connections per second through connection rules and four lists in the
//! DNS, until the client is greeted and has said QUIT.

mod report;
mod subject;

use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;
use lamppost_load::{GreetingLoad, answer_to_rcpt, percentile};

use self::report::{Cell, Clients, Figures, Report};
use self::subject::{Running, Subject};
use super::cell::timed;
use super::disk::Disk;
use super::process::leashed;
use super::resolver::ADDRESS as NAME_SERVER;
use super::table::{figure, median_of};
use super::{facts, lamppost, write};
use crate::machine::{cargo, must, output, root, unpacked};
use crate::setup;

/// Tells the program that it has a network of its own, in which clients have addresses.
const INSIDE: &str = "LAMPPOST_XTASK_OWN_NETWORK";
/// The lists, all of which hold [`LISTED`].
pub(super) const LISTS: [&str; 4] =
    ["one.lists.test", "two.lists.test", "three.lists.test", "four.lists.test"];
/// Where clients come from: addresses for measurements (RFC 2544), which this machine has as its own.
const CLIENTS: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);
const CLIENTS_NETWORK: &str = "198.18.0.0/15";
const CLIENTS_MAX: u32 = 100_000;
/// How many come again and again where they do.
const KNOWN_CLIENTS: u32 = 100;
/// A client that the lists hold.
const LISTED: Ipv4Addr = Ipv4Addr::new(198, 19, 255, 1);
/// Networks that the rules deny, beside that all others are allowed.
const RULES: u32 = 1000;

#[derive(Args)]
pub(crate) struct Admission {
    /// Who answers; Lamppost is always among them
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Subject::USUAL)]
    subjects: Vec<Subject>,
    /// How many connections at once
    #[arg(long, value_delimiter = ',', default_values_t = [1, 50])]
    connections: Vec<usize>,
    /// Seconds of a run
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// How often each is measured, in turn
    #[arg(long, default_value_t = 3)]
    runs: u32,
    /// Where the servers keep their files
    #[arg(long, default_value = "target/bench-admission")]
    folder: PathBuf,
    /// Write docs/bench/admission.md
    #[arg(long)]
    save: bool,
}

impl Admission {
    pub(crate) fn run(mut self) -> Result<()> {
        let run = Duration::try_from_secs_f64(self.seconds).context("--seconds")?;
        ensure!(self.runs > 0 && !run.is_zero(), "nothing would be measured");
        ensure!(self.connections.iter().all(|some| *some > 0), "--connections: at least 1");
        if std::env::var_os(INSIDE).is_none() {
            setup::admission_peers()?;
            lamppost::build()?;
            must(&mut cargo(&["build", "--release", "-p", "lamppost-load", "--example", "greet"]))?;
            return own_network();
        }
        self.subjects.retain(|subject| *subject != Subject::Lamppost);
        self.subjects.insert(0, Subject::Lamppost);
        let folder = std::path::absolute(&self.folder)?;
        drop(std::fs::remove_dir_all(&folder));
        std::fs::create_dir_all(&folder)?;
        let report = self.measure(&folder, run);
        drop(std::fs::remove_dir_all(&folder));
        let report = report?;
        println!("{}", report.text());
        if self.save {
            write(&root().join("docs/bench/admission.md"), &report.markdown())?;
            println!("wrote docs/bench/admission.md");
        }
        Ok(())
    }

    fn measure(&self, folder: &Path, run: Duration) -> Result<Report> {
        let load = facts::load();
        let _lists = Lists::start(&folder.join("lists"))?;
        let mut contenders = Vec::new();
        for &subject in &self.subjects {
            match begun(subject, &folder.join(subject.folder())) {
                Ok(running) => contenders.push((subject, running)),
                Err(error) => println!("{} is left out: {error:#}", subject.name()),
            }
        }
        let mut cells = Vec::new();
        for clients in [Clients::New, Clients::Known] {
            for &connections in &self.connections {
                let cell = Cell { clients, connections };
                let mut from = 0;
                let measured = timed(&cell.name(), || {
                    Ok(measured(cell, &contenders, &mut from, (run, self.runs)))
                })?;
                cells.push((cell, measured));
            }
        }
        let versions: Vec<_> = self.subjects.iter().filter_map(|one| one.version()).collect();
        let mut facts = facts::gather(&Disk::under(folder)?, &versions);
        facts.push(load);
        facts.push(format!(
            "medians of {} runs of {} s, all in turn; {RULES} rules, {} lists, rbldnsd on the same machine",
            self.runs,
            self.seconds,
            LISTS.len()
        ));
        Ok(Report { facts, subjects: self.subjects.clone(), cells })
    }
}

/// Starts the program anew where the clients' addresses are this machine's, and nothing else is.
fn own_network() -> Result<()> {
    ensure!(
        output(Command::new("id").arg("-u"))?.trim() == "0",
        "only root can make a network for the clients"
    );
    let resolver = root().join("target/bench-resolv.conf");
    write(&resolver, &format!("nameserver {NAME_SERVER}\n"))?;
    let script = format!(
        "set -e; ip link set lo up; ip route add local {CLIENTS_NETWORK} dev lo; \
         mount --bind {} /etc/resolv.conf; exec \"$@\"",
        resolver.display()
    );
    let error = Command::new("unshare")
        .args(["--net", "--mount", "--propagation", "private", "sh", "-c", &script, "sh"])
        .arg(std::env::current_exe()?)
        .args(std::env::args_os().skip(1))
        .env(INSIDE, "1")
        .exec();
    Err(error).context("cannot run unshare")
}

/// Starts one, and proves that the lists decide there.
fn begun(subject: Subject, folder: &Path) -> Result<Running> {
    let running = subject.start(folder)?;
    let answer = |client| answer_to_rcpt(client, running.address, "demo@lamppost.test");
    let (listed, other) = (answer(LISTED)?, answer(CLIENTS)?);
    ensure!(!listed.starts_with('2'), "a listed client is answered {listed:?}");
    ensure!(other.starts_with('2'), "a client that is not listed is answered {other:?}");
    Ok(running)
}

fn measured(
    cell: Cell,
    contenders: &[(Subject, Running)],
    from: &mut u32,
    (duration, runs): (Duration, u32),
) -> Vec<(Subject, Figures)> {
    let mut all: Vec<Vec<Figures>> = contenders.iter().map(|_| Vec::new()).collect();
    for _ in 0..runs {
        for ((subject, running), runs) in contenders.iter().zip(&mut all) {
            match one_run(cell, running, from, duration) {
                Ok(figures) => {
                    println!(
                        "  {:28} {:>8.0} connections a second, p99 {} ms",
                        subject.name(),
                        figures.per_second,
                        figure(figures.p99_ms)
                    );
                    runs.push(figures);
                }
                Err(error) => println!("  {:28} left out: {error:#}", subject.name()),
            }
        }
    }
    let medians = contenders.iter().zip(all);
    medians.filter_map(|((subject, _), runs)| Some((*subject, median(&runs)?))).collect()
}

fn one_run(cell: Cell, running: &Running, from: &mut u32, duration: Duration) -> Result<Figures> {
    let clients = if cell.clients == Clients::Known { KNOWN_CLIENTS } else { CLIENTS_MAX - *from };
    let load = GreetingLoad {
        address: running.address,
        connections: cell.connections,
        clients_from: Ipv4Addr::from(u32::from(CLIENTS) + *from),
        clients,
        duration,
    };
    let before = running.cpu_s();
    let report = load.run()?;
    let cpu_s = running.cpu_s() - before;
    let count = u32::try_from(report.greetings.len())?;
    ensure!(count > 0, "nobody was greeted");
    if cell.clients == Clients::New {
        // The next run's clients are new again, as long as there are any.
        *from = (*from + count) % (CLIENTS_MAX / 2);
    }
    let ms = |fraction| percentile(&report.greetings, fraction).as_secs_f64() * 1e3;
    Ok(Figures {
        per_second: f64::from(count) / report.elapsed.as_secs_f64(),
        p50_ms: ms(0.5),
        p99_ms: ms(0.99),
        cpu_ms: cpu_s * 1e3 / f64::from(count),
    })
}

fn median(runs: &[Figures]) -> Option<Figures> {
    let middle =
        |figure: fn(&Figures) -> f64| median_of(&mut runs.iter().map(figure).collect::<Vec<_>>());
    Some(Figures {
        per_second: middle(|run| run.per_second)?,
        p50_ms: middle(|run| run.p50_ms)?,
        p99_ms: middle(|run| run.p99_ms)?,
        cpu_ms: middle(|run| run.cpu_ms)?,
    })
}

/// rbldnsd with the lists. It ends when this is dropped.
struct Lists(Child);

impl Lists {
    fn start(folder: &Path) -> Result<Self> {
        std::fs::create_dir_all(folder)?;
        let entries = format!(":127.0.0.2:listed\n127.0.0.2\n{LISTED}\n");
        let program = unpacked().join("rbldnsd/usr/sbin/rbldnsd");
        let mut words = vec![program.into(), "-n".into(), "-b".into()];
        words.extend([format!("{NAME_SERVER}/53").into(), "-w".into(), folder.into()]);
        words.extend(["-u", "nobody"].map(Into::into));
        for zone in LISTS {
            write(&folder.join(zone), &entries)?;
            words.push(format!("{zone}:ip4set:{zone}").into());
        }
        let mut command = leashed(&words);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Ok(Self(child.spawn().context("cannot run rbldnsd")?))
    }
}

impl Drop for Lists {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// The rules as tcprules reads them.
pub(super) fn rules() -> String {
    let mut text = String::new();
    for number in 0..RULES {
        let _infallible = writeln!(text, "10.{}.{}.:deny", number / 250, number % 250);
    }
    text + ":allow\n"
}
