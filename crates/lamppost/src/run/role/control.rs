//! Control: the control socket, the metrics endpoint and the outcome log.

use std::net::TcpListener;
use std::os::unix::net::{UnixListener, UnixStream};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use lamppost_console::{
    Blocked, Control, ControlSettings, ControlSocket, Host, HostStatus, Part, Phase, ReloadError,
    Reloaded, RoleStatus, serve_metrics,
};
use lamppost_net::Listener;
use lamppost_net::link::{Gone, Port};
use lamppost_sandbox::InForce;
use lamppost_telemetry::{Fact, Metrics, State, counters, merged};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::error;

use super::links::port_to;
use super::{Role, Start, handed};
use crate::exit::{Code, Failure};
use crate::run::orders::{Granted, Inspect, Inspected, Wish};

/// How long a role may take to tell of itself.
const PATIENCE: Duration = Duration::from_secs(5);
/// The same while all begin, and will answer once they have.
const PATIENCE_WITH_BEGIN: Duration = Duration::from_millis(200);

/// The other processes; clones know the same.
#[derive(Clone, Default)]
struct Others(Arc<Mutex<Known>>);

#[derive(Default)]
struct Known {
    processes: Vec<Process>,
    /// How many there have been.
    count: u64,
    /// What those counted that others have taken the place of: no figure that only grows goes back.
    departed: String,
}

/// A process, and how it is asked about itself.
#[derive(Clone)]
struct Process {
    number: u64,
    role: Role,
    port: Port<Inspect, Inspected>,
}

impl Others {
    /// Asks one more from now on. What a front has counted is asked for when another has its place, before it
    /// ends; all others end together with this role.
    fn meet(&self, role: Role, port: Port<Inspect, Inspected>) {
        let asked = port.clone();
        let number = {
            let mut known = self.0.lock();
            known.count += 1;
            let number = known.count;
            known.processes.push(Process { number, role, port });
            number
        };
        if role != Role::Front {
            return;
        }
        let others = self.clone();
        tokio::spawn(async move {
            if let Ok(Inspected::Metrics(text)) = asked.ask(Inspect::LastMetrics).await {
                let mut known = others.0.lock();
                known.departed = merged(&[std::mem::take(&mut known.departed), counters(&text)]);
                known.processes.retain(|process| process.number != number);
            }
        });
    }

    /// Those that have not ended.
    fn processes(&self) -> Vec<Process> {
        let mut known = self.0.lock();
        known.processes.retain(|process| !process.port.is_gone());
        known.processes.clone()
    }
}

/// The program as it is asked about.
#[derive(Clone)]
struct Program {
    others: Others,
    supervisor: Port<Wish, Granted>,
    metrics: Arc<Metrics>,
    force: InForce,
}

/// Control at work.
pub(super) struct Running {
    retired: CancellationToken,
    answering: TaskTracker,
}

impl Running {
    /// Takes no request any more; returns what waits for those that are under way.
    pub(super) fn retire(&self) -> impl Future<Output = ()> + Send + 'static {
        self.retired.cancel();
        self.answering.close();
        let answering = self.answering.clone();
        async move { answering.wait().await }
    }
}

