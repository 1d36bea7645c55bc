//! One role of the mail service in a process of its own, started by the supervisor.

mod control;
mod delivery;
mod front;
pub(super) mod handed;
mod inspected;
mod links;
pub(super) mod mail_folders;
mod policy;
mod power;
mod probe;
mod queue;
mod user;

use std::fs::File;
use std::io::{self, Read as _};
use std::sync::Arc;
use std::time::Duration;

use lamppost_config::Config;
use lamppost_net::Given;
use lamppost_net::link::Inbox;
use lamppost_queue::Reading;
use lamppost_sandbox::{InForce, restrict};
use lamppost_telemetry::{Guard, Metrics, OutcomesTo};
use rustix::process::{Signal, set_parent_process_death_signal};
use serde::de::DeserializeOwned;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use self::inspected::Legacy;
use self::links::Links;
pub(super) use self::power::{folders, is_power_new, own_folders};
pub(crate) use self::probe::probe;
pub(super) use self::user::OwnerSetup;
use super::defect;
use super::orders::{Order, Report};
use super::setup::Setup;
use super::{lines_to, start_log};
use crate::exit::{Code, Failure};
use crate::state_files;

/// How long a role that lost its supervisor takes to end well.
const ORPHANS_GRACE: Duration = Duration::from_secs(1);

/// A role.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, clap::ValueEnum)]
pub(crate) enum Role {
    /// Sockets and dialogues; no files.
    Front,
    /// Who may do what: accounts and the greylist.
    Policy,
    /// The sole owner of the spool.
    Queue,
    /// Maildirs and the relay.
    Delivery,
    /// The control socket, the metrics endpoint and the outcome log.
    Control,
    /// The Maildir of one user of this machine, in whose home it is; there are as many as have mail.
    User,
}

/// What every role begins with.
struct Start {
    links: Links,
    setup: Setup,
    config: Config,
    metrics: Arc<Metrics>,
    force: InForce,
    log: Arc<Guard>,
    /// What becomes of the figures of a role that is replaced.
    legacy: Legacy,
    /// How far the queue is with reading.
    reading: Reading,
    /// Whether nothing new is begun yet.
    is_paused: bool,
}

/// A role at work.
enum Running {
    Front(front::Running),
    Policy(Box<policy::Running>),
    Queue(queue::Running),
    Delivery(delivery::Running),
    Control(control::Running),
}

impl Role {
    /// Those that there are one of, always.
    pub(crate) const ALL: [Self; 5] =
        [Self::Front, Self::Policy, Self::Queue, Self::Delivery, Self::Control];

    /// Its name in logs, links and processes.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Front => "front",
            Self::Policy => "policy",
            Self::Queue => "queue",
            Self::Delivery => "delivery",
            Self::Control => "control",
            Self::User => "user",
        }
    }

    /// The control role's end of the link by which it asks this one.
    pub(super) fn inspected(self) -> String {
        format!("inspect.{}", self.name())
    }

    /// The control role's end of the link by which this one tells its outcomes.
    pub(super) fn outcomes(self) -> String {
        format!("outcomes.{}", self.name())
    }

    /// What it is told of a setup.
    pub(super) fn part(self, setup: &Setup) -> Setup {
        let told = setup.without_secrets();
        match self {
            Self::Front => Setup { pem: setup.pem.clone(), ..told },
            Self::Delivery => Setup {
                relay_password: setup.relay_password.clone(),
                relay_trust: setup.relay_trust.clone(),
                ..told
            },
            Self::Policy => Setup { greylist: setup.greylist.clone(), ..told },
            Self::Queue | Self::Control | Self::User => told,
        }
    }

    /// Threads that run its tasks.
    fn workers(self) -> usize {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        // The other cores are for the other roles, the disk and the network.
        if self == Self::Front { cores.div_ceil(2) } else { 1 }
    }
}

