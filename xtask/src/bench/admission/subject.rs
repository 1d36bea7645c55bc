//! Who lets clients in: Lamppost, its programs in place of ucspi-tcp's, those themselves, and Postfix. All
//! have the same rules and lists, and take as many connections as come.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};
use clap::ValueEnum;

use super::{LISTS, rules};
use crate::bench::lamppost::Place;
use crate::bench::peer::{Peer, package_version};
use crate::bench::postfix::Postfix;
use crate::bench::process::{Usage, end, leashed};
use crate::bench::resolver::ADDRESS as NAME_SERVER;
use crate::bench::{Server as _, await_port, write};
use crate::machine::{output, root, unpacked};

/// More connections at once than the load has.
const CONNECTIONS_MAX: &str = "1000";

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Subject {
    Lamppost,
    LamppostTcpserver,
    Tcpserver,
    Postfix,
}

impl Subject {
    pub(super) const USUAL: [Self; 4] =
        [Self::Lamppost, Self::LamppostTcpserver, Self::Tcpserver, Self::Postfix];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Lamppost => "Lamppost",
            Self::LamppostTcpserver => "Lamppost's tcpserver",
            Self::Tcpserver => "ucspi-tcp's tcpserver",
            Self::Postfix => "Postfix",
        }
    }

    /// A word for its folder.
    pub(super) fn folder(self) -> String {
        format!("{self:?}").to_lowercase()
    }

    /// Its version, for people; nothing where another subject tells it.
    pub(super) fn version(self) -> Option<String> {
        match self {
            Self::Lamppost => Some(Peer::Lamppost.version()),
            Self::LamppostTcpserver => None,
            Self::Tcpserver => {
                let version = package_version("ucspi-tcp", "ucspi-tcp");
                Some(format!("ucspi-tcp {}", version.unwrap_or_default()))
            }
            Self::Postfix => Some(Peer::Postfix.version()),
        }
    }

    /// Starts it in an empty folder.
    pub(super) fn start(self, folder: &Path) -> Result<Running> {
        std::fs::create_dir_all(folder)?;
        let rules_file = folder.join("tcp.smtp");
        write(&rules_file, &rules())?;
        let (address, program) = match self {
            Self::Lamppost => {
                let place = Place::make(folder, &sections(&rules_file))?;
                let (child, _) = place.start(place.leashed(None))?;
                (Peer::Lamppost.address(), Program::Own(child))
            }
            Self::Postfix => {
                let postfix = Postfix::start_with(folder, None, &restrictions(folder)?)?;
                (Peer::Postfix.address(), Program::Postfix(postfix))
            }
            Self::LamppostTcpserver | Self::Tcpserver => {
                let port = if self == Self::Tcpserver { 22530 } else { 22531 };
                let child = self.tcpserver(folder, &rules_file, port)?;
                (format!("127.0.0.1:{port}"), Program::Own(child))
            }
        };
        await_port(&address)?;
        Ok(Running { address: address.parse()?, program })
    }

    /// tcpserver with rblsmtpd and a program that greets.
    fn tcpserver(self, folder: &Path, rules: &Path, port: u16) -> Result<Child> {
        let names = if self == Self::Tcpserver {
            unpacked().join("ucspi-tcp/usr/bin")
        } else {
            let names = folder.join("bin");
            std::fs::create_dir_all(&names)?;
            for name in ["tcpserver", "rblsmtpd", "tcprules"] {
                let compat = root().join("target/release/lamppost-compat");
                std::os::unix::fs::symlink(compat, names.join(name))?;
            }
            names
        };
        let cdb = folder.join("tcp.smtp.cdb");
        let mut compile = Command::new(names.join("tcprules"));
        compile.arg(&cdb).arg(folder.join("tmp")).stdin(std::fs::File::open(rules)?);
        output(&mut compile)?;
        let mut words: Vec<OsString> = vec![names.join("tcpserver").into()];
        words.extend(["-H", "-R", "-l", "0", "-b", "1000", "-c", CONNECTIONS_MAX].map(Into::into));
        words.extend(["-x".into(), cdb.into(), "127.0.0.1".into(), port.to_string().into()]);
        words.push(names.join("rblsmtpd").into());
        for list in LISTS {
            words.extend(["-r".into(), list.into()]);
        }
        words.push(root().join("target/release/examples/greet").into());
        let log = std::fs::File::create(folder.join("log"))?;
        let mut command = leashed(&words);
        // djb's library asks no other name server than this where it is named.
        command.env("DNSCACHEIP", NAME_SERVER).stdin(Stdio::null());
        let command = command.stdout(log.try_clone()?).stderr(log);
        command.spawn().context("cannot run tcpserver")
    }
}

/// What Lamppost is told beside its listener.
fn sections(rules: &Path) -> String {
    let mut text = format!(
        "[mail.rules]\nfile = \"{}\"\n[dns]\nservers = [\"{NAME_SERVER}\"]\n",
        rules.display()
    );
    for list in LISTS {
        let _infallible = write!(text, "[[mail.dns-list]]\nzone = \"{list}\"\n");
    }
    text
}

/// What Postfix is told, so that it decides before it greets.
fn restrictions(folder: &Path) -> Result<String> {
    let mut map = String::new();
    for rule in rules().lines() {
        let Some((network, "deny")) = rule.split_once(".:") else { continue };
        let _infallible = writeln!(map, "{network}.0/24 REJECT");
    }
    let path: PathBuf = folder.join("clients.cidr");
    write(&path, &map)?;
    let lists: Vec<_> = LISTS.iter().map(|list| format!("reject_rbl_client {list}")).collect();
    Ok(format!(
        "smtpd_delay_reject = no\nsmtpd_client_restrictions = check_client_access cidr:{}, {}\n\
         smtpd_relay_restrictions = permit_mynetworks, reject_unauth_destination\n",
        path.display(),
        lists.join(", ")
    ))
}

enum Program {
    Own(Child),
    Postfix(Postfix),
}

/// One that runs. It ends when it is dropped.
pub(super) struct Running {
    pub(super) address: SocketAddr,
    program: Program,
}

impl Running {
    /// Seconds of CPU time so far, of all its processes.
    pub(super) fn cpu_s(&self) -> f64 {
        match &self.program {
            Program::Own(child) => Usage::of(child.id()).cpu_s,
            Program::Postfix(postfix) => postfix.cpu_s(),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Program::Own(child) = &mut self.program {
            end(child);
        }
    }
}
