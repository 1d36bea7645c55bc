//! Reading the configuration again: all of it or nothing.

use std::net::TcpListener;

use lamppost_config::Config;
use lamppost_net::PemWatch;
use tracing::{error, info};

use super::Supervisor;
use super::group::Group;
use crate::exit::Failure;
use crate::run::listeners;
use crate::run::orders::Order;
use crate::run::role::Role;
use crate::run::setup::{Setup, settled};

impl Supervisor {
    /// Reads the file again and applies what can change while the program runs; tells what was done, or
    /// all that is wrong.
    pub(super) async fn reload(&mut self, group: &mut Group) -> Result<String, String> {
        let done = self.try_reload(group).await;
        if let Err(reason) = &done {
            error!(reason, "the configuration file is wrong; the old one stays in force");
        }
        done
    }

    /// As [`Self::reload`], told to whoever asked for it.
    pub(super) async fn reload_for(&mut self, group: &mut Group) -> Result<String, String> {
        let has_file = self.opened.file.is_some();
        let stays = if has_file { "\n\nThe old configuration stays in force." } else { "" };
        self.reload(group).await.map_err(|text| text + stays)
    }

    async fn try_reload(&mut self, group: &mut Group) -> Result<String, String> {
        let Some(file) = self.opened.file.clone() else {
            return Err(
                "error: the program runs the built-in demo, which has no file to read again".into(),
            );
        };
        let told = |failure: Failure| {
            let text = failure.text();
            if text.starts_with("error") { text.to_owned() } else { format!("error: {text}") }
        };
        let new = self.place.open().map_err(told)?;
        new.check_files().map_err(told)?;
        let (mail, metrics) = listeners::bind(&new, &self.held()).map_err(told)?;
        let setup = Setup::gather(&new).map_err(told)?;
        let setup = setup.in_state_of(&self.setup);
        let has_new_front = has_new_front(self.config(), &new.config);
        self.check(group, &setup).await.map_err(told)?;
        if has_new_front {
            let grace = new.config.server.stop_grace;
            group.replace_front(&setup, &mail, grace).await.map_err(told)?;
            self.mail = mail;
            self.await_addresses();
            self.front_begun_with = setup.clone();
        }
        self.apply(group, setup).await.map_err(told)?;
        self.certificate = self.setup.pem.as_ref().map(|pem| PemWatch::new(pem.files.clone()));
        let settled = settled(self.config().clone(), &new.config, has_new_front);
        let waiting = unlike(&settled, &new.config);
        self.opened.config = settled;
        self.warn_of_certificate();
        let restart = waiting.join(", ");
        let file = file.display();
        if waiting.is_empty() {
            info!(%file, "configuration read again");
            return Ok(format!("{file} is in force."));
        }
        info!(%file, restart, "configuration read again; what is changed in these sections takes a restart");
        Ok(format!(
            "{file} is in force, except for what is changed in {restart}: that takes a restart."
        ))
    }

    /// Sockets that listen already.
    fn held(&self) -> Vec<&TcpListener> {
        self.mail.iter().filter_map(|bound| bound.socket.as_ref()).chain(&self.metrics).collect()
    }

    /// Asks all roles whether they could work so, and has them do it when all could.
    pub(super) async fn pass_on(&mut self, group: &Group, setup: Setup) -> Result<(), Failure> {
        self.check(group, &setup).await?;
        self.apply(group, setup).await
    }

    /// Asks all roles whether they could work so.
    async fn check(&self, group: &Group, setup: &Setup) -> Result<(), Failure> {
        group.order_all(|role| Order::Check(Box::new(self.part(role, setup)))).await
    }

    /// Has all roles work so, as far as that can change while they run.
    async fn apply(&mut self, group: &Group, setup: Setup) -> Result<(), Failure> {
        group.order_all(|role| Order::Apply(Box::new(self.part(role, &setup)))).await?;
        self.setup = setup;
        Ok(())
    }

    /// What a role is told that began with another setup.
    fn part(&self, role: Role, setup: &Setup) -> Setup {
        let begun = if role == Role::Front { &self.front_begun_with } else { &self.begun_with };
        role.part(&setup.clone().after(begun))
    }
}

/// Whether a front must begin anew for what has changed.
fn has_new_front(old: &Config, new: &Config) -> bool {
    let (mail, others) = (&old.mail, &new.mail);
    old.tls != new.tls || mail.limits != others.limits || mail.listen != others.listen
}

/// The sections that differ.
fn unlike(one: &Config, other: &Config) -> Vec<&'static str> {
    let (mail, others) = (&one.mail, &other.mail);
    let sections = [
        ("[server]", one.server != other.server),
        ("[log]", one.log != other.log),
        ("[metrics]", one.metrics != other.metrics),
        ("[mail] (maildir)", mail.maildir != others.maildir),
        ("[mail.auth]", mail.auth != others.auth),
        ("[mail.queue]", mail.queue != others.queue),
    ];
    sections.into_iter().filter_map(|(name, differs)| differs.then_some(name)).collect()
}
