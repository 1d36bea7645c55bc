//! The processes of all roles: begun together, joined by their links, and ended together.

use std::collections::HashMap;
use std::io::{self, Seek as _, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use futures_util::future::join_all;
use lamppost_net::link::{Inbox, Port, carry_answers, carry_questions, link};
use lamppost_net::{give, send_descriptor};
use tokio::time::timeout;
use tracing::warn;

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
    // The front may not make sockets: it is sent those that it listens on.
    (Role::Front, Role::Front, "sockets"),
];

/// How long a role that was told to end may take.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// All roles at work.
pub(super) struct Group {
    children: Vec<(Role, Child)>,
    orders: HashMap<Role, Port<Order, Report>>,
    /// Where the front is sent its sockets.
    sockets: UnixStream,
}

/// Sockets that the control role is given.
pub(super) struct ControlSockets {
    pub(super) control: OwnedFd,
    pub(super) metrics: Vec<OwnedFd>,
}

/// What each role is given, by name.
#[derive(Default)]
struct Gifts(HashMap<Role, Vec<(String, OwnedFd)>>);

impl Gifts {
    fn add(&mut self, role: Role, name: impl Into<String>, gift: impl Into<OwnedFd>) {
        self.0.entry(role).or_default().push((name.into(), gift.into()));
    }
}

impl Group {
    /// Starts a process for each role. They wait for the order to begin.
    pub(super) fn start(
        setup: &Setup,
        control: ControlSockets,
    ) -> io::Result<(Self, Inbox<Wish, Granted>)> {
        let mut gifts = Gifts::default();
        let mut sockets = None;
        for (asking, answering, name) in LINKS {
            let (one, other) = UnixStream::pair()?;
            gifts.add(asking, name, one);
            if asking == answering {
                sockets = Some(other);
            } else {
                gifts.add(answering, name, other);
            }
        }
        let sockets = sockets.ok_or_else(|| io::Error::other("no link for sockets"))?;
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
        let (ours, theirs) = UnixStream::pair()?;
        gifts.add(Role::Policy, "users", theirs);
        tokio::spawn(name_users(answering(ours)?));
        let children = spawn_all(gifts)?;
        Ok((Self { children, orders, sockets }, wishes))
    }

    /// Orders all roles to begin; tells the first that cannot.
    pub(super) async fn begin(&self) -> Result<(), Failure> {
        self.order_all(|_| Order::Begin).await
    }

    /// Gives each role an order and waits for all; tells the first failure.
    pub(super) async fn order_all(&self, order: impl Fn(Role) -> Order) -> Result<(), Failure> {
        let asked = Role::ALL.into_iter().filter_map(|role| {
            let (port, order) = (self.orders.get(&role)?, order(role));
            Some(async move { (role, port.ask(order).await) })
        });
        for (role, answer) in join_all(asked).await {
            match answer {
                Ok(Report::Done | Report::Finished { .. }) => {}
                Ok(Report::Failed { code, text, cure }) => {
                    return Err(Failure::from_parts(code, text, cure));
                }
                Err(gone) => {
                    let name = role.name();
                    return Err(Failure::at(Code::Software, &format!("the role `{name}`"), &gone));
                }
            }
        }
        Ok(())
    }

    /// Sends the front a socket to listen on.
    pub(super) fn listen(&self, place: u32, socket: &impl AsFd) -> io::Result<()> {
        send_descriptor(&self.sockets, place, socket.as_fd())
    }

    /// A role whose process has ended by itself, and how.
    pub(super) fn ended(&mut self) -> Option<(Role, ExitStatus)> {
        self.children.iter_mut().find_map(|(role, child)| Some((*role, child.try_wait().ok()??)))
    }

    /// Ends sessions, then the queue, then all; tells how many sessions were cut short.
    pub(super) async fn finish(mut self, grace: Duration) -> u64 {
        let mut left = 0;
        for role in [Role::Front, Role::Queue] {
            let Some(port) = self.orders.get(&role) else { continue };
            let finished = timeout(grace * 2 + LAST_WORDS, port.ask(Order::Finish(grace))).await;
            if let Ok(Ok(Report::Finished { left: cut })) = finished {
                left += cut;
            }
        }
        // Roles end when nobody can order anything from them any more.
        self.orders.clear();
        drop(self.sockets);
        let begun = std::time::Instant::now();
        for (_, child) in &mut self.children {
            while matches!(child.try_wait(), Ok(None)) && begun.elapsed() < LAST_WORDS {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            end(child).await;
        }
        left
    }
}

/// Ends a process that did not end by itself, as one that waits for a dead network file system; what even
/// then goes on is left to the system.
async fn end(child: &mut Child) {
    drop(child.kill());
    let begun = std::time::Instant::now();
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

/// Tells policy, which may not read their list, the names of the machine's users.
async fn name_users(mut asked: Inbox<u32, Option<String>>) {
    while let Some((uid, reply)) = asked.next().await {
        reply.send(lamppost_net::user_name(uid));
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

fn spawn(role: Role, gifts: Vec<(String, OwnedFd)>) -> io::Result<Child> {
    let mut command = Command::new("/proc/self/exe");
    command.arg0("lamppost").args(["role", role.name()]).stdin(Stdio::null());
    // Keys of a terminal are for the supervisor, which ends the others in order.
    command.process_group(0);
    give(&mut command, gifts)?;
    command.spawn()
}

/// What a role is told, in memory that has no name.
fn memory(setup: &Setup) -> io::Result<OwnedFd> {
    let text = zeroize::Zeroizing::new(serde_json::to_vec(setup).map_err(io::Error::other)?);
    let memory = rustix::fs::memfd_create("setup", rustix::fs::MemfdFlags::CLOEXEC)?;
    let mut file = std::fs::File::from(memory);
    file.write_all(&text)?;
    file.rewind()?;
    Ok(file.into())
}

fn stream(socket: UnixStream) -> io::Result<tokio::net::UnixStream> {
    socket.set_nonblocking(true)?;
    tokio::net::UnixStream::from_std(socket)
}

/// The end of a link by which the supervisor asks.
fn asking<Q, A>(socket: UnixStream) -> io::Result<Port<Q, A>>
where
    Q: serde::Serialize + Send + 'static,
    A: serde::de::DeserializeOwned + Send + 'static,
{
    let (port, inbox) = link();
    let carrying = carry_questions(inbox, stream(socket)?);
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
    let carrying = carry_answers(port, stream(socket)?);
    tokio::spawn(async move { drop(carrying.await) });
    Ok(inbox)
}
