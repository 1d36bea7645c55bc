//! A new program shows that it can begin everything, before the one that runs is given up for it.
//!
//! It does so when the roles before have ended, with the same sockets and the same state. Nobody is served
//! meanwhile: who connects waits, as during the change itself.

use std::collections::HashMap;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use lamppost_net::give;
use lamppost_telemetry::State;
use sd_notify::NotifyState;
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe;
use tokio::time::timeout;
use tracing::{error, info};

use super::group::done;
use super::successor::{COMPONENT, memory, told};
use super::{PAUSE_FIRST, Signals, Supervisor, Work, group, stopped};
use crate::exit::Failure;
use crate::run::orders::Order;
use crate::run::role::Role;

/// How long a program that rehearses may say nothing: it tells how far it is with reading the queue.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// How long one that said its last word may take to be gone.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// Letters of its complaint that the status shows.
const SHOWN_MAX: usize = 500;

impl Supervisor {
    /// Begins all roles but the one that would answer for this program, has none of them begin anything new, and
    /// ends them.
    pub(super) async fn rehearse(mut self, mut signals: Signals) -> Result<(), Failure> {
        self.board.rehearse();
        let Work { mut group, .. } = self.waiting(&self.setup, &self.control, &self.metrics)?;
        let others = [Role::Control, Role::Policy].into_iter();
        let others = others.filter_map(|role| Some((role, group.orders.remove(&role)?)));
        let others: HashMap<_, _> = others.collect();
        let board = self.board.clone();
        let begun = tokio::select! {
            begun = group.begin(|_| true, |reading| board.set_reading(reading)) => begun,
            () = signals.stop() => Err(stopped()),
        };
        let begun = match (begun, others.get(&Role::Policy)) {
            // Last, since it may bring databases into a form that the program before cannot read.
            (Ok(()), Some(policy)) => {
                let begin = policy.ask(Order::Begin { is_paused: true });
                done(Role::Policy, begin.await)
            }
            (begun, _) => begun,
        };
        group.orders.extend(others);
        group.finish(self.config().server.stop_grace).await;
        self.log = None;
        begun
    }

    /// Has the program's file rehearse; tells why it cannot.
    pub(super) async fn try_rehearsal(&mut self, signals: &mut Signals) -> Result<(), String> {
        let failed = |error: &std::io::Error| format!("it cannot be run: {error}");
        let mut complaints = memory().map_err(|error| failed(&error))?;
        let mut command = Command::new(&self.program);
        command.args(std::env::args_os().skip(1)).arg("--rehearse");
        // It must not tell the service manager that it is there.
        command.env_remove("NOTIFY_SOCKET").env_remove("WATCHDOG_USEC");
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        command.stderr(complaints.try_clone().map_err(|error| failed(&error))?);
        let sockets = self.sockets().and_then(|sockets| give(&mut command, sockets));
        let mut child = sockets.and_then(|()| command.spawn()).map_err(|error| failed(&error))?;
        let heard = tokio::select! {
            heard = words(&mut child) => heard,
            () = signals.stop() => {
                self.is_to_stop = true;
                Err("the program was told to stop meanwhile".to_owned())
            }
        };
        if let Err(reason) = heard {
            drop(child.kill());
            drop(child.wait());
            return Err(reason);
        }
        match ended(&mut child).await.map_err(|error| failed(&error))? {
            status if status.success() => Ok(()),
            status => {
                let said = told(&mut complaints);
                // Before it stand lines of its log.
                let complaint = said.rfind("error: ").map_or(said.as_str(), |at| &said[at..]);
                Err(format!("{}: {complaint}", group::told(status)))
            }
        }
    }

    /// Tells why no other program took the place of this one.
    pub(super) fn forgo_successor(&self, reason: &str) {
        let program = self.program.display();
        error!(%program, reason, "the new program cannot begin; the old one goes on");
        let reason: String = reason.replace('\n', " ").chars().take(SHOWN_MAX).collect();
        let text =
            format!("{program} showed that it cannot begin ({reason}); what ran before goes on");
        self.health.set(COMPONENT, State::Fail, text);
    }

    /// Works on in the place of a program that could not; without any role when the program is to stop.
    pub(super) async fn go_on(&mut self, signals: &mut Signals) -> Work {
        let mut pause = PAUSE_FIRST;
        match self.again(signals, &mut pause).await {
            Some(work) => {
                info!("the program goes on as it was");
                work
            }
            None => Work::default(),
        }
    }
}

/// Waits until a program that rehearses has said its last word.
async fn words(child: &mut Child) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("it cannot be listened to: {error}");
    let Some(stdout) = child.stdout.take() else { return Ok(()) };
    let mut words = pipe::Receiver::from_owned_fd(stdout.into()).map_err(failed)?;
    let mut buffer = [0; 1024];
    loop {
        match timeout(SILENCE_MAX, words.read(&mut buffer)).await {
            Ok(Ok(0)) => return Ok(()),
            Ok(Ok(_)) => drop(sd_notify::notify(&[NotifyState::Watchdog])),
            Ok(Err(error)) => return Err(failed(error)),
            Err(_) => {
                return Err(format!("it said nothing for {} s", SILENCE_MAX.as_secs()));
            }
        }
    }
}

async fn ended(child: &mut Child) -> std::io::Result<std::process::ExitStatus> {
    let begun = tokio::time::Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if begun.elapsed() > LAST_WORDS {
            child.kill()?;
            return child.wait();
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
