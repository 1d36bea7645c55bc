//! The front: accepts connections and drives SMTP sessions on them.

mod admission;
mod client;
mod completion;
mod connection;
mod content;
mod greylist_service;
mod header;
mod local;
mod lost;
mod recipe;
mod room;
mod settings;
mod stream;
mod transaction;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use lamppost_net::link::Port;
use lamppost_net::proxy;
use lamppost_net::{Clock, Drain, Listener, Permit, ServerTls, SessionLimits, TooMany};
use lamppost_roles::{Admission, IntakeAnswer, IntakeRequest, PolicyAnswer, PolicyRequest};
use lamppost_smtp::{Greeting, Session};
use lamppost_telemetry::Metrics;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use self::admission::NotAdmitted;
use self::client::Client;
use self::connection::Connection;
use self::room::Room;

pub use self::greylist_service::{GreylistService, GreylistServiceSettings};
pub use self::recipe::{RecipeFact, recipe_differences};
pub use self::settings::{FrontLimits, FrontSettings, Ground, ListenerSettings, TlsMode};

/// The roles that the front talks to.
#[derive(Clone, Debug)]
pub struct FrontEnds {
    /// Who may do what.
    pub policy: Port<PolicyRequest, PolicyAnswer>,
    /// Where complete messages go.
    pub intake: Port<IntakeRequest, IntakeAnswer>,
}

/// The role that holds the sockets.
pub struct Front {
    settings: FrontSettings,
    ends: FrontEnds,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    sessions: SessionLimits,
    /// Contents that wait in memory, in pages of [`content::PAGE_BYTES`].
    pages: Arc<Semaphore>,
    room: Room,
    drain: Drain,
}

impl Front {
    /// A front that listens nowhere yet.
    pub fn new(
        settings: FrontSettings,
        ends: FrontEnds,
        (clock, metrics): (Arc<dyn Clock>, Arc<Metrics>),
        drain: Drain,
    ) -> Self {
        let limits = &settings.limits;
        let sessions = SessionLimits::new(limits.sessions_max, limits.sessions_per_address_max);
        let pages = Arc::new(Semaphore::new(limits.content_memory_max / content::PAGE_BYTES));
        let room = Room::default();
        Self { settings, ends, clock, metrics, sessions, pages, room, drain }
    }

    /// What a listener accepts next, when it may; nothing once the front retires.
    async fn next<T>(&self, accept: impl Future<Output = T>) -> Option<T> {
        tokio::pin!(accept);
        loop {
            tokio::select! {
                biased;
                () = self.drain.retired() => return None,
                () = self.drain.is_paused() => {}
                accepted = &mut accept => return Some(accepted),
            }
            tokio::select! {
                () = self.drain.retired() => return None,
                () = self.drain.unpaused() => {}
            }
        }
    }

    /// Serves one listener until the front retires.
    pub async fn listen(
        self: Arc<Self>,
        listener: Listener,
        settings: Arc<ListenerSettings>,
        tls: Option<Arc<ServerTls>>,
    ) {
        loop {
            let accepted = self.next(listener.accept()).await;
            let Some((stream, peer)) = accepted else { return };
            let (front, settings, tls) = (self.clone(), settings.clone(), tls.clone());
            self.drain.spawn(async move { front.accepted(stream, peer, settings, tls).await });
        }
    }

    /// One connection of a TCP listener, from the PROXY header to the last reply.
    async fn accepted(
        self: Arc<Self>,
        mut stream: TcpStream,
        peer: SocketAddr,
        settings: Arc<ListenerSettings>,
        tls: Option<Arc<ServerTls>>,
    ) {
        let mut address = peer.ip().to_canonical();
        if settings.proxy_from.iter().any(|network| network.contains(address)) {
            let patience = self.settings.limits.proxy_header_timeout;
            match proxy::read_header(&mut stream, patience).await {
                Ok(Some(source)) => address = source.ip().to_canonical(),
                Ok(None) => {}
                Err(error) => {
                    warn!(peer = %address, reason = %error, "PROXY header refused");
                    return;
                }
            }
        }
        self.serve(stream, address, settings, tls).await;
    }

    /// One connection from `peer`, whose real address this is.
    ///
    /// Public so that simulations can bring their own streams.
    pub async fn serve<S>(
        &self,
        stream: S,
        peer: IpAddr,
        settings: Arc<ListenerSettings>,
        tls: Option<Arc<ServerTls>>,
    ) where
        S: AsyncRead + AsyncWrite + Unpin + Send,
    {
        let permit = self.sessions.admit(peer);
        let asked = Instant::now();
        let admission = match &permit {
            Ok(_) => self.admission(peer, settings.smtp.kind).await,
            // It is told so, and nothing else is asked.
            Err(_) => Ok(Admission::default()),
        };
        let mut session = admission::session(&settings, peer, admission.as_ref().ok());
        let admission = match admission {
            Ok(admission) => admission,
            Err(NotAdmitted::Denied) => return,
            Err(NotAdmitted::Unknown) => {
                session.greet(Greeting::Unavailable);
                let implicit_tls = settings.tls == TlsMode::Implicit;
                return turn_away(stream, session, implicit_tls);
            }
        };
        let waited = asked.elapsed();
        let (kind, tls) = (settings.smtp.kind, tls.as_deref());
        let client = Client { stream, peer, session, kind, tls, user: None, admission, waited };
        self.converse(client, permit, &settings).await;
    }

    /// The session of a client, if there may be one more.
    async fn converse<S>(
        &self,
        client: Client<'_, S>,
        permit: Result<Permit, TooMany>,
        settings: &ListenerSettings,
    ) where
        S: AsyncRead + AsyncWrite + Unpin + Send,
    {
        self.metrics.smtp_session(&settings.name);
        let (peer, implicit_tls) = (client.peer, settings.tls == TlsMode::Implicit);
        let permit = match permit {
            Ok(permit) => permit,
            Err(limit) => {
                info!(%peer, reason = %limit, "connection refused");
                let mut session = client.session;
                session.greet(Greeting::TooManySessions);
                return turn_away(client.stream, session, implicit_tls);
            }
        };
        self.metrics.smtp_sessions_open.inc();
        let mut connection = Connection::new(self, client);
        debug!(session = connection.id(), %peer, listener = settings.name, "session begins");
        connection.run(implicit_tls).await;
        debug!(session = connection.id(), %peer, "session ends");
        self.metrics.smtp_sessions_open.dec();
        drop(permit);
    }
}

/// Tells a client the greeting that turns it away; costs one write that may fail.
fn turn_away<S: AsyncWrite + Unpin>(mut stream: S, mut session: Session, tls: bool) {
    // Before a TLS handshake nothing can be said.
    if tls {
        return;
    }
    let reply = session.take_output();
    // A fresh connection's send buffer takes a line at once; a client that can't is not worth a wait.
    let writing = tokio::io::AsyncWriteExt::write_all(&mut stream, &reply);
    drop(futures_util::FutureExt::now_or_never(writing));
}
