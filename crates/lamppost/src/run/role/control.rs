//! Control: the control socket, the metrics endpoint and the outcome log.

use std::net::TcpListener;
use std::os::unix::net::{UnixListener, UnixStream};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use lamppost_console::{
    Blocked, Control, ControlSettings, ControlSocket, Host, HostStatus, Part, ReloadError,
    RoleStatus, serve_metrics,
};
use lamppost_net::Listener;
use lamppost_net::link::{Gone, Port};
use lamppost_sandbox::InForce;
use lamppost_telemetry::{Metrics, merged};
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

/// The other processes, and how each is asked about itself.
type Others = Arc<Mutex<Vec<(Role, Port<Inspect, Inspected>)>>>;

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
    let mut ports = Vec::new();
    for role in others {
        let port = links.port(&role.inspected()).map_err(|error| failed(&error))?;
        ports.push((role, port));
        let outcomes = links.one(&role.outcomes()).map_err(|error| failed(&error))?;
        start.log.keep(UnixStream::from(outcomes)).map_err(|error| failed(&error))?;
    }
    let program = Program {
        others: Arc::new(Mutex::new(ports)),
        supervisor: links.port("wishes").map_err(|error| failed(&error))?,
        metrics: start.metrics.clone(),
        force: start.force.clone(),
    };
    let later = links.one("handed").map_err(|error| failed(&error))?;
    let (known, log) = (program.others.clone(), start.log.clone());
    handed::receive(later, move |what, end| {
        let taken = match what {
            handed::INSPECT => port_to("inspect", end)
                .map(|port| known.lock().push((Role::Front, port)))
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
    /// What all other processes answer; those that do not are left out, and those that ended forgotten.
    async fn ask_all(&self, question: fn() -> Inspect) -> Vec<(Role, Inspected)> {
        self.others.lock().retain(|(_, port)| !port.is_gone());
        let others = self.others.lock().clone();
        let asked = others.iter().map(|(role, port)| async move {
            let answer = tokio::time::timeout(PATIENCE, port.ask(question())).await;
            Some((*role, answer.ok()?.ok()?))
        });
        join_all(asked).await.into_iter().flatten().collect()
    }

    /// Has the supervisor do something; tells what it did.
    async fn wish(&self, wish: Wish) -> Result<String, ReloadError> {
        match self.supervisor.ask(wish).await {
            Ok(Granted::Done(done)) => done.map_err(ReloadError),
            Ok(Granted::Status(_)) | Err(Gone) => {
                Err(ReloadError("error: the supervisor does not answer".into()))
            }
        }
    }

    /// The figures of all roles.
    async fn figures(&self) -> String {
        let mut texts = vec![self.metrics.encode()];
        for (_, answer) in self.ask_all(|| Inspect::Metrics).await {
            if let Inspected::Metrics(text) = answer {
                texts.push(text);
            }
        }
        merged(&texts)
    }

    async fn whole(&self) -> HostStatus {
        let supervisor = self.supervisor.ask(Wish::Status).await;
        let mut status = match supervisor {
            Ok(Granted::Status(text)) => serde_json::from_str(&text).unwrap_or_else(|_| unknown()),
            _ => unknown(),
        };
        let own = RoleStatus {
            name: Role::Control.name().into(),
            pid: std::process::id(),
            force: self.force.clone(),
        };
        for (role, answer) in self.ask_all(|| Inspect::Condition).await {
            let Inspected::Condition(condition) = answer else { continue };
            // What another process tells is no reason to fail.
            status.sessions = status.sessions.saturating_add(condition.sessions);
            status.relay = status.relay.or(condition.relay);
            let Blocked { addresses, accounts } = condition.blocked;
            status.blocked.addresses = status.blocked.addresses.saturating_add(addresses);
            status.blocked.accounts = status.blocked.accounts.saturating_add(accounts);
            status.health.extend(condition.health);
            let name = role.name().into();
            status.roles.push(RoleStatus { name, pid: condition.pid, force: condition.force });
        }
        status.roles.push(own);
        status
    }
}

/// The program without a supervisor, which ends in a moment.
fn unknown() -> HostStatus {
    HostStatus {
        version: env!("CARGO_PKG_VERSION").into(),
        pid: 0,
        uptime_s: 0,
        state: "".into(),
        file: None,
        listeners: Vec::new(),
        sessions: 0,
        relay: None,
        blocked: Blocked::default(),
        health: Vec::new(),
        roles: Vec::new(),
        paused: Vec::new(),
    }
}

impl Host for Program {
    fn status(&self) -> Pin<Box<dyn Future<Output = HostStatus> + Send + '_>> {
        Box::pin(self.whole())
    }

    fn reload(&self) -> Pin<Box<dyn Future<Output = Result<String, ReloadError>> + Send + '_>> {
        Box::pin(self.wish(Wish::Reload))
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
