//! From the queue into Maildirs, or to a relay: the delivery role.
//!
//! Each message is delivered in two steps (docs/concepts/delivery.md). Prepare writes its file into
//! `tmp/` durably; once the queue has made its intent durable, Publish renames it into `new/`.
//! Mail for users of this machine goes through a process of each (docs/guides/system-users.md).
//! Messages for elsewhere go to the one host that takes them (docs/concepts/relay.md).

mod mailboxes;
mod maildir;
mod name;
mod owners;
mod relay;
mod run;
mod silence;
mod sync;
mod template;
mod trace;

pub use maildir::{MaildirError, make_maildir};
pub use owners::{OwnerProcess, Owners, OwnersSettings};
pub use relay::{Relay, RelayFault, RelayReach, RelaySettings, RelayStanding, RelayTls};
pub use run::{Settings, run};
pub use sync::Way;
pub use template::{MaildirTemplate, TemplateError};
