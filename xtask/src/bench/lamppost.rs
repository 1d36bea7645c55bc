//! Lamppost as it is measured: durable defaults, no greylisting, no delay before the greeting.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::peer::Peer;
use super::process::{end, leashed};
use super::syncs::watched;
use super::{Server, write};
use crate::machine::{cargo, must, output, root};

const READY: &str = "Lamppost is ready.";

/// Builds what users run.
pub(super) fn build() -> Result<()> {
    must(&mut cargo(&["build", "--release", "--package", "lamppost"]))
}

/// A folder with a configuration and an account, in which Lamppost can be started again and again.
pub(super) struct Place {
    folder: PathBuf,
}

impl Place {
    /// Makes it; `more` is added to the configuration.
    pub(super) fn make(folder: &Path, more: &str) -> Result<Self> {
        let address = Peer::Lamppost.address();
        let place = Self::with_file(
            folder,
            &format!(
                "[server]\nhostname = \"mail.lamppost.test\"\n[log]\nlevel = \"info\"\n[metrics]\nlisten = []\n\
                 [mail]\ndomains = [\"lamppost.test\"]\n[mail.greylist]\nenabled = false\n\
                 [mail.limits]\ngreeting-delay = \"0s\"\nsessions-per-address-max = 1000\n\
                 messages-max = 100000000\n\
                 [[mail.listen]]\naddress = [\"{address}\"]\ntls = \"off\"\n{more}"
            ),
        )?;
        let password = folder.join("password");
        write(&password, "only for this measurement\n")?;
        let mut add = place.command();
        add.args(["account", "add", "demo@lamppost.test", "--password-file"]).arg(&password);
        output(&mut add)?;
        Ok(place)
    }

    /// A folder with this configuration, and no account.
    pub(super) fn with_file(folder: &Path, text: &str) -> Result<Self> {
        std::fs::create_dir_all(folder)?;
        write(&folder.join("lamppost.toml"), text)?;
        Ok(Self { folder: folder.to_owned() })
    }

    /// Where the program keeps its state.
    pub(super) fn state(&self) -> PathBuf {
        self.folder.join("state")
    }

    /// A call of the program.
    pub(super) fn command(&self) -> Command {
        self.with_arguments(Command::new(program()))
    }

    /// A call that ends with this program; with a log its sync calls are written down there.
    pub(super) fn leashed(&self, syncs: Option<&Path>) -> Command {
        self.with_arguments(leashed(&watched(&program(), syncs)))
    }

    fn with_arguments(&self, mut command: Command) -> Command {
        command.arg("--config").arg(self.folder.join("lamppost.toml"));
        command.arg("--state").arg(self.state());
        command
    }

    /// Starts the program by a call of it and tells how long it took until it was ready.
    pub(super) fn start(&self, mut call: Command) -> Result<(Child, Duration)> {
        let log = std::fs::File::options()
            .append(true)
            .create(true)
            .open(self.folder.join("log"))
            .context("cannot open the log")?;
        let begun = Instant::now();
        let mut child = call
            .arg("run")
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .context("cannot run Lamppost")?;
        let lines = child.stdout.take().map(BufReader::new).into_iter().flat_map(BufRead::lines);
        let ready = lines.map_while(Result::ok).any(|line| line == READY);
        let took = begun.elapsed();
        if !ready {
            end(&mut child);
        }
        ensure!(ready, "Lamppost did not start: see {}", self.folder.join("log").display());
        Ok((child, took))
    }
}

fn program() -> PathBuf {
    root().join("target/release/lamppost")
}

pub(super) struct Lamppost {
    child: Child,
    state: PathBuf,
}

impl Lamppost {
    pub(super) fn start(folder: &Path, syncs: Option<&Path>) -> Result<Self> {
        let place = Place::make(folder, "")?;
        let (child, _) = place.start(place.leashed(syncs))?;
        Ok(Self { child, state: place.state() })
    }
}

impl Server for Lamppost {
    fn pid(&self) -> u32 {
        self.child.id()
    }

    fn new_folder(&self) -> PathBuf {
        self.state.join("mail/lamppost.test/demo/Maildir/new")
    }
}

impl Drop for Lamppost {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}
