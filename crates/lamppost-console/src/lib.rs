//! The control API and the metrics endpoint.
//!
//! One UNIX socket is the way in for administrators (docs/reference/control-api.md): whoever may
//! open it, and runs as the same user or as root or is in its group, may ask and change.

mod api;
mod bounded;
mod client;
mod greylist;
mod host;
mod import;
mod metrics;
mod snapshot;
mod socket;

pub use api::{Control, ControlSettings};
pub use client::{Client, ClientError};
pub use host::{
    Blocked, Host, HostStatus, ListenerStatus, Part, Pause, Phase, Reading, RelayStatus,
    ReloadError, Reloaded, RoleStatus, Status, Warning,
};
pub use import::{ImportHead, Imported};
pub use metrics::serve as serve_metrics;
pub(crate) use socket::{Asker, Door};
pub use socket::{ControlSocket, SocketError};