/// Is a role until the supervisor is gone or orders the end.
pub(crate) fn run(role: Role) -> Result<(), Failure> {
    if role == Role::User {
        return user::run();
    }
    let failed = |error: &dyn std::error::Error| {
        Failure::at(Code::Software, &format!("the role `{}` cannot begin", role.name()), error)
    };
    // Each session of the front has a task of its own, which ends alone.
    defect::watch(role.name(), role != Role::Front);
    // Whoever kills the supervisor wants nothing of this program to go on.
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(|error| failed(&error))?;
    let mut given = Given::take().map_err(|error| failed(&error))?;
    let setup: Setup = told(&mut given, "setup")?;
    let config = setup.config()?;
    // Whose a file is can be told by name later.
    state_files::users();
    if let Some(user) = setup.users.of(role) {
        user.become_it().map_err(|error| failed(&error))?;
        // Another user's process does not keep it.
        set_parent_process_death_signal(Some(Signal::KILL)).map_err(|error| failed(&error))?;
    }
    let lines = lines_to(&config)?;
    // Before the first thread: what comes later has no more power than this one.
    let force = restrict(&power::of(role, &config, &setup.state)).map_err(|error| {
        let failure = failed(&error);
        match power::barrier(&error) {
            Some(folder) => failure.cure(format!(
                "{} lets no other users pass, and this role is one of its own: name folders elsewhere, such \
                 as below /var/lib, or `chmod o+x {0}`",
                folder.display()
            )),
            None => failure,
        }
    })?;
    let outcomes = match role {
        Role::Control => OutcomesTo::Folder(setup.state.join("log"), super::kept(&config)),
        _ => OutcomesTo::Keeper(given.one("outcomes").map_err(|error| failed(&error))?.into()),
    };
    // It lasts until the last word of this function's end.
    let log = Arc::new(start_log(&config, lines, outcomes)?);
    // All roles lack the same.
    if role == Role::Control && (force.landlock.is_none() || !force.seccomp) {
        warn!(
            missing = force.missing.join("; "),
            "the roles are restricted less than they could be"
        );
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(role.workers())
        .enable_all()
        .build()
        .map_err(|error| failed(&error))?;
    let links = Links::new(given);
    let metrics = Metrics::new();
    let (reading, log_of_start) = (Reading::default(), log.clone());
    let start = Start {
        links,
        setup,
        config,
        metrics,
        force,
        log: log_of_start,
        legacy: Legacy::default(),
        reading,
        is_paused: false,
    };
    let ended = runtime.block_on(obey(role, start));
    // A file operation that hangs, as on a dead network file system, must not hold up the end.
    runtime.shutdown_timeout(Duration::from_secs(1));
    drop(log);
    ended
}

/// What a process is told by its starter, in memory.
fn told<T: DeserializeOwned>(given: &mut Given, name: &str) -> Result<T, Failure> {
    let memory = given.one(name).map_err(|error| {
        Failure::of(Code::Usage, &error).cure("`lamppost run` starts all roles")
    })?;
    let mut text = zeroize::Zeroizing::new(Vec::new());
    let read = File::from(memory).read_to_end(&mut text).map_err(io::Error::other);
    read.and_then(|_| serde_json::from_slice(&text).map_err(io::Error::other))
        .map_err(|error| Failure::at(Code::Software, "a process cannot read its orders", &error))
}

/// Does what the supervisor orders.
async fn obey(role: Role, mut start: Start) -> Result<(), Failure> {
    let orders = start.links.inbox("orders");
    let mut orders: Inbox<Order, Report> =
        orders.map_err(|error| Failure::of(Code::Software, &error))?;
    let legacy = start.legacy.clone();
    let mut waiting = Some(start);
    let mut running = None;
    // After it retired a role ends by itself.
    let over = CancellationToken::new();
    loop {
        let order = tokio::select! {
            order = orders.next() => order,
            () = over.cancelled() => None,
        };
        let Some((order, reply)) = order else { break };
        let done = match order {
            Order::Begin { is_paused } => match waiting.take() {
                Some(start) => {
                    let start = Start { is_paused, ..start };
                    match begin_attentively(role, start, &mut orders).await {
                        Some(begun) => begun.map(|begun| running = Some(begun)),
                        None => return Ok(()),
                    }
                }
                None => Ok(()),
            },
            Order::Check(setup) => check(role, &setup),
            Order::Apply(setup) => running.as_ref().map_or(Ok(()), |one| one.apply(&setup)),
            Order::Answer => Ok(()),
            Order::Pause(is_paused) => {
                if let Some(running) = &running {
                    running.pause(is_paused);
                }
                Ok(())
            }
            Order::Retire { patience, grace } => {
                if let Some(running) = &running {
                    running.retire((patience, grace), legacy.clone(), over.clone()).await;
                }
                Ok(())
            }
            Order::Finish(grace) => {
                let left = match running.take() {
                    Some(running) => running.finish(grace).await,
                    None => 0,
                };
                reply.send(Report::Finished { left });
                continue;
            }
        };
        reply.send(match done {
            Ok(()) => Report::Done,
            Err(failure) => failure.into(),
        });
    }
    // The supervisor closed the link, or is gone: nobody answers any more for what this role does.
    if let Some(running) = running {
        running.finish(ORPHANS_GRACE).await;
    }
    Ok(())
}

/// Begins a role's work, and says meanwhile how far that is, since a long queue takes long to read. Nothing when
/// it is to end first.
async fn begin_attentively(
    role: Role,
    start: Start,
    orders: &mut Inbox<Order, Report>,
) -> Option<Result<Running, Failure>> {
    let (reading, is_paused) = (start.reading.clone(), start.is_paused);
    let mut begun = std::pin::pin!(begin(role, start));
    loop {
        let order = tokio::select! {
            begun = &mut begun => {
                return Some(begun.inspect(|running| running.pause(is_paused)));
            }
            order = orders.next() => order,
        };
        let (order, reply) = order?;
        if let Order::Finish(_) = order {
            reply.send(Report::Finished { left: 0 });
            return None;
        }
        let (segments, of) = reading.segments();
        reply.send(Report::Reading(lamppost_console::Reading { segments, of }));
    }
}

async fn begin(role: Role, start: Start) -> Result<Running, Failure> {
    Ok(match role {
        Role::Front => Running::Front(front::begin(start)?),
        Role::Policy => Running::Policy(Box::new(policy::begin(start).await?)),
        Role::Queue => Running::Queue(queue::begin(start).await?),
        Role::Delivery => Running::Delivery(delivery::begin(start)?),
        Role::Control => Running::Control(control::begin(start)?),
        Role::User => return Err(Failure::new(Code::Software, "nobody orders a user's process")),
    })
}

/// Whether a role could work with what it would be told.
fn check(role: Role, setup: &Setup) -> Result<(), Failure> {
    let config = setup.config()?;
    match role {
        Role::Front => front::check(setup),
        Role::Policy => policy::check(&config, setup),
        Role::Delivery => delivery::check(&config, setup),
        Role::Queue | Role::Control | Role::User => Ok(()),
    }
}

impl Running {
    /// Takes what can change while it runs.
    fn apply(&self, setup: &Setup) -> Result<(), Failure> {
        let config = setup.config()?;
        match self {
            Self::Front(front) => front.apply(setup),
            Self::Policy(policy) => policy.apply(&config, setup),
            Self::Delivery(delivery) => delivery.apply(&config, setup),
            Self::Queue(_) | Self::Control(_) => Ok(()),
        }
    }

    /// Begins nothing new for a while, or does so again.
    fn pause(&self, is_paused: bool) {
        match self {
            Self::Front(front) => front.pause(is_paused),
            Self::Queue(queue) => queue.pause(is_paused),
            Self::Policy(_) | Self::Delivery(_) | Self::Control(_) => {}
        }
    }

    /// Takes nothing new; says that it is over when what is under way has ended. Orders to end sooner are
    /// obeyed meanwhile.
    async fn retire(
        &self,
        (patience, grace): (Duration, Duration),
        legacy: Legacy,
        over: CancellationToken,
    ) {
        match self {
            Self::Front(front) => {
                let sessions = front.retire(patience, grace).await;
                tokio::spawn(async move {
                    sessions.await;
                    legacy.hand_over().await;
                    over.cancel();
                });
            }
            Self::Control(control) => {
                let requests = control.retire();
                tokio::spawn(async move {
                    drop(timeout(patience, requests).await);
                    over.cancel();
                });
            }
            Self::Policy(_) | Self::Queue(_) | Self::Delivery(_) => {}
        }
    }

    /// Ends what is under way; tells how much was cut short.
    async fn finish(self, grace: Duration) -> u64 {
        match self {
            Self::Front(front) => front.finish(grace).await,
            Self::Queue(queue) => {
                queue.finish(grace).await;
                0
            }
            Self::Policy(policy) => {
                policy.finish(grace).await;
                0
            }
            Self::Delivery(_) | Self::Control(_) => 0,
        }
    }
}
