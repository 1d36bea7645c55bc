//! Reading the configuration again: all of it or nothing.

use lamppost_config::Config;
use tracing::{error, info};

use super::Supervisor;
use super::group::Group;
use crate::exit::Failure;
use crate::run::orders::Order;
use crate::run::setup::{Setup, settled};

impl Supervisor {
    /// Reads the file again and applies what can change while the program runs; tells what was done, or
    /// all that is wrong.
    pub(super) async fn reload(&mut self, group: &Group) -> Result<String, String> {
        let done = self.try_reload(group).await;
        if let Err(reason) = &done {
            error!(reason, "the configuration file is wrong; the old one stays in force");
        }
        done
    }

    /// As [`Self::reload`], told to whoever asked for it.
    pub(super) async fn reload_for(&mut self, group: &Group) -> Result<String, String> {
        let has_file = self.opened.file.is_some();
        let stays = if has_file { "\n\nThe old configuration stays in force." } else { "" };
        self.reload(group).await.map_err(|text| text + stays)
    }

    async fn try_reload(&mut self, group: &Group) -> Result<String, String> {
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
        let setup = Setup::gather(&new).map_err(told)?.after(&self.setup);
        self.pass_on(group, setup).await.map_err(told)?;
        let settled = settled(self.config().clone(), &new.config);
        // What lives in listeners, sessions and the queue was settled at the start.
        let waiting = unlike(&settled, &new.config);
        self.opened.config = settled;
        self.warn_of_certificate();
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

    /// Asks all roles whether they could work so, and has them do it when all could.
    pub(super) async fn pass_on(&mut self, group: &Group, setup: Setup) -> Result<(), Failure> {
        group.order_all(|role| Order::Check(Box::new(role.part(&setup)))).await?;
        group.order_all(|role| Order::Apply(Box::new(role.part(&setup)))).await?;
        self.setup = setup;
        Ok(())
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
