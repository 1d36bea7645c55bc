//! The servers that are compared.

use std::net::TcpStream;
use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};
use clap::ValueEnum;

use super::Server;
use super::exim::Exim;
use super::lamppost::Lamppost;
use super::opensmtpd::Opensmtpd;
use super::postfix::Postfix;
use crate::machine::{output, root, unpacked};

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Peer {
    Lamppost,
    Postfix,
    Exim,
    Opensmtpd,
}

impl Peer {
    pub(crate) const ALL: [Self; 4] = [Self::Lamppost, Self::Postfix, Self::Exim, Self::Opensmtpd];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Lamppost => "Lamppost",
            Self::Postfix => "Postfix",
            Self::Exim => "Exim",
            Self::Opensmtpd => "OpenSMTPD",
        }
    }

    /// Where it listens, on 127.0.0.1.
    pub(crate) fn port(self) -> u16 {
        match self {
            Self::Lamppost => 22525,
            Self::Postfix => 22526,
            Self::Exim => 22527,
            Self::Opensmtpd => 22528,
        }
    }

    pub(crate) fn address(self) -> String {
        format!("127.0.0.1:{}", self.port())
    }

    /// How many sessions at once it can take.
    pub(crate) fn sessions_max(self) -> u32 {
        match self {
            // More overflow its backlog of 5, and a client whose connection was lost there waits for
            // a greeting for ever.
            Self::Opensmtpd => 4,
            _ => u32::MAX,
        }
    }

    /// Starts it in an empty folder; with a log its sync calls are written down there.
    pub(crate) fn start(self, folder: &Path, syncs: Option<&Path>) -> Result<Box<dyn Server>> {
        std::fs::create_dir_all(folder)?;
        ensure!(
            TcpStream::connect(("127.0.0.1", self.port())).is_err(),
            "something else listens on port {}",
            self.port()
        );
        Ok(match self {
            Self::Lamppost => Box::new(Lamppost::start(folder, syncs)?),
            Self::Postfix => Box::new(Postfix::start(folder, syncs)?),
            Self::Exim => Box::new(Exim::start(folder, syncs)?),
            Self::Opensmtpd => Box::new(Opensmtpd::start(folder, syncs)?),
        })
    }

    /// Its version, for people.
    pub(crate) fn version(self) -> String {
        let known = match self {
            Self::Lamppost => {
                let mut git = Command::new("git");
                output(git.args(["rev-parse", "--short", "HEAD"]).current_dir(root())).ok()
            }
            Self::Postfix => package_version("postfix", "postfix"),
            Self::Exim => package_version("exim", "exim4-daemon-light"),
            Self::Opensmtpd => package_version("opensmtpd", "opensmtpd"),
        };
        format!("{} {}", self.name(), known.unwrap_or_default().trim())
    }
}

/// The version of an unpacked package stands first in its changelog: `name (version) …`.
pub(crate) fn package_version(folder: &str, package: &str) -> Option<String> {
    let changelog = unpacked().join(folder).join("usr/share/doc").join(package);
    let text = output(Command::new("gzip").arg("-dc").arg(changelog.join("changelog.Debian.gz")));
    let text = text.ok()?;
    let version = text.split('(').nth(1)?.split(')').next()?;
    Some(version.to_owned())
}
