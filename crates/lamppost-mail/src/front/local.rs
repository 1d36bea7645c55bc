//! Programs of this machine: a UNIX socket, whose system tells which user is at its other end.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use lamppost_net::{LocalListener, close_gracefully};
use lamppost_roles::{Admission, PolicyAnswer, PolicyRequest};
use lamppost_smtp::{BareNewline, Greeting, Link, Session};
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tracing::info;

use super::client::Client;
use super::connection::LINGER;
use super::{Front, ListenerSettings};

impl Front {
    /// Serves the socket of local users until the front retires.
    pub async fn listen_local(
        self: Arc<Self>,
        listener: LocalListener,
        settings: ListenerSettings,
    ) {
        let settings = Arc::new(settings);
        loop {
            let accepted = self.next(listener.accept()).await;
            let Some((stream, uid)) = accepted else { return };
            let (front, settings) = (self.clone(), settings.clone());
            self.drain.spawn(async move { front.serve_user(stream, uid, &settings).await });
        }
    }

    /// One connection of a user: the system has said who it is, so that no password is asked for.
    async fn serve_user(&self, mut stream: UnixStream, uid: u32, settings: &ListenerSettings) {
        let link = Link { tls: false, bare_newline: BareNewline::Refuse };
        let mut session = Session::new(settings.smtp.clone(), link);
        let asked = self.ends.policy.ask(PolicyRequest::LocalUser { uid }).await;
        let Ok(PolicyAnswer::Account(account)) = asked else {
            info!(uid, "a local user without an address was turned away");
            session.greet(Greeting::Nobody);
            if stream.write_all(&session.take_output()).await.is_ok() {
                close_gracefully(&mut stream, LINGER.1, LINGER.0).await;
            }
            return;
        };
        let client = Client {
            stream,
            peer: IpAddr::V4(Ipv4Addr::LOCALHOST),
            session: session.of(account),
            kind: settings.smtp.kind,
            tls: None,
            user: Some(uid),
            admission: Admission::default(),
        };
        self.converse(client, self.sessions.admit_user(uid), settings).await;
    }
}
