//! From the queue into Maildirs: the delivery role.
//!
//! Each message is delivered in two steps (docs/concepts/delivery.md). Prepare writes its file into
//! `tmp/` durably; once the queue has made its intent durable, Publish renames it into `new/`.

mod maildir;
mod name;
mod run;
mod template;
mod trace;

pub use run::{Settings, run};
pub use template::{MaildirTemplate, TemplateError};
