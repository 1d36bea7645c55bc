//! The machine around the service: its name in the DNS, its disk, its clock.

use std::net::{IpAddr, ToSocketAddrs as _};
use std::sync::mpsc;
use std::time::{Duration, SystemTime};

use lamppost_disk::{FileSystem, file_system};
use lamppost_net::{Clock as _, SystemClock};

use super::{Finding, PATIENCE};
use crate::command::out;
use crate::command::remarks::{self, is_here};
use crate::place::Opened;

/// 2026-01-01T00:00:00Z: no machine that runs this program is older.
const OLDEST: Duration = Duration::from_secs(1_767_225_600);
/// How far a file may be ahead of the clock, as one that is written at this moment.
const AHEAD_MAX: Duration = Duration::from_secs(60);

/// Whether this host's name leads to it, by the system's own resolver.
pub(super) fn name(opened: &Opened) -> Finding {
    let area = "dns";
    let hostname = opened.hostname();
    let is_private = opened
        .config
        .mail
        .listen
        .iter()
        .all(|listen| listen.address.iter().all(|address| address.ip().is_loopback()));
    match resolve(&hostname) {
        Err(Unresolved::NobodyAnswers(why)) => {
            let what = format!("no name server answers, so {hostname} is not looked up: {why}");
            let cure = "look at the network and at the name servers in /etc/resolv.conf; `--no-dns` leaves it out";
            let finding = Finding::fail(area, what, cure);
            if is_private { finding.milder() } else { finding }
        }
        Err(Unresolved::NotThere(why)) => {
            let what = format!("{hostname} is not found: {why}");
            let cure = "give it an A or AAAA record, or set `hostname` in [server] to a name that has one; others may refuse mail of a host without a name";
            // Nobody elsewhere looks for a host that listens for itself alone.
            let finding = Finding::fail(area, what, cure);
            if is_private { finding.milder() } else { finding }
        }
        Ok(addresses) => {
            let shown: Vec<_> = addresses.iter().map(ToString::to_string).collect();
            let what = format!("{hostname} is at {}", shown.join(", "));
            if addresses.iter().any(|&address| is_here(address)) {
                Finding::ok(area, what)
            } else {
                let cure = "right when a router passes connections on to this machine; otherwise correct the A and AAAA records";
                Finding::warn(area, format!("{what}, which is not this machine"), cure)
            }
        }
    }
}

/// Why a name has no address.
enum Unresolved {
    /// No server could be asked, or none answered in time.
    NobodyAnswers(String),
    /// It was answered that there is none.
    NotThere(String),
}

/// The addresses of a name. The system's resolver cannot be interrupted: one that hangs is left behind.
fn resolve(hostname: &str) -> Result<Vec<IpAddr>, Unresolved> {
    use Unresolved::{NobodyAnswers, NotThere};
    let (sender, found) = mpsc::channel();
    let name = (hostname.to_owned(), 25);
    let asking = std::thread::Builder::new().spawn(move || {
        let found = name.to_socket_addrs();
        // Nobody waits any more when the time is over.
        drop(sender.send(found.map(|all| all.map(|address| address.ip()).collect::<Vec<_>>())));
    });
    asking.map_err(|error| NobodyAnswers(error.to_string()))?;
    let mut addresses = found
        .recv_timeout(PATIENCE)
        .map_err(|_| NobodyAnswers(format!("nothing came within {} seconds", PATIENCE.as_secs())))?
        .map_err(|error| {
            let text = error.to_string();
            // The C library has a number for it (EAI_AGAIN), of which only the words are left.
            if text.contains("Temporary failure") { NobodyAnswers(text) } else { NotThere(text) }
        })?;
    addresses.sort_unstable();
    addresses.dedup();
    if addresses.is_empty() { Err(NotThere("it has no address".into())) } else { Ok(addresses) }
}

/// Whether there is space for mail, and whether it stays where it is written.
pub(super) fn disk(opened: &Opened) -> Vec<Finding> {
    let area = "disk";
    let Some(folder) = opened.state.ancestors().find(|folder| folder.exists()) else {
        return Vec::new();
    };
    let shown = folder.display();
    let queue = &opened.config.mail.queue;
    let mut findings = Vec::new();
    match rustix::fs::statvfs(folder) {
        Err(error) => {
            let cure = "look at the mount, and at the rights of its folders";
            findings.push(Finding::fail(
                area,
                format!("{shown} cannot be looked at: {error}"),
                cure,
            ));
        }
        Ok(found) => {
            let (free, total) = (found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize);
            let what = format!("{} of {} are free in {shown}", out::size(free), out::size(total));
            let cure =
                "make room: `lamppost queue` shows what waits, and the Maildirs may be large";
            findings.push(match free {
                _ if free < queue.free_space_min.0 => {
                    let what = format!("{what}: no new mail is taken (free-space-min)");
                    Finding::fail(area, what, cure)
                }
                _ if free / 10 < queue.free_space_min.0 || free < total / 20 => {
                    Finding::warn(area, what, cure)
                }
                _ => Finding::ok(area, what),
            });
            if found.f_favail == 0 && found.f_files > 0 {
                findings.push(Finding::fail(area, format!("{shown} has no inode left"), cure));
            }
        }
    }
    findings.extend(match remarks::state_folder(opened) {
        Some(remark) => Some(Finding::of(area, remark)),
        None => file_system(folder).ok().map(|found| {
            let kind = match found {
                FileSystem::Disk => "is on a disk",
                _ => "is not on a disk, which `accept-volatile` allows",
            };
            Finding::ok(area, format!("{shown} {kind}"))
        }),
    });
    findings
}

/// Whether the clock can be right. How far it drifts takes a question to elsewhere, which is not asked.
pub(super) fn clock(opened: &Opened) -> Finding {
    let (area, now) = ("clock", SystemClock.now());
    let shown = out::time(out::now_ms());
    let cure = "set it, and let systemd-timesyncd or chrony keep it";
    if now < OLDEST {
        return Finding::fail(area, format!("it is at {shown}, which is long ago"), cure);
    }
    let names = ["spool", "log", "policy/state.db", "policy/greylist.db"];
    let newest = names.iter().filter_map(|name| {
        let changed = opened.state.join(name).metadata().and_then(|found| found.modified()).ok()?;
        changed.duration_since(SystemTime::UNIX_EPOCH).ok()
    });
    match newest.max() {
        Some(newest) if newest > now + AHEAD_MAX => {
            let ahead = out::age(newest.saturating_sub(now));
            let what = format!("it is at {shown}, {ahead} before what was written to the state");
            Finding::warn(area, what, cure)
        }
        _ => {
            Finding::ok(area, format!("it is at {shown}; how exact it is was not asked elsewhere"))
        }
    }
}
