//! The front: accepted connections and the dialogues on them.

use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use lamppost_config::TlsMode;
use lamppost_mail::{Front, FrontEnds, GreylistService, ListenerSettings};
use lamppost_net::{Drain, Listener, LocalListener, ServerTls, SystemClock};
use tokio_util::task::TaskTracker;
use tracing::{error, info};

use super::{Start, handed};
use crate::exit::{Code, Failure};
use crate::run::local::Purpose;
use crate::run::setup::Setup;
use crate::run::{listeners, settings};

/// The front at work.
pub(super) struct Running {
    tls: Option<Arc<ServerTls>>,
    drain: Drain,
    /// Who accepts connections.
    accepting: TaskTracker,
}

/// How each listener is served.
struct Served {
    /// By its place among those that the file names; nothing where the greylist is asked.
    named: Vec<Option<Smtp>>,
    /// The socket of local users, and where it is.
    local: Option<(PathBuf, ListenerSettings)>,
    /// Where mail servers ask the greylist.
    greylist_socket: Option<PathBuf>,
}

/// How mail comes in at an address.
type Smtp = (Arc<ListenerSettings>, Option<Arc<ServerTls>>);

/// Who serves connections.
struct Servants {
    front: Arc<Front>,
    greylist: Arc<GreylistService>,
    at_work: TaskTracker,
}

pub(super) fn begin(mut start: Start) -> Result<Running, Failure> {
    let failed = |error: &dyn std::error::Error| Failure::of(Code::Software, error);
    start.inspected(|condition| condition)?;
    let links = &mut start.links;
    let ends = FrontEnds {
        policy: links.port("policy").map_err(|error| failed(&error))?,
        intake: links.port("intake").map_err(|error| failed(&error))?,
    };
    let sockets = links.one("handed").map_err(|error| failed(&error))?;
    let (config, setup) = (&start.config, &start.setup);
    let tls = tls(setup)?;
    let drain = Drain::default();
    let greylist = GreylistService::new(
        settings::greylist_service(config, &setup.hostname),
        ends.policy.clone(),
        (Arc::new(SystemClock), start.metrics.clone()),
        drain.clone(),
    );
    let front = Front::new(
        settings::front(config, &setup.hostname),
        ends,
        (Arc::new(SystemClock), start.metrics.clone()),
        drain.clone(),
    );
    let served = listeners::named(config).map(|(_, listen, address)| {
        let listen = listen?;
        let name = address.to_string();
        let settings = settings::listener(config, listen, &name, &setup.hostname);
        let tls = tls.clone().filter(|_| listen.tls != TlsMode::Off);
        Some((Arc::new(settings), tls))
    });
    let local = setup.submit_socket.clone().map(|path| {
        let name = path.display().to_string();
        let settings = settings::local_listener(config, &name, &setup.hostname);
        (path, settings)
    });
    let greylist_socket = config.mail.greylist.service.socket.clone();
    let served = Served { named: served.collect(), local, greylist_socket };
    let accepting = TaskTracker::new();
    let (front, greylist) = (Arc::new(front), Arc::new(greylist));
    let servants = Servants { front, greylist, at_work: accepting.clone() };
    handed::receive(sockets, move |place, socket| {
        if let Err(reason) = serve(&servants, &served, (place, socket)) {
            error!(%reason, place, "a socket cannot be listened on");
        }
    })
    .map_err(|error| failed(&error))?;
    Ok(Running { tls, drain, accepting })
}

/// Listens on a socket, by what it is said to be.
fn serve(
    servants: &Servants,
    served: &Served,
    (place, socket): (u32, OwnedFd),
) -> std::io::Result<()> {
    let unknown = || std::io::Error::other("no listener was named for it");
    let Servants { front, greylist, at_work } = servants;
    let (front, greylist) = (front.clone(), greylist.clone());
    match Purpose::at(place) {
        Some(Purpose::Submission) => {
            let (path, settings) = served.local.clone().ok_or_else(unknown)?;
            let listener = LocalListener::from_std(socket.into(), &path)?;
            at_work.spawn(front.listen_local(listener, settings));
        }
        Some(Purpose::Greylist) => {
            let path = served.greylist_socket.as_ref().ok_or_else(unknown)?;
            at_work.spawn(greylist.listen_local(LocalListener::from_std(socket.into(), path)?));
        }
        None => {
            let named = served.named.get(place as usize).ok_or_else(unknown)?;
            let socket = TcpListener::from(socket);
            socket.set_nonblocking(true)?;
            let listener = Listener::from_std(socket)?;
            match named.clone() {
                Some((settings, tls)) => {
                    at_work.spawn(front.listen(listener, settings, tls));
                }
                None => drop(at_work.spawn(greylist.listen(listener))),
            }
        }
    }
    Ok(())
}

/// Whether the certificate could be used.
pub(super) fn check(setup: &Setup) -> Result<(), Failure> {
    tls(setup).map(drop)
}

fn tls(setup: &Setup) -> Result<Option<Arc<ServerTls>>, Failure> {
    let tls = setup.pem.as_ref().map(|pem| ServerTls::new(pem).map(Arc::new)).transpose();
    tls.map_err(|error| Failure::of(Code::Config, &error))
}

impl Running {
    pub(super) fn apply(&self, setup: &Setup) -> Result<(), Failure> {
        match (&self.tls, &setup.pem) {
            (Some(tls), Some(pem)) => {
                tls.replace(pem).map_err(|error| Failure::of(Code::Config, &error))
            }
            _ => Ok(()),
        }
    }

    /// Takes no connection for a while, or takes them again: they wait meanwhile.
    pub(super) fn pause(&self, is_paused: bool) {
        self.drain.pause(is_paused);
    }

    /// Takes no connection any more; returns what lets sessions go on and then finish.
    pub(super) async fn retire(
        &self,
        patience: Duration,
        grace: Duration,
    ) -> impl Future<Output = ()> + Send + 'static {
        self.drain.retire();
        self.accepting.close();
        self.accepting.wait().await;
        let drain = self.drain.clone();
        async move {
            let left = drain.wait(patience, grace).await;
            info!(left, "the sessions of a front that was replaced have ended");
        }
    }

    /// Lets sessions finish; tells how many did not.
    pub(super) async fn finish(self, grace: Duration) -> u64 {
        self.drain.finish(grace).await as u64
    }
}
