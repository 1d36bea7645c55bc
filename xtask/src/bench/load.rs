//! The load: Postfix's smtp-source, and waiting until all messages lie in a Maildir.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::process::leashed;
use crate::machine::unpacked;
use crate::setup;

/// How long a server may take until all messages of a run lie in Maildirs.
const PATIENCE: Duration = Duration::from_secs(300);

/// Whether each message has a connection of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Connections {
    Fresh,
    Kept,
}

/// What is sent at once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) messages: u32,
    pub(crate) size: u32,
    pub(crate) sessions: u32,
    pub(crate) connections: Connections,
}

impl Load {
    /// Sends all messages.
    pub(crate) fn send(&self, address: &str) -> Result<()> {
        let mut command = smtp_source();
        command
            .args(["-s", &self.sessions.min(self.messages).to_string()])
            .args(["-m", &self.messages.to_string(), "-l", &self.size.to_string()])
            .args(["-f", "sender@elsewhere.test", "-t", "demo@lamppost.test"]);
        if self.connections == Connections::Kept {
            command.arg("-d");
        }
        let mut child =
            command.arg(address).stdin(Stdio::null()).spawn().context("cannot run smtp-source")?;
        let begun = Instant::now();
        loop {
            if let Some(status) = child.try_wait()? {
                ensure!(status.success(), "smtp-source failed at {address}: {status}");
                return Ok(());
            }
            if begun.elapsed() > PATIENCE {
                drop(child.kill());
                drop(child.wait());
                bail!("smtp-source did not end at {address}");
            }
            std::thread::park_timeout(Duration::from_millis(1));
        }
    }

    /// Sends all messages and waits until as many more lie in the Maildir; tells how long that took.
    pub(crate) fn deliver(&self, address: &str, new_folder: &Path) -> Result<Duration> {
        let wanted = count(new_folder) + self.messages as usize;
        let begun = Instant::now();
        self.send(address)?;
        loop {
            let counting = Instant::now();
            let there = count(new_folder);
            if there >= wanted {
                return Ok(begun.elapsed());
            }
            ensure!(begun.elapsed() < PATIENCE, "only {there} of {wanted} messages arrived");
            // Counting must not take the time that the server needs.
            std::thread::park_timeout((counting.elapsed() * 5).max(Duration::from_millis(2)));
        }
    }
}

fn smtp_source() -> Command {
    let mut command = leashed(&[setup::postfix().join("usr/sbin/smtp-source").into()]);
    command.env("LD_LIBRARY_PATH", postfix_libraries());
    command
}

/// Where the unpacked Postfix finds its libraries.
pub(super) fn postfix_libraries() -> String {
    let root: PathBuf = unpacked().join("postfix");
    let triplet = format!("usr/lib/{}-linux-gnu", std::env::consts::ARCH);
    format!("{}:{}", root.join("usr/lib/postfix").display(), root.join(triplet).display())
}

/// How many messages lie in a folder.
pub(crate) fn count(folder: &Path) -> usize {
    std::fs::read_dir(folder).map_or(0, Iterator::count)
}
