//! All roles, or the whole program, begun anew while the sockets stay: whoever connects meanwhile waits in
//! them, and nobody is refused.

use std::ffi::OsStr;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::time::Duration;

use lamppost_net::give;
use rustix::thread::CapabilitySet;
use tracing::{debug, error, info};

use super::group::Group;
use super::{PAUSE_FIRST, Signals, Supervisor, Work, make_folders};
use crate::exit::{Code, Failure};
use crate::place::Opened;
use crate::run::listeners::Bound;
use crate::run::local::Local;
use crate::run::role::Role;
use crate::run::setup::Setup;
use crate::state_files;

/// How long requests to the control socket may go on when its process is replaced.
const REQUESTS_GO_ON: Duration = Duration::from_secs(60);
/// How long a process may take to end after what it had to finish.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// What all roles are to begin with.
pub(super) struct Next {
    pub(super) opened: Opened,
    pub(super) setup: Setup,
    pub(super) mail: Vec<Bound>,
    pub(super) metrics: Vec<TcpListener>,
    pub(super) local: Option<Local>,
}

/// Has the program that takes the place of this one bind ports below 1024 as this one may.
fn keep_ports() {
    // Only what a process may pass on can be, and only one that is not root must.
    if let Err(reason) =
        rustix::thread::configure_capability_in_ambient_set(CapabilitySet::NET_BIND_SERVICE, true)
    {
        debug!(%reason, "the new program gets no power to bind ports below 1024");
    }
}

impl Supervisor {
    /// Ends all roles, when their sessions have ended or `stop-grace` is over, and begins them as `next`
    /// says; when they cannot begin so, as they were.
    pub(super) async fn begin_anew(
        &mut self,
        work: &mut Work,
        signals: &mut Signals,
        next: Next,
    ) -> Result<(), Failure> {
        next.opened.make_state()?;
        state_files::gather_databases(&next.opened.state)?;
        make_folders(&next.opened)?;
        next.setup.users.own(&next.opened.config, &next.opened.state)?;
        self.end_sessions(&mut work.group).await;
        // Whoever asked for this waits for the answer by this process.
        work.group.retire(Role::Control, REQUESTS_GO_ON, LAST_WORDS).await;
        let mut old = std::mem::take(&mut work.group);
        let asked = std::mem::take(&mut old.retired);
        old.finish(self.config().server.stop_grace).await;
        let before = self.put(next);
        let begun = match self.start().await {
            Ok(begun) => {
                *work = begun;
                Local::remove(before.local, self.local.as_ref());
                Ok(())
            }
            Err(failure) => {
                let tried = self.put(before);
                Local::remove(tried.local, self.local.as_ref());
                let mut pause = PAUSE_FIRST;
                // Nothing when the program is to stop: then nothing more is to be done.
                if let Some(again) = self.again(signals, &mut pause).await {
                    *work = again;
                }
                Err(failure)
            }
        };
        work.group.retired.extend(asked);
        self.await_addresses();
        begun
    }

    /// Has no connection taken until those that there are have ended by themselves, or `stop-grace` is over.
    async fn end_sessions(&self, group: &mut Group) {
        let grace = self.config().server.stop_grace;
        group.retire(Role::Front, grace, LAST_WORDS).await;
        group.await_retired(grace + LAST_WORDS * 2).await;
    }

    /// Takes another configuration and its sockets; returns those before.
    fn put(&mut self, next: Next) -> Next {
        Next {
            opened: std::mem::replace(&mut self.opened, next.opened),
            setup: std::mem::replace(&mut self.setup, next.setup),
            mail: std::mem::replace(&mut self.mail, next.mail),
            metrics: std::mem::replace(&mut self.metrics, next.metrics),
            local: std::mem::replace(&mut self.local, next.local),
        }
    }

    /// Whether the program's file could take the place of what runs; tells what it says of itself.
    pub(super) fn try_successor(&self) -> Result<String, String> {
        let run = |arguments: &[&OsStr]| {
            let output = Command::new(&self.program).args(arguments).output();
            let output = output.map_err(|error| {
                format!("error: {} cannot be run: {error}", self.program.display())
            })?;
            let told = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
            if output.status.success() {
                return Ok(told(&output.stdout));
            }
            Err(format!(
                "error: {} cannot begin:\n{}",
                self.program.display(),
                told(&output.stderr)
            ))
        };
        let version = run(&["--version".as_ref()])?;
        if let Some(file) = &self.opened.file {
            run(&["--config".as_ref(), file.as_ref(), "check".as_ref()])?;
        }
        Ok(format!("{version} takes over."))
    }

    /// Becomes the program's file as it is now, with the same sockets. Returns when that cannot be.
    pub(super) async fn become_successor(&mut self, work: Work) -> Failure {
        info!(program = %self.program.display(), "the program is begun anew");
        let Work { mut group, wishes } = work;
        // Nobody may wait for what is not answered any more.
        drop(wishes);
        self.end_sessions(&mut group).await;
        group.retire(Role::Control, REQUESTS_GO_ON, LAST_WORDS).await;
        group.await_retired(REQUESTS_GO_ON + LAST_WORDS).await;
        group.finish(self.config().server.stop_grace).await;
        keep_ports();
        let mut command = Command::new(&self.program);
        command.args(std::env::args_os().skip(1));
        let failed =
            |error: &_| Failure::at(Code::System, "the program cannot be begun anew", error);
        let given = self.sockets().and_then(|sockets| give(&mut command, sockets));
        let error = given.map_or_else(|error| error, |()| command.exec());
        error!(reason = %error, "the program cannot be begun anew");
        failed(&error)
    }

    /// All sockets that listen, by name.
    fn sockets(&self) -> std::io::Result<Vec<(String, OwnedFd)>> {
        let mail = self.mail.iter().filter_map(|bound| bound.socket.as_ref());
        let tcp = mail.map(|socket| ("mail", socket));
        let tcp = tcp.chain(self.metrics.iter().map(|socket| ("metrics", socket)));
        let mut sockets = Vec::new();
        for (name, socket) in tcp {
            sockets.push((name.to_owned(), socket.try_clone()?.into()));
        }
        sockets.push(("control".to_owned(), self.control.try_clone()?.into()));
        if let Some(local) = &self.local {
            sockets.push(("local".to_owned(), local.socket.try_clone()?.into()));
        }
        Ok(sockets)
    }
}
