//! Reading the configuration again: all of it or nothing.

use std::net::TcpListener;
use std::path::Path;

use lamppost_config::{Config, Sendmail};
use lamppost_console::{Part, Reloaded, Warning};
use lamppost_net::PemWatch;
use tracing::{error, info, warn};

use super::Supervisor;
use super::anew::Next;
use super::files::Late;
use super::group::{ANSWERS_WITHIN, Group};
use super::{Signals, Work, stopped};
use crate::command::remarks;
use crate::exit::{Code, Failure};
use crate::place::{Opened, Place};
use crate::run::listeners;
use crate::run::local::Local;
use crate::run::orders::Order;
use crate::run::role::{Role, is_power_new};
use crate::run::setup::Setup;
use crate::run::{odd_users, settings};

/// Warnings that are told at once; `lamppost check` tells all.
const WARNINGS_MAX: usize = 100;
/// Why the demo is not read again.
const NO_FILE: &str = "error: there is no file to read again: the program runs the built-in demo\n  \
                       help: `lamppost init FILE` writes one, and `lamppost run --config FILE` begins with it";

impl Supervisor {
    /// Reads the file again and applies what can change while the program runs; tells what was done, or
    /// all that is wrong.
    pub(super) async fn reload(
        &mut self,
        work: &mut Work,
        signals: &mut Signals,
    ) -> Result<Reloaded, String> {
        let Some(file) = self.opened.file.clone() else {
            info!("there is no file to read again: the built-in demo runs");
            return Err(NO_FILE.into());
        };
        match self.try_reload(work, signals).await {
            Ok((changed, warnings)) => {
                let file = file.display();
                info!(%file, changed, "configuration read again");
                let done = match changed.as_str() {
                    "" => format!("{file} is in force: nothing has changed in it."),
                    changed => format!("{file} is in force: changed in {changed}."),
                };
                warn_of(&warnings);
                Ok(Reloaded { done, warnings })
            }
            Err(reason) => {
                error!(reason, "the configuration is not read again; the old one stays in force");
                Err(reason)
            }
        }
    }

    /// As [`Self::reload`], told to whoever asked for it.
    pub(super) async fn reload_for(
        &mut self,
        work: &mut Work,
        signals: &mut Signals,
    ) -> Result<Reloaded, String> {
        let has_file = self.opened.file.is_some();
        let stays = if has_file { "\n\nThe old configuration stays in force." } else { "" };
        self.reload(work, signals).await.map_err(|text| text + stays)
    }

    /// Puts the file in force, and tells the sections that have changed and what is odd about it.
    async fn try_reload(
        &mut self,
        work: &mut Work,
        signals: &mut Signals,
    ) -> Result<(String, Vec<Warning>), String> {
        let told = |failure: Failure| {
            let text = failure.text();
            if text.starts_with("error") { text.to_owned() } else { format!("error: {text}") }
        };
        let (place, state) = (self.place.clone(), self.opened.state.clone());
        let reading = self.files.read(move || Read::of(&place, &state));
        let read = tokio::select! {
            read = reading => read.unwrap_or_else(|late: Late| Err(late.into())),
            () = signals.stop() => {
                self.is_to_stop = true;
                Err(stopped())
            }
        };
        let Read { opened: new, setup, certificate, warnings } = read.map_err(told)?;
        let (mail, metrics) = listeners::bind(&new, &self.held()).map_err(told)?;
        let changed = unlike(self.config(), &new.config).join(", ");
        let locals = Local::again(&self.locals, &new).map_err(told)?;
        let next = Next { opened: new, setup, mail, metrics, locals, control: None };
        if are_all_new(self.config(), &next.opened.config) {
            self.begin_anew(work, signals, next).await.map_err(told)?;
        } else {
            self.go_on_with(work, next).await.map_err(told)?;
        }
        self.certificate = certificate;
        Ok((changed, warnings))
    }

    /// Has the roles that run take what is new, and a new front begin if it must.
    async fn go_on_with(&mut self, work: &mut Work, next: Next) -> Result<(), Failure> {
        let Next { opened, setup, mail, locals, .. } = next;
        let is_front_new = is_front_new(self.config(), &opened.config);
        let mut begun = self.check(&work.group, &setup).await;
        if is_front_new && begun.is_ok() {
            let (sockets, grace) = ((&mail[..], &locals[..]), opened.config.server.stop_grace);
            let how = (grace, self.paused.contains(&Part::Front));
            begun = work.group.replace_front(&setup, sockets, how).await;
        }
        if begun.is_err() {
            self.forgo(locals);
            return begun;
        }
        // From here on the new one is in force, whatever becomes of the roles that run.
        self.opened = opened;
        self.rules.set(self.config().mail.rules.file.as_deref());
        if is_front_new {
            let old = std::mem::replace(&mut self.locals, locals);
            Local::remove(old, &self.locals);
            self.mail = mail;
            self.await_addresses();
            self.front_begun_with = setup.clone();
        }
        self.apply(&mut work.group, setup).await;
        Ok(())
    }

    /// Sockets that listen already.
    fn held(&self) -> Vec<&TcpListener> {
        self.mail.iter().filter_map(|bound| bound.socket.as_ref()).chain(&self.metrics).collect()
    }

    /// Asks all roles whether they could work so, and has them do it when all could.
    pub(super) async fn pass_on(&mut self, group: &mut Group, setup: Setup) -> Result<(), Failure> {
        self.check(group, &setup).await?;
        self.apply(group, setup).await;
        Ok(())
    }

