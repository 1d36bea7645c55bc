//! Whether another program could take the place of this one, tried before anything is given up for it.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read as _, Seek as _};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use lamppost_telemetry::State;

use super::{Supervisor, group};
use crate::exit::Failure;

/// How long a program may take to tell of itself. One that hangs must not make this one hang.
const PATIENCE: Duration = Duration::from_secs(10);
/// What `lamppost status` tells of an upgrade by.
pub(super) const COMPONENT: &str = "upgrade";
/// How often that is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// What is told of what it says.
const TOLD_MAX: u64 = 64 * 1024;

/// What came of making way for another program; nothing where that is at work.
pub(super) enum Succession {
    /// It showed that it cannot begin, and this one goes on.
    Forgone,
    /// This one is to stop.
    Stopped,
    /// Nothing is left to go on with.
    Failed(Failure),
}

impl Supervisor {
    /// Whether the program's file could take the place of what runs; tells what it says of itself.
    pub(super) async fn try_successor(&self) -> Result<String, String> {
        let version = self.tried(&["--version".as_ref()]).await?;
        // Anything may end well when it is asked for its version.
        if !version.starts_with(concat!(env!("CARGO_PKG_NAME"), " ")) {
            let program = self.program.display();
            return Err(format!(
                "error: {program} is no Lamppost: as its version it tells `{version}`"
            ));
        }
        if let Some(file) = &self.opened.file {
            self.tried(&["--config".as_ref(), file.as_ref(), "check".as_ref()]).await?;
        }
        self.health.set(COMPONENT, State::Ok, "under way");
        Ok(format!("{version} takes over."))
    }

    async fn tried(&self, arguments: &[&OsStr]) -> Result<String, String> {
        let program = self.program.display();
        let failed = |error: io::Error| format!("error: {program} cannot be run: {error}");
        let (mut out, mut complaints) = (memory().map_err(failed)?, memory().map_err(failed)?);
        let mut command = Command::new(&self.program);
        command.args(arguments).stdin(Stdio::null());
        command.stdout(out.try_clone().map_err(failed)?);
        command.stderr(complaints.try_clone().map_err(failed)?);
        match ended(command).await.map_err(failed)? {
            Some(status) if status.success() => Ok(told(&mut out)),
            Some(status) => {
                let (how, complaints) = (group::told(status), told(&mut complaints));
                Err(format!("error: {program} cannot begin: {how}\n{complaints}"))
            }
            None => {
                let seconds = PATIENCE.as_secs();
                Err(format!("error: {program} does not end within {seconds} s of its first try"))
            }
        }
    }
}

/// How a command ended; nothing when it did not, and was killed.
async fn ended(mut command: Command) -> io::Result<Option<ExitStatus>> {
    let mut child = command.spawn()?;
    let begun = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if begun.elapsed() > PATIENCE {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Where a command writes: nobody needs to read while it does.
pub(super) fn memory() -> io::Result<File> {
    Ok(rustix::fs::memfd_create("told", rustix::fs::MemfdFlags::CLOEXEC)?.into())
}

pub(super) fn told(memory: &mut File) -> String {
    let mut bytes = Vec::new();
    // What cannot be read was not said.
    let _length = memory.rewind().and_then(|()| memory.take(TOLD_MAX).read_to_end(&mut bytes));
    String::from_utf8_lossy(&bytes).trim().to_owned()
}
