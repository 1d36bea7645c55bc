//! All roles, or the whole program, begun anew while the sockets stay: whoever connects meanwhile waits in
//! them, and nobody is refused.

use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::time::Duration;

use futures_util::FutureExt as _;
use lamppost_console::Phase;
use lamppost_net::give;
use lamppost_net::link::link;
use rustix::thread::CapabilitySet;
use tracing::{debug, info};

use super::group::Group;
use super::sockets::control_socket;
use super::{PAUSE_FIRST, Signals, Succession, Supervisor, Work, make_folders, stopped};
use crate::exit::{Code, Failure};
use crate::place::Opened;
use crate::run::listeners::Bound;
use crate::run::local::Local;
use crate::run::orders::Order;
use crate::run::role::Role;
use crate::run::setup::Setup;

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
    pub(super) locals: Vec<Local>,
    /// The control socket, where it is another.
    pub(super) control: Option<UnixListener>,
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

/// Where a control socket is made.
fn other_control(
    old: &Opened,
    (new, setup): (&Opened, &Setup),
) -> Result<Option<UnixListener>, Failure> {
    if new.control_socket == old.control_socket {
        return Ok(None);
    }
    control_socket(new, setup, None).map(Some)
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
        let next = match self.prepare(next) {
            Ok(next) => next,
            Err((failure, locals)) => {
                self.forgo(locals);
                return Err(failure);
            }
        };
        // As long as there cannot be other processes, those that there are work on.
        let control = next.control.as_ref().unwrap_or(&self.control);
        let waiting = match self.waiting(&next.setup, control, &next.metrics) {
            Ok(waiting) => waiting,
            Err(failure) => {
                self.leave(next);
                return Err(failure);
            }
        };
        self.end_sessions(&mut work.group, signals).await;
        if self.is_to_stop {
            waiting.group.finish(Duration::ZERO).await;
            self.leave(next);
            return Err(stopped());
        }
        // Whoever asked for this waits for the answer by this process.
        work.group.retire(Role::Control, REQUESTS_GO_ON, LAST_WORDS).await;
        // Whoever asks from now on is told what is under way: that it cannot begin is told with all others.
        self.board.set_phase(Phase::Beginning, None);
        self.post(&waiting.group);
        let begin = Order::Begin { is_paused: false };
        drop(waiting.group.order(Role::Control, begin).await);
        let mut old = std::mem::take(&mut work.group);
        let asked = std::mem::take(&mut old.retired);
        old.finish(self.config().server.stop_grace).await;
        let before = self.put(next);
        let begun = match self.begin(waiting, signals).await {
            Ok(begun) => {
                self.take_over(work, begun);
                self.leave(before);
                Ok(())
            }
            Err(failure) => {
                let tried = self.put(before);
                self.leave(tried);
                let mut pause = PAUSE_FIRST;
                if let Some(again) = self.again(signals, &mut pause).await {
                    self.take_over(work, again);
                }
                Err(failure)
            }
        };
        work.group.retired.extend(asked);
        self.await_addresses();
        begun
    }

    /// Makes what other roles would need, while those that there are work on.
    fn prepare(&self, next: Next) -> Result<Next, (Failure, Vec<Local>)> {
        let made = || {
            make_folders(&next.opened)?;
            next.setup.users.own(&next.opened.config, &next.opened.state)?;
            other_control(&self.opened, (&next.opened, &next.setup))
        };
        match made() {
            Ok(control) => Ok(Next { control, ..next }),
            Err(failure) => Err((failure, next.locals)),
        }
    }

    /// Takes away the UNIX sockets that are not to be any more, or not after all.
    pub(super) fn forgo(&self, locals: Vec<Local>) {
        Local::remove(locals, &self.locals);
        // Whoever may connect to ours is whom our configuration names.
        drop(Local::again(&self.locals, &self.opened));
    }

    /// Takes away what another configuration left to be seen.
    fn leave(&self, other: Next) {
        self.forgo(other.locals);
        if other.opened.control_socket != self.opened.control_socket {
            drop(std::fs::remove_file(other.opened.control_socket));
        }
    }

    /// Has no connection taken until those that there are have ended by themselves, `stop-grace` is over, or
    /// the program is told to stop.
    async fn end_sessions(&mut self, group: &mut Group, signals: &mut Signals) {
        let grace = self.config().server.stop_grace;
        self.board.set_phase(Phase::EndingSessions, Some(grace));
        group.hurry(Role::Front, grace, LAST_WORDS).await;
        group.retire(Role::Front, grace, LAST_WORDS).await;
        self.await_retired((group, Role::Front), signals, grace + LAST_WORDS * 2).await;
    }

    /// Waits until all that have retired from a role have ended, so long at most, or until the program is to
    /// stop.
    async fn await_retired(
        &mut self,
        (group, role): (&mut Group, Role),
        signals: &mut Signals,
        patience: Duration,
    ) {
        tokio::select! {
            () = group.await_retired(role, patience) => {}
            () = signals.stop() => self.is_to_stop = true,
        }
    }

    /// Takes another configuration and its sockets; returns those before.
    fn put(&mut self, next: Next) -> Next {
        self.rules.set(next.opened.config.mail.rules.file.as_deref());
        Next {
            opened: std::mem::replace(&mut self.opened, next.opened),
            setup: std::mem::replace(&mut self.setup, next.setup),
            mail: std::mem::replace(&mut self.mail, next.mail),
            metrics: std::mem::replace(&mut self.metrics, next.metrics),
            locals: std::mem::replace(&mut self.locals, next.locals),
            control: next.control.map(|socket| std::mem::replace(&mut self.control, socket)),
        }
    }

    /// Becomes the program's file as it is now, with the same sockets, once that has shown that it can. Returns
    /// when it cannot be, or when the program is to stop.
    pub(super) async fn become_successor(
        &mut self,
        work: &mut Work,
        signals: &mut Signals,
    ) -> Succession {
        info!(program = %self.program.display(), "the program is begun anew");
        let group = &mut work.group;
        // Nobody may wait for what is not answered any more.
        work.wishes = link().1;
        self.waiting.clear();
        // Mail goes on while requests end: somebody may have connected who asks for nothing.
        group.retire(Role::Control, REQUESTS_GO_ON, LAST_WORDS).await;
        self.await_retired((group, Role::Control), signals, REQUESTS_GO_ON + LAST_WORDS).await;
        if !self.is_to_stop {
            self.end_sessions(group, signals).await;
        }
        if self.is_to_stop {
            return Succession::Stopped;
        }
        std::mem::take(group).finish(self.config().server.stop_grace).await;
        self.owners.end().await;
        if let Err(reason) = self.try_rehearsal(signals).await {
            if !self.is_to_stop {
                self.forgo_successor(&reason);
            }
            return Succession::Forgone;
        }
        if signals.stop().now_or_never().is_some() {
            return Succession::Stopped;
        }
        keep_ports();
        // Its last lines would be lost with this program.
        self.log = None;
        let mut command = Command::new(&self.program);
        command.args(std::env::args_os().skip(1));
        let given = self.sockets().and_then(|sockets| give(&mut command, sockets));
        let error = given.map_or_else(|error| error, |()| command.exec());
        Succession::Failed(Failure::at(Code::System, "the program cannot be begun anew", &error))
    }

    /// All sockets that listen, by name.
    pub(super) fn sockets(&self) -> std::io::Result<Vec<(String, OwnedFd)>> {
        let mail = self.mail.iter().filter_map(|bound| bound.socket.as_ref());
        let tcp = mail.map(|socket| ("mail", socket));
        let tcp = tcp.chain(self.metrics.iter().map(|socket| ("metrics", socket)));
        let mut sockets = Vec::new();
        for (name, socket) in tcp {
            sockets.push((name.to_owned(), socket.try_clone()?.into()));
        }
        sockets.push(("control".to_owned(), self.control.try_clone()?.into()));
        for local in &self.locals {
            sockets.push(("local".to_owned(), local.socket.try_clone()?.into()));
        }
        Ok(sockets)
    }
}