/// Begins to answer.
pub(super) fn begin(mut start: Start) -> Result<Running, Failure> {
    let failed = |error: &dyn std::error::Error| Failure::of(Code::Software, error);
    let links = &mut start.links;
    let others = Role::ALL.into_iter().filter(|&role| role != Role::Control);
    let known = Others::default();
    for role in others {
        known.meet(role, links.port(&role.inspected()).map_err(|error| failed(&error))?);
        let outcomes = links.one(&role.outcomes()).map_err(|error| failed(&error))?;
        start.log.keep(UnixStream::from(outcomes)).map_err(|error| failed(&error))?;
    }
    let program = Program {
        others: known.clone(),
        supervisor: links.port("wishes").map_err(|error| failed(&error))?,
        metrics: start.metrics.clone(),
        force: start.force.clone(),
    };
    let later = links.one("handed").map_err(|error| failed(&error))?;
    let log = start.log.clone();
    handed::receive(later, move |what, end| {
        let taken = match what {
            handed::INSPECT => port_to("inspect", end)
                .map(|port| known.meet(Role::Front, port))
                .map_err(|error| error.to_string()),
            _ => log.keep(UnixStream::from(end)).map_err(|error| error.to_string()),
        };
        if let Err(reason) = taken {
            error!(reason, "a new front is not listened to");
        }
    })
    .map_err(|error| failed(&error))?;
    let (retired, answering) = (CancellationToken::new(), TaskTracker::new());
    for place in 0..start.config.metrics.listen.len() {
        let socket = links.one(&format!("metrics.{place}")).map_err(|error| failed(&error))?;
        let socket = TcpListener::from(socket);
        let listener = socket.set_nonblocking(true).and_then(|()| Listener::from_std(socket));
        let listener = listener.map_err(|error| failed(&error))?;
        let program = program.clone();
        let figures = move || {
            let program = program.clone();
            async move { program.figures().await }
        };
        answering.spawn(serve_metrics(listener, figures, retired.clone().cancelled_owned()));
    }
    let socket = links.one("socket").map_err(|error| failed(&error))?;
    let socket = ControlSocket::from_std(UnixListener::from(socket));
    let socket = socket.map_err(|error| failed(&error))?;
    let queue = links.port("control").map_err(|error| failed(&error))?;
    let imports = links.port("imports").map_err(|error| failed(&error))?;
    let greylist = links.port("greylist").map_err(|error| failed(&error))?;
    let settings = ControlSettings {
        outcomes: start.setup.state.join("log"),
        request_size_max: usize::try_from(start.config.server.request_size_max.0)
            .unwrap_or(usize::MAX),
        has_group: start.setup.control_group.is_some(),
    };
    let control = Control::new(queue, imports, greylist, Arc::new(program), settings);
    answering.spawn(control.serve(socket, retired.clone().cancelled_owned()));
    Ok(Running { retired, answering })
}

impl Program {
    /// What all other processes answer within `patience`: nothing for those that do not. Those that ended
    /// are forgotten.
    async fn ask_all(
        &self,
        question: fn() -> Inspect,
        patience: Duration,
    ) -> Vec<(Process, Option<Inspected>)> {
        let asked = self.others.processes().into_iter().map(|process| async move {
            match tokio::time::timeout(patience, process.port.ask(question())).await {
                Ok(Ok(answer)) => Some((process, Some(answer))),
                Ok(Err(Gone)) => None,
                Err(_) => Some((process, None)),
            }
        });
        join_all(asked).await.into_iter().flatten().collect()
    }

    /// Has the supervisor do something; tells what it did.
    async fn wish(&self, wish: Wish) -> Result<String, ReloadError> {
        match self.supervisor.ask(wish).await {
            Ok(Granted::Done(done)) => done.map_err(ReloadError),
            _ => Err(unanswered()),
        }
    }

    /// The figures of all roles.
    async fn figures(&self) -> String {
        let answers = self.ask_all(|| Inspect::Metrics, PATIENCE).await;
        let known = self.others.0.lock();
        let mut texts = vec![self.metrics.encode(), known.departed.clone()];
        for (asked, answer) in answers {
            // What one counted that ended meanwhile is told already.
            let is_there = known.processes.iter().any(|process| process.number == asked.number);
            if let Some(Inspected::Metrics(text)) = answer.filter(|_| is_there) {
                texts.push(text);
            }
        }
        merged(&texts)
    }

