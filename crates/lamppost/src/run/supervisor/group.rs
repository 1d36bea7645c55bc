//! The processes of all roles: begun together, joined by their links, and ended together.

use std::collections::HashMap;
use std::io::{self, Seek as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use lamppost_console::Reading;
use lamppost_net::link::{Gone, Inbox, Port, carry_answers, carry_questions, link};
use lamppost_net::{LinkSocket, give, send_descriptor};
use tokio::time::timeout;
use tracing::{error, warn};

use super::owners::{Asked, Owners};
use super::retired::Retired;
use super::rules::RulesFile;
use crate::exit::{Code, Failure};
use crate::run::orders::{Granted, Order, Report, Wish};
use crate::run::role::Role;
use crate::run::setup::Setup;

/// Links between two roles: who asks, who answers, and the link's name at both ends.
const LINKS: [(Role, Role, &str); 8] = [
    (Role::Front, Role::Policy, "policy"),
    (Role::Front, Role::Queue, "intake"),
    (Role::Queue, Role::Policy, "routes"),
    (Role::Queue, Role::Delivery, "delivery"),
    (Role::Delivery, Role::Queue, "content"),
    (Role::Control, Role::Queue, "control"),
    (Role::Control, Role::Queue, "imports"),
    (Role::Control, Role::Policy, "greylist"),
];

/// Roles that are handed descriptors while they work: the front those that it listens on, since it may
/// make none, and the others the ends of their links with a new front.
const HANDED: [Role; 4] = [Role::Front, Role::Policy, Role::Queue, Role::Control];

/// How long a role that was told to end may take.
pub(super) const LAST_WORDS: Duration = Duration::from_secs(5);
/// How long a role may take to answer an order that is no work. One that hangs, as in a file system that is
/// gone, must not make the supervisor hang.
pub(super) const ANSWERS_WITHIN: Duration = Duration::from_secs(10);

/// How often it is looked how far a queue is that is read.
const READING_EVERY: Duration = Duration::from_millis(500);

/// All roles at work.
#[derive(Default)]
pub(super) struct Group {
    pub(super) children: Vec<(Role, Child)>,
    pub(super) orders: HashMap<Role, Port<Order, Report>>,
    /// Where roles are handed descriptors.
    pub(super) handed: HashMap<Role, UnixStream>,
    /// Processes that others have taken the place of.
    pub(super) retired: Vec<Retired>,
}

/// Sockets that the control role is given.
pub(super) struct ControlSockets {
    pub(super) control: OwnedFd,
    pub(super) metrics: Vec<OwnedFd>,
}

/// What each role is given, by name.
#[derive(Default)]
pub(super) struct Gifts(pub(super) HashMap<Role, Vec<(String, OwnedFd)>>);

impl Gifts {
    pub(super) fn add(&mut self, role: Role, name: impl Into<String>, gift: impl Into<OwnedFd>) {
        self.0.entry(role).or_default().push((name.into(), gift.into()));
    }
}

impl Group {
    /// Starts a process for each role. They wait for the order to begin.
    pub(super) fn start(
        setup: &Setup,
        owners: &Owners,
        control: ControlSockets,
        rules: &RulesFile,
    ) -> io::Result<(Self, Inbox<Wish, Granted>)> {
        let mut gifts = Gifts::default();
        for (asking, answering, name) in LINKS {
            let (one, other) = UnixStream::pair()?;
            gifts.add(asking, name, one);
            gifts.add(answering, name, other);
        }
        let mut handed = HashMap::new();
        for role in HANDED {
            let (ours, theirs) = UnixStream::pair()?;
            gifts.add(role, "handed", theirs);
            handed.insert(role, ours);
        }
        let mut orders = HashMap::new();
        for role in Role::ALL {
            let (ours, theirs) = UnixStream::pair()?;
            gifts.add(role, "orders", theirs);
            orders.insert(role, asking(ours)?);
            gifts.add(role, "setup", memory(&role.part(setup))?);
            if role != Role::Control {
                let (asks, answers) = UnixStream::pair()?;
                gifts.add(Role::Control, role.inspected(), asks);
                gifts.add(role, "inspect", answers);
                let (told, tells) = UnixStream::pair()?;
                gifts.add(Role::Control, role.outcomes(), told);
                gifts.add(role, "outcomes", tells);
            }
        }
        gifts.add(Role::Control, "socket", control.control);
        for (place, socket) in control.metrics.into_iter().enumerate() {
            gifts.add(Role::Control, format!("metrics.{place}"), socket);
        }
        let (ours, theirs) = UnixStream::pair()?;
        gifts.add(Role::Control, "wishes", theirs);
        let wishes = answering(ours)?;
        let (users, theirs) = UnixStream::pair()?;
        gifts.add(Role::Policy, "users", theirs);
        let (asked, theirs) = UnixStream::pair()?;
        gifts.add(Role::Delivery, "owners", theirs);
        let (handed_over, theirs) = UnixStream::pair()?;
        gifts.add(Role::Delivery, "handed", theirs);
        let (users, asked) = (answering(users)?, answering(asked)?);
        owners.serve(setup, Asked { users, owners: asked, handed: handed_over })?;
        let (ours, theirs) = UnixStream::pair()?;
        gifts.add(Role::Policy, "rules", theirs);
        tokio::spawn(rules.clone().answer(answering(ours)?));
        let children = spawn_all(gifts)?;
        Ok((Self { children, orders, handed, retired: Vec::new() }, wishes))
    }

    /// Orders all roles to begin, some of them paused; tells the first that cannot. A long queue takes as long
    /// to read as it takes: how far it is, is told whenever that has changed.
    pub(super) async fn begin(
        &self,
        is_paused: impl Fn(Role) -> bool,
        tell: impl Fn(Reading),
    ) -> Result<(), Failure> {
        let order = |role| Order::Begin { is_paused: is_paused(role) };
        let mut begun = std::pin::pin!(self.order_all(order, Duration::MAX));
        let mut told = None;
        loop {
            tokio::select! {
                begun = &mut begun => return begun,
                () = tokio::time::sleep(READING_EVERY) => {}
            }
            let reading = self.reading().await;
            if let Some(reading) = reading.filter(|_| reading != told) {
                told = Some(reading);
                tell(reading);
            }
        }
    }

    /// How far the queue is with reading, if it is at that.
    async fn reading(&self) -> Option<Reading> {
        let queue = self.orders.get(&Role::Queue)?;
        match timeout(READING_EVERY, queue.ask(Order::Answer)).await {
            Ok(Ok(Report::Reading(reading))) => Some(reading),
            _ => None,
        }
    }

    /// Gives each role an order and waits for all, for each no longer than `patience`; tells the first
    /// failure.
    pub(super) async fn order_all(
        &self,
        order: impl Fn(Role) -> Order,
        patience: Duration,
    ) -> Result<(), Failure> {
        let asked = Role::ALL.into_iter().filter_map(|role| {
            let (port, order) = (self.orders.get(&role)?, order(role));
            Some(async move { (role, timeout(patience, port.ask(order)).await) })
        });
        for (role, answer) in join_all(asked).await {
            match answer {
                Ok(answer) => done(role, answer)?,
                Err(_) => return Err(silent(role)),
            }
        }
        Ok(())
    }

    /// Gives one role an order and waits for it.
    pub(super) async fn order(&self, role: Role, order: Order) -> Result<(), Failure> {
        match self.orders.get(&role) {
            Some(port) => match timeout(ANSWERS_WITHIN, port.ask(order)).await {
                Ok(answer) => done(role, answer),
                Err(_) => Err(silent(role)),
            },
            None => done(role, Err(Gone)),
        }
    }

    /// All processes, those that have retired too.
    pub(super) fn processes(&self) -> impl Iterator<Item = (Role, u32)> {
        let children = self.children.iter().map(|(role, child)| (*role, child.id()));
        children.chain(self.retired.iter().map(|one| (one.role, one.child.id())))
    }

    /// Kills all roles but those that have retired. They are started again when that is seen.
    pub(super) fn kill(&mut self) {
        for (_, child) in &mut self.children {
            drop(child.kill());
        }
    }

    /// Sends the front a socket to listen on.
    pub(super) fn listen(&self, place: u32, socket: &impl AsFd) -> io::Result<()> {
        self.hand(Role::Front, place, socket.as_fd())
    }

    /// Hands a role a descriptor.
    pub(super) fn hand(&self, role: Role, what: u32, given: BorrowedFd<'_>) -> io::Result<()> {
        let to =
            self.handed.get(&role).ok_or_else(|| io::Error::other("nothing is handed to it"))?;
        send_descriptor(to, what, given)
    }

    /// A role whose process has ended by itself, and how.
    pub(super) fn ended(&mut self) -> Option<(Role, ExitStatus)> {
        self.retired.retain_mut(|one| !one.has_ended());
        self.children.iter_mut().find_map(|(role, child)| Some((*role, child.try_wait().ok()??)))
    }

    /// Tells the service manager that all is well, if all roles answer.
    pub(super) async fn tell_watchdog(&self) {
        match self.order_all(|_| Order::Answer, LAST_WORDS).await {
            Ok(()) => drop(sd_notify::notify(&[sd_notify::NotifyState::Watchdog])),
            Err(failure) => error!(reason = failure.text(), "not all roles answer"),
        }
    }

    /// Ends sessions, then the queue, then all; tells how many sessions were cut short.
    pub(super) async fn finish(mut self, grace: Duration) -> u64 {
        let fronts = self.orders.get(&Role::Front).into_iter();
        let fronts = fronts.chain(self.retired.iter().map(|one| &one.orders));
        let fronts = join_all(fronts.map(|port| finished(port, grace))).await;
        let mut left = fronts.into_iter().sum();
        if let Some(queue) = self.orders.get(&Role::Queue) {
            left += finished(queue, grace).await;
        }
        // Roles end when nobody can order anything from them any more.
        self.orders.clear();
        self.handed.clear();
        let mut children = self.children;
        for Retired { role, child, orders, .. } in self.retired {
            drop(orders);
            children.push((role, child));
        }
        let begun = Instant::now();
        for (_, child) in &mut children {
            while matches!(child.try_wait(), Ok(None)) && begun.elapsed() < LAST_WORDS {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            end(child).await;
        }
        left
    }
}

/// Has a role finish; tells how many sessions it cut short.
async fn finished(port: &Port<Order, Report>, grace: Duration) -> u64 {
    match timeout(grace * 2 + LAST_WORDS, port.ask(Order::Finish(grace))).await {
        Ok(Ok(Report::Finished { left })) => left,
        _ => 0,
    }
}

/// What a role's answer to an order means.
pub(super) fn done(role: Role, answer: Result<Report, Gone>) -> Result<(), Failure> {
    match answer {
        Ok(Report::Done | Report::Reading(_) | Report::Finished { .. }) => Ok(()),
        Ok(Report::Failed { code, text, cure }) => Err(Failure::from_parts(code, text, cure)),
        Err(gone) => {
            let name = role.name();
            Err(Failure::at(Code::Software, &format!("the role `{name}`"), &gone))
        }
    }
}

/// What the silence of a role means.
pub(super) fn silent(role: Role) -> Failure {
    let what = format!("the role `{}` does not answer", role.name());
    Failure::new(Code::Unavailable, what).cure("`lamppost status` and the log may tell why")
}

/// Ends a process that did not end by itself, as one that waits for a dead network file system; what even
/// then goes on is left to the system.
async fn end(child: &mut Child) {
    drop(child.kill());
    let begun = Instant::now();
    while matches!(child.try_wait(), Ok(None)) {
        if begun.elapsed() > LAST_WORDS {
            warn!(pid = child.id(), "a role that was killed does not end");
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// How a process ended, for people.
pub(super) fn told(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("it ended with exit code {code}"),
        (None, Some(signal)) => format!("signal {signal} ended it"),
        (None, None) => "it ended".into(),
    }
}

/// Starts all roles or none.
fn spawn_all(gifts: Gifts) -> io::Result<Vec<(Role, Child)>> {
    let mut children: Vec<(Role, Child)> = Vec::new();
    for (role, gifts) in gifts.0 {
        match spawn(role, gifts) {
            Ok(child) => children.push((role, child)),
            Err(error) => {
                for (_, mut child) in children {
                    drop(child.kill());
                    drop(child.wait());
                }
                return Err(error);
            }
        }
    }
    Ok(children)
}

pub(super) fn spawn(role: Role, gifts: Vec<(String, OwnedFd)>) -> io::Result<Child> {
    let mut command = Command::new("/proc/self/exe");
    command.arg0("lamppost").args(["role", role.name()]).stdin(Stdio::null());
    // Keys of a terminal are for the supervisor, which ends the others in order.
    command.process_group(0);
    give(&mut command, gifts)?;
    command.spawn()
}

/// What a role is told, in memory that has no name.
pub(super) fn memory(setup: &impl serde::Serialize) -> io::Result<OwnedFd> {
    let text = zeroize::Zeroizing::new(serde_json::to_vec(setup).map_err(io::Error::other)?);
    let memory = rustix::fs::memfd_create("setup", rustix::fs::MemfdFlags::CLOEXEC)?;
    let mut file = std::fs::File::from(memory);
    file.write_all(&text)?;
    file.rewind()?;
    Ok(file.into())
}

/// The end of a link by which the supervisor asks.
pub(super) fn asking<Q, A>(socket: UnixStream) -> io::Result<Port<Q, A>>
where
    Q: serde::Serialize + Send + 'static,
    A: serde::de::DeserializeOwned + Send + 'static,
{
    let (port, inbox) = link();
    let carrying = carry_questions(inbox, LinkSocket::new(socket.into())?);
    // It ends with the role, whose end is seen by its process.
    tokio::spawn(async move { drop(carrying.await) });
    Ok(port)
}

/// The end of a link by which the supervisor is asked.
fn answering<Q, A>(socket: UnixStream) -> io::Result<Inbox<Q, A>>
where
    Q: serde::de::DeserializeOwned + Send + 'static,
    A: serde::Serialize + Send + 'static,
{
    let (port, inbox) = link();
    let carrying = carry_answers(port, LinkSocket::new(socket.into())?);
    tokio::spawn(async move { drop(carrying.await) });
    Ok(inbox)
}
