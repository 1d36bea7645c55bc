//! Listeners, TLS, limits, PROXY protocol, drain, clock, and the links between roles.

mod accept;
mod certificate;
mod clock;
pub mod demo_ca;
mod drain;
mod handover;
mod limits;
mod linger;
pub mod link;
mod link_socket;
mod listener;
mod local;
mod network;
pub mod proxy;
mod system_users;
mod tls;
mod tls_client;

pub use accept::accept_next;
pub use certificate::CertificateFacts;
pub use clock::{Clock, SystemClock, TokioClock};
pub use drain::Drain;
pub use handover::{Given, NotGiven, give, receive_descriptor, send_descriptor};
pub use limits::{Permit, SessionLimits, TooMany};
pub use linger::close_gracefully;
pub use link_socket::LinkSocket;
pub use listener::{BindCause, BindError, Listener, bind_socket, holder, is_held};
pub use local::{LocalBindError, LocalListener, SocketAccess};
pub use network::Network;
pub use system_users::{ListedUser, group_id, is_user, listed_users, user_name, users_changed};
pub use tls::{HandshakeError, KeyPair, Pem, PemWatch, ServerTls, TlsError};
pub use tls_client::{ClientTls, ClientTlsError, Trust};