    /// Asks all roles whether they could work so.
    async fn check(&self, group: &Group, setup: &Setup) -> Result<(), Failure> {
        let order = |role| Order::Check(Box::new(self.part(role, setup)));
        group.order_all(order, ANSWERS_WITHIN).await
    }

    /// Has all roles work so, as far as that can change while they run. All could; where one did not live to
    /// do it, all begin again, and so.
    async fn apply(&mut self, group: &mut Group, setup: Setup) {
        self.setup = setup;
        let order = |role| Order::Apply(Box::new(self.part(role, &self.setup)));
        if let Err(failure) = group.order_all(order, ANSWERS_WITHIN).await {
            let reason = failure.text();
            warn!(reason, "a role did not take what is new; all are started again with it");
            group.kill();
        }
    }

    /// What a role is told that began with another setup.
    fn part(&self, role: Role, setup: &Setup) -> Setup {
        let begun = if role == Role::Front { &self.front_begun_with } else { &self.begun_with };
        role.part(&setup.clone().after(begun))
    }
}

/// A configuration with all that lies in files.
struct Read {
    opened: Opened,
    setup: Setup,
    certificate: Option<PemWatch>,
    warnings: Vec<Warning>,
}

impl Read {
    fn of(place: &Place, state: &Path) -> Result<Self, Failure> {
        let opened = place.open()?;
        if opened.state != state {
            return Err(other_state(&opened));
        }
        opened.check_files()?;
        let setup = Setup::gather(&opened)?;
        let certificate = setup.pem.as_ref().map(|pem| PemWatch::new(pem.files.clone()));
        let warnings = odd(&opened);
        Ok(Self { opened, setup, certificate, warnings })
    }
}

/// What is odd about a configuration and its users.
pub(super) fn odd(opened: &Opened) -> Vec<Warning> {
    let mut warnings = Vec::new();
    if opened.file.is_some() {
        let found = remarks::of(opened, Vec::new()).problems.into_iter();
        warnings.extend(found.take(WARNINGS_MAX).map(|problem| Warning {
            line: Some(problem.line as u64),
            column: Some(problem.column as u64),
            what: problem.what,
            cure: problem.cure,
        }));
    }
    let users = odd_users(opened).into_iter();
    warnings.extend(users.map(|(what, cure)| Warning {
        line: None,
        column: None,
        what,
        cure: Some(cure),
    }));
    warnings
}

/// Tells in the log what is odd about the configuration in force.
pub(super) fn warn_of(warnings: &[Warning]) {
    for Warning { line, what, cure, .. } in warnings {
        warn!(line, reason = what, cure, "something is odd about the configuration");
    }
}

/// The queue and the accounts would stay behind.
fn other_state(new: &Opened) -> Failure {
    let place = new.place_of("server.state").map(|place| format!(" ({place})")).unwrap_or_default();
    Failure::new(
        Code::Config,
        format!(
            "the state folder cannot become {}{place} while the program runs: what is in the old one \
             would stay there\n  help: stop it, move the folder, and start it again",
            new.state.display()
        ),
    )
}

/// The sections that differ.
fn unlike(one: &Config, other: &Config) -> Vec<&'static str> {
    let (mail, others) = (&one.mail, &other.mail);
    let rest = |config: &Config| {
        let mail = &config.mail;
        (mail.maildir.clone(), mail.domains.clone(), mail.postmaster.clone(), mail.relay_to.clone())
    };
    let sections = [
        ("[server]", one.server != other.server),
        ("[log]", one.log != other.log),
        ("[metrics]", one.metrics != other.metrics),
        ("[tls]", one.tls != other.tls),
        ("[dns]", one.dns != other.dns),
        ("[mail]", rest(one) != rest(other)),
        ("[mail.rules]", mail.rules != others.rules),
        ("[mail.dns-lists]", mail.dns_lists != others.dns_lists),
        ("[[mail.dns-list]]", mail.dns_list != others.dns_list),
        ("[mail.greylist]", mail.greylist != others.greylist),
        ("[mail.limits]", mail.limits != others.limits),
        ("[mail.auth]", mail.auth != others.auth),
        ("[mail.queue]", mail.queue != others.queue),
        ("[mail.system-users]", mail.system_users != others.system_users),
        ("[mail.sendmail]", mail.sendmail != others.sendmail),
        ("[mail.relay]", mail.relay != others.relay),
        ("[[mail.listen]]", mail.listen != others.listen),
    ];
    sections.into_iter().filter_map(|(name, differs)| differs.then_some(name)).collect()
}

/// Whether a front must begin anew for what has changed.
fn is_front_new(old: &Config, new: &Config) -> bool {
    let (mail, others) = (&old.mail, &new.mail);
    let untrusted =
        |sendmail: &Sendmail| Sendmail { trusted_users: Vec::new(), ..sendmail.clone() };
    old.tls != new.tls
        || mail.limits != others.limits
        || mail.listen != others.listen
        || mail.greylist.service != others.greylist.service
        || settings::grounds(old) != settings::grounds(new)
        || untrusted(&mail.sendmail) != untrusted(&others.sendmail)
}

/// Whether all roles must begin anew for what has changed: it lives in the queue, or they are held to it.
fn are_all_new(old: &Config, new: &Config) -> bool {
    let (mail, others) = (&old.mail, &new.mail);
    old.server != new.server
        || old.log != new.log
        || old.metrics != new.metrics
        || mail.maildir != others.maildir
        || mail.system_users != others.system_users
        || mail.auth != others.auth
        || mail.queue != others.queue
        || mail.greylist.database != others.greylist.database
        || mail.greylist.database_password != others.greylist.database_password
        || is_power_new(old, new)
}
