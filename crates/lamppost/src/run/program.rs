//! The running program as the control role sees it: its status, and reading the file again.

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use lamppost_config::Config;
use lamppost_console::{Blocked, Host, HostStatus, ListenerStatus, ReloadError};
use lamppost_delivery::Relay;
use lamppost_greylist::Greylist;
use lamppost_mail::policy::Policy;
use lamppost_net::ServerTls;
use lamppost_telemetry::{Health, Metrics, State};
use parking_lot::Mutex;
use tracing::{error, info, warn};

use super::{relay, settings};
use crate::exit::chain;
use crate::named_files::{self, Wrong};
use crate::place;

/// What runs.
pub(super) struct Program {
    pub(super) file: Option<PathBuf>,
    pub(super) state: PathBuf,
    pub(super) hostname: String,
    /// The configuration in force.
    pub(super) config: Mutex<Config>,
    pub(super) begun: Instant,
    pub(super) listeners: Vec<(ListenerStatus, Arc<AtomicBool>)>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) health: Health,
    pub(super) policy: Policy,
    pub(super) greylist: Arc<Greylist>,
    pub(super) relay: Relay,
    pub(super) tls: Option<Arc<ServerTls>>,
}

impl Program {
    /// Reads the file again and applies what can change while the program runs.
    pub(super) fn reload_now(&self) -> Result<String, ReloadError> {
        let Some(file) = &self.file else {
            return Err(ReloadError(
                "error: the program runs the built-in demo, which has no file to read again".into(),
            ));
        };
        let new = place::load_with_files(file)
            .map_err(|failure| ReloadError(failure.text().to_owned()))?;
        let relay = relay::settings(&new, &self.hostname)
            .map_err(|failure| ReloadError(format!("error: {}", failure.text())))?;
        self.reload_tls().map_err(|text| ReloadError(format!("error: {text}")))?;
        self.warn_of_certificate();
        self.greylist.set_policy(settings::greylist(&new));
        // The way out is there before anybody is sent along it.
        self.relay.set(relay);
        self.policy.set_settings(settings::policy(&new, &self.hostname));
        let mut old = self.config.lock();
        // What lives in listeners, sessions and the queue was settled at the start.
        let mut settled = old.clone();
        settled.mail.greylist = new.mail.greylist.clone();
        settled.mail.domains.clone_from(&new.mail.domains);
        settled.mail.postmaster.clone_from(&new.mail.postmaster);
        settled.mail.relay_to.clone_from(&new.mail.relay_to);
        settled.mail.relay = new.mail.relay.clone();
        settled.mail.sendmail.trusted_users.clone_from(&new.mail.sendmail.trusted_users);
        let waiting = unlike(&settled, &new);
        *old = settled;
        let restart = waiting.join(", ");
        let file = file.display();
        if waiting.is_empty() {
            info!(%file, "configuration read again");
        } else {
            info!(%file, restart, "configuration read again; what is changed in these sections takes a restart");
        }
        Ok(if waiting.is_empty() {
            format!("{file} is in force.")
        } else {
            format!(
                "{file} is in force, except for what is changed in {restart}: that takes a restart."
            )
        })
    }

    /// Tells what clients will find wrong with the certificate.
    pub(super) fn warn_of_certificate(&self) {
        let is_made_here = self.config.lock().tls.files.is_none();
        let Some(tls) = self.tls.as_ref().filter(|_| !is_made_here) else { return };
        for Wrong { what, cure } in named_files::ages(&tls.files().certificate, &self.hostname) {
            warn!(reason = what, cure, "clients may refuse the certificate");
        }
    }

    /// Reads the certificate again if its files changed.
    pub(super) fn reload_tls(&self) -> Result<(), String> {
        let Some(tls) = &self.tls else { return Ok(()) };
        match tls.reload_if_changed() {
            Ok(true) => {
                info!(certificate = %tls.files().certificate.display(), "certificate read again");
                self.health.set("certificate", State::Ok, "read again");
                Ok(())
            }
            Ok(false) => Ok(()),
            Err(error) => {
                let text = chain(&error);
                error!(reason = text, "the new certificate cannot be used; the old one stays");
                self.health.set("certificate", State::Fail, &text);
                Err(text)
            }
        }
    }
}

/// The sections that differ.
fn unlike(one: &Config, other: &Config) -> Vec<&'static str> {
    let (mail, others) = (&one.mail, &other.mail);
    let sections = [
        ("[server]", one.server != other.server),
        ("[log]", one.log != other.log),
        ("[metrics]", one.metrics != other.metrics),
        ("[tls]", one.tls != other.tls),
        ("[mail] (maildir)", mail.maildir != others.maildir),
        ("[mail.limits]", mail.limits != others.limits),
        ("[mail.auth]", mail.auth != others.auth),
        ("[mail.sendmail]", mail.sendmail != others.sendmail),
        ("[mail.queue]", mail.queue != others.queue),
        ("[[mail.listen]]", mail.listen != others.listen),
    ];
    sections.into_iter().filter_map(|(name, differs)| differs.then_some(name)).collect()
}

impl Host for Program {
    fn status(&self) -> HostStatus {
        let listeners = self.listeners.iter().map(|(status, listening)| ListenerStatus {
            listening: listening.load(Ordering::Relaxed),
            ..status.clone()
        });
        HostStatus {
            version: env!("CARGO_PKG_VERSION").into(),
            pid: std::process::id(),
            uptime_s: self.begun.elapsed().as_secs(),
            state: self.state.clone(),
            file: self.file.clone(),
            listeners: listeners.collect(),
            sessions: self.metrics.smtp_sessions_open.get(),
            relay: self.relay.standing().map(relay::status),
            blocked: {
                let (addresses, accounts) = self.policy.blocked();
                Blocked { addresses: addresses as u64, accounts: accounts as u64 }
            },
            health: self.health.facts(),
        }
    }

    fn reload(&self) -> Pin<Box<dyn Future<Output = Result<String, ReloadError>> + Send + '_>> {
        Box::pin(async {
            self.reload_now().map_err(|ReloadError(text)| match self.file {
                Some(_) => ReloadError(format!("{text}\n\nThe old configuration stays in force.")),
                None => ReloadError(text),
            })
        })
    }
}