    async fn whole(&self) -> HostStatus {
        let supervisor = tokio::time::timeout(PATIENCE, self.supervisor.ask(Wish::Status)).await;
        let mut status = match supervisor {
            Ok(Ok(Granted::Status(text))) => {
                serde_json::from_str(&text).unwrap_or_else(|_| unknown())
            }
            _ => unknown(),
        };
        let is_beginning = status.phase == Phase::Beginning;
        let patience = if is_beginning { PATIENCE_WITH_BEGIN } else { PATIENCE };
        let begun = std::mem::take(&mut status.roles);
        let (mut silent, mut owners) = (Vec::new(), Vec::new());
        for (Process { role, .. }, answer) in self.ask_all(|| Inspect::Condition, patience).await {
            let Some(Inspected::Condition(condition)) = answer else {
                silent.push(role);
                continue;
            };
            // What another process tells is no reason to fail.
            status.sessions = status.sessions.saturating_add(condition.sessions);
            status.relay = status.relay.or(condition.relay);
            let Blocked { addresses, accounts } = condition.blocked;
            status.blocked.addresses = status.blocked.addresses.saturating_add(addresses);
            status.blocked.accounts = status.blocked.accounts.saturating_add(accounts);
            status.health.extend(condition.health);
            status.roles.push(answering(role, condition.pid, condition.force));
            owners.extend(condition.owners);
        }
        status.roles.push(answering(Role::Control, std::process::id(), self.force.clone()));
        status.roles.extend(owners);
        for role in silent {
            let is_known = |pid| status.roles.iter().any(|known| known.pid == pid);
            let its = |one: &&RoleStatus| one.name == role.name() && !is_known(one.pid);
            // One that ended at this moment is not there any more.
            let Some(found) = begun.iter().find(its).cloned() else { continue };
            if !is_beginning {
                status.health.push(silence(&found));
            }
            status.roles.push(found);
        }
        status
    }
}

fn answering(role: Role, pid: u32, force: InForce) -> RoleStatus {
    RoleStatus { name: role.name().into(), pid, answers: true, force: Some(force) }
}

/// What is the matter with a role that does not answer.
fn silence(role: &RoleStatus) -> Fact {
    let RoleStatus { name, pid, .. } = role;
    let text = format!(
        "the role `{name}`, process {pid}, does not answer; the log may tell why. When it is gone, as after \
         `kill -9 {pid}`, all roles begin again"
    );
    Fact { component: "roles".into(), state: State::Fail, text }
}

fn unanswered() -> ReloadError {
    ReloadError("error: the supervisor does not answer".into())
}

/// The program without a supervisor, which hangs or ends in a moment.
fn unknown() -> HostStatus {
    HostStatus {
        version: env!("CARGO_PKG_VERSION").into(),
        pid: 0,
        uptime_s: 0,
        phase: Phase::AtWork,
        phase_left_s: None,
        reading: None,
        state: "".into(),
        file: None,
        listeners: Vec::new(),
        sessions: 0,
        relay: None,
        blocked: Blocked::default(),
        health: vec![Fact {
            component: "supervisor".into(),
            state: State::Fail,
            text: "the process that began all others does not answer; the log may tell why".into(),
        }],
        roles: Vec::new(),
        paused: Vec::new(),
    }
}

impl Host for Program {
    fn status(&self) -> Pin<Box<dyn Future<Output = HostStatus> + Send + '_>> {
        Box::pin(self.whole())
    }

    fn reload(&self) -> Pin<Box<dyn Future<Output = Result<Reloaded, ReloadError>> + Send + '_>> {
        Box::pin(async {
            match self.supervisor.ask(Wish::Reload).await {
                Ok(Granted::Reloaded(done)) => done.map_err(ReloadError),
                _ => Err(unanswered()),
            }
        })
    }

    fn upgrade(&self) -> Pin<Box<dyn Future<Output = Result<String, ReloadError>> + Send + '_>> {
        Box::pin(self.wish(Wish::Upgrade))
    }

    fn pause(
        &self,
        part: Part,
        is_paused: bool,
    ) -> Pin<Box<dyn Future<Output = Result<String, ReloadError>> + Send + '_>> {
        Box::pin(self.wish(Wish::Pause(part, is_paused)))
    }
}
