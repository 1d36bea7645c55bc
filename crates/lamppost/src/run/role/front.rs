//! The front: accepted connections and the dialogues on them.

use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use lamppost_config::TlsMode;
use lamppost_mail::{Front, FrontEnds, ListenerSettings};
use lamppost_net::{Drain, Listener, LocalListener, ServerTls, SystemClock, receive_descriptor};
use tracing::error;

use super::Start;
use crate::exit::{Code, Failure};
use crate::run::setup::Setup;
use crate::run::{listeners, local, settings};

/// The front at work.
pub(super) struct Running {
    tls: Option<Arc<ServerTls>>,
    drain: Drain,
}

/// How each listener is served.
struct Served {
    /// By its place among those that the file names.
    named: Vec<(Arc<ListenerSettings>, Option<Arc<ServerTls>>)>,
    /// The socket of local users, and where it is.
    local: Option<(PathBuf, ListenerSettings)>,
}

pub(super) fn begin(mut start: Start) -> Result<Running, Failure> {
    let failed = |error: &dyn std::error::Error| Failure::of(Code::Software, error);
    start.inspected(|condition| condition)?;
    let links = &mut start.links;
    let ends = FrontEnds {
        policy: links.port("policy").map_err(|error| failed(&error))?,
        intake: links.port("intake").map_err(|error| failed(&error))?,
    };
    let sockets = links.one("sockets").map_err(|error| failed(&error))?;
    let (config, setup) = (&start.config, &start.setup);
    let tls = tls(setup)?;
    let drain = Drain::default();
    let front = Arc::new(Front::new(
        settings::front(config, &setup.hostname),
        ends,
        (Arc::new(SystemClock), start.metrics.clone()),
        drain.clone(),
    ));
    let served = listeners::named(config).map(|(_, listen, address)| {
        let name = address.to_string();
        let settings = settings::listener(config, listen, &name, &setup.hostname);
        let tls = tls.clone().filter(|_| listen.tls != TlsMode::Off);
        (Arc::new(settings), tls)
    });
    let local = setup.submit_socket.clone().map(|path| {
        let name = path.display().to_string();
        let settings = settings::local_listener(config, &name, &setup.hostname);
        (path, settings)
    });
    let served = Served { named: served.collect(), local };
    let handle = tokio::runtime::Handle::current();
    std::thread::Builder::new()
        .name("sockets".into())
        .spawn(move || {
            let _context = handle.enter();
            listen(&front, &served, &UnixStream::from(sockets));
        })
        .map_err(|error| failed(&error))?;
    Ok(Running { tls, drain })
}

/// Listens on each socket that the supervisor sends, until it is gone.
fn listen(front: &Arc<Front>, served: &Served, sockets: &UnixStream) {
    loop {
        match receive_descriptor(sockets) {
            Ok(None) => return,
            Ok(Some((place, socket))) => {
                if let Err(reason) = serve(front, served, (place, socket)) {
                    error!(%reason, place, "a socket cannot be listened on");
                }
            }
            Err(reason) => {
                error!(%reason, "no further sockets can be received");
                return;
            }
        }
    }
}

/// Listens on a socket, by what it is said to be.
fn serve(
    front: &Arc<Front>,
    served: &Served,
    (place, socket): (u32, OwnedFd),
) -> std::io::Result<()> {
    let unknown = || std::io::Error::other("no listener was named for it");
    let front = front.clone();
    if place == local::PLACE {
        let (path, settings) = served.local.clone().ok_or_else(unknown)?;
        let listener = LocalListener::from_std(socket.into(), &path)?;
        tokio::spawn(front.listen_local(listener, settings));
        return Ok(());
    }
    let (settings, tls) = served.named.get(place as usize).cloned().ok_or_else(unknown)?;
    let socket = TcpListener::from(socket);
    socket.set_nonblocking(true)?;
    tokio::spawn(front.listen(Listener::from_std(socket)?, settings, tls));
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

    /// Lets sessions finish; tells how many did not.
    pub(super) async fn finish(self, grace: Duration) -> u64 {
        self.drain.finish(grace).await as u64
    }
}
